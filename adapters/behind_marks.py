"""What the archive holds behind the lanes' marks, taken in: accepted, and covered by no checkpoint.

A batch is archived, committed and acknowledged up to a second before a checkpoint covers it, and for as long as signing
stands still. Its leaf goes with the database; its node has let it go. But intake puts a batch into the archive only once
it follows its lane's mark, under the lane's lock and after every check. So what follows a lane's mark there was accepted,
or would have been:

    the lane's mark ◀─ batch ◀─ batch ◀─ …        up to the end of the chain, each through intake, as at any time

Nobody is asked: whatever intake takes it would take from the node as well, and what comes again is a repeat. It gets a new
leaf, for the old one is lost. When it had been accepted is lost, too, so it counts as accepted now. That decides one thing
only: whether usage is too late to be billed (`late`). Now is the latest that it can have been, so nothing is billed that
should not be; where a period's bound passed between the newest leaf and now, the period is named, for what came just in
time then shows as reported and not billed.

A chain ends where two batches follow one seal, or where intake refuses the next: both are named, nothing of them is
taken, and `tally restore` goes on there once what it says is mended (an unknown customer, a lane to be enrolled again).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from adapters.archive_reading import BatchReader, LaneDay, contents, lane_days
from adapters.heartbeats_again import AsItWas
from adapters.nowhere import Nowhere
from adapters.postgres.dump import Connection
from adapters.postgres.intake import PostgresLedger
from adapters.postgres.replay import OneTransaction
from adapters.postgres.replayed import why_not_accepted
from billing.inspection import Delivery, LaneName
from billing.intake import Intake
from billing.objects import Objects
from metering.batch import GENESIS, Seal, peek_seal, seal_hash
from metering.refusal import Refusal

_LANES = """
    SELECT node, lane, coalesce(epoch, '') AS epoch, coalesce(number, -1) AS number,
        coalesce(head, 'genesis') AS head, complete_to, ended
    FROM lane WHERE operator = $1 ORDER BY node, lane
"""
_DECISIONS = "SELECT node, lane, kind, hash, after FROM decision WHERE operator = $1 ORDER BY decided_at"
_AT_ONCE = 50  # batches that intake takes together: 45 MB of bodies at most


@dataclass(frozen=True, slots=True)
class Left:
    """An archived batch, or a lane of them, that was not taken in, and why."""

    what: str
    where: str


@dataclass(slots=True)
class Taken:
    """What was taken in behind the marks of one operator's lanes."""

    batches: int = 0
    heartbeats: int = 0
    events: int = 0
    left: list[Left] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Lane:
    """A lane's mark, and what people decided: the batch it goes on with behind a seal, and those that never count."""

    name: LaneName
    epoch: str
    number: int
    head: str
    since: date | None
    adopts: Mapping[str, str]
    dropped: frozenset[str]

    def may_follow(self, name: str) -> bool:
        epoch, number, _ = name.split("-")
        return epoch != self.epoch or int(number) > self.number


async def take_behind_marks(
    raw: Connection, database: OneTransaction, objects: Objects, operator: str, now: datetime
) -> Taken:
    """Takes in what follows the operator's lanes' marks in the archive, in the open transaction, as accepted at `now`."""
    taken = Taken()
    lanes, ended = await _lanes(raw, operator)
    paths, strange = await asyncio.to_thread(_paths, objects, operator, lanes, ended)
    taken.left += [
        Left("batches of a lane that is not enrolled; enrol it again, then restore again", f"{operator}/{at}")
        for at in strange
    ]
    reader = BatchReader(objects)
    for lane in lanes.values():
        if paths[lane.name]:
            await _take_lane(raw, database, objects, reader, lane, paths[lane.name], now, taken)
    return taken


async def _lanes(raw: Connection, operator: str) -> tuple[dict[tuple[str, str], _Lane], set[tuple[str, str]]]:
    """The lanes that may go on, and those that ended."""
    adopts: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    dropped: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in await raw.fetch(_DECISIONS, operator):
        if row["kind"] == "drop":
            dropped[row["node"], row["lane"]].add(row["hash"])
        elif row["kind"] in ("keep", "accept_hole"):
            adopts[row["node"], row["lane"]][row["after"]] = row["hash"]
    found: dict[tuple[str, str], _Lane] = {}
    ended: set[tuple[str, str]] = set()
    for row in await raw.fetch(_LANES, operator):
        at = (row["node"], row["lane"])
        if row["ended"]:
            ended.add(at)
            continue
        complete_to = row["complete_to"]
        since = None if complete_to is None else complete_to.astimezone(UTC).date()
        found[at] = _Lane(
            LaneName(operator, *at),
            row["epoch"],
            row["number"],
            row["head"],
            since,
            adopts[at],
            frozenset(dropped[at]),
        )
    return found, ended


def _paths(
    objects: Objects,
    operator: str,
    lanes: Mapping[tuple[str, str], _Lane],
    ended: set[tuple[str, str]],
) -> tuple[dict[LaneName, list[str]], list[str]]:
    """Paths of archived batches that may lie behind a mark, by lane; and the lanes that nobody enrolled."""
    paths: dict[LaneName, list[str]] = defaultdict(list)
    strange: set[str] = set()
    for day in lane_days(objects, operator):
        lane = lanes.get((day.node, day.lane))
        if lane is None:
            if (day.node, day.lane) not in ended:
                strange.add(f"{day.node}/{day.lane}")
        elif lane.since is None or day.day >= lane.since:
            paths[lane.name] += [
                f"{day.folder}/{name}" for name in _names(objects, day) if lane.may_follow(name)
            ]
    return paths, sorted(strange)


