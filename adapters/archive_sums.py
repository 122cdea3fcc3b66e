"""One lane's day of the archive summed to cells of hourly usage: the step that a rebuild is made of, here and on Spark.

The chain decides what counts, not the folder's listing: from the batch that the day before ended with, each follows the
one that it names, up to the lane's head that is asked for. What no chain reaches is named and not counted; where a batch
is missing, that is named and the chain is taken up behind it.

Where events expired, the cells that were kept of them stand for them (`archive_expired`). Beside all cells stand the
control totals of the seals, an independent figure: the lane signed it, and no code that makes cells has touched it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from adapters.archive_cells import HOUR_US, SUM_SCHEMA, grouped, plain_cells, totals_of, within
from adapters.archive_expired import read_cells
from adapters.archive_reading import LaneDay, Place, Reader, contents
from billing.objects import Objects
from metering.event import QUANTITIES
from metering.refusal import Refusal
from metering.seal import GENESIS

_AT_ONCE = 500_000  # events that are summed together


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a lane's chain stands: the newest batch followed, how far it was complete, and whether it is the head."""

    hash: str = GENESIS
    complete_to_us: int = 0
    at_head: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be: `code` missing, extra, damaged, differs, behind or gone, what, and where."""

    code: str
    what: str
    where: str


@dataclass(frozen=True, slots=True)
class Gone:
    """A batch whose events are gone: its path, node and sums, and the hours that they lay in (µs, both included)."""

    path: str
    node: str
    events: int
    first_hour_us: int
    last_hour_us: int


@dataclass(slots=True)
class LaneDaySums:
    """What a lane's day came to. `expired`: batches whose cells were kept by a decision. `behind`: paths of batches that
    come after the head."""

    day: LaneDay
    begins_after: str
    standing: Standing
    cells: pa.Table = field(default_factory=SUM_SCHEMA.empty_table)
    batches: int = 0
    events: int = 0
    findings: list[Finding] = field(default_factory=list)
    gone: list[Gone] = field(default_factory=list)
    expired: int = 0
    behind: list[str] = field(default_factory=list)


def sum_lane_day(
    objects: Objects,
    reader: Reader,
    day: LaneDay,
    standing: Standing | None,
    head: str,
    span_us: tuple[int, int] | None = None,
    *,
    adopted: Mapping[str, str] | None = None,
    left_out: Collection[str] = (),
    expired: Sequence[str] = (),
    root: bool = False,
) -> LaneDaySums:
    """Follows the chain through the day and sums the events of the batches on it.

    `standing`: None where it is not known yet (the day then begins where the folder does). `head`: the hash at which the
    chain ends. `span_us`: only events of these hours [start, end) are summed. `root`: recompute roots of loose bodies
    too; a joined file's always are. `adopted`: hash -> the seal behind which a person's decision put that batch.
    `left_out`: hashes of batches that are followed and not summed. `expired`: the objects that decisions name of this day.
    """
    read = contents(objects, day)
    made = LaneDaySums(day, "", standing or Standing())
    made.findings += [Finding("damaged", fault.what, fault.where) for fault in read.faults]
    chain = _follow(read.places, standing, head, adopted or {}, made)
    sums = _Sums(day.node)
    kept: Mapping[str, pa.Table] | None = None
    for place, before_us in chain:
        made.batches += 1
        made.events += place.seal.events
        if not place.seal.events or not _touches(place, before_us, span_us) or place.hash in left_out:
            continue
        path = f"{day.folder}/{place.name}"
        if place.is_gone:
            if kept is None:
                kept, faults = read_cells(objects, expired)
                made.findings += [Finding("damaged", fault.what, fault.where) for fault in faults]
            if place.hash in kept:
                made.expired += 1
                sums.add_cells(place, kept[place.hash])
            else:
                made.gone.append(_gone(path, day.node, place, before_us))
            continue
        try:
            sums.add_events(place, reader.events(day.folder, place, root=root))
        except Refusal as damage:
            made.findings.append(Finding("damaged", damage.what, path))
            made.gone.append(_gone(path, day.node, place, before_us))
    cells = sums.together()
    if totals_of(cells) != tuple(sums.control_totals):
        what = "the cells of its events do not come to the control totals of its seals"
        made.findings.append(Finding("differs", what, day.folder))
    made.cells = within(cells, span_us)
    return made


class _Sums:
    """Cells of a node's batches as they come, and beside them what the batches' seals say that they come to."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._cells = [SUM_SCHEMA.empty_table()]
        self._events: list[pa.Table] = []
        self._waiting = 0
        self.control_totals = [0] * len(QUANTITIES)

    def add_events(self, place: Place, events: pa.Table) -> None:
        self._events.append(events)
        self._add(place, events.num_rows)

    def add_cells(self, place: Place, cells: pa.Table) -> None:
        self._cells.append(cells)
        self._add(place, cells.num_rows)

    def together(self) -> pa.Table:
        """All cells so far, a row each."""
        if self._events:
            self._cells.append(plain_cells(self._node, self._events))
        if len(self._cells) > 1:
            self._cells = [grouped(pa.concat_tables(self._cells))]
        self._events, self._waiting = [], 0
        return self._cells[0]

    def _add(self, place: Place, rows: int) -> None:
        for at, name in enumerate(QUANTITIES):
            self.control_totals[at] += getattr(place.seal.totals, name)
        self._waiting += rows
        if self._waiting > _AT_ONCE:
            self.together()


