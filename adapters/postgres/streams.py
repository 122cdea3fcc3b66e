"""Reads how the lanes stand, for `tally streams`: as tally_app, operator by operator."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres.database import INSTALLATION, Database
from adapters.postgres.intake_rows import lane_name
from adapters.postgres.schema import held, lane, set_aside
from billing.inspection import LaneName, Place
from billing.streams import AsideBatch, HeldBatch, MissingSibling, Stream, stream_document

# Who speaks for a node tells of its siblings' newest seals in its own; the newest of these that tell of any are asked.
_SIBLINGS = text("""
    WITH told AS (
        SELECT f.operator, f.node, f.content, f.ends, row_number() OVER (
            PARTITION BY f.node, f.content ->> 'lane' ORDER BY f.ends DESC, f.number DESC) AS age
        FROM (SELECT DISTINCT operator, node FROM lane) AS l CROSS JOIN LATERAL (
            SELECT * FROM seal_fact f
            WHERE (f.operator, f.kind, f.node) = (l.operator, 'sibling', l.node)
            ORDER BY f.ends DESC LIMIT 256) AS f)
    SELECT operator, node, content, ends FROM told
    WHERE age = 1 AND NOT EXISTS (SELECT FROM batch b
        WHERE (b.operator, b.node, b.lane, b.epoch, b.number, b.hash) = (told.operator, told.node,
            content ->> 'lane', content ->> 'epoch', (content ->> 'number')::bigint, content ->> 'hash'))
    ORDER BY node, content ->> 'lane'
""")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def read_streams(database: Database, now: datetime, operator: str | None = None) -> dict[str, object]:
    """The document of `tally streams`, of one operator, or of all. What no readable claim belongs to counts for all."""
    operators = [INSTALLATION, *await database.operators()] if operator is None else [operator]
    streams: list[Stream] = []
    aside: list[AsideBatch] = []
    siblings: list[MissingSibling] = []
    for owner in operators:
        async with database.app(owner, snapshot=True) as conn:
            found, strays = await _of_operator(conn)
            streams += found
            aside += strays
            siblings += await _missing_siblings(conn)
    return stream_document(streams, aside, now, siblings)


async def _missing_siblings(conn: AsyncConnection) -> list[MissingSibling]:
    """Lanes whose newest seal that a sibling told of is not accepted."""
    return [
        MissingSibling(row.operator, row.node, said_us=_whole_us(row.ends), **row.content)
        for row in await conn.execute(_SIBLINGS)
    ]


async def _of_operator(conn: AsyncConnection) -> tuple[list[Stream], list[AsideBatch]]:
    """The lanes that the connection sees, in their order, and the batches that are set aside, oldest first."""
    waiting: dict[LaneName, list[HeldBatch]] = defaultdict(list)
    for row in await conn.execute(select(held).order_by(held.c.held_at, held.c.epoch, held.c.number)):
        place = Place(row.epoch, row.number)
        waiting[lane_name(row)].append(HeldBatch(place, row.hash, row.previous, row.code, row.what))
    strays = [
        (lane_name(row), AsideBatch(row.operator, row.node, row.lane, row.code, row.what, row.path))
        for row in await conn.execute(select(set_aside).order_by(set_aside.c.seen_at, set_aside.c.digest))
    ]
    aside = Counter(name for name, _ in strays)
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
            )
        )
    return streams, [stray for _, stray in strays]


def _microseconds(instant: datetime | None) -> int | None:
    return None if instant is None else _whole_us(instant)


def _whole_us(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(microseconds=1)
