"""Compaction: the batches of closed hours and days of a lane, joined into a few large files (archive_joined.py).

A node that seals a heartbeat every ten seconds leaves 8,640 objects a day; joined they are one or two, and an hour's are
one or two while the day runs. Of a closed day everything small is joined again, hour files and late batches alike.

Nothing is joined that has not just been read and checked, body digest and root, and nothing is taken away before the
joined file has been read back. What intake's second pass has not looked at yet stays as it lies: that it was accepted as
it was sealed is said by its bytes. The order, for each file:

    1  the seals object, then the events object, both durable     readers of ours: either place, each batch once
    2  the bodies of the batches leave                            others see events twice from 1 until here
    3  their seals leave

Killed anywhere, it goes on: what lies in two places is taken away where it is small. Between 1 and 2 somebody who reads
the folder without Tallygrid may meet events twice, or a file that was listed and is gone, for as long as the removals
take; so compact when nobody does, or read with `tally archive query`, which goes by batches.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime, time, timedelta
from hashlib import sha256

import pyarrow as pa

from adapters.archive import body_path, seal_path
from adapters.archive_joined import Joined, join
from adapters.archive_reading import Contents, LaneDay, Place, Reader, contents, lane_days, look_again
from billing.objects import Objects
from metering.refusal import Refusal
from metering.steps import step

#: An hour, or a day, is closed so long after its end: what comes later is joined later.
SETTLED = timedelta(hours=1)
#: A file is full at so many bytes of bodies, or so many seals; joining holds one file in memory.
FULL_BYTES = 64_000_000
FULL_SEALS = 20_000


@dataclass(slots=True)
class Compacted:
    """What a run came to; objects are those of the lanes' days that it looked at."""

    lane_days: int = 0
    files: int = 0
    batches: int = 0
    events: int = 0
    objects_before: int = 0
    objects_after: int = 0
    faults: list[Refusal] = field(default_factory=list)

    def add(self, other: Compacted) -> None:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


def compact(
    objects: Objects,
    operator: str,
    complete_to: Callable[[str, str], datetime | None],
    now: datetime,
    *,
    unchecked: Collection[str] = (),
    since: date | None = None,
    full_bytes: int = FULL_BYTES,
    full_seals: int = FULL_SEALS,
) -> Iterator[Compacted]:
    """Joins what is closed, a lane's day after the other, and says of each what it came to.

    `complete_to(node, lane)`: the lane's mark; what lies behind it may be of a transaction that never committed. One at
    a time for an operator: the caller holds a lock. `unchecked`: hashes of the batches whose root is not known to hold.
    `since`: days before it are not looked at.
    """
    for day in lane_days(objects, operator, since):
        mark = complete_to(day.node, day.lane)
        if mark is not None:
            yield _compact_day(objects, day, mark, now, _Limits(full_bytes, full_seals), unchecked)


@dataclass(frozen=True, slots=True)
class _Limits:
    bytes: int
    seals: int


@dataclass(frozen=True, slots=True)
class _Piece:
    """What may be joined with its neighbours: a loose batch, or the batches of a joined file that is not full."""

    places: tuple[Place, ...]
    bytes: int
    joined: Joined | None = None


def _compact_day(
    objects: Objects,
    day: LaneDay,
    mark: datetime,
    now: datetime,
    limits: _Limits,
    unchecked: Collection[str],
) -> Compacted:
    if not day.seals and len(day.joined_seals) < 2 and not day.bodies:
        return Compacted(lane_days=1, objects_before=_count(day), objects_after=_count(day))
    done = Compacted(lane_days=1, objects_before=_count(day))
    read = contents(objects, day)
    if _finish(objects, read):
        day = look_again(objects, day)
        read = contents(objects, day)
    done.faults += read.faults
    reader = Reader(objects)
    pieces = (
        piece
        for piece in _pieces(read, mark, now, limits)
        if piece.joined is not None or piece.places[0].hash not in unchecked
    )
    for pack in _packs(pieces, limits):
        _join_pack(objects, day, reader, pack, done)
    done.objects_after = _count(look_again(objects, day))
    return done


def _finish(objects: Objects, read: Contents) -> bool:
    """Takes away what a killed run left in two places: the small ones, where the batch lies in a joined file whole.
    Says whether there was anything."""
    folder, day = read.day.folder, read.day
    whole = [joined for joined in read.joined if _is_whole(joined, day)]
    if len(read.joined) > 1 or any(entry.name in day.seals for joined in whole for entry in joined.entries):
        whole = [joined for joined in whole if _is_sound(objects, folder, joined)]
    safe = {entry.name for joined in whole for entry in joined.entries}
    bodies = [body_path(f"{folder}/{name}") for name in sorted(safe & day.bodies)]
    seals = [seal_path(f"{folder}/{name}") for name in sorted(safe & day.seals)]
    for joined in read.joined:
        names = {entry.name for entry in joined.entries}
        is_part = any(names < {entry.name for entry in other.entries} for other in whole)
        alone = {
            e.name for e in joined.entries if e.name in day.seals and (not e.rows or e.name in day.bodies)
        }
        never_was = joined not in whole and names <= safe | alone
        if is_part or never_was:
            bodies.append(f"{folder}/{joined.name}.parquet")
            seals.append(f"{folder}/_{joined.name}.seals")
    objects.remove(bodies)
    objects.remove(seals)
    return bool(bodies or seals)


