"""Expiry: bodies that nobody has to keep any longer leave the archive; their seals and sums stay.

A file goes when every batch in it is old enough, was billed, and is under no legal hold:

    old       its day (UTC) lies before the one that is asked for
    billed    every month of its events was closed when it was over, and that close had read the batch: the lane's head that
              it stored stands at or behind the batch
    no hold   none that stands is of one of its customers (or of all) and one of its months (or of all time)
    proven    its Merkle root was recomputed, or a person decided that nothing will prove it: without its body nobody could

What is read here is kept as cells, batch by batch (`archive_expired`), before anything is decided. The decision, which
names them, is a row of the database, and so a leaf of the log; the first file goes when a checkpoint covers it. What stays
is enough for every proof but one: signature, chain and numbers of the seals, their control totals, the log; only the
events themselves can't be laid beside their root any more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from adapters.archive_cells import instant, plain_cells
from adapters.archive_expired import put_cells
from adapters.archive_reading import LaneDay, Place, Reader, contents, lane_days
from adapters.archive_sums import Finding
from billing.objects import Objects
from billing.period import Period
from metering.columns import integers
from metering.refusal import Refusal
from metering.steps import step


@dataclass(frozen=True, slots=True)
class Hold:
    """What must stay: of one customer (its id) or of all, of one month or of all time."""

    customer: bytes | None
    period: Period | None


@dataclass(frozen=True, slots=True)
class Bounds:
    """What may go at most. `billed(period, node, lane)`: up to when the lane's batches were read by the close of that
    month; None where it was not closed. `unchecked`: hashes of the batches whose root is not known to hold."""

    before: date
    zone: ZoneInfo
    billed: Callable[[Period, str, str], datetime | None]
    holds: Sequence[Hold]
    unchecked: Collection[str] = ()


@dataclass(slots=True)
class Expirable:
    """Files that may go, and why others of that age stay: batches not billed yet, not proven yet, held, or damaged.
    `cells`: the objects that keep what the events of those files come to."""

    files: list[str] = field(default_factory=list)
    cells: list[str] = field(default_factory=list)
    batches: int = 0
    events: int = 0
    not_billed: int = 0
    held: int = 0
    unchecked: int = 0
    findings: list[Finding] = field(default_factory=list)


def expirable(objects: Objects, operator: str, bounds: Bounds, *, keep: bool = False) -> Expirable:
    """Looks for what may go; reads the bodies, since only they say whose events of which months they hold. `keep`: what
    they come to is put into the archive, for a decision to name; without one, nobody reads it."""
    found = Expirable()
    reader = Reader(objects)
    for day in lane_days(objects, operator, until=bounds.before - timedelta(days=1)):
        if day.bodies or day.joined_bodies:
            cells = _look(objects, reader, day, bounds, found)
            if keep and cells:
                found.cells.append(put_cells(objects, day.folder, cells))
    return found


def expire(objects: Objects, files: Sequence[str], *, at_once: int = 1000) -> Iterator[int]:
    """Takes the files away, the decision being committed; yields how many are gone so far."""
    step("decided")
    for begin in range(0, len(files), at_once):
        objects.remove(files[begin : begin + at_once])
        step("expired")
        yield min(begin + at_once, len(files))


def _look(
    objects: Objects, reader: Reader, day: LaneDay, bounds: Bounds, found: Expirable
) -> list[tuple[str, pa.Table]]:
    """Of the batches that may go: hash and cells."""
    going: list[tuple[str, pa.Table]] = []
    read = contents(objects, day)
    found.findings += [Finding("damaged", fault.what, fault.where) for fault in read.faults]
    files: dict[str, list[Place]] = {}
    for place in read.places:
        if place.seal.events and not place.is_gone:
            name = place.joined.name if place.joined is not None else place.name
            files.setdefault(f"{day.folder}/{name}.parquet", []).append(place)
    for file, places in files.items():
        cells: list[tuple[str, pa.Table]] = []
        stays = [
            why
            for place in places
            if (why := _why_it_stays(reader, day, place, bounds, found, cells)) is not None
        ]
        if stays:
            found.held += len(places) if "held" in stays else 0
            found.not_billed += len(places) if "not_billed" in stays and "held" not in stays else 0
            found.unchecked += len(places) if set(stays) == {"unchecked"} else 0
            continue
        found.files.append(file)
        found.batches += len(places)
        found.events += sum(place.seal.events for place in places)
        going += cells
    return going


def _why_it_stays(
    reader: Reader,
    day: LaneDay,
    place: Place,
    bounds: Bounds,
    found: Expirable,
    cells: list[tuple[str, pa.Table]],
) -> str | None:
    """None if it may go, and then its hash and cells are added to `cells`."""
    if place.hash in bounds.unchecked:
        return "unchecked"
    try:
        events = reader.events(day.folder, place, root=False)
    except Refusal as damage:
        found.findings.append(Finding("damaged", damage.what, f"{day.folder}/{place.name}"))
        return "damaged"
    times = integers(events, "time")
    months = months_between(int(times.min()), int(times.max()), bounds.zone)
    customers = set(pc.unique(events["customer"]).to_pylist())
    for hold in bounds.holds:
        if (hold.customer is None or hold.customer in customers) and (
            hold.period is None or hold.period in months
        ):
            return "held"
    complete_to = instant(place.seal.complete_to_us)
    for month in months:
        billed = bounds.billed(month, day.node, day.lane)
        if billed is None or complete_to > billed:
            return "not_billed"
    cells.append((place.hash, plain_cells(day.node, [events])))
    return None


def months_between(first_us: int, last_us: int, zone: ZoneInfo) -> list[Period]:
    """The billing months from one instant to another, both included."""
    first, last = (instant(us).astimezone(zone) for us in (first_us, last_us))
    count = (last.year - first.year) * 12 + last.month - first.month
    return [
        Period(first.year + (first.month - 1 + ahead) // 12, (first.month - 1 + ahead) % 12 + 1)
        for ahead in range(count + 1)
    ]


def billed_until(
    closes: Mapping[Period, Mapping[str, str]], complete_to: Mapping[str, datetime]
) -> Callable[[Period, str, str], datetime | None]:
    """`Bounds.billed` from what closes stored: month -> "node/lane" -> hash of the head; hash -> how far it is complete."""

    def until(period: Period, node: str, lane: str) -> datetime | None:
        head = closes.get(period, {}).get(f"{node}/{lane}")
        return None if head is None else complete_to.get(head)

    return until


def hold_of(customer: UUID | None, period: Period | None) -> Hold:
    """A hold as it is compared."""
    return Hold(None if customer is None else customer.bytes, period)
