"""Intake's SQL: the ledger that decides which batch is accepted, once.

All of it runs as `tally_intake`. The lanes of a transaction are locked in key order, so that two workers wait for each
other in one direction only; under READ COMMITTED the lock's row is the newest. Nothing is incremented: a transaction
appends to the list of batches and to the partial sums, and moves the mark of the lanes that it holds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import date, datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import delete, func, insert, select, text
from sqlalchemy.dialects.postgresql import insert as insert_or_not
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres import intake_rows as rows
from adapters.postgres import lane_keys
from adapters.postgres.copying import copy_table
from adapters.postgres.database import Database
from adapters.postgres.kafka_positions import move, positions_of
from adapters.postgres.partial_sums import copy_cells
from adapters.postgres.roll_up import roll_up
from adapters.postgres.roots import LockedRoots, unchecked
from adapters.postgres.schema import batch, held, late_bound, operator, partial_hour, seal_fact, set_aside
from billing.acceptance import OF_ITS_PLACE, Known, Mark
from billing.aside import NOT_KEPT
from billing.inspection import Enrolment, LaneName, Place
from billing.intake_ports import AsideSoFar, Held, Lateness, Position, SetAside, StaleSoFar, Taking
from billing.period import Period
from metering.batch import Seal
from metering.enrolment import MAX_LANES

# Lists of keys travel as one array a column: unnest keeps one statement for any number of them.
_LOCKED = text("""
    SELECT l.*
    FROM unnest(CAST(:operators AS text[]), CAST(:nodes AS text[]), CAST(:lanes AS text[])) AS w(operator, node, lane)
    JOIN lane l USING (operator, node, lane) ORDER BY operator, node, lane FOR UPDATE OF l
""")
# Two look-ups, one by each unique key; one join with OR would use neither.
_KNOWN = text("""
    WITH w AS (SELECT * FROM unnest(CAST(:operators AS text[]), CAST(:nodes AS text[]), CAST(:lanes AS text[]),
            CAST(:epochs AS text[]), CAST(:numbers AS bigint[]), CAST(:previous AS text[]))
        AS w(operator, node, lane, epoch, number, previous))
    SELECT b.operator, b.node, b.lane, b.epoch, b.number, b.hash, b.previous
        FROM w JOIN batch b USING (operator, node, lane, epoch, number)
    UNION
    SELECT b.operator, b.node, b.lane, b.epoch, b.number, b.hash, b.previous
        FROM w JOIN batch b ON (b.operator, b.node, b.lane, b.epoch, b.number)
            = (w.operator, w.node, w.lane, w.epoch, w.number - 1)
    UNION
    SELECT b.operator, b.node, b.lane, b.epoch, b.number, b.hash, b.previous
        FROM w JOIN batch b USING (operator, node, lane, previous) WHERE NOT b.adopted
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
_HELD = text("""
    SELECT h.path
    FROM unnest(CAST(:operators AS text[]), CAST(:nodes AS text[]), CAST(:lanes AS text[]),
            CAST(:epochs AS text[]), CAST(:numbers AS bigint[]), CAST(:hashes AS text[]))
        AS w(operator, node, lane, epoch, number, hash)
    JOIN held h USING (operator, node, lane, epoch, number, hash)
""")
_ASIDE_OF = text("""
    SELECT s.claimed, s.node, s.lane, count(*)
    FROM unnest(CAST(:operators AS text[]), CAST(:nodes AS text[]), CAST(:lanes AS text[])) AS w(claimed, node, lane)
    JOIN set_aside s ON (s.claimed, s.node, s.lane) = (w.claimed, w.node, w.lane) AND s.code <> 'not_kept'
    GROUP BY s.claimed, s.node, s.lane
""")
# A row a lane, however often it is told of. A node has only so many lanes: what is told of beyond them is not listed, and
# nothing vanishes by that, for so many are not enrolled then.
_TOLD = text("""
    INSERT INTO sibling AS s (operator, node, lane, epoch, number, hash, first_told, told)
    SELECT :operator, :node, :lane, :epoch, CAST(:number AS bigint), :hash,
        CAST(:first_told AS timestamptz), CAST(:told AS timestamptz)
    WHERE (SELECT count(*) FROM sibling o WHERE (o.operator, o.node) = (:operator, :node) AND o.lane <> :lane) < :most
    ON CONFLICT (operator, node, lane) DO UPDATE SET
        first_told = least(s.first_told, excluded.first_told), told = greatest(s.told, excluded.told),
        epoch = CASE WHEN excluded.told >= s.told THEN excluded.epoch ELSE s.epoch END,
        number = CASE WHEN excluded.told >= s.told THEN excluded.number ELSE s.number END,
        hash = CASE WHEN excluded.told >= s.told THEN excluded.hash ELSE s.hash END
""")
_STALE = text("""
    SELECT operator, node, lane, count(*) AS held,
        coalesce(array_agg(h.hash) FILTER (WHERE h.hash = ANY (CAST(:hashes AS text[]))), '{}') AS listed
    FROM unnest(CAST(:operators AS text[]), CAST(:nodes AS text[]), CAST(:lanes AS text[])) AS w(operator, node, lane)
    JOIN held h USING (operator, node, lane) JOIN lane l USING (operator, node, lane)
    WHERE h.key_rank < l.key_rank OR EXISTS (SELECT FROM lane_key k
        WHERE (k.operator, k.node, k.lane, k.rank) = (h.operator, h.node, h.lane, h.key_rank) AND k.revoked_at IS NOT NULL)
    GROUP BY operator, node, lane
""")
_SETTLED = text("""
    DELETE FROM held h USING unnest(CAST(:operators AS text[]), CAST(:nodes AS text[]), CAST(:lanes AS text[]),
            CAST(:epochs AS text[]), CAST(:numbers AS bigint[]), CAST(:hashes AS text[]))
        AS w(operator, node, lane, epoch, number, hash)
    WHERE (h.operator, h.node, h.lane, h.epoch, h.number, h.hash)
        = (w.operator, w.node, w.lane, w.epoch, w.number, w.hash)
    RETURNING h.path
""")
_ZONES = text("SELECT operator, zone FROM operator_zones(CAST(:operators AS text[]))")
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
            found = await conn.execute(_LOCKED, _columns(names, ("operators", "nodes", "lanes")))
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
            found = await conn.execute(_ASIDE_OF, _columns(names, ("operators", "nodes", "lanes")))
            of_lanes = {LaneName(*row[:3]): row[3] for row in found}
            return AsideSoFar(
                in_all, {name: of_lanes.get(name or LaneName("", "", ""), 0) for name in claimed}
            )

    async def count_aside(self, more: Mapping[LaneName | None, int], at: datetime) -> None:
        async with self._database.intake() as conn:
            await _count_aside(conn, more.items(), at)

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


