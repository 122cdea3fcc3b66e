"""Reads what reconciliation compares: spans, aliases and unmetered intervals of accepted seals, and batches' sums."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Select, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres.closes import gaps
from adapters.postgres.schema import seal_fact, seal_sum
from adapters.postgres.schema_base import one_of
from billing.gaps import UNMETERED, Gap
from metering.fact import Serves, Span
from metering.reconcile import SealedServes
from metering.stretch import STILL_WRITTEN_US, SealedSpan, SealedSum

# What is compared lies between quiet points, not between midnights: so much is read beyond both ends.
_BEYOND = timedelta(days=1)
_STILL_WRITTEN = timedelta(microseconds=STILL_WRITTEN_US)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NEWEST = text("""
    SELECT l.node, e.last_time AS last_event, f.ends AS span_ended, f.content ->> 'witness' AS witness,
           e.requests > e.unwitnessed_requests AS is_witnessed
    FROM (SELECT DISTINCT operator, node FROM lane WHERE kind = 'sidecar') AS l
    LEFT JOIN LATERAL (
        SELECT last_time, requests, unwitnessed_requests FROM seal_sum s WHERE (s.operator, s.node) = (l.operator, l.node)
        ORDER BY s.last_time DESC LIMIT 1) AS e ON true
    LEFT JOIN LATERAL (
        SELECT ends, content FROM seal_fact f WHERE (f.operator, f.kind, f.node) = (l.operator, 'span', l.node)
        ORDER BY f.ends DESC, f.number DESC, f.rank DESC LIMIT 1) AS f ON true
    WHERE num_nonnulls(e.last_time, f.ends) > 0 ORDER BY l.node
""")


# Named one by one, so that the indexes by node and time serve.
_NODES = text("SELECT DISTINCT node FROM lane WHERE kind = 'sidecar'")


@dataclass(slots=True)
class Witnesses:
    """One node's spans, sums and aliases, in no particular order, and its gaps."""

    spans: list[SealedSpan] = field(default_factory=list)
    sums: list[SealedSum] = field(default_factory=list)
    serves: list[SealedServes] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class LastSpan:
    """The newest span of a node: when it ended, and whether a witness told its lines (`yes`, `no`, `aside`)."""

    ended_at: datetime
    witness: str


@dataclass(frozen=True, slots=True)
class Served:
    """When a node last served a request, and its newest span; None where there is none. `is_witnessed`: the newest
    events carry the engine's own figure."""

    last_event: datetime | None
    last_span: LastSpan | None
    is_witnessed: bool


async def read_witnesses(
    conn: AsyncConnection, operator: str, start: datetime, end: datetime, node: str | None = None
) -> Mapping[str, Witnesses]:
    """By node: what is needed to compare [start, end), which is more than what lies within. One snapshot: the
    connection's.
    """
    found: dict[str, Witnesses] = defaultdict(Witnesses)
    lo, hi = start - _BEYOND, end + _BEYOND
    nodes = [node] if node is not None else list((await conn.execute(_NODES)).scalars())
    spans = _facts(operator, nodes, "span").where(seal_fact.c.ends >= lo, seal_fact.c.begins < hi)
    for row in await conn.execute(spans):
        found[row.node].spans.append(SealedSpan(row.lane, Span(**row.content)))
        lo, hi = min(lo, row.begins), max(hi, row.ends + _STILL_WRITTEN)
    for row in await conn.execute(_facts(operator, nodes, "serves").where(seal_fact.c.begins < hi)):
        found[row.node].serves.append(SealedServes(Serves(**row.content), _us(row.begins)))
    for row in await conn.execute(_sums(operator, nodes, lo, hi)):
        found[row.node].sums.append(
            SealedSum(
                row.lane,
                row.model,
                _us(row.first_time),
                _us(row.last_time),
                row.requests,
                row.prompt_tokens,
                row.generated_tokens,
                row.unwitnessed_requests,
            )
        )
    for gap in await gaps(conn, operator, start, end):
        if gap.kind == UNMETERED and node in (None, gap.node):
            found[gap.node].gaps.append(gap)
    return dict(sorted(found.items()))


async def nodes_served(conn: AsyncConnection) -> dict[str, Served]:
    """Of each node whose sidecars ever sealed an event or a span: the newest of both."""
    return {
        row.node: Served(
            row.last_event,
            None if row.witness is None else LastSpan(row.span_ended, row.witness),
            bool(row.is_witnessed),
        )
        for row in await conn.execute(_NEWEST)
    }


async def first_and_last(conn: AsyncConnection, operator: str) -> tuple[datetime, datetime] | None:
    """The hours [first, last) that hold all that was ever sealed of this operator's sidecars; None before that."""
    ends = await conn.execute(
        select(func.min(seal_sum.c.first_time), func.max(seal_sum.c.last_time)).where(
            seal_sum.c.operator == operator
        )
    )
    facts = await conn.execute(
        select(func.min(seal_fact.c.begins), func.max(seal_fact.c.ends)).where(
            seal_fact.c.operator == operator
        )
    )
    instants = [instant for row in (*ends, *facts) for instant in row if instant is not None]
    if not instants:
        return None
    whole = {"minute": 0, "second": 0, "microsecond": 0}
    return min(instants).replace(**whole), max(instants).replace(**whole) + timedelta(hours=1)


def _facts(operator: str, nodes: Sequence[str], kind: str) -> Select[Any]:
    return select(seal_fact).where(
        seal_fact.c.operator == operator, seal_fact.c.kind == kind, one_of(seal_fact.c.node, nodes)
    )


def _sums(operator: str, nodes: Sequence[str], lo: datetime, hi: datetime) -> Select[Any]:
    return select(seal_sum).where(
        seal_sum.c.operator == operator,
        one_of(seal_sum.c.node, nodes),
        seal_sum.c.last_time >= lo,
        seal_sum.c.first_time < hi,
    )


def _us(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(microseconds=1)
