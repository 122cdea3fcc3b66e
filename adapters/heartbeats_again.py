"""Heartbeats that have no leaf of their own, taken in again.

Of a quiet lane's heartbeats one an hour is a leaf (migrations/versions/0001_first.log.sql). The others are under it: its
seal names the one before, that the one before it, back to where the lane stands. So whoever replays a leaf takes in what
lies between first, out of the archive, in the order of the chain:

    the lane's mark ◀─ heartbeat ◀─ heartbeat ◀─ the batch of the next leaf

They were accepted, or what follows them would not have been; so a key that was revoked since, or what people decided
about the lane, is not asked again. When each was accepted stands nowhere: they get the instant of the leaf's batch. They
hold no usage, so nothing that is billed depends on it.

What lies in the archive behind a lane's newest leaf was accepted, too, or was about to be: intake puts there nothing else.
Its node may have let it go. So heartbeats that follow the mark are taken in, up to the first batch with events: whether
that came in time to be billed nobody knows any more, and its leaf went with the disk.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

from adapters.archive_reading import BatchReader, contents, lane_days
from adapters.archived_batches import ArchivedBatches
from adapters.nowhere import Nowhere
from adapters.postgres.dump import Connection
from adapters.postgres.intake import LockedLanes, PostgresLedger
from adapters.postgres.replay import OneTransaction
from billing.acceptance import AHEAD
from billing.inspection import Delivery, Enrolment, LaneName, inspect
from billing.intake import POLL_BATCHES, Intake
from billing.log import BatchLeaf
from billing.objects import Objects
from metering.batch import GENESIS, Seal, peek_seal, seal_hash
from metering.refusal import Refusal

_LANES = """
    SELECT node, lane, coalesce(epoch, '') AS epoch, coalesce(number, -1) AS number,
        coalesce(head, 'genesis') AS head, coalesce(complete_to, enrolled_at) AS since, ended
    FROM lane WHERE operator = $1
"""
_ADOPTED_AFTER = """
    SELECT after FROM decision
    WHERE (operator, node, lane, hash) = ($1, $2, $3, $4) AND kind IN ('keep', 'accept_hole')
    ORDER BY decided_at DESC
"""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class AsItWas(PostgresLedger):
    """The ledger for what was accepted once: what was decided about its lanes since is not asked."""

    @asynccontextmanager
    async def accept(self, names: Collection[LaneName]) -> AsyncIterator[LockedLanes]:
        async with super().accept(names) as locked:
            locked.marks = {
                name: replace(mark, revoked=frozenset(), adopts=None, dropped=frozenset())
                for name, mark in locked.marks.items()
            }
            yield locked


class Between:
    """Of one operator's lanes, what lies between their marks and the batches that are replayed."""

    def __init__(self, database: OneTransaction, raw: Connection, operator: str) -> None:
        self._database = database
        self._raw = raw
        self._operator = operator
        self._heads: dict[tuple[str, str], str] | None = None

    async def before(
        self, leaf: BatchLeaf, delivery: Delivery, batches: ArchivedBatches
    ) -> Sequence[Delivery]:
        """The heartbeats that the lane accepted between the last batch that was asked for and this one, in their order.

        None where nothing leads from the one to the other: intake then says what is missing. Refusal
        `archive_incomplete` where a seal on the way is not in the archive.
        """
        if self._heads is None:
            found = await self._raw.fetch(_LANES, self._operator)
            self._heads = {(row["node"], row["lane"]): row["head"] for row in found}
        name = (leaf.node, leaf.lane)
        last, self._heads[name] = self._heads.get(name, GENESIS), leaf.hash
        seal = peek_seal(delivery.note)
        if seal.previous == last:
            return []
        # Behind what it follows by a person's decision, if there is one, and not behind the seal that it names.
        rows = await self._raw.fetch(_ADOPTED_AFTER, self._operator, *name, leaf.hash)
        ends = [row["after"] for row in rows] or [seal.previous]
        for end in ends:
            chain = await asyncio.to_thread(_back, batches, seal, end, last)
            if chain is not None:
                return chain
        return []

    async def take(self, heartbeats: Sequence[Delivery], at: datetime) -> int:
        """Takes them in as accepted at `at`; returns how many. Refusal `replay_differs`."""
        nothing = Nowhere()
        intake = Intake(nothing, AsItWas(self._database), nothing, nothing, clock=lambda: at)
        for first in range(0, len(heartbeats), POLL_BATCHES):
            some = heartbeats[first : first + POLL_BATCHES]
            if (await intake.take(some)).accepted != len(some):
                seal = peek_seal(some[0].note)
                raise Refusal(
                    "replay_differs",
                    f"heartbeats that were accepted are not accepted again, at or after number {seal.number}",
                    where=f"{seal.node}/{seal.lane}/{seal.epoch}-{seal.number}",
                    remedy="restore the archive from its backup, or take an older backup of the database",
                )
        return len(heartbeats)


