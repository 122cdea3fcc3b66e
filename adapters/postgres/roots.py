"""The second pass in the database: which roots were not recomputed, which held, and which did not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres.database import Database
from adapters.postgres.intake_rows import lane_name
from adapters.postgres.schema import root_fault
from billing.inspection import Place
from billing.intake_ports import RootFault, Unchecked
from billing.ports import OpenRoots

# Skipped where locked: another worker is at it. What was found wrong is not looked at again.
_UNCHECKED = text("""
    SELECT operator, node, lane, epoch, number, hash, path FROM batch b
    WHERE NOT root_checked AND NOT EXISTS (SELECT FROM root_fault f
        WHERE (f.operator, f.node, f.lane, f.epoch, f.number) = (b.operator, b.node, b.lane, b.epoch, b.number))
    ORDER BY operator, accepted_at LIMIT :most FOR UPDATE OF b SKIP LOCKED
""")
_HELD = text("""
    UPDATE batch b SET root_checked = true
    FROM unnest(CAST(:operators AS text[]), CAST(:nodes AS text[]), CAST(:lanes AS text[]), CAST(:epochs AS text[]),
            CAST(:numbers AS bigint[])) AS w(operator, node, lane, epoch, number)
    WHERE (b.operator, b.node, b.lane, b.epoch, b.number) = (w.operator, w.node, w.lane, w.epoch, w.number)
""")
# A sidecar's batch says by its sums what time it is of; an import's may be of any.
_OPEN = text("""
    SELECT count(*) FILTER (WHERE f.what IS NULL) AS unchecked, count(f.what) AS faults, min(b.node || '/' || b.lane
        || ' ' || b.epoch || '-' || b.number) FILTER (WHERE f.what IS NOT NULL) AS first_fault
    FROM batch b LEFT JOIN root_fault f USING (operator, node, lane, epoch, number)
    WHERE b.operator = :operator AND NOT b.root_checked
        AND (EXISTS (SELECT FROM seal_sum s
                WHERE (s.operator, s.node, s.lane, s.epoch, s.number) = (b.operator, b.node, b.lane, b.epoch, b.number)
                    AND s.first_time < :end AND s.last_time >= :start)
            OR NOT EXISTS (SELECT FROM seal_sum s
                WHERE (s.operator, s.node, s.lane, s.epoch, s.number) = (b.operator, b.node, b.lane, b.epoch, b.number)))
""")


@dataclass(frozen=True, slots=True)
class LockedRoots:
    """`billing.intake_ports.Roots`."""

    connection: AsyncConnection
    batches: Sequence[Unchecked]

    async def settle(self, held: Sequence[Unchecked], faults: Sequence[RootFault]) -> None:
        if held:
            columns = zip(*((*batch.name, *batch.place) for batch in held), strict=True)
            names = ("operators", "nodes", "lanes", "epochs", "numbers")
            await self.connection.execute(_HELD, dict(zip(names, map(list, columns), strict=True)))
        if faults:
            await self.connection.execute(insert(root_fault), [_fault_row(fault) for fault in faults])


@asynccontextmanager
async def unchecked(database: Database, limit: int) -> AsyncIterator[LockedRoots]:
    """A transaction as tally_intake that holds at most `limit` unchecked batches."""
    async with database.intake() as conn:
        found = (await conn.execute(_UNCHECKED, {"most": limit})).all()
        batches = [
            Unchecked(lane_name(row), Place(row.epoch, row.number), row.hash, row.path) for row in found
        ]
        yield LockedRoots(conn, batches)


async def open_roots(conn: AsyncConnection, operator: str, start: datetime, end: datetime) -> OpenRoots:
    """Of the batches that may hold events of [start, end)."""
    row = (await conn.execute(_OPEN, {"operator": operator, "start": start, "end": end})).one()
    return OpenRoots(row.unchecked, row.faults, row.first_fault)


def _fault_row(fault: RootFault) -> dict[str, object]:
    return {**fault.batch.name._asdict(), **fault.batch.place._asdict(), "what": fault.what}
