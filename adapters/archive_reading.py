"""The archive read: which batches a lane's day holds, wherever they lie, and their events.

A batch lies as two objects of its own (adapters/archive.py), or within a joined file (archive_joined.py), and while one
takes the other's place, in both. So readers go by batches, never by files: each is known by the hash of its seal, is
taken once, and from wherever its events are. A seal whose events are nowhere has lost them: by `tally archive expire`, or
by damage.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import groupby

import pyarrow as pa

from adapters.archive_joined import PREFIX, Entry, Joined, JoinedEvents, read_joined
from billing.objects import Objects
from metering.batch import check_root, peek_seal, read_body
from metering.event import EVENT_SCHEMA
from metering.refusal import Refusal, Unavailable
from metering.seal import Seal, seal_hash

_FOLDER = re.compile(r"[^/_][^/]*/\d{4}-\d{2}-\d{2}/[^/]+/[^/]+")
_BATCH = re.compile(r"[0-9a-f]{32}-\d+-[0-9a-f]{64}")
_JOINED = re.compile(PREFIX + r"[0-9a-f]{64}")
_READERS = 16
_LOOKS = 5


@dataclass(frozen=True, slots=True)
class LaneDay:
    """What lies in OPERATOR/DAY/NODE/LANE: names of batches and of joined files, by what is there of each."""

    folder: str
    seals: frozenset[str]
    bodies: frozenset[str]
    joined_seals: tuple[str, ...]
    joined_bodies: frozenset[str]

    @property
    def operator(self) -> str:
        return self.folder.split("/")[0]

    @property
    def day(self) -> date:
        return date.fromisoformat(self.folder.split("/")[1])

    @property
    def node(self) -> str:
        return self.folder.split("/")[2]

    @property
    def lane(self) -> str:
        return self.folder.split("/")[3]


@dataclass(frozen=True, slots=True)
class Place:
    """A batch of a lane's day: its name, its signed seal, and where its events are.

    `loose`: an object of its own holds them. `joined`, `entry`: the joined file that does. Neither, though its seal
    counts events: they are gone.
    """

    name: str
    note: bytes
    seal: Seal
    loose: bool = False
    joined: Joined | None = None
    entry: Entry | None = None

    @property
    def hash(self) -> str:
        """Of its seal."""
        return self.name.rpartition("-")[2]

    @property
    def is_gone(self) -> bool:
        """Whether it had events that the archive no longer holds."""
        return self.seal.events > 0 and not self.loose and self.joined is None


@dataclass(slots=True)
class Contents:
    """A lane's day as read: every batch once, what is damaged, and the joined files of which the seals are there."""

    day: LaneDay
    places: list[Place] = field(default_factory=list)
    faults: list[Refusal] = field(default_factory=list)
    joined: list[Joined] = field(default_factory=list)


def lane_days(
    objects: Objects, operator: str, since: date | None = None, until: date | None = None
) -> Iterator[LaneDay]:
    """The lanes' days of an operator, day by day, lanes sorted within a day; `since`, `until`: days, both included."""
    if since is None:
        names = objects.list(f"{operator}/2")  # years; the operator's log is no day
    else:
        last = until or datetime.now(UTC).date() + timedelta(days=1)
        names = (
            name
            for ahead in range((last - since).days + 1)
            for name in objects.list(f"{operator}/{since + timedelta(days=ahead)}/")
        )
    for folder, found in groupby(names, lambda name: name.rpartition("/")[0]):
        if not _FOLDER.fullmatch(folder):
            continue
        day = lane_day(folder, found)
        if (since is None or day.day >= since) and (until is None or day.day <= until):
            yield day


def lane_day(folder: str, names: Iterable[str]) -> LaneDay:
    """Sorts the names of one folder; what is no batch's is passed over."""
    seals, bodies, joined_seals, joined_bodies = set[str](), set[str](), list[str](), set[str]()
    for path in names:
        name = path.rpartition("/")[2]
        stem, _, suffix = name.rpartition(".")
        if suffix == "seal" and name[0] == "_" and _BATCH.fullmatch(stem[1:]):
            seals.add(stem[1:])
        elif suffix == "seals" and name[0] == "_" and _JOINED.fullmatch(stem[1:]):
            joined_seals.append(stem[1:])
        elif suffix == "parquet" and _BATCH.fullmatch(stem):
            bodies.add(stem)
        elif suffix == "parquet" and _JOINED.fullmatch(stem):
            joined_bodies.add(stem)
    return LaneDay(
        folder, frozenset(seals), frozenset(bodies), tuple(sorted(joined_seals)), frozenset(joined_bodies)
    )


def look_again(objects: Objects, day: LaneDay) -> LaneDay:
    """The same folder as it is now."""
    return lane_day(day.folder, objects.list(f"{day.folder}/"))


def contents(objects: Objects, day: LaneDay) -> Contents:
    """Every batch of a lane's day, once, in the order of (complete_to, epoch, number); reads all its seals."""
    for _ in range(_LOOKS):
        found = _contents(objects, day)
        if found is not None:
            return found
        day = look_again(objects, day)  # what was listed has moved into a joined file meanwhile
    raise Unavailable(
        "archive_changes", "the folder changes while it is read", where=day.folder, remedy="try again"
    )


