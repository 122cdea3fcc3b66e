"""The usage report of a month, gathered from the ledger and written in one of its formats."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from adapters import answers
from adapters.postgres.closes import gaps, load_closes
from adapters.postgres.database import Database
from adapters.postgres.lane_ends import lane_ends
from adapters.postgres.site import operator_facts
from adapters.postgres.streams import read_streams
from adapters.postgres.unfinished_imports import unfinished_imports
from adapters.postgres.usage_totals import usage_totals
from billing.completeness import incomplete
from billing.gaps import gap_json, in_order, with_reasons
from billing.period import Period
from billing.unfinished_import import UnfinishedImport, unfinished_json
from metering.refusal import Refusal
from reports.formats import USAGE, media_type, render_usage
from reports.usage import DAYS, DETAIL
from reports.usage import usage_report as make_usage_report


@dataclass(frozen=True, slots=True)
class UsageFile:
    """The report as a file, and what its reader must hear that a CSV has no place for: imports that have not ended."""

    content: bytes
    name: str
    unfinished: list[UnfinishedImport]


async def usage_report(database: Database, operator: str | None, period: Period, format: str) -> UsageFile:
    """The report of one operator (None: the only one).

    Refusals: unknown_format, unknown_operator, which_operator.
    """
    media_type(USAGE, format)
    owner = await _only_operator(database, operator)
    made_at = datetime.now(UTC)
    async with database.app(owner, snapshot=True) as connection:
        declared = (await operator_facts(connection, owner)).operator[-1]
        start, end = period.bounds(declared.zone)

        async def rows(by: tuple[str, ...]) -> list[dict[str, Any]]:
            return await usage_totals(connection, owner, start, end, by, declared.zone)

        detail, days = await rows(DETAIL), await rows(DAYS)
        closes = await load_closes(connection, owner, period=period)
        accepted = [gap for close in closes for gap in close.result["gaps"]]
        unfinished = await unfinished_imports(connection, owner, start, end)
        there = await gaps(connection, owner, start, end)
        if made_at >= end:  # of a month that runs on, the lanes' own times say how far they are
            there += incomplete(await lane_ends(connection, owner), start, end)
        found = with_reasons(in_order(there), accepted)
    lanes: Any = (await read_streams(database, made_at, owner))["lanes"]
    report = make_usage_report(
        declared,
        period,
        detail=detail,
        days=days,
        lanes=lanes,
        made_at=made_at,
        gaps=[gap_json(gap) for gap in found],
        unfinished=[unfinished_json(each) for each in unfinished],
    )
    content = await asyncio.to_thread(render_usage, report, declared.language, format)
    return UsageFile(content, f"usage-{owner}-{period}.{format}", unfinished)


async def _only_operator(database: Database, operator: str | None) -> str:
    named = await answers.named_operators(database, operator)
    if len(named) != 1:
        what = f"there are several operators: {', '.join(named)}" if named else "no operator is declared"
        raise Refusal(
            "which_operator", what, where="--operator", remedy="a report is of one operator: name it"
        )
    return named[0]
