"""`tally`: the command line. Each module that subjects.py lists holds the commands of one subject and wires their parts."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from adapters.cli import framework
from adapters.cli.subjects import SubjectGroup

app = typer.Typer(
    name="tally",
    cls=SubjectGroup,
    help="Token metering and billing for operators of AI nodes: every token proven, every cent exact.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"tally {version('tallygrid')}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Token metering and billing for operators of AI nodes: every token proven, every cent exact."""


def _spelled_out(argv: list[str]) -> list[str]:
    """`import FILE …` is short for `import file FILE …`; `void` is the one other word."""
    if argv[:1] == ["import"] and argv[1:2] not in ([], ["void"], ["file"], ["--help"], ["-h"]):
        return ["import", "file", *argv[1:]]
    return argv


def main() -> None:
    sys.exit(framework.run(app, _spelled_out(sys.argv[1:])))
