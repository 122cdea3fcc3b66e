"""How far intake has read in Kafka: written beside what it has read, in the same transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres.database import INSTALLATION
from billing.intake_ports import Position

# In key order, so that two workers wait for each other in one direction only. A worker that was left behind by a
# rebalance settles what another one has settled already: its positions never lead back.
_MOVE = text("""
    INSERT INTO kafka_position AS p (operator, source, partition, next)
    SELECT :operator, w.source, w.partition, max(w.next)
    FROM unnest(CAST(:sources AS text[]), CAST(:partitions AS integer[]), CAST(:nexts AS bigint[]))
        AS w(source, partition, next)
    GROUP BY w.source, w.partition ORDER BY w.source, w.partition
    ON CONFLICT (operator, source, partition) DO UPDATE SET next = excluded.next WHERE p.next < excluded.next
""")
_POSITIONS = text(
    "SELECT partition, next FROM kafka_position WHERE operator = :operator AND source = :source"
)


async def move(conn: AsyncConnection, positions: Sequence[Position]) -> None:
    """Goes on to these in the connection's transaction; never back."""
    if not positions:
        return
    columns = {f"{name}s": [attrgetter(name)(each) for each in positions] for name in Position.__slots__}
    await conn.execute(_MOVE, {"operator": INSTALLATION, **columns})


async def positions_of(conn: AsyncConnection, source: str) -> Mapping[int, int]:
    """partition -> next offset, of the partitions of `source` that were read."""
    found = await conn.execute(_POSITIONS, {"operator": INSTALLATION, "source": source})
    return {row.partition: row.next for row in found}
