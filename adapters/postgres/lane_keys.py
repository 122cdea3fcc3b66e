"""Lanes and their keys in the database: enrolled by a sidecar, an import or a person; read by intake.

A lane's keys have ranks, 0 for the first. Which of them may sign is decided at acceptance, under the lane's lock
(billing/acceptance.py): here they are only kept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert as insert_or_not
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres.lane_ends import whole_us
from adapters.postgres.schema import lane, lane_key
from billing.inspection import Enrolment, LaneName
from metering.instant import time_text
from metering.note import key_hash
from metering.refusal import Refusal

_ENROLLED = text("""
    SELECT operator, node, lane, l.kind, array_agg(k.public_key ORDER BY k.rank) AS keys_
    FROM unnest(CAST(:operators AS text[]), CAST(:nodes AS text[]), CAST(:lanes AS text[])) AS w(operator, node, lane)
    JOIN lane l USING (operator, node, lane) JOIN lane_key k USING (operator, node, lane)
    GROUP BY operator, node, lane, l.kind
""")
#: The batch with which lane `l` is to go on from where it stands: the one named last that was not dropped since.
ADOPTS = """(SELECT d.hash FROM decision d
    WHERE (d.operator, d.node, d.lane) = (l.operator, l.node, l.lane)
        AND d.kind IN ('keep', 'accept_hole') AND d.after = coalesce(l.head, 'genesis')
        AND NOT EXISTS (SELECT FROM decision o
            WHERE (o.operator, o.node, o.lane, o.hash) = (d.operator, d.node, d.lane, d.hash) AND o.kind = 'drop')
    ORDER BY d.decided_at DESC, d.id LIMIT 1)"""
# A statement of its own after the locks: what a lock was waited for is seen only by a later one.
_DECIDED = text(f"""
    SELECT operator, node, lane,
        ARRAY(SELECT k.rank FROM lane_key k
            WHERE (k.operator, k.node, k.lane) = (l.operator, l.node, l.lane) AND k.revoked_at IS NOT NULL) AS revoked,
        {ADOPTS} AS adopts,
        ARRAY(SELECT d.hash FROM decision d
            WHERE (d.operator, d.node, d.lane) = (l.operator, l.node, l.lane) AND d.kind = 'drop') AS dropped
    FROM unnest(CAST(:operators AS text[]), CAST(:nodes AS text[]), CAST(:lanes AS text[])) AS w(operator, node, lane)
    JOIN lane l USING (operator, node, lane)
    WHERE EXISTS (SELECT FROM lane_key k
            WHERE (k.operator, k.node, k.lane) = (l.operator, l.node, l.lane) AND k.revoked_at IS NOT NULL)
        OR EXISTS (SELECT FROM decision d WHERE (d.operator, d.node, d.lane) = (l.operator, l.node, l.lane))
