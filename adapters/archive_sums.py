"""One lane's day of the archive summed to cells of hourly usage: the step that a rebuild is made of, here and on Spark.

The chain decides what counts, not the folder's listing: from the batch that the day before ended with, each follows the
one that it names, up to the lane's head that is asked for. What no chain reaches is named and not counted; where a batch
is missing, that is named and the chain is taken up behind it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from adapters.archive_reading import LaneDay, Place, Reader, contents
from billing.cells import KEYS, cells_of
from billing.objects import Objects
from metering.event import ID, QUANTITIES
from metering.refusal import Refusal
from metering.seal import GENESIS

HOUR_US = 3_600_000_000
#: Cells as they are compared: words as texts, so that tables of any origin join.
SUM_SCHEMA = pa.schema(
    [
        pa.field("hour", pa.timestamp("us", "UTC")),
        pa.field("customer", ID),
        pa.field("project", ID),
        pa.field("key", ID),
        pa.field("node", pa.string()),
        pa.field("model", pa.string()),
        pa.field("outcome", pa.string()),
        pa.field("band", pa.int64()),
        *(pa.field(name, pa.int64()) for name in QUANTITIES),
    ]
)
assert tuple(SUM_SCHEMA.names) == (*KEYS, *QUANTITIES)
_AT_ONCE = 500_000  # events that are summed together


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a lane's chain stands: the newest batch followed, how far it was complete, and whether it is the head."""

    hash: str = GENESIS
    complete_to_us: int = 0
    at_head: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be: `code` missing, extra, damaged or gone, what, and where."""

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
    """What a lane's day came to."""

    day: LaneDay
    begins_after: str
    standing: Standing
    cells: pa.Table = field(default_factory=SUM_SCHEMA.empty_table)
    batches: int = 0
    events: int = 0
    findings: list[Finding] = field(default_factory=list)
    gone: list[Gone] = field(default_factory=list)


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
    root: bool = False,
) -> LaneDaySums:
    """Follows the chain through the day and sums the events of the batches on it.

    `standing`: None where it is not known yet (the day then begins where the folder does). `head`: the hash at which the
    chain ends. `span_us`: only events of these hours [start, end) are summed. `root`: recompute roots of loose bodies
    too; a joined file's always are. `adopted`: hash -> the seal behind which a person's decision put that batch.
    `left_out`: hashes of batches that are followed and not summed.
    """
    read = contents(objects, day)
    made = LaneDaySums(day, "", standing or Standing())
    made.findings += [Finding("damaged", fault.what, fault.where) for fault in read.faults]
    chain = _follow(read.places, standing, head, adopted or {}, made)
    waiting: list[pa.Table] = []
    for place, before_us in chain:
        made.batches += 1
        made.events += place.seal.events
        if not place.seal.events or not _touches(place, before_us, span_us) or _hash(place) in left_out:
            continue
        path = f"{day.folder}/{place.name}"
        if place.is_gone:
            made.gone.append(_gone(path, day.node, place, before_us))
            continue
        try:
            waiting.append(reader.events(day.folder, place, root=root))
        except Refusal as damage:
            made.findings.append(Finding("damaged", damage.what, path))
            made.gone.append(_gone(path, day.node, place, before_us))
        if sum(table.num_rows for table in waiting) > _AT_ONCE:
            made.cells = _added(made.cells, day.node, waiting)
            waiting.clear()
    made.cells = within(_added(made.cells, day.node, waiting), span_us)
    return made


def grouped(cells: pa.Table) -> pa.Table:
    """The sums of cells (SUM_SCHEMA) by KEYS."""
    sums = cells.group_by(list(KEYS), use_threads=False).aggregate([(name, "sum") for name in QUANTITIES])
    columns = [sums[name] for name in KEYS] + [sums[f"{name}_sum"] for name in QUANTITIES]
    return pa.Table.from_arrays(columns, schema=SUM_SCHEMA)


def within(cells: pa.Table, span_us: tuple[int, int] | None) -> pa.Table:
    """The cells of these hours [start, end)."""
    if span_us is None:
        return cells
    hours = cells["hour"].cast(pa.int64())
    return cells.filter(pc.and_(pc.greater_equal(hours, span_us[0]), pc.less(hours, span_us[1])))


def instant(us: int) -> datetime:
    """Microseconds since 1970 as an instant."""
    return datetime.fromtimestamp(us // 1_000_000, UTC).replace(microsecond=us % 1_000_000)


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
        made.findings += [
            _extra(made.day, place) for place in left.values() if place.seal.previous in followed
        ]
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


def _added(cells: pa.Table, node: str, tables: Sequence[pa.Table]) -> pa.Table:
    if not tables:
        return cells
    more = cells_of([(node, table) for table in tables])
    plain = pa.Table.from_arrays(
        [more[name].cast(SUM_SCHEMA.field(name).type) for name in SUM_SCHEMA.names], schema=SUM_SCHEMA
    )
    return grouped(pa.concat_tables([cells, plain]))
