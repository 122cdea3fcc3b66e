"""`tally` imports what a command needs when it is called, and its list of commands says what the commands say."""

from __future__ import annotations

import subprocess
import sys

import pytest

from adapters.cli.subjects import SUBJECTS, OnDemand

LISTED = {name: line for names in SUBJECTS.values() for name, line in names.items()}
HEAVY = {"weasyprint", "fastapi", "uvicorn", "sqlalchemy", "pyarrow", "numpy"}


def imported_by(*arguments: str) -> set[str]:
    """The heavy libraries that `tally` has imported when it has answered."""
    script = (
        "import sys\n"
        "from adapters.cli.main import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        f"print('imported', *sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True
    )
    return set(done.stderr.splitlines()[-1].split()[1:])


@pytest.mark.parametrize("name", LISTED)
def test_the_list_of_commands_shows_each_commands_own_first_sentence(name: str) -> None:
    listed = LISTED[name]
    assert listed.endswith(".")
    assert OnDemand()[name].help.startswith(listed[:-1])


def test_every_command_of_a_module_is_listed() -> None:
    commands = OnDemand()
    for name in commands:
        commands[name]
    assert set(commands.loaded) == set(LISTED)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["usgae"], ["usage", "--no-such-option"]])
def test_help_and_usage_errors_wait_for_no_database_and_no_page_layout(arguments: list[str]) -> None:
    wanted = {"sqlalchemy", "pyarrow", "numpy"} if arguments[0] == "usage" else set()
    assert imported_by(*arguments) == wanted


@pytest.mark.parametrize("command", [["invoice", "list"], ["period", "close"], ["sidecar"], ["up"]])
def test_only_who_draws_a_page_or_serves_the_api_loads_what_that_takes(command: list[str]) -> None:
    assert not imported_by(*command, "--help") & {"weasyprint", "fastapi", "uvicorn"}
