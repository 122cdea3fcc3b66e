"""`tally usage`, `tally streams`: what was used, and whether all of it has arrived."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from adapters import answers
from adapters.cli.framework import DIFFERENCE, Context, Result, command, counted, table
from adapters.cli.options import CustomerOption, OperatorOption, PeriodOption, read_period
from adapters.cli.streams_text import streams_text
from adapters.cli.wiring import take_what_waits
from adapters.data_folder import DataFolder, now
from adapters.postgres.streams import read_streams
from adapters.postgres.usage_totals import BY, FIGURES
from billing.streams import has_difference


def register(app: typer.Typer) -> None:
    @command(app, "usage", path="usage", example="tally usage --period 2026-10 --by customer,model")
    async def usage(
        context: Context,
        period: PeriodOption = None,
        since: Annotated[
            str | None, typer.Option("--from", metavar="T", help="A day, or a time on a whole hour.")
        ] = None,
        until: Annotated[str | None, typer.Option("--to", metavar="T", help="The end, not included.")] = None,
        by: Annotated[str, typer.Option(help=f"One or more of: {', '.join(BY)}.")] = "customer",
        operator: OperatorOption = None,
        customer: CustomerOption = None,
    ) -> Result:
        """Totals of usage. Default: all there is, by customer. Days and hours are in the operator's zone."""
        words = [word.strip() for word in by.split(",") if word.strip()]
        span = answers.Span(read_period(period), since, until)
        async with context.database() as database:
            await take_what_waits(DataFolder(context.data), database)
            document = await answers.usage(database, operator, span, words, customer)
        said: list[Any] = [_usage_table(document, words)]
        total = document["total"]
        if total["unwitnessed_requests"]:
            said.append(
                f"{total['unwitnessed_requests']:,} of {counted(total['requests'], 'request')} have no figure from the"
                " engine itself: billed as delivered"
            )
        said += [f"warning: {each['what']} ({each['remedy']})" for each in document["warnings"]]
        return Result(document, said)

    @command(app, "streams", path="streams", example="tally streams")
    async def streams(context: Context, operator: OperatorOption = None) -> Result:
        """Per node and lane: complete up to when, what is missing, forked, held or unproven. Exit 3 if anything is."""
        async with context.database() as database:
            await take_what_waits(DataFolder(context.data), database)
            document = await read_streams(database, now(), operator)
        lanes: Any = document["lanes"]
        columns = ("operator", "node", "lane", "state", "complete_to", "holes", "forks", "held", "lag_s")
        rows = [[lane[column] for column in columns] for lane in lanes]
        said: list[Any] = [table(None, columns, rows, right=("holes", "forks", "held", "lag_s"))]
        said += streams_text(document)
        return Result(document, said, DIFFERENCE if has_difference(document) else 0)


def _usage_table(document: dict[str, Any], words: list[str]) -> Any:
    rows = [
        [row[word] for word in words] + [f"{row[name]:,}" for name in FIGURES] for row in document["rows"]
    ]
    rows.append(["total", *[""] * (len(words) - 1), *(f"{document['total'][name]:,}" for name in FIGURES)])
    return table(None, [*words, *FIGURES], rows, right=FIGURES)
