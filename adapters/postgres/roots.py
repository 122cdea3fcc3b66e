"""The second pass in the database: which roots were not recomputed, which held, and which did not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres.database import Database
from adapters.postgres.intake_rows import lane_name
from adapters.postgres.lane_ends import whole_us
from adapters.postgres.schema import root_fault
from billing.inspection import Place
from billing.intake_ports import RootFault, Unchecked
from billing.ports import OpenRoots
from billing.repair import UNPROVEN, Decision, Lost

# What a person decided about stays as it was found.
_IS_DECIDED = """EXISTS (SELECT FROM decision d WHERE (d.operator, d.node, d.lane, d.hash)
    = (b.operator, b.node, b.lane, b.hash) AND d.kind = 'unproven')"""
# Skipped where locked: another worker is at it.
_UNCHECKED = text(f"""
    SELECT b.operator, b.node, b.lane, b.epoch, b.number, b.hash, b.path, b.accepted_at, f.what
    FROM batch b LEFT JOIN root_fault f USING (operator, node, lane, epoch, number)
    WHERE NOT b.root_checked AND (f.looked_at IS NULL OR (f.looked_at < :again_before AND NOT {_IS_DECIDED}))
    ORDER BY b.accepted_at LIMIT :most FOR UPDATE OF b SKIP LOCKED
""")  # noqa: S608 - only a condition of our own is put in
_HELD = text("""
    UPDATE batch b SET root_checked = true
    FROM unnest(CAST(:operators AS text[]), CAST(:nodes AS text[]), CAST(:lanes AS text[]), CAST(:epochs AS text[]),
            CAST(:numbers AS bigint[])) AS w(operator, node, lane, epoch, number)
    WHERE (b.operator, b.node, b.lane, b.epoch, b.number) = (w.operator, w.node, w.lane, w.epoch, w.number)
""")
_NO_FAULT = text("""
    DELETE FROM root_fault f
    USING unnest(CAST(:operators AS text[]), CAST(:nodes AS text[]), CAST(:lanes AS text[]), CAST(:epochs AS text[]),
            CAST(:numbers AS bigint[])) AS w(operator, node, lane, epoch, number)
    WHERE (f.operator, f.node, f.lane, f.epoch, f.number) = (w.operator, w.node, w.lane, w.epoch, w.number)
""")
# A sidecar's batch says by its sums what time it is of; an import's may be of any.
_OPEN = text(f"""
    SELECT count(*) FILTER (WHERE f.what IS NULL) AS unchecked, count(f.what) AS faults, min(b.node || '/' || b.lane
        || ' ' || b.epoch || '-' || b.number) FILTER (WHERE f.what IS NOT NULL) AS first_fault
    FROM batch b LEFT JOIN root_fault f USING (operator, node, lane, epoch, number)
    WHERE b.operator = :operator AND NOT b.root_checked AND NOT {_IS_DECIDED}
        AND (EXISTS (SELECT FROM seal_sum s
                WHERE (s.operator, s.node, s.lane, s.epoch, s.number) = (b.operator, b.node, b.lane, b.epoch, b.number)
                    AND s.first_time < :end AND s.last_time >= :start)
            OR NOT EXISTS (SELECT FROM seal_sum s
                WHERE (s.operator, s.node, s.lane, s.epoch, s.number) = (b.operator, b.node, b.lane, b.epoch, b.number)))
""")  # noqa: S608 - only a condition of our own is put in
_FAULTY = f"""
    SELECT b.operator, b.node, b.lane, b.epoch, b.number, b.hash, b.path, b.accepted_at, f.what, f.found_at
    FROM root_fault f JOIN batch b USING (operator, node, lane, epoch, number)
    WHERE NOT b.root_checked AND NOT {_IS_DECIDED}
"""  # noqa: S608 - only a condition of our own is put in
_HASHES = text(
    f"SELECT hash FROM batch b WHERE operator = :operator AND NOT root_checked AND NOT {_IS_DECIDED}"  # noqa: S608 - ours
)
_ONE = text("""
    SELECT b.operator, b.node, b.lane, b.epoch, b.number, b.hash, b.path, b.accepted_at, f.what
    FROM batch b JOIN root_fault f USING (operator, node, lane, epoch, number)
    WHERE (b.operator, b.node, b.lane, b.epoch, b.number) = (:operator, :node, :lane, :epoch, :number)
    FOR UPDATE OF b
