"""`tally report usage`: what was served in a month, as a file for auditors, customers and regulators."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from adapters import rendering, reporting
from adapters.cli.files import writing
from adapters.cli.framework import Context, Result, command
from adapters.cli.options import OperatorOption, about
from adapters.cli.wiring import take_what_waits
from adapters.data_folder import DataFolder
from billing.period import Period
from billing.unfinished_import import unfinished_warning
from reports.formats import FORMATS, USAGE


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Reports as files.")
    app.add_typer(group, name="report")

    @command(
        group,
        "usage",
        path="report usage",
        example="tally report usage --period 2026-10 --format pdf --out usage.pdf",
    )
    async def usage(
        context: Context,
        period: Annotated[str, typer.Option("--period", metavar="P", help="A calendar month: 2026-10.")],
        out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write it.")],
        format: Annotated[str, typer.Option(metavar="F", help=f"{', '.join(FORMATS[USAGE])}.")] = "pdf",
        operator: OperatorOption = None,
    ) -> Result:
        """Write the usage report of a month: by customer, model, day, region and outcome, and whether it is whole."""
        with about("--period"):
            month = Period.parse(period)
        async with context.database() as database:
            await take_what_waits(DataFolder(context.data), database)
            made = await reporting.usage_report(database, operator, month, format)
        with writing(out):
            await asyncio.to_thread(out.write_bytes, made.content)
        warnings = list(map(unfinished_warning, made.unfinished))
        for each in warnings:
            context.say(f"warning: {each['what']} ({each['remedy']})")
        sha256 = rendering.digest(made.content)
        document = {"path": str(out), "format": format, "sha256": sha256, "warnings": warnings}
        return Result(document, f"{out}  {sha256}")
