"""`tally`: the command line. Each module beside this one holds the commands of one subject and wires their parts."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from adapters.cli import (
    demo,
    doctor,
    framework,
    importing,
    invoice,
    keys,
    ledger,
    period,
    report,
    servers,
    site,
    up,
    usage,
)

app = typer.Typer(
    name="tally",
    help="Token metering and billing for operators of AI nodes: every token proven, every cent exact.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


for _subject in (demo, site, keys, importing, usage, period, invoice, ledger, report, up, servers, doctor):
    _subject.register(app)


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


def main() -> None:
    sys.exit(framework.run(app, importing.spelled_out(sys.argv[1:])))