""")
# When its events are of, as far as the database knows: by its sums, by its import's file, else by its seal.
_SPAN = text("""
    SELECT coalesce(min(s.first_time), min(i.first), b.complete_to) AS begins,
        coalesce(max(s.last_time), max(i.last), b.complete_to) AS ends, b.requests
    FROM batch b LEFT JOIN seal_sum s USING (operator, node, lane, epoch, number)
        LEFT JOIN import_file i ON (i.operator, i.node, i.lane, i.epoch) = (b.operator, b.node, b.lane, b.epoch)
    WHERE (b.operator, b.node, b.lane, b.epoch, b.number) = (:operator, :node, :lane, :epoch, :number)
    GROUP BY b.complete_to, b.requests
""")


@dataclass(frozen=True, slots=True)
class LockedRoots:
    """`billing.intake_ports.Roots`."""

    connection: AsyncConnection
    batches: Sequence[Unchecked]

    async def settle(self, held: Sequence[Unchecked], faults: Sequence[RootFault], at: datetime) -> None:
        if held:
            columns = zip(*((*batch.name, *batch.place) for batch in held), strict=True)
            names = ("operators", "nodes", "lanes", "epochs", "numbers")
            asked = dict(zip(names, map(list, columns), strict=True))
            await self.connection.execute(_HELD, asked)
            if any(batch.fault is not None for batch in held):
                await self.connection.execute(_NO_FAULT, asked)
        if faults:
            row = insert(root_fault)
            again = {"what": row.excluded.what, "looked_at": row.excluded.looked_at}
            upsert = row.on_conflict_do_update(index_elements=list(root_fault.primary_key), set_=again)
            await self.connection.execute(upsert, [_fault_row(fault, at) for fault in faults])


@asynccontextmanager
async def unchecked(database: Database, limit: int, again_before: datetime) -> AsyncIterator[LockedRoots]:
    """A transaction as tally_intake that holds at most `limit` unchecked batches."""
    async with database.intake() as conn:
        found = await conn.execute(_UNCHECKED, {"most": limit, "again_before": again_before})
        yield LockedRoots(conn, [_unchecked(row) for row in found])


@asynccontextmanager
async def faulty_root(database: Database, batch: Unchecked) -> AsyncIterator[LockedRoots]:
    """A transaction as tally_intake that holds this one, whose root did not hold; nothing, where it does meanwhile."""
    async with database.intake() as conn:
        found = await conn.execute(_ONE, {**batch.name._asdict(), **batch.place._asdict()})
        yield LockedRoots(conn, [_unchecked(row) for row in found])


async def faulty_roots(conn: AsyncConnection, hash: str = "") -> list[tuple[Unchecked, datetime]]:
    """The batches that the connection sees whose roots do not hold, since when, oldest first; `hash`: how theirs begins.
    Those that a person decided about are not among them.
    """
    rows = await conn.execute(
        text(_FAULTY + " AND starts_with(b.hash, :hash) ORDER BY f.found_at, b.epoch, b.number"),
        {"hash": hash},
    )
    return [(_unchecked(row), row.found_at) for row in rows]


async def unchecked_hashes(conn: AsyncConnection, operator: str) -> frozenset[str]:
    """Hashes of the accepted batches whose roots are not known to hold, and of which nobody decided that none will."""
    return frozenset((await conn.execute(_HASHES, {"operator": operator})).scalars())


async def unproven(conn: AsyncConnection, batch: Unchecked, reason: str) -> Decision:
    """A person's decision that nothing will ever prove this batch's events; with the time that they are of."""
    row = (await conn.execute(_SPAN, {**batch.name._asdict(), **batch.place._asdict()})).one()
    span = Lost(whole_us(row.begins), whole_us(row.ends), row.requests)
    return Decision(UNPROVEN, batch.name, batch.place, batch.hash, reason, lost=span)


async def open_roots(conn: AsyncConnection, operator: str, start: datetime, end: datetime) -> OpenRoots:
    """Of the batches that may hold events of [start, end)."""
    row = (await conn.execute(_OPEN, {"operator": operator, "start": start, "end": end})).one()
    return OpenRoots(row.unchecked, row.faults, row.first_fault)


def _unchecked(row: Row[Any]) -> Unchecked:
    place = Place(row.epoch, row.number)
    return Unchecked(lane_name(row), place, row.hash, row.path, row.accepted_at, row.what)


def _fault_row(fault: RootFault, at: datetime) -> dict[str, object]:
    batch = fault.batch
    return {**batch.name._asdict(), **batch.place._asdict(), "what": fault.what, "looked_at": at}
