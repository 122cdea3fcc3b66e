"""Intake's SQL: the ledger that decides which batch is accepted, once.

All of it runs as `tally_intake`. The lanes of a transaction are locked in key order, so that two workers wait for each
other in one direction only; under READ COMMITTED the lock's row is the newest. Nothing is incremented: a transaction
appends to the list of batches and to the partial sums, and moves the mark of the lanes that it holds
(`adapters.postgres.locked_lanes`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import date, datetime
from uuid import UUID

from sqlalchemy import delete, func, select, text
from sqlalchemy.dialects.postgresql import insert as insert_or_not

from adapters.postgres import intake_rows as rows
from adapters.postgres import lane_keys
from adapters.postgres.database import Database
from adapters.postgres.kafka_positions import move, positions_of
from adapters.postgres.locked_lanes import LockedLanes, count_aside, key_arrays
from adapters.postgres.roll_up import roll_up
from adapters.postgres.roots import LockedRoots, unchecked
from adapters.postgres.schema import operator, set_aside
from billing.acceptance import OF_ITS_PLACE
from billing.aside import NOT_KEPT
from billing.inspection import Enrolment, LaneName
from billing.intake_ports import AsideSoFar, Position, SetAside

_LOCKED = text("""
    SELECT l.*
    FROM unnest(CAST(:operators AS text[]), CAST(:nodes AS text[]), CAST(:lanes AS text[])) AS w(operator, node, lane)
    JOIN lane l USING (operator, node, lane) ORDER BY operator, node, lane FOR UPDATE OF l
""")
# What a hold that ends by itself waits for, besides the batch that it follows, is there.
_MAY_GO_ON = """(h.code = 'hole' OR (h.code = 'ahead_of_time' AND h.due_at <= :now)
    OR (h.code = 'unknown_customer' AND NOT EXISTS (
        SELECT FROM unnest(h.missing) AS m(id) WHERE NOT EXISTS (
            SELECT FROM subject s WHERE s.operator = h.operator AND s.kind = 'customer' AND s.id = m.id))))"""
# What waited for a batch that came, and was followed by another: a fork, which is to be told by its name.
_OVERTAKEN = """(h.code = 'hole' AND EXISTS (SELECT FROM batch b
    WHERE (b.operator, b.node, b.lane, b.previous) = (h.operator, h.node, h.lane, h.previous) AND NOT b.adopted))"""
# What waits for a missing batch forms a chain behind it; its first link follows the lane's head. Operators take turns, and
# an operator's lanes: who has much that is due keeps nobody else waiting.
_DUE = text(f"""
    WITH RECURSIVE waiting AS (
        SELECT h.* FROM held h WHERE h.path <> ALL (CAST(:damaged AS text[]))
            AND h.operator <> ALL (CAST(:failed AS text[])) AND NOT EXISTS (SELECT FROM decision d
            WHERE (d.operator, d.node, d.lane, d.hash) = (h.operator, h.node, h.lane, h.hash) AND d.kind = 'drop')),
    due AS (
        SELECT h.*, 1 AS turn FROM waiting h JOIN lane l USING (operator, node, lane)
            WHERE ({_MAY_GO_ON} AND h.previous = coalesce(l.head, 'genesis')) OR {_OVERTAKEN}
                OR ((h.code = ANY (CAST(:of_its_place AS text[])) OR {_MAY_GO_ON}) AND h.hash = {lane_keys.ADOPTS})
        UNION ALL
        SELECT h.*, due.turn + 1 FROM due JOIN waiting h USING (operator, node, lane)
            WHERE {_MAY_GO_ON} AND h.previous = due.hash AND due.turn < :most)
    SELECT path FROM (
        SELECT path, operator, node, lane, turn FROM due
        UNION ALL
        SELECT s.path, l.operator, l.node, l.lane, 0 FROM set_aside s
            JOIN lane_key l ON (l.operator, l.node, l.lane, l.key_hash) = (s.claimed, s.node, s.lane, s.key_hash)
            WHERE s.code = 'unknown_key' AND s.path <> ALL (CAST(:damaged AS text[]))
                AND l.operator <> ALL (CAST(:failed AS text[]))) AS found
    ORDER BY row_number() OVER (PARTITION BY operator ORDER BY turn, node, lane, path), operator LIMIT :most
""")  # noqa: S608 - only a condition of our own is put in
_ASIDE_OF = text("""
    SELECT s.claimed, s.node, s.lane, count(*)
    FROM unnest(CAST(:operators AS text[]), CAST(:nodes AS text[]), CAST(:lanes AS text[])) AS w(claimed, node, lane)
    JOIN set_aside s ON (s.claimed, s.node, s.lane) = (w.claimed, w.node, w.lane) AND s.code <> 'not_kept'
    GROUP BY s.claimed, s.node, s.lane
