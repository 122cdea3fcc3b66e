"""How far the lanes of an operator have come, for closes and `tally streams`; as tally_app."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, exists, or_, text
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres.schema import decision, held, lane, lane_key
from billing.completeness import LaneEnd

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A lane that sealed again after it was retired is not: its head is no longer the one that the decision names. Its first
# accepted seal follows nothing, or a person decided that it goes on with it.
_ENDS = text("""
    SELECT l.node, l.lane, l.kind, l.complete_to, l.ended, r.decided_at AS retired_at, r.reason,
        least(l.enrolled_at,
            (SELECT min(k.made_at) FROM lane_key k
                WHERE (k.operator, k.node, k.lane) = (l.operator, l.node, l.lane)),
            (SELECT s.first_told FROM sibling s WHERE (s.operator, s.node, s.lane) = (l.operator, l.node, l.lane)),
            (SELECT b.complete_to FROM batch b
                WHERE (b.operator, b.node, b.lane, b.previous) = (l.operator, l.node, l.lane, 'genesis')
                    AND NOT b.adopted),
            (SELECT min(b.complete_to) FROM decision d JOIN batch b USING (operator, node, lane, epoch, number)
                WHERE (d.operator, d.node, d.lane) = (l.operator, l.node, l.lane)
                    AND d.kind IN ('keep', 'accept_hole'))) AS since
    FROM lane l LEFT JOIN LATERAL (
        SELECT d.decided_at, d.reason FROM decision d WHERE (d.operator, d.node, d.lane) = (l.operator, l.node, l.lane)
            AND d.kind = 'retire' AND d.hash IS NOT DISTINCT FROM l.head
        ORDER BY d.decided_at LIMIT 1) AS r ON true
    WHERE l.operator = :operator
    UNION ALL
    SELECT s.node, s.lane, 'sidecar', NULL, false, NULL, NULL, s.first_told
    FROM sibling s WHERE s.operator = :operator
        AND NOT EXISTS (SELECT FROM lane l WHERE (l.operator, l.node, l.lane) = (s.operator, s.node, s.lane))
""")


async def lane_ends(conn: AsyncConnection, operator: str) -> list[LaneEnd]:
    """Every lane of the operator, and those that a lane of their node tells of and nobody enrolled."""
    return [
        LaneEnd(
            node=row.node,
            lane=row.lane,
            kind=row.kind,
            since_us=whole_us(row.since),
            complete_to_us=None if row.complete_to is None else whole_us(row.complete_to),
            ended=row.ended,
            retired_us=None if row.retired_at is None else whole_us(row.retired_at),
            reason=row.reason,
        )
        for row in await conn.execute(_ENDS, {"operator": operator})
    ]


def is_dropped() -> ColumnElement[bool]:
    """Of a row of `held`: a person decided that it never counts. Its files stay, and so does its row."""
    return exists().where(
        decision.c.operator == held.c.operator,
        decision.c.node == held.c.node,
        decision.c.lane == held.c.lane,
        decision.c.hash == held.c.hash,
        decision.c.kind == "drop",
    )


def is_stale() -> ColumnElement[bool]:
    """Of a row of `held`: its key was revoked, or a seal of a newer one was accepted. It never counts as it is."""
    of_lane = (lane.c.operator == held.c.operator, lane.c.node == held.c.node, lane.c.lane == held.c.lane)
    revoked = exists().where(
        lane_key.c.operator == held.c.operator,
        lane_key.c.node == held.c.node,
        lane_key.c.lane == held.c.lane,
        lane_key.c.rank == held.c.key_rank,
        lane_key.c.revoked_at.is_not(None),
    )
    return or_(revoked, exists().where(*of_lane, lane.c.key_rank > held.c.key_rank))


def is_made_up_for(end: datetime) -> ColumnElement[bool]:
    """Of a row of `held`: its lane has gone on under a newer key, up to `end`."""
    return exists().where(
        lane.c.operator == held.c.operator,
        lane.c.node == held.c.node,
        lane.c.lane == held.c.lane,
        lane.c.key_rank > held.c.key_rank,
        lane.c.complete_to >= end,
    )


def whole_us(instant: datetime) -> int:
    """µs since 1970, UTC."""
    return (instant - _EPOCH) // timedelta(microseconds=1)