def _back(batches: ArchivedBatches, seal: Seal, end: str, last: str) -> list[Delivery] | None:
    """The heartbeats from behind `last` up to `end`, the newest of which `seal` follows; None if none lead there."""
    chain: list[Delivery] = []
    while end != last:
        if end == GENESIS:
            return None
        note = batches.note(end, seal)
        seal = peek_seal(note)
        if seal.events:
            return None
        chain.append(Delivery(note, b""))
        end = seal.previous
    return chain[::-1]


# -- Behind the newest leaf --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Lane:
    name: LaneName
    epoch: str
    number: int
    head: str
    since: date


async def heartbeats_behind(
    raw: Connection, database: OneTransaction, objects: Objects, operator: str, now: datetime
) -> list[Delivery]:
    """The archived heartbeats that follow the operator's lanes' marks, each lane's in its order."""
    rows = [row for row in await raw.fetch(_LANES, operator) if not row["ended"]]
    lanes = [
        _Lane(
            LaneName(operator, row["node"], row["lane"]),
            row["epoch"],
            row["number"],
            row["head"],
            row["since"].astimezone(UTC).date(),
        )
        for row in rows
    ]
    if not lanes:
        return []
    enrolled = await PostgresLedger(database).enrolled([lane.name for lane in lanes])
    return await asyncio.to_thread(_behind, objects, operator, lanes, enrolled, now)


def _behind(
    objects: Objects,
    operator: str,
    lanes: Sequence[_Lane],
    enrolled: Mapping[LaneName, Enrolment],
    now: datetime,
) -> list[Delivery]:
    wanted = {(lane.name.node, lane.name.lane): lane for lane in lanes}
    paths: dict[LaneName, list[str]] = defaultdict(list)
    since = min(lane.since for lane in lanes)
    for day in lane_days(objects, operator, since, (now + timedelta(days=1)).date()):
        lane = wanted.get((day.node, day.lane))
        if lane is None or day.day < lane.since:
            continue
        names = set(day.seals)
        if day.joined_seals:
            names |= {place.name for place in contents(objects, day).places}
        paths[lane.name] += [f"{day.folder}/{name}" for name in names if _may_follow(lane, name)]
    reader = BatchReader(objects)
    return [each for lane in lanes for each in _following(reader, lane, paths[lane.name], enrolled, now)]


def _may_follow(lane: _Lane, name: str) -> bool:
    epoch, number, _ = name.split("-")
    return epoch != lane.epoch or int(number) > lane.number


def _following(
    reader: BatchReader,
    lane: _Lane,
    paths: Sequence[str],
    enrolled: Mapping[LaneName, Enrolment],
    now: datetime,
) -> list[Delivery]:
    """What follows the lane's mark; it ends at a fork, which is for a person to decide."""
    named: dict[tuple[str, int], list[str]] = defaultdict(list)
    starts: dict[str, set[bytes]] = defaultdict(set)  # first seals of epochs, by the seal that they follow
    for path in sorted(paths):
        epoch, number, _ = path.rpartition("/")[2].split("-")
        named[epoch, int(number)].append(path)
        if number == "0" and (start := reader.note(path)) is not None:
            starts[peek_seal(start).previous].add(start)
    found: list[Delivery] = []
    epoch, at, head = lane.epoch, lane.number, lane.head
    while True:
        following = set(starts[head])
        for path in named[epoch, at + 1]:
            note = reader.note(path)
            if note is not None and peek_seal(note).previous == head:
                following.add(note)
        if len(following) != 1:
            return found
        delivery = Delivery(following.pop(), b"")
        seal = peek_seal(delivery.note)
        ends = _EPOCH + timedelta(microseconds=seal.complete_to_us)
        if seal.events or ends > now + AHEAD or not _is_vouched_for(delivery, enrolled):
            return found
        found.append(delivery)
        epoch, at, head = seal.epoch, seal.number, seal_hash(delivery.note)


def _is_vouched_for(delivery: Delivery, enrolled: Mapping[LaneName, Enrolment]) -> bool:
    try:
        return inspect(delivery, enrolled, with_root=False).fault is None
    except Refusal:
        return False
