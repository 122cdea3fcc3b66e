"""`tally reconcile`: engine counters = events = rated = invoiced, as a JSON document.

Each operator is read in one snapshot. What the engine counted is compared with what was written down by
metering/reconcile.py, what was rated with what usage rates to now by billing/rated_now.py. Nothing is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy.ext.asyncio import AsyncConnection

from adapters import answers
from adapters.overdue import is_overdue
from adapters.postgres.arrived import arrived_since
from adapters.postgres.closes import load_closes
from adapters.postgres.database import Database
from adapters.postgres.documents import load_documents
from adapters.postgres.site import operator_facts
from adapters.postgres.usage import usage_table
from adapters.postgres.witnesses import Witnesses, first_and_last, read_witnesses
from billing.facts import Facts
from billing.gaps import gap_json, with_reasons
from billing.holiday import with_holidays
from billing.period import Period
from billing.ports import PeriodClose
from billing.rated_now import RatedPeriod, invoiced_tokens, summed
from billing.rating import rate
from metering.instant import time_text
from metering.reconcile import NodeReconciled, Numbers, Unchecked, reconcile_node, whole_rows
from metering.reconcile_row import Row
from metering.refusal import Refusal

CAUSES = (
    "late_prompt",
    "late_generated",
    "repeated_prompt",
    "audio_prompt",
    "unmetered_prompt",
    "unmetered_generated",
    "lost_prompt",
    "lost_generated",
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Asked:
    """What `tally reconcile` was asked for; None: all there is. `now`: the instant of asking."""

    operator: str | None = None
    node: str | None = None
    period: Period | None = None
    by_hour: bool = False
    now: datetime | None = None


@dataclass(slots=True)
class _Found:
    """The document's lists, as they fill operator by operator. `unaccounted` sums what is left in each hour, of the
    requests in `compared`; `now` is the instant of asking."""

    now: datetime
    nodes: list[dict[str, Any]] = field(default_factory=list)
    differences: list[dict[str, Any]] = field(default_factory=list)
    unchecked: list[dict[str, Any]] = field(default_factory=list)
    unmetered: list[dict[str, Any]] = field(default_factory=list)
    missing_spans: list[dict[str, Any]] = field(default_factory=list)
    doubled_spans: list[dict[str, Any]] = field(default_factory=list)
    periods: list[RatedPeriod] = field(default_factory=list)
    unaccounted: int = 0
    compared: int = 0


async def reconciliation(database: Database, asked: Asked) -> dict[str, Any]:
    """The document. Refusals: unknown_operator, unknown_node."""
    found = _Found(asked.now or datetime.now(UTC))
    nodes: set[str] = set()
    for operator in await answers.named_operators(database, asked.operator):
        async with database.app(operator, snapshot=True) as conn:
            facts = await operator_facts(conn, operator)
            if not facts.operator:
                continue
            nodes |= facts.nodes.keys()
            await _operator(conn, operator, facts, asked, found)
    if asked.node is not None and asked.node not in nodes:
        raise Refusal(
            "unknown_node",
            f"no such node: {asked.node}",
            where="--node",
            remedy=f"declared are: {', '.join(sorted(nodes))}" if nodes else "declare it with tally apply",
        )
    return {
        "nodes": found.nodes,
        "differences": found.differences,
        "unchecked": found.unchecked,
        "unmetered": found.unmetered,
        "missing_spans": found.missing_spans,
        "doubled_spans": found.doubled_spans,
        "periods": [_period_json(each) for each in found.periods],
        "rated": summed(each.rated for each in found.periods),
        "invoiced": summed(each.invoiced for each in found.periods),
        "compared_requests": found.compared,
        "unchecked_requests": sum(each["requests"] for each in found.unchecked),
        "unaccounted": found.unaccounted,
    }


def has_difference(document: Mapping[str, Any]) -> bool:
    """Whether anything is unexplained, missing, unchecked for too long, or served unmetered and not accepted: exit 3."""
    return bool(
        document["differences"]
        or document["missing_spans"]
        or document["doubled_spans"]
        or any(each["overdue"] for each in document["unchecked"])
        or any(gap["reason"] is None for gap in document["unmetered"])
        or any(period["differences"] for period in document["periods"])
    )


async def _operator(conn: AsyncConnection, operator: str, facts: Facts, asked: Asked, found: _Found) -> None:
    zone = facts.operator[-1].zone
    closes = await load_closes(conn, operator, period=asked.period)
    bounds = asked.period.bounds(zone) if asked.period else await first_and_last(conn, operator)
    if bounds is not None:
        start, end = bounds
        accepted = [gap for close in closes for gap in close.result["gaps"]]
        for node, witnesses in (await read_witnesses(conn, operator, start, end, asked.node)).items():
            within_us = (_us(start), _us(end))
            compared = await asyncio.to_thread(
                reconcile_node, witnesses.spans, witnesses.sums, witnesses.serves, within_us=within_us
            )
            _tell({"operator": operator, "node": node}, compared, zone, asked, found)
            _tell_gaps({"operator": operator}, witnesses, accepted, found)
    if asked.node is None:
        found.periods += await _rated(conn, operator, facts, asked.period, closes)


def _tell(
    where: dict[str, Any], compared: NodeReconciled, zone: ZoneInfo, asked: Asked, found: _Found
) -> None:
    rows = compared.rows if asked.by_hour else whole_rows(compared.rows)
    found.nodes += [where | _row_json(row, zone if asked.by_hour else None) for row in rows]
    found.differences += [
        where | _row_json(row, zone) | {"likely": likely(row)} for row in compared.rows if row.differs
    ]
    found.unaccounted += sum(row.unaccounted for row in compared.rows)
    found.compared += sum(row.requests for row in compared.rows)
    found.unchecked += [where | _unchecked_json(each, found.now) for each in compared.unchecked]
    found.missing_spans += [where | _numbers_json(each) for each in compared.missing_spans]
    found.doubled_spans += [where | _numbers_json(each) for each in compared.doubled_spans]


def _tell_gaps(
    where: dict[str, Any], witnesses: Witnesses, accepted: Sequence[Mapping[str, Any]], found: _Found
) -> None:
    found.unmetered += [where | gap_json(gap) for gap in with_reasons(witnesses.gaps, accepted)]


async def _rated(
    conn: AsyncConnection,
    operator: str,
    facts: Facts,
    period: Period | None,
    closes: Sequence[PeriodClose],
) -> list[RatedPeriod]:
    """The period that was asked for, else every one that was ever closed."""
    last = {close.period: close for close in closes}
    rated = []
    for each in [period] if period is not None else sorted(last):
        bounds = each.bounds(facts.operator[-1].zone)
        usage = await usage_table(conn, operator, *bounds)
        close = last.get(each)
        dated = with_holidays(facts, each, close.holidays if close else {})
        now = await asyncio.to_thread(rate, usage, dated, each)
        documents = await load_documents(conn, operator, period=each)
        at_close = close.result["rated"] if close else None
        rated.append(
            RatedPeriod(
                operator=operator,
                period=each,
                closed_at=close.closed_at if close else None,
                at_close=at_close,
                now=now.tokens,
                invoiced=invoiced_tokens(documents, now.lines if at_close == now.tokens else {}),
                arrived=await arrived_since(conn, operator, close.heads if close else {}, *bounds),
            )
        )
    return rated


def likely(row: Row) -> list[str]:
    """What a difference of this kind comes from, likeliest first, and where to look."""
    causes = []
    if len(row.speakers) > 1:
        causes.append(
            f"several lanes said what the engine counted ({', '.join(sorted(row.speakers))}): sidecars that share an"
            " engine have to share the data folder, else each speaks for the node and the engine is counted twice"
        )
    if row.lines_missing:
        causes.append(
            "lines of the engine are missing: its folder of lines was emptied or cut while it ran, or its disk was full"
        )
    if row.unscraped:
        causes.append("the engine's /metrics could not be read for a while; its lines stand in for them")
    more = row.unaccounted_prompt > 0 or row.unaccounted_generated > 0
    if not (row.engine_prompt or row.engine_generated or row.lost_prompt or row.lost_generated):
        causes.append(
            "the engine counts nothing under this name: another engine served it than the one whose /metrics are"
            " read, or its counters were set back"
        )
    elif more and row.witness == "aside":
        causes.append(
            "the witness stepped aside (it does not know this version of the engine): what was generated for"
            " clients that hung up is in the engine's counters only"
        )
    elif more and row.witness != "yes":
        causes.append(
            "no witness runs in the engine: what was generated for clients that hung up is in its counters only;"
            " install tallygrid-vllm there and give the sidecar --engine-lines"
        )
    if more:
        causes.append(
            "requests reached the engine beside the sidecar (is its port open to others?), or events were lost in a"
            " power cut: look at the engine's own log of that time"
        )
    if row.unaccounted_prompt < 0 or row.unaccounted_generated < 0:
        causes.append(
            "events say more than the engine counted: an engine that is not among the sidecar's --engine addresses,"
            " or counters that were set back unseen"
        )
    return causes


def _row_json(row: Row, zone: ZoneInfo | None) -> dict[str, Any]:
    """A row; with its hour, in the operator's zone, where `zone` is given."""
    hour = {} if zone is None else {"hour": _instant(row.hour_us).astimezone(zone).isoformat()}
    return {
        "model": row.model,
        **hour,
        "from": time_text(row.from_us),
        "to": time_text(row.to_us),
        "requests": row.requests,
        "engine_prompt": row.engine_prompt,
        "engine_generated": row.engine_generated,
        "events_prompt": row.events_prompt,
        "events_generated": row.events_generated,
        "unaccounted_prompt": row.unaccounted_prompt,
        "unaccounted_generated": row.unaccounted_generated,
        "causes": {name: getattr(row, name) for name in CAUSES},
        "lines": row.lines,
        "lines_missing": row.lines_missing,
        "unwitnessed_requests": row.unwitnessed_requests,
        "restarts": row.restarts,
        "unscraped": row.unscraped,
        "witness": row.witness,
    }


def _unchecked_json(each: Unchecked, now: datetime) -> dict[str, Any]:
    return {
        "why": each.why,
        "from": time_text(each.from_us),
        "to": time_text(each.to_us),
        "requests": each.requests,
        "prompt_tokens": each.prompt_tokens,
        "generated_tokens": each.generated_tokens,
        "overdue": is_overdue(each, now),
    }


def _numbers_json(numbers: Numbers) -> dict[str, Any]:
    return {"lane": numbers.lane, "first": numbers.first, "last": numbers.last}


def _period_json(each: RatedPeriod) -> dict[str, Any]:
    return {
        "operator": each.operator,
        "period": str(each.period),
        "closed_at": time_text(_us(each.closed_at)) if each.closed_at else None,
        "rated": dict(each.rated),
        "invoiced": dict(each.invoiced),
        "differences": _changes_json(each.differences),
        "not_billed_yet": _changes_json(each.not_billed_yet),
    }


def _changes_json(changes: Mapping[str, tuple[int, int]]) -> list[dict[str, Any]]:
    return [{"meter": meter, "rated": rated, "now": now} for meter, (rated, now) in changes.items()]


def _instant(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)


def _us(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(microseconds=1)
