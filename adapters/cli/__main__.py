"""`python -m adapters.cli`: the same as `tally`, wherever the command is not on the path."""

from adapters.cli.main import main

main()
