"""`tally tariff simulate`: what real usage would have brought under another tariff."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from adapters.cli.files import check_writable, writing
from adapters.cli.framework import Context, Result, command, table
from adapters.cli.options import OperatorOption, about
from adapters.data_folder import now
from adapters.site_files.reading import faults_to_json, read_files
from adapters.what_if import WhatIf, read_periods, what_if
from reports.what_if import what_if_json, what_if_sections

_FIGURES = ("now", "then", "change", "%")


def register(group: typer.Typer) -> None:
    """Adds `simulate` to the commands of `tally tariff`."""

    @command(
        group,
        "simulate",
        path="tariff simulate",
        example="tally tariff simulate --tariff examples/vilnius/2-tariff.yaml --period 2026-10",
    )
    async def simulate(
        context: Context,
        tariff: Annotated[
            str,
            typer.Option(
                "--tariff", metavar="FILE", help="A site file with one tariff; - for standard input."
            ),
        ],
        period: Annotated[
            list[str],
            typer.Option(
                "--period",
                metavar="P",
                help="A month, 2026-10, or months, 2026-01..2026-12. May be repeated.",
            ),
        ],
        operator: OperatorOption = None,
        out: Annotated[
            str | None, typer.Option("--out", metavar="FILE", help="A picture too: FILE.svg or FILE.png.")
        ] = None,
    ) -> Result:
        """Rate real usage with another tariff, beside what holds now.

        The file's versions take the place of all versions of the operator's tariff of that id, the first of them from ever;
        a tariff of a new id is only used by those whose contracts name it, or the operator as its default. Contracts stay,
        nothing is applied or stored. Net of bills: lines, discounts, minimums, commitments, fees; not adjustments.
        A month that is not over is warned of.
        """
        with about("--period"):
            periods = read_periods(period)
        if out is not None:
            from reports.what_if_picture import picture_kind, what_if_picture

            kind = picture_kind(out)
            check_writable(Path(out))
        files = read_files([tariff])
        async with context.database() as database:
            asked = await what_if(
                database, files, periods, operator, context.data / "cache" / "what-if", now()
            )
        for warning in asked.warnings:
            context.say(f"warning: {warning}")
        shown = asked.comparison
        document = simulated_json(asked)
        for side, found in (("now", shown.unpriced_now), ("then", shown.unpriced_then)):
            if found:
                context.say(
                    f"warning: {side} some usage has no price and is left out: {found[0].model}, {found[0].why}"
                )
        title = f"{asked.operator}, tariff {asked.tariff}, {_span([str(each) for each in periods])}"
        if out is not None:
            picture = await asyncio.to_thread(what_if_picture, title, asked.currency, shown, kind)
            await asyncio.to_thread(_write, Path(out), picture)
            document["picture"] = out
        head = (
            f"{title}\nreplaced: {', '.join(asked.replaced) or 'nothing'}; put there: {', '.join(asked.put)}"
        )
        tables: list[str | Table] = []
        for named, columns, rows in what_if_sections(asked.currency, shown):
            tables += ["", table(named, columns, rows, right=_FIGURES) if rows else named]
        return Result(document, [head, *tables])


def simulated_json(asked: WhatIf) -> dict[str, Any]:
    """What came of it, with `warnings`; the picture is added where it is drawn."""
    document = what_if_json(
        asked.operator, asked.currency, asked.tariff, asked.replaced, asked.put, asked.comparison
    )
    return {**document, "warnings": faults_to_json(asked.warnings)}


def _write(path: Path, content: bytes) -> None:
    with writing(path):
        path.write_bytes(content)


def _span(periods: list[str]) -> str:
    return periods[0] if len(periods) == 1 else f"{periods[0]} to {periods[-1]} ({len(periods)} periods)"
