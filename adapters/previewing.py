"""`tally invoice preview`: a customer's bill of a month by what is known now, read in one snapshot."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from adapters import answers
from adapters.postgres.closes import load_closes
from adapters.postgres.database import Database
from adapters.postgres.documents import load_adjustments, load_documents
from adapters.postgres.site import operator_facts
from adapters.postgres.unfinished_imports import unfinished_imports
from adapters.postgres.usage import usage_table
from billing.holiday import with_holidays
from billing.period import Period
from billing.preview import preview, preview_json
from billing.unfinished_import import unfinished_warning
from metering.refusal import Refusal


async def invoice_preview(
    database: Database,
    *,
    operator: str | None,
    customer: str,
    period: Period | None,
    until: str | None,
    now: datetime,
) -> dict[str, Any]:
    """The preview as JSON, with `until`: the hour before which usage counts (null: all that there is).

    `period` None is the month that `now` falls in at the operator's. Refusals: unknown_operator, unknown_customer,
    bad_time, bad_until, and those of `billing.preview`.
    """
    for owner in await answers.named_operators(database, operator):
        async with database.app(owner, snapshot=True) as connection:
            facts = await operator_facts(connection, owner)
            if customer not in facts.customers:
                continue
            zone = facts.operator[-1].zone
            month = period or Period.holding(now, zone)
            start, end = month.bounds(zone)
            cut = None if until is None else _whole_hour(until, zone)
            if cut is not None and cut <= start:
                raise Refusal(
                    "bad_until",
                    f"no whole hour of {month} lies before {until}",
                    where="--until",
                    remedy=f"a time after {_instant(start)}, or another --period",
                )
            usage = await usage_table(connection, owner, start, min(cut or end, end), customer)
            adjustments = await load_adjustments(connection, owner, month)
            documents = await load_documents(connection, owner, period=month, customer=customer)
            closes = await load_closes(connection, owner, period=month, newest=True)
            unfinished = await unfinished_imports(connection, owner, start, end)
        facts = with_holidays(facts, month, closes[0].holidays if closes else None)
        shown = await asyncio.to_thread(preview, usage, facts, month, customer, adjustments, documents)
        document = preview_json(shown)
        warnings = [*document["warnings"], *map(unfinished_warning, unfinished)]
        return {**document, "warnings": warnings, "until": None if cut is None else _instant(cut)}
    raise Refusal(
        "unknown_customer",
        f"no such customer: {customer}",
        where="--customer",
        remedy="`tally get customer` lists the declared ones",
    )


def _whole_hour(text: str, zone: ZoneInfo) -> datetime:
    """The end of the last whole hour that is over at a time or, of a day, at its local midnight."""
    moment = answers.read_moment(text, zone)
    if moment is None or moment.tzinfo is None:
        raise Refusal(
            "bad_time",
            f"not a day and not a time with a zone: {text}",
            where="--until",
            remedy="2026-10-05, or 2026-10-05T08:00:00Z",
        )
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _instant(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
