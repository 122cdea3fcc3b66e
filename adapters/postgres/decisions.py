"""What people decided about lanes, written down as tally_app; intake acts on it under the lane's lock.

A decision is made about a lane as it was read. Its row's foreign key waits for whoever has the lane locked and keeps the
lane until the commit; the lane is then read again, and where it is not what was decided about (a batch was accepted,
another one held), nothing is kept and the decision is made anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres.database import Database
from adapters.postgres.lane_ends import whole_us
from adapters.postgres.schema import batch, decision, lane
from adapters.postgres.streams import held_of
from billing.inspection import LaneName, Place
from billing.repair import DROP, Decision, LaneNow
from metering.identity import new_id
from metering.refusal import Refusal, Unavailable

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TRIES = 20
_TAKEN = text("""
    SELECT DISTINCT b.epoch, b.number FROM batch b JOIN held h USING (operator, node, lane, epoch, number)
    WHERE (b.operator, b.node, b.lane) = (:operator, :node, :lane)
""")


async def named_lane(
    database: Database, operators: Sequence[str], node: str | None, name: str | None
) -> LaneName:
    """The one lane that is meant. Refusals `unknown_lane`, `which_lane`."""
    found: list[LaneName] = []
    for operator in operators:
        async with database.app(operator) as conn:
            query = select(lane.c.operator, lane.c.node, lane.c.lane).where(lane.c.operator == operator)
            rows = await conn.execute(query.order_by(lane.c.node, lane.c.lane))
            found += [LaneName(*row) for row in rows if node in (None, row.node) and name in (None, row.lane)]
    if len(found) == 1:
        return found[0]
    raise Refusal(
        "which_lane" if found else "unknown_lane",
        f"several lanes are meant: {', '.join(map(str, found[:20]))}"
        if found
        else "no such lane is enrolled",
        where="--node, --lane",
        remedy="name operator, node and lane; `tally node list` has them",
    )


async def decide(
    database: Database,
    name: LaneName,
    make: Callable[[LaneNow], Awaitable[Sequence[Decision]]],
    at: datetime,
    also: Callable[[AsyncConnection], Awaitable[None]] | None = None,
) -> Sequence[Decision]:
    """Writes down what `make` decides about the lane as it stands; `also` changes more in the same transaction.

    Raises Unavailable `lane_moves` where batches come faster than a decision can be made.
    """
    for _ in range(_TRIES):
        async with database.app(name.operator) as conn:
            read = await lane_now(conn, name)
        decisions = await make(read)
        dropped = {each.hash for each in decisions if each.kind == DROP}
        left = replace(read, held=tuple(each for each in read.held if each.hash not in dropped))
        try:
            async with database.app(name.operator) as conn:
                await conn.execute(insert(decision), [_row(each, at) for each in decisions])
                if await lane_now(conn, name) != left:
                    raise _MovedError
                if also is not None:
                    await also(conn)
            return decisions
        except _MovedError:
            await asyncio.sleep(0.05)
    raise Unavailable(
        "lane_moves",
        "batches of the lane come faster than it can be decided about",
        where=str(name),
        remedy="try again",
    )


async def add_decision(conn: AsyncConnection, made: Decision, at: datetime) -> None:
    """Writes down a decision that does not depend on how the lane stands."""
    await conn.execute(insert(decision), [_row(made, at)])


async def lane_now(conn: AsyncConnection, name: LaneName) -> LaneNow:
    """The lane as it stands, with what is held of it and not decided on. Refusal `unknown_lane`."""
    query = select(lane).where(
        lane.c.operator == name.operator, lane.c.node == name.node, lane.c.lane == name.lane
    )
    row = (await conn.execute(query)).one_or_none()
    if row is None:
        raise Refusal("unknown_lane", f"no lane {name} is enrolled", remedy="`tally node list` has them")
    taken = await conn.execute(_TAKEN, name._asdict())
    return LaneNow(
        name=name,
        kind=row.kind,
        place=None if row.epoch is None else Place(row.epoch, row.number),
        head=row.head,
        complete_to_us=None if row.complete_to is None else whole_us(row.complete_to),
        last_sequence=row.last_sequence,
        ended=row.ended,
        held=tuple(each for _, each in await held_of(conn, name)),
        taken=frozenset(Place(found.epoch, found.number) for found in taken),
    )


async def paths_of_numbers(
    conn: AsyncConnection, name: LaneName, epoch: str, first: int, last: int
) -> list[str]:
    """Where the accepted batches lie that hold events of these sequence numbers."""
    query = select(batch.c.path).where(
        batch.c.operator == name.operator,
        batch.c.node == name.node,
        batch.c.lane == name.lane,
        batch.c.epoch == epoch,
        batch.c.events > 0,
        batch.c.first <= last,
        batch.c.last >= first,
    )
    return list((await conn.execute(query.order_by(batch.c.number))).scalars())


class _MovedError(Exception):
    """The lane is not what was decided about."""


def _row(made: Decision, at: datetime) -> dict[str, object]:
    lost = made.lost
    return {
        **made.name._asdict(),
        "id": UUID(bytes=new_id()),
        "kind": made.kind,
        "epoch": None if made.place is None else made.place.epoch,
        "number": None if made.place is None else made.place.number,
        "hash": made.hash,
        "after": made.after,
        "begins": None if lost is None else _EPOCH + timedelta(microseconds=lost.begins_us),
        "ends": None if lost is None else _EPOCH + timedelta(microseconds=lost.ends_us),
        "requests": None if lost is None else lost.requests,
        "reason": made.reason,
        "decided_at": at,
    }
