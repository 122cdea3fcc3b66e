"""Nodes and their lanes' keys, as people administer them: enrolled, listed, revoked; as tally_app."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres.database import Database, take_lock
from adapters.postgres.decisions import decide
from adapters.postgres.lane_ends import whole_us
from adapters.postgres.lane_keys import add_key, enroll_lane
from adapters.postgres.schema import batch, lane, lane_key, node_key
from billing.acceptance import AHEAD
from billing.inspection import LaneName, Place
from billing.repair import REVOKE, Decision, LaneNow
from metering.batch import GENESIS
from metering.instant import time_text
from metering.refusal import Refusal

# What follows the last good seal in the lane's accepted chain, adopted batches too.
_ACCEPTED_BEHIND = text("""
    WITH RECURSIVE behind AS (
        SELECT b.* FROM batch b
            WHERE (b.operator, b.node, b.lane, b.previous) = (:operator, :node, :lane, :hash) AND NOT b.adopted
        UNION ALL
        SELECT b.* FROM behind JOIN batch b ON (b.operator, b.node, b.lane, b.previous)
            = (behind.operator, behind.node, behind.lane, behind.hash) AND NOT b.adopted)
    SELECT epoch, number, hash, accepted_at, events, requests FROM behind
""")


@dataclass(frozen=True, slots=True)
class GoodSeal:
    """The last good seal of a lane; `place` is None where none is good (`genesis`)."""

    place: Place | None
    hash: str


async def enrol_node(
    conn: AsyncConnection, operator: str, node: str, key: bytes, at: datetime, *, replaces: bool
) -> bool:
    """Enrols the node's key; False if it is there. Only with `replaces` another one takes the place of the newest.

    Requests of one node are taken one after another: of two at once the second sees what the first has enrolled.

    Refusal `another_node_key`.
    """
    await take_lock(conn, f"enrol/{operator}/{node}")
    query = select(node_key.c.rank, node_key.c.public_key).where(
        node_key.c.operator == operator, node_key.c.node == node
    )
    known = [bytes(row.public_key) for row in await conn.execute(query.order_by(node_key.c.rank))]
    if known and known[-1] == key:
        return False
    if known and (key in known or not replaces):
        raise Refusal(
            "another_node_key",
            f"{node} is enrolled with another key"
            + (", which took this one's place" if key in known else ""),
            where=node,
            remedy="find out who made this request; if the node's key is lost and this is its new one: --new-node-key",
        )
    row = {"operator": operator, "node": node, "rank": len(known), "public_key": key, "enrolled_at": at}
    await conn.execute(insert(node_key).values(row))
    return True


async def enrol_lanes(
    conn: AsyncConnection,
    operator: str,
    node: str,
    lanes: Sequence[tuple[str, bytes]],
    made_at: datetime,
    at: datetime,
) -> list[tuple[str, int]]:
    """Enrols sidecar lanes, or adds their new keys, as the node asked at `made_at`; each with the rank of its key.

    Refusals `ahead_of_time`, `older_request`, `key_revoked`, `key_superseded`, `lane_enrolled`.
    """
    if made_at > at + AHEAD:
        raise Refusal(
            "ahead_of_time",
            f"the request says that it was made at {time_text(whole_us(made_at))}, which is still to come",
            where=node,
            remedy="set the clocks right, and make the request anew",
        )
    query = select(lane.c.lane).where(lane.c.operator == operator, lane.c.node == node)
    known = set((await conn.execute(query)).scalars())
    ranks = []
    for name, key in lanes:
        found = LaneName(operator, node, name)
        if name in known:
            ranks.append((name, await add_key(conn, found, key, at, made_at)))
        else:
            ranks.append((name, 0))
        # Of a lane that is there this only asks whether its key still may sign.
        await enroll_lane(conn, operator, node, name, "sidecar", key, at, made_at)
    return ranks


async def good_seal(conn: AsyncConnection, name: LaneName, said: str) -> GoodSeal:
    """The accepted seal that `EPOCH-NUMBER-HASH` names, or `genesis`. Refusal `unknown_seal`."""
    if said == GENESIS:
        return GoodSeal(None, GENESIS)
    epoch, _, rest = said.partition("-")
    number, _, hash = rest.partition("-")
    if number.isdigit() and hash:
        query = select(batch.c.hash).where(
            batch.c.operator == name.operator,
            batch.c.node == name.node,
            batch.c.lane == name.lane,
            batch.c.epoch == epoch,
            batch.c.number == int(number),
            batch.c.hash == hash,
        )
        if (await conn.execute(query)).one_or_none() is not None:
            return GoodSeal(Place(epoch, int(number)), hash)
    raise Refusal(
        "unknown_seal",
        f"no accepted seal of {name} is {said}",
        where="--last",
        remedy="EPOCH-NUMBER-HASH of an accepted batch (its file's name in the archive), now, or genesis; what is good and"
        " not accepted yet is sealed again under the new key",
    )


async def revoke(
    database: Database, name: LaneName, last: str, key_hash: str | None, reason: str, at: datetime
) -> tuple[GoodSeal, list[str], list[dict[str, Any]]]:
    """Revokes the lane's keys, or the one of this hash: the last good seal, the keys' hashes, and what was accepted after
    that seal, which is never taken back. Refusals `unknown_seal`, `no_key`, `unknown_lane`.
    """
    good: list[GoodSeal] = []
    revoked: list[str] = []
    behind: list[dict[str, Any]] = []

    async def make(read: LaneNow) -> Sequence[Decision]:
        if last == "now":
            found = GoodSeal(read.place, read.head or GENESIS)
        else:
            async with database.app(name.operator) as conn:
                found = await good_seal(conn, name, last)
        good[:] = [found]
        hash = None if found.place is None else found.hash
        return [Decision(REVOKE, name, found.place, hash, reason)]

    async def change(conn: AsyncConnection) -> None:
        [found] = good
        values = {
            "revoked_at": at,
            "last_good_epoch": None if found.place is None else found.place.epoch,
            "last_good_number": None if found.place is None else found.place.number,
            "last_good_hash": found.hash,
        }
        of_lane = (
            lane_key.c.operator == name.operator,
            lane_key.c.node == name.node,
            lane_key.c.lane == name.lane,
        )
        one = () if key_hash is None else (lane_key.c.key_hash == key_hash,)
        changed = update(lane_key).where(*of_lane, *one, lane_key.c.revoked_at.is_(None)).values(values)
        revoked[:] = (await conn.execute(changed.returning(lane_key.c.key_hash))).scalars()
        if not revoked:
            raise Refusal(
                "no_key",
                "the lane has no such key that is not revoked",
                where=str(name),
                remedy="`tally node list` shows its keys",
            )
        rows = await conn.execute(_ACCEPTED_BEHIND, {**name._asdict(), "hash": found.hash})
        behind[:] = [dict(row._mapping) for row in rows]

    await decide(database, name, make, at, change)
    return good[0], revoked, behind


async def keys_of(conn: AsyncConnection) -> dict[LaneName, list[dict[str, Any]]]:
    """The keys of every lane that the connection sees, the first first."""
    found: dict[LaneName, list[dict[str, Any]]] = {}
    query = select(lane_key).order_by(lane_key.c.node, lane_key.c.lane, lane_key.c.rank)
    for row in await conn.execute(query):
        found.setdefault(LaneName(row.operator, row.node, row.lane), []).append(dict(row._mapping))
    return found


async def node_keys(conn: AsyncConnection) -> dict[str, bytes]:
    """Each node's newest key."""
    rows = await conn.execute(select(node_key).order_by(node_key.c.node, node_key.c.rank))
    return {row.node: bytes(row.public_key) for row in rows}