def _is_sound(objects: Objects, folder: str, joined: Joined) -> bool:
    """Whether its events are what they should be: who was killed may not have read them back."""
    body = objects.get(f"{folder}/{joined.name}.parquet") if joined.body_sha256 is not None else None
    return joined.body_sha256 is None or (body is not None and sha256(body).hexdigest() == joined.body_sha256)


def _is_whole(joined: Joined, day: LaneDay) -> bool:
    return joined.body_sha256 is None or joined.name in day.joined_bodies


def _pieces(read: Contents, mark: datetime, now: datetime, limits: _Limits) -> Iterator[_Piece]:
    """What is closed and not full, in the lane's order. Batches whose events are gone stay as they lie."""
    day_over = datetime.combine(read.day.day + timedelta(days=1), time(), UTC) + SETTLED <= now
    by_name = {place.name: place for place in read.places}
    pieces: list[_Piece] = []
    listed: set[str] = set()
    for joined in read.joined:
        if not _is_whole(joined, read.day):
            continue
        listed |= {entry.name for entry in joined.entries}
        places = tuple(by_name[entry.name] for entry in joined.entries if entry.name in by_name)
        size = sum(place.seal.body_bytes for place in places)
        full = size * 2 >= limits.bytes or len(places) * 2 >= limits.seals
        if day_over and places and not full:
            pieces.append(_Piece(places, size, joined))
    for place in read.places:
        loose = place.name in read.day.seals and place.name not in listed and not place.is_gone
        if loose and _is_closed(place, mark, now):
            pieces.append(_Piece((place,), place.seal.body_bytes))
    yield from sorted(pieces, key=lambda piece: piece.places[0].seal.complete_to_us)


def _is_closed(place: Place, mark: datetime, now: datetime) -> bool:
    end = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=place.seal.complete_to_us)
    hour_over = end.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1) + SETTLED <= now
    return hour_over and end <= mark


def _packs(pieces: Iterable[_Piece], limits: _Limits) -> Iterator[list[_Piece]]:
    """Neighbours together, up to what one file takes; one alone is left as it lies."""
    pack, size, seals = list[_Piece](), 0, 0
    for piece in pieces:
        if pack and (size + piece.bytes > limits.bytes or seals + len(piece.places) > limits.seals):
            if len(pack) > 1:
                yield pack
            pack, size, seals = [], 0, 0
        pack.append(piece)
        size, seals = size + piece.bytes, seals + len(piece.places)
    if len(pack) > 1:
        yield pack


def _join_pack(objects: Objects, day: LaneDay, reader: Reader, pack: list[_Piece], done: Compacted) -> None:
    folder = day.folder
    taken: list[Place] = []

    def batches() -> Iterator[tuple[str, bytes, pa.Table | None]]:
        for place in (place for piece in pack for place in piece.places):
            try:
                events = reader.events(folder, place) if place.seal.events else None
            except Refusal as damage:
                if place.joined is not None:
                    raise  # a file that is joined already is damaged: leave all of it
                done.faults.append(Refusal(damage.code, damage.what, where=f"{folder}/{place.name}"))
                continue
            taken.append(place)
            yield place.name, place.note, events

    try:
        joined, seals, body = join(batches())
    except Refusal as damage:
        done.faults.append(damage)
        return
    replaced = [piece.joined for piece in pack if piece.joined is not None]
    if not taken or joined in replaced:
        return  # nothing but damage was to be added to a file that is there
    paths = [(f"{folder}/_{joined.name}.seals", seals)]
    if body:
        paths.append((f"{folder}/{joined.name}.parquet", body))
    objects.put(paths)
    step("joined")
    _read_back(objects, paths)
    assert joined.name not in {each.name for each in replaced}, "what was just written is not taken away"
    _remove_joined(objects, day, taken, replaced)
    done.files += 1
    done.batches += len(taken)
    done.events += sum(place.seal.events for place in taken)


def _read_back(objects: Objects, paths: list[tuple[str, bytes]]) -> None:
    for path, content in paths:
        there = objects.get(path)
        if there is None or sha256(there).digest() != sha256(content).digest():
            raise Refusal(
                "damaged_object",
                "what was just written is read back as something else; nothing was taken away",
                where=path,
                remedy="look after the disk or the bucket, then compact again",
            )


def _remove_joined(objects: Objects, day: LaneDay, taken: list[Place], replaced: list[Joined]) -> None:
    folder = day.folder
    names = [place.name for place in taken]
    bodies = [body_path(f"{folder}/{name}") for name in names if name in day.bodies]
    objects.remove(bodies + [f"{folder}/{joined.name}.parquet" for joined in replaced])
    step("bodies-left")
    seals = [seal_path(f"{folder}/{name}") for name in names if name in day.seals]
    objects.remove(seals + [f"{folder}/_{joined.name}.seals" for joined in replaced])
    step("seals-left")


def _count(day: LaneDay) -> int:
    return len(day.seals) + len(day.bodies) + len(day.joined_seals) + len(day.joined_bodies)
