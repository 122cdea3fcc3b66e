"""`tally reconcile`: what the engines counted, against what was written down, rated and invoiced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from adapters.cli.framework import DIFFERENCE, Context, Result, command, counted, table
from adapters.cli.options import OperatorOption, PeriodOption, read_period
from adapters.cli.wiring import take_what_waits
from adapters.data_folder import DataFolder
from adapters.reconciling import Asked, has_difference, reconciliation
from metering.reconcile import BEFORE_FIRST_SPAN, COUNTERS_LOST, NO_SPANS, SINCE_QUIET_POINT
from metering.refusal import Refusal

_HEADS = (
    "node",
    "model",
    "requests",
    "engine prompt",
    "events prompt",
    "unaccounted prompt",
    "engine generated",
    "events generated",
    "unaccounted generated",
    "witness",
)
_WHY_UNCHECKED = {
    NO_SPANS: "nobody has read this node's engine counters between two quiet points yet",
    BEFORE_FIRST_SPAN: "served before the engine's counters were first read",
    COUNTERS_LOST: "the engine's counters were lost or could not be read, and no witness told its lines",
    SINCE_QUIET_POINT: "since the engine was last quiet; compared as soon as it is again",
}


def register(app: typer.Typer) -> None:
    @command(app, "reconcile", path="reconcile", example="tally reconcile --period 2026-10")
    async def reconcile(
        context: Context,
        period: PeriodOption = None,
        node: Annotated[str | None, typer.Option(metavar="N", help="One node. Default: all of them.")] = None,
        operator: OperatorOption = None,
        by: Annotated[
            str | None, typer.Option(metavar="hour", help="hour: a row for each. Default: one for all.")
        ] = None,
    ) -> Result:
        """Compare what the engines counted with what was written down, rated and invoiced. Exit 3 on a difference."""
        if by not in (None, "hour"):
            raise Refusal("unknown_by", f"cannot be told by: {by}", where="--by", remedy="hour, or nothing")
        asked = Asked(operator, node, read_period(period), by_hour=by == "hour")
        async with context.database() as database:
            await take_what_waits(DataFolder(context.data), database)
            document = await reconciliation(database, asked)
        return Result(document, list(_said(document)), DIFFERENCE if has_difference(document) else 0)


def _said(document: Mapping[str, Any]) -> Iterator[Any]:
    rows = document["nodes"]
    heads = ("hour", *_HEADS) if rows and "hour" in rows[0] else _HEADS
    if rows:
        right = [head for head in heads if head not in ("hour", "node", "model", "witness")]
        yield table(None, heads, [_figures(row) for row in rows], right=right)
    else:
        yield "No engine's counters were compared with anything here."
    yield from _known(rows)
    for row in document["differences"]:
        yield from _difference(row)
    yield from _numbers(document)
    yield from _unmetered(document["unmetered"])
    for each in document["unchecked"]:
        state = "NOT CHECKED for more than 24 hours" if each["overdue"] else "not checked"
        yield (
            f"{state}: {each['node']}, {_tokens(each)} of {counted(each['requests'], 'request')} from"
            f" {each['from']} to {each['to']}: {_WHY_UNCHECKED[each['why']]}"
        )
    for period in document["periods"]:
        yield from _period(period)
    if not has_difference(document):
        yield _verdict(document)


def _verdict(document: Mapping[str, Any]) -> str:
    """What is said where nothing is wrong: never more than was looked at."""
    compared, unchecked = document["compared_requests"], document["unchecked_requests"]
    if unchecked:
        of_all = f"{compared:,} of {counted(compared + unchecked, 'request')}"
        return (
            f"No difference in what was compared: {of_all}."
            if compared
            else f"Nothing was compared yet: 0 of {counted(unchecked, 'request')}."
        )
    return "No difference." if document["nodes"] or document["periods"] else "Nothing to compare."


def _figures(row: Mapping[str, Any]) -> list[object]:
    hour = [row["hour"]] if "hour" in row else []
    return [
        *hour,
        row["node"],
        row["model"],
        f"{row['requests']:,}",
        f"{row['engine_prompt']:,}",
        f"{row['events_prompt']:,}",
        f"{row['unaccounted_prompt']:+,}" if row["unaccounted_prompt"] else "0",
        f"{row['engine_generated']:,}",
        f"{row['events_generated']:,}",
        f"{row['unaccounted_generated']:+,}" if row["unaccounted_generated"] else "0",
        row["witness"] or "none",
    ]


_CAUSES = {
    "late": "came after their request had ended: in the engine's lines, not in its counters",
    "repeated": "of prompts that were sampled more than once: counted for each sample, billed once",
    "unmetered": "of requests that were served unmetered",
    "lost": "from lines and events, where the engine's counters were lost (a restart) or not read",
}


def _known(rows: list[Mapping[str, Any]]) -> Iterator[str]:
    """What explains that the engine's figures and the events' are not equal in the table, and what nobody witnessed."""
    for row in rows:
        where = f"{row['node']} {row['model']}"
        for cause, what in _CAUSES.items():
            figures = [(row["causes"].get(f"{cause}_{side}", 0), side) for side in ("prompt", "generated")]
            said = " and ".join(f"{tokens:,} {side}" for tokens, side in figures if tokens)
            if said:
                yield f"known: {where}: {said} tokens {what}"
        if row["unwitnessed_requests"]:
            many = counted(row["unwitnessed_requests"], "request")
            yield f"unwitnessed: {where}: {many} without the engine's figure, billed as delivered"


def _difference(row: Mapping[str, Any]) -> Iterator[str]:
    where = f"{row['node']} {row['model']}, hour {row['hour']} (compared from {row['from']} to {row['to']})"
    for side in ("prompt", "generated"):
        tokens, of = row[f"unaccounted_{side}"], row[f"engine_{side}"]
        if tokens > 0:
            yield f"DIFFERENCE: {where}: the engine counted {tokens:,} {side} tokens (of {of:,}) that nothing explains"
        elif tokens < 0:
            yield f"DIFFERENCE: {where}: events say {-tokens:,} {side} tokens more than the engine counted ({of:,})"
    if row["lines_missing"]:
        yield f"DIFFERENCE: {where}: {counted(row['lines_missing'], 'line')} of the engine missing"
    for cause in row["likely"]:
        yield f"  likely: {cause}"


def _numbers(document: Mapping[str, Any]) -> Iterator[str]:
    for each in document["missing_spans"]:
        yield (
            f"DIFFERENCE: {each['node']}/{each['lane']}: spans {each['first']} to {each['last']} were never sealed:"
            " what the engine counted then is unknown; the sidecar's data folder may have gone back in time"
        )
    for each in document["doubled_spans"]:
        yield (
            f"DIFFERENCE: {each['node']}/{each['lane']}: two different spans have number {each['first']}: the"
            " sidecar's data folder was copied, or has gone back in time"
        )


def _unmetered(gaps: list[Mapping[str, Any]]) -> Iterator[str]:
    for gap in gaps:
        what = f"{gap['node']}: {counted(gap['requests'], 'request')} served unmetered from {gap['from']} to {gap['to']}"
        if gap["reason"] is None:
            yield f"UNMETERED: {what}"
            yield f"  the close of that month asks for --accept-gap {gap['node']} --reason WHY"
        else:
            yield f"accepted: {what}: {gap['reason']}"


def _period(period: Mapping[str, Any]) -> Iterator[str]:
    rated = (
        ", ".join(f"{tokens:,} {meter}" for meter, tokens in period["rated"].items() if tokens) or "nothing"
    )
    state = "rated" if period["closed_at"] else "not closed yet; would be rated"
    yield f"{period['operator']} {period['period']}: {state} {rated}"
    missing = {
        meter: tokens - period["invoiced"].get(meter, 0)
        for meter, tokens in period["rated"].items()
        if tokens != period["invoiced"].get(meter, 0)
    }
    if missing and period["closed_at"]:
        said = ", ".join(f"{tokens:,} {meter}" for meter, tokens in missing.items())
        yield f"  of that on no issued document (drafts, what waits, what made no difference in money): {said}"
    for each in period["differences"]:
        yield (
            f"DIFFERENCE: {period['operator']} {period['period']}: {each['rated']:,} {each['meter']} tokens were rated at"
            f" the last close, the usage now rates to {each['now']:,}"
        )
    if period["differences"]:
        yield (
            "  likely: a tariff was superseded since, or somebody changed usage or the close in the database; no batch"
            f" that came since explains it. To bill what there is now: tally period close {period['period']}"
        )
    waits = ", ".join(
        f"{each['now'] - each['rated']:+,} {each['meter']}" for each in period["not_billed_yet"]
    )
    if waits:
        yield f"  not billed yet: {waits} tokens that came after the last close; tally period close {period['period']}"


def _tokens(each: Mapping[str, Any]) -> str:
    return f"{each['prompt_tokens']:,} prompt and {each['generated_tokens']:,} generated tokens"
