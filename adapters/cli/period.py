"""`tally period close|list|show`: usage becomes drafts, and drafts documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from adapters import answers
from adapters.cli.framework import Context, Result, command, counted, table
from adapters.cli.options import OperatorOption, about
from adapters.cli.wiring import make_books, take_what_waits
from adapters.data_folder import DataFolder, now
from adapters.postgres.streams import read_streams
from billing.close import close_periods
from billing.gaps import asked, gap_sentence
from billing.period import Period
from metering.refusal import Refusal

PeriodArgument = Annotated[str, typer.Argument(metavar="P", help="A calendar month: 2026-10.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Billing periods: close, and what closes came to.")
    app.add_typer(group, name="period")

    @command(group, "close", path="period close", example="tally period close 2026-10")
    async def close(
        context: Context,
        period: PeriodArgument,
        operator: OperatorOption = None,
        issue: Annotated[bool, typer.Option("--issue", help="Issue what is drafted, with numbers.")] = False,
        accept_unfinished: Annotated[
            bool, typer.Option("--accept-unfinished", help="Close a month that is not over; it is marked so.")
        ] = False,
        accept_gap: Annotated[
            list[str] | None,
            typer.Option(
                "--accept-gap",
                metavar="NODE",
                help="Bill without what is not there of the node: served unmetered, or not complete up to the month's end;"
                " repeatable, with --reason.",
            ),
        ] = None,
        reason: Annotated[
            str | None,
            typer.Option(
                metavar="R",
                help="Why the gaps are accepted; kept with the close, printed on the usage report.",
            ),
        ] = None,
    ) -> Result:
        """Rate the month's usage and draft what is owed beyond the documents issued so far.

        May be repeated at any time: the next document is always the bill less what was issued. A refusal changes
        nothing, for none of the operators.
        """
        with about("P"):
            month = Period.parse(period)
        gaps = asked(accept_gap or [], reason)
        async with context.database() as database:
            operators = await answers.named_operators(database, operator)
            if not operators:
                raise Refusal("no_operator", "no operator is declared", remedy="tally apply examples/vilnius")
            folder = DataFolder(context.data)
            await take_what_waits(folder, database)
            await context.sign(database)  # so that the checkpoint that documents name covers what they bill
            rows = await close_periods(
                make_books(folder, database),
                operators,
                month,
                now(),
                issue=issue,
                accept_unfinished=accept_unfinished,
                accept_gaps=gaps,
            )
            aside: Any = (await read_streams(database, now()))["set_aside"]
        if aside:
            context.say(
                f"warning: {counted(aside, 'batch', 'batches')} set aside, for no key vouches for them; what usage they"
                " may hold is not billed. tally streams names them."
            )
        for line in warned(rows):
            context.say(line)
        return Result({"operators": rows}, [line for row in rows for line in period_text(row)])

    @command(group, "list", path="period list", example="tally period list")
    async def list_(context: Context, operator: OperatorOption = None) -> Result:
        """Every close there was, oldest first."""
        async with context.database() as database:
            rows = await answers.closes(database, operator=operator)
        columns = ("operator", "period", "number", "closed_at", "net", "tax", "gross", "currency")
        shown = table(
            None, columns, [[row[c] for c in columns] for row in rows], right=("net", "tax", "gross")
        )
        return Result({"closes": rows}, shown)

    @command(group, "show", path="period show", example="tally period show 2026-10")
    async def show(context: Context, period: PeriodArgument, operator: OperatorOption = None) -> Result:
        """What the closes of one month came to."""
        with about("P"):
            month = Period.parse(period)
        async with context.database() as database:
            rows = await answers.closes(database, operator=operator, period=month)
        if not rows:
            raise Refusal(
                "not_closed", f"{period} was never closed", where="P", remedy=f"tally period close {period}"
            )
        text = [line for row in rows for line in (*period_text(row), *warned([row]))]
        return Result({"closes": rows}, text)


def period_text(row: dict[str, Any]) -> list[Any]:
    """What a close came to, for a person: a line, and beneath it what is worth knowing. Its warnings are `warned`."""
    made = [*row["drafts"], *row["issued"]]
    unfinished = " (the month is not over)" if row["unfinished"] else ""
    what = "issued" if row["issued"] else "drafted"
    lines: list[Any] = [
        f"{row['operator']} {row['period']}{unfinished}: {counted(len(made), 'document')} {what}, net {row['net']},"
        f" VAT {row['tax']}, gross {row['gross']} {row['currency']}"
    ]
    lines += [f"  {gap_sentence(gap)}" for gap in row["gaps"]]
    if row["waiting"]:
        lines.append(f"  {counted(len(row['waiting']), 'customer')} owing too little, left for a later close")
    if row["zero"]:
        lines.append(f"  {counted(len(row['zero']), 'customer')} with a bill of zero")
    if any(row["late_not_billed"].values()):
        late = ", ".join(f"{tokens:,} {meter}" for meter, tokens in row["late_not_billed"].items() if tokens)
        lines.append(f"  too late to be billed: {late}")
    for earlier in row.get("earlier", []):
        lines += period_text(earlier)
    return lines


def warned(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The warnings of closes, and of those of earlier months that came with them: a line each."""
    for row in rows:
        # A close kept before there were warnings has none.
        for each in row.get("warnings", []):
            yield f"warning: {row['operator']} {row['period']}: {each['what']} ({each['remedy']})"
        yield from warned(row.get("earlier", []))