def _contents(objects: Objects, day: LaneDay) -> Contents | None:
    found = Contents(day)
    notes: dict[str, bytes] = {}
    within: dict[str, tuple[Joined, Entry]] = {}
    paths = [f"{day.folder}/_{name}.seals" for name in day.joined_seals]
    for name, path, content in zip(day.joined_seals, paths, _read(objects, paths), strict=True):
        if content is None:
            return None
        try:
            joined = read_joined(name, content)
        except Refusal as damage:
            found.faults.append(_at(damage, path))
            continue
        found.joined.append(joined)
        for entry in joined.entries:
            notes[entry.name] = entry.note
            if entry.rows == 0 or name in day.joined_bodies:
                within.setdefault(entry.name, (joined, entry))
    loose = sorted(day.seals - notes.keys())
    for name, note in zip(
        loose, _read(objects, [f"{day.folder}/_{name}.seal" for name in loose]), strict=True
    ):
        if note is None:
            return None
        notes[name] = note
    for name, note in notes.items():
        try:
            found.places.append(_place(day, name, note, within.get(name)))
        except Refusal as damage:
            found.faults.append(_at(damage, f"{day.folder}/{name}"))
    found.places.sort(key=lambda place: (place.seal.complete_to_us, place.seal.epoch, place.seal.number))
    return found


class Reader:
    """Reads events of batches; keeps the joined file that it read last. For one thread."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._open: tuple[str, JoinedEvents] | None = None

    def events(self, folder: str, place: Place, *, root: bool = True) -> pa.Table:
        """The events of a batch that has some, checked against its seal: a body of its own in everything, a joined one
        by the root, which says it all. Refusals as `metering.body.read_body`; `archive_incomplete` where they are gone.
        """
        if place.seal.events == 0:
            return EVENT_SCHEMA.empty_table()
        if place.joined is not None and place.entry is not None:
            table = self._joined(folder, place.joined).of(place.entry)
            check_root(place.seal, table)
            return table
        body = self._objects.get(f"{folder}/{place.name}.parquet") if place.loose else None
        if body is None:
            raise gone(f"{folder}/{place.name}")
        table = read_body(place.seal, body)
        if root:
            check_root(place.seal, table)
        return table

    def _joined(self, folder: str, joined: Joined) -> JoinedEvents:
        path = f"{folder}/{joined.name}.parquet"
        if self._open is None or self._open[0] != path:
            self._open = None
            body = self._objects.get(path)
            if body is None:
                raise gone(path)
            self._open = path, JoinedEvents(joined, body)
        return self._open[1]


class BatchReader:
    """Batches by their path in the database's list, wherever they lie by now. Keeps the lane's day read last."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._reader = Reader(objects)
        self._read: tuple[str, dict[str, Place]] | None = None

    def events(self, path: str) -> pa.Table:
        """The events of the batch at OPERATOR/DAY/NODE/LANE/EPOCH-NUMBER-HASH. Refusals as `Reader.events`."""
        folder, _, name = path.rpartition("/")
        note = self._objects.get(f"{folder}/_{name}.seal")
        if note is not None and (body := self._objects.get(f"{path}.parquet")) is not None:
            return read_body(peek_seal(note), body)
        place = self._joined(folder).get(name) or self._joined(folder, again=True).get(name)
        if place is None:
            raise gone(path)
        return self._reader.events(folder, place)

    def note(self, path: str) -> bytes | None:
        """The signed seal of the batch at `path`; None if there is none."""
        folder, _, name = path.rpartition("/")
        note = self._objects.get(f"{folder}/_{name}.seal")
        if note is not None:
            return note
        place = self._joined(folder).get(name) or self._joined(folder, again=True).get(name)
        return None if place is None else place.note

    def _joined(self, folder: str, *, again: bool = False) -> dict[str, Place]:
        if self._read is None or self._read[0] != folder or again:
            found = contents(self._objects, lane_day(folder, self._objects.list(f"{folder}/")))
            self._read = folder, {place.name: place for place in found.places}
        return self._read[1]


def gone(path: str) -> Refusal:
    """The refusal where a batch's events are not in the archive."""
    return Refusal(
        "archive_incomplete",
        "the events of a batch are not in the archive (any more)",
        where=path,
        remedy="`tally archive rebuild` says whether they expired; else restore the archive from its backup",
    )


def _place(day: LaneDay, name: str, note: bytes, within: tuple[Joined, Entry] | None) -> Place:
    if seal_hash(note) != name.rpartition("-")[2]:
        raise Refusal("damaged_object", "the seal is not the one that its name says")
    seal = peek_seal(note)
    loose = name in day.bodies and name in day.seals
    if seal.events == 0 or within is None:
        return Place(name, note, seal, loose=loose)
    return Place(name, note, seal, loose=loose, joined=within[0], entry=within[1])


def _read(objects: Objects, paths: Sequence[str]) -> list[bytes | None]:
    if len(paths) < 2:
        return [objects.get(path) for path in paths]
    with ThreadPoolExecutor(min(_READERS, len(paths)), thread_name_prefix="archive") as pool:
        return list(pool.map(objects.get, paths))


def _at(damage: Refusal, where: str) -> Refusal:
    return Refusal(damage.code, damage.what, where=where, remedy=damage.remedy)