""")  # noqa: S608 - only an expression of our own is put in


@dataclass(frozen=True, slots=True)
class Decided:
    """What people decided about a lane: ranks of its revoked keys, the batch that it goes on with, if any, and those that
    never count.
    """

    revoked: frozenset[int]
    adopts: str | None
    dropped: frozenset[str]


async def enrolled(conn: AsyncConnection, names: Collection[LaneName]) -> Mapping[LaneName, Enrolment]:
    """Those of the lanes that are enrolled, with all of their keys."""
    found = await conn.execute(_ENROLLED, _columns(names))
    return {LaneName(*row[:3]): Enrolment(row.kind, tuple(bytes(key) for key in row.keys_)) for row in found}


async def decided(conn: AsyncConnection, names: Collection[LaneName]) -> Mapping[LaneName, Decided]:
    """What was decided about these lanes, which the transaction has locked; nothing of most."""
    found = await conn.execute(_DECIDED, _columns(names))
    return {
        LaneName(*row[:3]): Decided(frozenset(row.revoked), row.adopts, frozenset(row.dropped))
        for row in found
    }


async def enroll_lane(
    conn: AsyncConnection,
    owner: str,
    node: str,
    name: str,
    kind: str,
    public_key: bytes,
    at: datetime,
    made_at: datetime | None = None,
) -> None:
    """Enrols a lane with its first key; doing it again changes nothing, nor does it with a newer key of the lane.
    `made_at`: when its writer asked for that, if not now.

    Refusals: `lane_enrolled` where the lane is there without this key, or is of another kind; `key_revoked`;
    `key_superseded` where a seal of the lane's newer key was accepted.
    """
    where = f"{owner}/{node}/{name}"
    row: dict[str, Any] = {"operator": owner, "node": node, "lane": name}
    await conn.execute(
        insert_or_not(lane).values(row | {"kind": kind, "enrolled_at": at}).on_conflict_do_nothing()
    )
    await conn.execute(
        insert_or_not(lane_key)
        .values(_key_row(LaneName(owner, node, name), 0, public_key, at, made_at or at))
        .on_conflict_do_nothing()
    )
    query = (
        select(lane.c.kind, lane.c.key_rank, lane_key.c.rank, lane_key.c.revoked_at)
        .select_from(lane.join(lane_key))
        .where(
            lane.c.operator == owner,
            lane.c.node == node,
            lane.c.lane == name,
            lane_key.c.public_key == public_key,
        )
    )
    found = (await conn.execute(query)).one_or_none()
    if found is None or found.kind != kind:
        raise Refusal(
            "lane_enrolled",
            f"the lane is enrolled with another key, or not as a lane of kind {kind}",
            where=where,
            remedy="give this writer the lane's own key file, enrol its key with `tally node rotate`, or give it a lane"
            " of its own",
        )
    if found.revoked_at is not None:
        raise Refusal(
            "key_revoked",
            "the lane's key was revoked: what it seals would be held",
            where=where,
            remedy=f"`tally node rotate --node {node} --lane {name}` makes a new one",
        )
    if found.rank < found.key_rank:
        raise Refusal(
            "key_superseded",
            "a seal of the lane's newer key was accepted: what this one seals would be held",
            where=where,
            remedy="give this writer the newer key file; or, if that is lost,"
            f" `tally node rotate --node {node} --lane {name}`",
        )


async def add_key(
    conn: AsyncConnection, name: LaneName, public_key: bytes, at: datetime, made_at: datetime | None = None
) -> int:
    """Adds a key to an enrolled lane, behind its others; its rank. One that is there stays where it is.

    Refusals `unknown_lane`; `older_request`, where the lane's newest key was asked for after `made_at`.
    """
    made_at = made_at or at
    query = select(lane_key.c.rank, lane_key.c.public_key, lane_key.c.made_at).where(
        lane_key.c.operator == name.operator, lane_key.c.node == name.node, lane_key.c.lane == name.lane
    )
    rows = (await conn.execute(query)).all()
    ranks = {bytes(row.public_key): int(row.rank) for row in rows}
    if not ranks:
        raise Refusal(
            "unknown_lane",
            f"no lane {name} is enrolled",
            where=str(name),
            remedy="`tally node list` names them",
        )
    if public_key in ranks:
        return ranks[public_key]
    newest = max(row.made_at for row in rows)
    if made_at < newest:
        raise Refusal(
            "older_request",
            f"this key was asked for at {time_text(whole_us(made_at))}, and the lane's newest one later, at"
            f" {time_text(whole_us(newest))}",
            where=str(name),
            remedy="carry the node's newest request; if it really lost the newer key: set its clock right, and"
            f" `tally node rotate --node {name.node} --lane {name.lane}` there",
        )
    rank = max(ranks.values()) + 1
    await conn.execute(insert_or_not(lane_key).values(_key_row(name, rank, public_key, at, made_at)))
    return rank


def _key_row(name: LaneName, rank: int, public_key: bytes, at: datetime, made_at: datetime) -> dict[str, Any]:
    return {
        **name._asdict(),
        "rank": rank,
        "public_key": public_key,
        "key_hash": key_hash(str(name), public_key).hex(),
        "made_at": made_at,
        "enrolled_at": at,
    }


def _columns(names: Collection[Sequence[str]]) -> dict[str, list[str]]:
    operators, nodes, lanes = zip(*names, strict=True)
    return {"operators": list(operators), "nodes": list(nodes), "lanes": list(lanes)}
