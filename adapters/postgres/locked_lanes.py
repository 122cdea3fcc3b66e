"""The transaction in which batches are accepted: its lanes are locked, and all that it writes is committed at once.

The SQL of `billing.intake_ports.Acceptance`; which lanes are locked, and by whom, stands in `adapters.postgres.intake`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from sqlalchemy import insert, select, text
from sqlalchemy.dialects.postgresql import insert as insert_or_not
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres import intake_rows as rows
from adapters.postgres.copying import copy_table
from adapters.postgres.kafka_positions import move
from adapters.postgres.partial_sums import copy_cells
from adapters.postgres.schema import batch, held, late_bound, partial_hour, seal_fact, set_aside
from billing.acceptance import Known, Mark
from billing.inspection import LaneName, Place
from billing.intake_ports import Held, Lateness, StaleSoFar, Taking
from billing.period import Period
from metering.batch import Seal
from metering.enrolment import MAX_LANES

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
_HELD = text("""
    SELECT h.path
    FROM unnest(CAST(:operators AS text[]), CAST(:nodes AS text[]), CAST(:lanes AS text[]),
            CAST(:epochs AS text[]), CAST(:numbers AS bigint[]), CAST(:hashes AS text[]))
        AS w(operator, node, lane, epoch, number, hash)
    JOIN held h USING (operator, node, lane, epoch, number, hash)
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
        for row in await self._conn.execute(_KNOWN, key_arrays(asked, names)):
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
        asked = key_arrays(hashes.keys(), ("operators", "nodes", "lanes"))
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
            await count_aside(self._conn, taking.beyond.items(), accepted_at)
        await move(self._conn, taking.positions)
        still = {entry.path for entry in taking.held}
        return sorted(set(settled) - still | superfluous)

    async def _hold(self, entries: Sequence[Held], held_at: datetime) -> set[str]:
        """Lists them, each batch once; returns the paths of copies that another one stands for.

        A whole batch takes the place of a damaged copy, and what it waits for is said anew: a hole may have become a fork.
        A damaged copy is listed where there is nothing else: anybody may put any body under a seal that he has seen.
        """
        names = ("operators", "nodes", "lanes", "epochs", "numbers", "hashes")
        keys = key_arrays(
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
        return list((await self._conn.execute(_SETTLED, key_arrays(keys, names))).scalars())


async def count_aside(
    conn: AsyncConnection, more: Iterable[tuple[LaneName | None, int]], at: datetime
) -> None:
    """Counts batches that are not kept, by the lane that they claim."""
    row = insert_or_not(set_aside)
    beyond = {"batches": set_aside.c.batches + row.excluded.batches, "seen_at": row.excluded.seen_at}
    upsert = row.on_conflict_do_update(index_elements=["operator", "digest"], set_=beyond)
    by_key = sorted(more, key=lambda item: item[0] or LaneName("", "", ""))
    await conn.execute(upsert, [rows.not_kept_row(name, count, at) for name, count in by_key])


def key_arrays(keys: Collection[Sequence[object]], names: Sequence[str]) -> dict[str, list[object]]:
    """Keys as one array a part of theirs, by its name: with unnest one statement stays one for any number of keys."""
    return dict(zip(names, map(list, zip(*keys, strict=True)), strict=True))