class LockedLanes:
    """`billing.intake_ports.Acceptance`: one transaction that holds its lanes' rows."""

    def __init__(self, conn: AsyncConnection, marks: Mapping[LaneName, Mark]) -> None:
        self._conn = conn
        self.marks = marks

    async def known(self, wanted: Sequence[Seal]) -> Mapping[LaneName, Known]:
        places: dict[LaneName, dict[Place, str]] = {name: {} for name in self.marks}
        successors: dict[LaneName, dict[str, tuple[Place, str]]] = {name: {} for name in self.marks}
        names = ("operators", "nodes", "lanes", "epochs", "numbers", "previous")
        asked = [(s.operator, s.node, s.lane, s.epoch, s.number, s.previous) for s in wanted]
        for row in await self._conn.execute(_KNOWN, _columns(asked, names)):
            name, place = rows.lane_name(row), Place(row.epoch, row.number)
            places[name][place] = row.hash
            successors[name][row.previous] = (place, row.hash)
        return {name: Known(places[name], successors[name]) for name in self.marks}

    async def lateness(self, operators: Collection[str]) -> Mapping[str, Lateness]:
        wanted = list(operators)
        zones = {row.operator: row.zone for row in await self._conn.execute(_ZONES, {"operators": wanted})}
        bounds: dict[str, dict[Period, datetime]] = {owner: {} for owner in wanted}
        query = select(late_bound).where(late_bound.c.operator.in_(wanted))
        for row in await self._conn.execute(query):
            bounds[row.operator][Period.parse(row.period)] = row.late_after
        # An operator without a site file has no period yet, and so no bound either.
        return {owner: Lateness(ZoneInfo(zones.get(owner) or "UTC"), bounds[owner]) for owner in wanted}

    async def stale(self, hashes: Mapping[LaneName, Collection[str]]) -> Mapping[LaneName, StaleSoFar]:
        asked = _columns(hashes.keys(), ("operators", "nodes", "lanes"))
        asked["hashes"] = [each for of_lane in hashes.values() for each in of_lane]
        found = await self._conn.execute(_STALE, asked)
        so_far = {rows.lane_name(row): StaleSoFar(row.held, frozenset(row.listed)) for row in found}
        return {name: so_far.get(name, StaleSoFar()) for name in hashes}

    async def write(self, taking: Taking, accepted_at: datetime) -> Sequence[str]:
        settled = await self._settle(taking)
        if taking.accepted:
            await self._conn.execute(
                insert(batch), [rows.batch_row(entry, accepted_at) for entry in taking.accepted]
            )
            moves = [rows.mark_row(name, mark, accepted_at) for name, mark in taking.marks.items()]
            await self._conn.execute(rows.MOVE_MARK, moves)
            facts = [row for entry in taking.accepted for row in rows.fact_rows(entry)]
            if facts:
                await self._conn.execute(insert(seal_fact), facts)
            told = rows.sibling_rows(taking.accepted)
            if told:
                await self._conn.execute(_TOLD, [row | {"most": MAX_LANES} for row in told])
            await copy_table(self._conn, "seal_sum", rows.sum_rows(taking.accepted))
        for owner, table in taking.cells.items():
            await copy_cells(self._conn, owner, table)
            await self._conn.execute(insert(partial_hour), rows.hour_rows(owner, table))
        superfluous = await self._hold(taking.held, accepted_at) if taking.held else set()
        if taking.beyond:
            await _count_aside(self._conn, taking.beyond.items(), accepted_at)
        await move(self._conn, taking.positions)
        still = {entry.path for entry in taking.held}
        return sorted(set(settled) - still | superfluous)

    async def _hold(self, entries: Sequence[Held], held_at: datetime) -> set[str]:
        """Lists them, each batch once; returns the paths of copies that another one stands for.

        A whole batch takes the place of a damaged copy, and what it waits for is said anew: a hole may have become a fork.
        A damaged copy is listed where there is nothing else: anybody may put any body under a seal that he has seen.
        """
        names = ("operators", "nodes", "lanes", "epochs", "numbers", "hashes")
        keys = _columns(
            [(*entry.inspected.name, *entry.inspected.place, entry.inspected.hash) for entry in entries],
            names,
        )
        lying = set((await self._conn.execute(_HELD, keys)).scalars()) | {entry.path for entry in entries}
        anew = insert_or_not(held)
        said = {name: anew.excluded[name] for name in ("code", "what", "path", "due_at", "missing")}
        whole = [rows.held_row(entry, held_at) for entry in entries if entry.is_whole]
        damaged = [rows.held_row(entry, held_at) for entry in entries if not entry.is_whole]
        if damaged:
            await self._conn.execute(anew.on_conflict_do_nothing(), damaged)
        if whole:
            await self._conn.execute(
                anew.on_conflict_do_update(index_elements=list(held.primary_key), set_=said), whole
            )
        return lying - set((await self._conn.execute(_HELD, keys)).scalars())

    async def _settle(self, taking: Taking) -> list[str]:
        if not taking.settled:
            return []
        names = ("operators", "nodes", "lanes", "epochs", "numbers", "hashes")
        keys = [(*name, *place, seal_hash) for name, place, seal_hash in taking.settled]
        return list((await self._conn.execute(_SETTLED, _columns(keys, names))).scalars())


async def _count_aside(
    conn: AsyncConnection, more: Iterable[tuple[LaneName | None, int]], at: datetime
) -> None:
    row = insert_or_not(set_aside)
    beyond = {"batches": set_aside.c.batches + row.excluded.batches, "seen_at": row.excluded.seen_at}
    upsert = row.on_conflict_do_update(index_elements=["operator", "digest"], set_=beyond)
    by_key = sorted(more, key=lambda item: item[0] or LaneName("", "", ""))
    await conn.execute(upsert, [rows.not_kept_row(name, count, at) for name, count in by_key])


def _columns(keys: Collection[Sequence[object]], names: Sequence[str]) -> dict[str, list[object]]:
    """Rows as one array per column, for unnest."""
    return dict(zip(names, map(list, zip(*keys, strict=True)), strict=True))
