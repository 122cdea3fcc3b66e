"""How far the lanes of an operator have come, for closes and `tally streams`; as tally_app."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, exists, text
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres.schema import decision, held
from billing.completeness import LaneEnd

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A lane that sealed again after it was retired is not: its head is no longer the one that the decision names.
_ENDS = text("""
    SELECT l.node, l.lane, l.kind, l.enrolled_at, l.complete_to, l.ended,
        EXISTS (SELECT FROM decision d WHERE (d.operator, d.node, d.lane) = (l.operator, l.node, l.lane)
            AND d.kind = 'retire' AND d.hash IS NOT DISTINCT FROM l.head) AS retired
    FROM lane l WHERE l.operator = :operator
    UNION ALL
    -- Strangers are looked for among what each node told last, and asked for their beginning only where there are any.
    SELECT s.node, s.lane, 'sidecar', (SELECT min(f.begins) FROM seal_fact f
        WHERE (f.operator, f.kind, f.node) = (:operator, 'sibling', s.node) AND f.content ->> 'lane' = s.lane),
        NULL, false, false
    FROM (SELECT DISTINCT f.node, f.content ->> 'lane' AS lane
        FROM (SELECT DISTINCT node FROM lane WHERE operator = :operator) AS n CROSS JOIN LATERAL (
            SELECT f.node, f.content FROM seal_fact f
            WHERE (f.operator, f.kind, f.node) = (:operator, 'sibling', n.node)
            ORDER BY f.ends DESC LIMIT 256) AS f) AS s
    WHERE NOT EXISTS (SELECT FROM lane l WHERE (l.operator, l.node, l.lane) = (:operator, s.node, s.lane))
""")


async def lane_ends(conn: AsyncConnection, operator: str) -> list[LaneEnd]:
    """Every lane of the operator, and those that a lane of their node tells of and nobody enrolled."""
    return [
        LaneEnd(
            node=row.node,
            lane=row.lane,
            kind=row.kind,
            enrolled_us=whole_us(row.enrolled_at),
            complete_to_us=None if row.complete_to is None else whole_us(row.complete_to),
            ended=row.ended,
            retired=row.retired,
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


def whole_us(instant: datetime) -> int:
    """µs since 1970, UTC."""
    return (instant - _EPOCH) // timedelta(microseconds=1)