def _names(objects: Objects, day: LaneDay) -> set[str]:
    joined = {place.name for place in contents(objects, day).places} if day.joined_seals else set()
    return joined | day.seals


async def _take_lane(
    raw: Connection,
    database: OneTransaction,
    objects: Objects,
    reader: BatchReader,
    lane: _Lane,
    paths: Sequence[str],
    now: datetime,
    taken: Taken,
) -> None:
    chain = await asyncio.to_thread(lambda: list(_following(reader, lane, paths, taken)))
    for first in range(0, len(chain), _AT_ONCE):
        some = chain[first : first + _AT_ONCE]
        if await _take(database, objects, reader, some, now, taken):
            continue
        for path in some:
            if not await _take(database, objects, reader, [path], now, taken):
                taken.left.append(Left(await _why_not(raw, database, objects, reader, path, now), path))
                return


async def _take(
    database: OneTransaction,
    objects: Objects,
    reader: BatchReader,
    paths: Sequence[str],
    now: datetime,
    taken: Taken,
) -> bool:
    """Delivers these to intake; whether all of them were accepted: if not, nothing has happened."""
    try:
        deliveries = await asyncio.to_thread(lambda: [_delivery(objects, reader, path) for path in paths])
    except Refusal:
        return False
    quiet = not any(peek_seal(each.note).events for each in deliveries)
    # Heartbeats hold nothing that is billed: those that a key sealed before it was revoked have no leaf that says so.
    for ledger in (PostgresLedger, AsItWas) if quiet else (PostgresLedger,):
        async with database.intake() as connection:
            attempt = await connection.begin_nested()
            summary = await _intake(ledger(database), now).take(deliveries)
            if summary.accepted == len(deliveries):
                await attempt.commit()
                with_events = sum(peek_seal(each.note).events > 0 for each in deliveries)
                taken.batches += with_events
                taken.heartbeats += len(deliveries) - with_events
                taken.events += summary.events
                return True
            await attempt.rollback()
    return False


async def _why_not(
    raw: Connection, database: OneTransaction, objects: Objects, reader: BatchReader, path: str, now: datetime
) -> str:
    """What intake says of the batch, or the archive."""
    try:
        delivery = await asyncio.to_thread(_delivery, objects, reader, path)
    except Refusal as refused:
        return refused.what
    async with database.intake() as connection:
        attempt = await connection.begin_nested()
        await _intake(PostgresLedger(database), now).take([delivery])
        said = await why_not_accepted(raw, peek_seal(delivery.note).operator, path.rpartition("-")[2])
        await attempt.rollback()
    return f"not accepted, {said}"


def _intake(ledger: PostgresLedger, now: datetime) -> Intake:
    nothing = Nowhere()
    return Intake(nothing, ledger, nothing, nothing, clock=lambda: now)


def _delivery(objects: Objects, reader: BatchReader, path: str) -> Delivery:
    """The batch as it came, or with its events where it was joined with others. Refusal `archive_incomplete`."""
    note = _note(reader, path)
    if note is None or peek_seal(note).events == 0:
        return Delivery(note or b"", b"")
    body = objects.get(f"{path}.parquet")
    return Delivery(note, body) if body is not None else Delivery(note, b"", events=reader.events(path))


def _following(reader: BatchReader, lane: _Lane, paths: Sequence[str], taken: Taken) -> Iterator[str]:
    """The paths of what follows the lane's mark, in the order of the chain; a fork ends it and is named in `taken`."""
    named: dict[tuple[str, int], list[str]] = defaultdict(list)
    starts: dict[str, list[str]] = defaultdict(list)  # first seals of epochs, by the seal that they follow
    by_hash: dict[str, str] = {}
    for path in sorted(paths):
        epoch, number, hash_ = path.rpartition("/")[2].split("-")
        if hash_ in lane.dropped or hash_ in by_hash:
            continue
        by_hash[hash_] = path
        named[epoch, int(number)].append(path)
        if number == "0" and (note := _note(reader, path)) is not None:
            starts[peek_seal(note).previous].append(path)
    epoch, at, head = lane.epoch, lane.number, lane.head
    seen = {GENESIS}
    while True:
        adopted = by_hash.get(lane.adopts.get(head, ""))
        following = [adopted] if adopted else _successors(reader, head, starts[head], named[epoch, at + 1])
        if len(following) > 1:
            taken.left.append(Left(f"{len(following)} batches follow seal {head}", str(lane.name)))
        if len(following) != 1 or following[0] in seen:
            return
        seen.add(following[0])
        yield following[0]
        seal, head = _seal(reader, following[0])
        epoch, at = seal.epoch, seal.number


def _successors(reader: BatchReader, head: str, starts: Sequence[str], next_: Sequence[str]) -> list[str]:
    """What names this head as the seal before it; the first seals of epochs do."""
    found = dict.fromkeys(starts)
    for path in next_:
        note = _note(reader, path)
        if note is not None and peek_seal(note).previous == head:
            found[path] = None
    return list(found)


def _seal(reader: BatchReader, path: str) -> tuple[Seal, str]:
    note = _note(reader, path)
    assert note is not None, "it was read before"
    return peek_seal(note), seal_hash(note)


def _note(reader: BatchReader, path: str) -> bytes | None:
    """The seal at this path; None for one that is damaged: the chain ends before it."""
    note = reader.note(path)
    return note if note is not None and seal_hash(note) == path.rpartition("-")[2] else None
