"""Reads how the lanes stand, for `tally streams`: as tally_app, operator by operator."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Set
from datetime import datetime

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres.database import INSTALLATION, Database
from adapters.postgres.intake_rows import lane_name
from adapters.postgres.lane_ends import is_dropped, is_stale, whole_us
from adapters.postgres.roots import faulty_roots
from adapters.postgres.schema import decision, held, lane
from adapters.postgres.strays import strays
from adapters.postgres.unfinished_imports import unfinished_imports
from billing.held_cases import HeldBatch
from billing.inspection import LaneName, Place
from billing.streams import AsideBatch, FaultyRoot, MissingSibling, Stream, stream_document
from billing.unfinished_import import UnfinishedImport

# Who speaks for a node tells of its siblings' newest seals in its own.
_SIBLINGS = text("""
    SELECT s.* FROM sibling s
    WHERE NOT EXISTS (SELECT FROM batch b WHERE (b.operator, b.node, b.lane, b.epoch, b.number, b.hash)
        = (s.operator, s.node, s.lane, s.epoch, s.number, s.hash))
    ORDER BY s.node, s.lane
""")
_STATES = text("""
    SELECT l.operator, l.node, l.lane,
        EXISTS (SELECT FROM decision d WHERE (d.operator, d.node, d.lane) = (l.operator, l.node, l.lane)
            AND d.kind = 'retire' AND d.hash IS NOT DISTINCT FROM l.head) AS retired,
        NOT EXISTS (SELECT FROM lane_key k WHERE (k.operator, k.node, k.lane) = (l.operator, l.node, l.lane)
            AND k.revoked_at IS NULL) AS revoked
    FROM lane l
""")


async def read_streams(database: Database, now: datetime, operator: str | None = None) -> dict[str, object]:
    """The document of `tally streams`, of one operator, or of all. What no readable claim belongs to counts for all."""
    operators = [INSTALLATION, *await database.operators()] if operator is None else [operator]
    streams: list[Stream] = []
    aside: list[AsideBatch] = []
    siblings: list[MissingSibling] = []
    roots: list[FaultyRoot] = []
    unfinished: list[UnfinishedImport] = []
    for owner in operators:
        async with database.app(owner, snapshot=True) as conn:
            begun = await unfinished_imports(conn, owner)
            unfinished += begun
            of_lanes, of_nobody = await _of_operator(
                conn, {LaneName(owner, each.node, lane) for each in begun for lane in each.lanes}
            )
            streams += of_lanes
            aside += of_nobody
            siblings += await _missing_siblings(conn)
            roots += [
                FaultyRoot(batch.name, batch.place, batch.hash, batch.fault or "", whole_us(since))
                for batch, since in await faulty_roots(conn)
            ]
    return stream_document(streams, aside, now, siblings, roots, unfinished)


async def _missing_siblings(conn: AsyncConnection) -> list[MissingSibling]:
    """Lanes whose newest seal that a sibling told of is not accepted."""
    return [
        MissingSibling(*lane_name(row), row.epoch, row.number, row.hash, said_us=whole_us(row.told))
        for row in await conn.execute(_SIBLINGS)
    ]


async def held_of(conn: AsyncConnection, name: LaneName | None = None) -> list[tuple[LaneName, HeldBatch]]:
    """What is held and nobody decided against, of one lane or of all that the connection sees; oldest first."""
    query = select(held, is_stale().label("is_stale")).where(~is_dropped())
    if name is not None:
        query = query.where(
            held.c.operator == name.operator, held.c.node == name.node, held.c.lane == name.lane
        )
    return [
        (
            lane_name(row),
            HeldBatch(
                Place(row.epoch, row.number),
                row.hash,
                row.previous,
                row.code,
                row.what,
                row.path,
                row.is_stale,
            ),
        )
        for row in await conn.execute(query.order_by(held.c.held_at, held.c.epoch, held.c.number))
    ]


async def _of_operator(
    conn: AsyncConnection, unfinished: Set[LaneName]
) -> tuple[list[Stream], list[AsideBatch]]:
    """The lanes that the connection sees, in their order, and the batches that are set aside and not dismissed."""
    waiting: dict[LaneName, list[HeldBatch]] = defaultdict(list)
    for name, batch in await held_of(conn):
        waiting[name].append(batch)
    found = await strays(conn)
    aside = Counter[LaneName]()
    for stray in found:
        aside[LaneName(stray.operator, stray.node, stray.lane)] += stray.batches
    dropped: dict[LaneName, set[str]] = defaultdict(set)
    for row in await conn.execute(select(decision).where(decision.c.kind == "drop")):
        dropped[lane_name(row)].add(row.hash)
    state = {lane_name(row): (row.retired, row.revoked) for row in await conn.execute(_STATES)}
    streams = []
    for row in await conn.execute(select(lane).order_by(lane.c.operator, lane.c.node, lane.c.lane)):
        name = lane_name(row)
        streams.append(
            Stream(
                name=name,
                kind=row.kind,
                place=None if row.epoch is None else Place(row.epoch, row.number),
                complete_to_us=_microseconds(row.complete_to),
                ended=row.ended,
                held=waiting[name],
                set_aside=aside[name],
                enrolled_us=whole_us(row.enrolled_at),
                retired=state[name][0],
                revoked=state[name][1],
                dropped=frozenset(dropped[name]),
                unfinished=name in unfinished,
            )
        )
    return streams, found


def _microseconds(instant: datetime | None) -> int | None:
    return None if instant is None else whole_us(instant)