def _follow(
    places: Sequence[Place],
    standing: Standing | None,
    head: str,
    adopted: Mapping[str, str],
    made: LaneDaySums,
) -> list[tuple[Place, int]]:
    """The day's batches on the chain, each with the instant up to which the lane was complete before it."""
    left = {place.name: place for place in places}
    behind = {place.name: adopted.get(_hash(place), place.seal.previous) for place in places}
    if standing is not None and standing.at_head:
        made.behind += [f"{made.day.folder}/{name}" for name in left]
        return []  # all of it is later than what is asked for
    at = standing
    if at is None:
        hashes = {_hash(place) for place in places}
        first = next((behind[place.name] for place in places if behind[place.name] not in hashes), GENESIS)
        at = Standing(first)
    made.begins_after = at.hash
    chain: list[tuple[Place, int]] = []
    followed: set[str] = set()
    successors: dict[str, list[Place]] = {}
    for place in places:
        successors.setdefault(behind[place.name], []).append(place)
    while left and at.hash != head:
        found = [place for place in successors.get(at.hash, []) if place.name in left]
        if not found:
            taken_up = _behind_a_hole(left, behind, followed, made)
            if taken_up is None:
                break
            found = [taken_up]
        place = found[0] if len(found) == 1 else max(found, key=lambda each: _reach(each, successors, head))
        del left[place.name]
        chain.append((place, at.complete_to_us))
        followed.add(behind[place.name])
        at = Standing(_hash(place), place.seal.complete_to_us)
    made.standing = Standing(at.hash, at.complete_to_us, at.hash == head)
    if not made.standing.at_head:
        made.findings += [_extra(made.day, place) for place in left.values()]
    else:
        forks = [place for place in left.values() if place.seal.previous in followed]
        made.findings += [_extra(made.day, place) for place in forks]
        made.behind += [f"{made.day.folder}/{name}" for name in left.keys() - {fork.name for fork in forks}]
    return chain


def _reach(place: Place, successors: Mapping[str, Sequence[Place]], head: str) -> tuple[bool, int]:
    """Of two batches that follow one (a killed worker's stray, and what came instead) the chain goes on by the one that
    leads to the head, else by the one that more batches follow."""
    waiting, count, leads = [place], 0, False
    while waiting:
        at = waiting.pop()
        count += 1
        leads = leads or _hash(at) == head
        waiting += successors.get(_hash(at), ())
    return leads, count


def _behind_a_hole(
    left: Mapping[str, Place], behind: Mapping[str, str], followed: set[str], made: LaneDaySums
) -> Place | None:
    """The batch at which the chain is taken up again, its missing predecessor named; None if only forks are left."""
    hashes = {_hash(place) for place in left.values()}
    for place in left.values():  # in the order of time
        if behind[place.name] not in hashes and behind[place.name] not in followed:
            made.findings.append(
                Finding(
                    "missing",
                    f"the batch before it, {behind[place.name]}, is not in the archive",
                    f"{made.day.folder}/{place.name}",
                )
            )
            return place
    return None


def _extra(day: LaneDay, place: Place) -> Finding:
    return Finding("extra", "a batch that the lane's chain does not reach", f"{day.folder}/{place.name}")


def _hash(place: Place) -> str:
    return place.name.rpartition("-")[2]


def _touches(place: Place, before_us: int, span_us: tuple[int, int] | None) -> bool:
    # Events lie after the seal before; a batch of an import says to be complete a microsecond before its last event.
    return span_us is None or (place.seal.complete_to_us + 1 >= span_us[0] and before_us < span_us[1])


def _gone(path: str, node: str, place: Place, before_us: int) -> Gone:
    last_us = place.seal.complete_to_us + 1
    first_us = min(before_us, last_us) if before_us else 0
    return Gone(path, node, place.seal.events, first_us - first_us % HOUR_US, last_us - last_us % HOUR_US)