""")
_CUSTOMERS = text("""
    SELECT id FROM subject WHERE operator = :operator AND kind = 'customer' AND id = ANY(CAST(:ids AS uuid[]))
""")


class PostgresLedger:
    """`billing.intake_ports.Ledger` on PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def enrolled(self, names: Collection[LaneName]) -> Mapping[LaneName, Enrolment]:
        async with self._database.intake() as conn:
            return await lane_keys.enrolled(conn, names)

    async def known_customers(self, operator: str, ids: Collection[bytes]) -> Collection[bytes]:
        async with self._database.intake() as conn:
            wanted = [UUID(bytes=known) for known in ids]
            found = await conn.execute(_CUSTOMERS, {"operator": operator, "ids": wanted})
            return {row.id.bytes for row in found}

    async def ensure_months(self, months: Collection[tuple[str, date]]) -> None:
        for owner, month in sorted(months):
            async with self._database.intake() as conn:
                await conn.execute(
                    text("SELECT ensure_usage_partitions(:operator, :month)"),
                    {"operator": owner, "month": month},
                )

    @asynccontextmanager
    async def accept(self, names: Collection[LaneName]) -> AsyncIterator[LockedLanes]:
        async with self._database.intake() as conn:
            found = await conn.execute(_LOCKED, key_arrays(names, ("operators", "nodes", "lanes")))
            marks = {rows.lane_name(row): rows.mark(row) for row in found}
            for name, said in (await lane_keys.decided(conn, names)).items():
                marks[name] = replace(
                    marks[name], revoked=said.revoked, adopts=said.adopts, dropped=said.dropped
                )
            yield LockedLanes(conn, marks)

    async def set_aside(self, batches: Sequence[SetAside], at: datetime) -> None:
        async with self._database.intake() as conn:
            registered = set((await conn.execute(select(operator.c.operator))).scalars())
            # In one order, so that two workers with the same strays wait for each other and not each for the other.
            ordered = sorted(batches, key=lambda entry: entry.digest)
            strays = {entry.digest: rows.set_aside_row(entry, registered, at) for entry in ordered}
            # Taken up again and still nobody's: listed anew, by what is wrong with it now.
            await conn.execute(delete(set_aside).where(set_aside.c.digest.in_(strays)))
            await conn.execute(insert_or_not(set_aside).on_conflict_do_nothing(), list(strays.values()))

    async def aside_so_far(self, claimed: Collection[LaneName | None]) -> AsideSoFar:
        async with self._database.intake() as conn:
            kept = set_aside.c.code != NOT_KEPT
            in_all = (
                await conn.execute(select(func.count()).select_from(set_aside).where(kept))
            ).scalar_one()
            names = [name or LaneName("", "", "") for name in claimed]
            found = await conn.execute(_ASIDE_OF, key_arrays(names, ("operators", "nodes", "lanes")))
            of_lanes = {LaneName(*row[:3]): row[3] for row in found}
            return AsideSoFar(
                in_all, {name: of_lanes.get(name or LaneName("", "", ""), 0) for name in claimed}
            )

    async def count_aside(self, more: Mapping[LaneName | None, int], at: datetime) -> None:
        async with self._database.intake() as conn:
            await count_aside(conn, more.items(), at)

    async def due(
        self, now: datetime, limit: int, damaged: Collection[str] = (), failed: Collection[str] = ()
    ) -> Sequence[str]:
        async with self._database.intake() as conn:
            asked = {
                "now": now,
                "most": limit,
                "of_its_place": sorted(OF_ITS_PLACE),
                "damaged": list(damaged),
                "failed": list(failed),
            }
            return list((await conn.execute(_DUE, asked)).scalars())

    async def positions(self, source: str) -> Mapping[int, int]:
        async with self._database.intake() as conn:
            return await positions_of(conn, source)

    async def move(self, positions: Sequence[Position]) -> None:
        async with self._database.intake() as conn:
            await move(conn, positions)

    async def forget_set_aside(self, path: str) -> None:
        async with self._database.intake() as conn:
            await conn.execute(delete(set_aside).where(set_aside.c.path == path))

    def unchecked(self, limit: int, again_before: datetime) -> AbstractAsyncContextManager[LockedRoots]:
        return unchecked(self._database, limit, again_before)

    async def roll_up(self, now: datetime) -> int:
        return await roll_up(self._database, now)
