"""Hourly usage made again from the archive alone, and laid beside what PostgreSQL says.

The lanes' days are read in the order of days, each lane's chain followed from its beginning to the head that the ledger
names (`archive_sums`). The cells of a day of usage are collected in a scratch folder, since a batch may hold any day's
(imports, nodes that were away), so memory is bounded by one day's cells, one file's events and one lane's day of seals.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from adapters.archive_cells import HOUR_US, SUM_SCHEMA, grouped, instant
from adapters.archive_reading import Reader, contents, lane_days
from adapters.archive_sums import Finding, Gone, Standing, sum_lane_day
from billing.cells import KEYS
from billing.objects import Objects
from metering.event import QUANTITIES
from metering.refusal import Unavailable
from metering.seal import GENESIS

Hours = npt.NDArray[np.int64]
LostHours = Mapping[str, tuple[Hours, Hours]]

DAY_US = 24 * HOUR_US
#: Cells that are held in memory before they go to the scratch folder.
_HELD_CELLS = 1_000_000


@dataclass(frozen=True, slots=True)
class Ledger:
    """What the ledger says of an operator's lanes: (node, lane) -> hash of the newest batch; hash -> the seal behind which
    a decision put that batch; a lane's day (its folder) -> the objects with cells of what expired there by decisions; hashes
    of batches that came too late to be billed, where those are not to be summed."""

    heads: Mapping[tuple[str, str], str]
    adopted: Mapping[str, str] = field(default_factory=dict)
    expired: Mapping[str, Sequence[str]] = field(default_factory=dict)
    late: Collection[str] = ()


@dataclass(slots=True)
class Rebuilt:
    """What the archive came to. `expired`: batches whose events are gone by a decision, which kept their cells. `behind`:
    paths of batches after a lane's head, or of a lane without one: they wait for their transaction, or have lost it."""

    batches: int = 0
    events: int = 0
    lanes: int = 0
    expired: int = 0
    findings: list[Finding] = field(default_factory=list)
    gone: list[Gone] = field(default_factory=list)
    behind: list[str] = field(default_factory=list)


class Cells:
    """Cells by day of usage: some in memory, the rest as Arrow files in a scratch folder."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._held: dict[int, list[pa.Table]] = {}
        self._cells = 0
        self._files: dict[int, list[Path]] = {}

    def add(self, cells: pa.Table) -> None:
        """Takes cells of any hours (SUM_SCHEMA)."""
        days = pc.divide(cells["hour"].cast(pa.int64()), DAY_US)
        for day in pc.unique(days).to_pylist():
            of_day = cells.filter(pc.equal(days, day))
            self._held.setdefault(day, []).append(of_day)
            self._cells += of_day.num_rows
        if self._cells > _HELD_CELLS:
            self._spill()

    def days(self) -> list[int]:
        """Days since 1970 that have cells, in order."""
        return sorted(self._held.keys() | self._files.keys())

    def of(self, day: int) -> pa.Table:
        """The cells of a day, one row each."""
        parts = [*self._held.get(day, []), *(_read(path) for path in self._files.get(day, []))]
        return grouped(pa.concat_tables(parts)) if parts else SUM_SCHEMA.empty_table()

    def _spill(self) -> None:
        for day, parts in self._held.items():
            files = self._files.setdefault(day, [])
            path = self._scratch / f"{day}-{len(files)}.arrow"
            table = grouped(pa.concat_tables(parts))
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
            files.append(path)
        self._held.clear()
        self._cells = 0


def rebuild(
    objects: Objects,
    operator: str,
    ledger: Ledger,
    cells: Cells,
    span_us: tuple[int, int] | None = None,
    *,
    root: bool = False,
    behind: bool = False,
    progress: Callable[[Rebuilt], None] = lambda _made: None,
) -> Rebuilt:
    """Follows every lane of the ledger up to its head and adds the cells of the hours [start, end) to `cells`.

    `behind`: names what the archive holds after the heads, too.
    """
    made = Rebuilt(lanes=len(ledger.heads))
    standings: dict[tuple[str, str], Standing] = {}
    reader = Reader(objects)
    for day in lane_days(objects, operator):
        lane = (day.node, day.lane)
        head = ledger.heads.get(lane)
        if head is None:  # nothing of the lane was accepted
            if behind:
                made.behind += [f"{day.folder}/{place.name}" for place in contents(objects, day).places]
            continue
        summed = sum_lane_day(
            objects,
            reader,
            day,
            standings.get(lane, Standing()),
            head,
            span_us,
            adopted=ledger.adopted,
            left_out=ledger.late,
            expired=ledger.expired.get(day.folder, ()),
            root=root,
        )
        standings[lane] = summed.standing
        made.batches += summed.batches
        made.events += summed.events
        made.findings += summed.findings
        cells.add(summed.cells)
        made.expired += summed.expired
        made.behind += sorted(summed.behind) if behind else []
        _tell_gone(made, summed.gone, {finding.where for finding in summed.findings})
        progress(made)
    for lane, head in sorted(ledger.heads.items()):
        standing = standings.get(lane, Standing())
        if not standing.at_head:
            ends = "is not there" if standing.hash == GENESIS else f"ends with {standing.hash}"
            made.findings.append(
                Finding(
                    "missing",
                    f"the archive's chain {ends}, the ledger's ends with {head}",
                    f"{operator}/{'/'.join(lane)}",
                )
            )
    return made


def _tell_gone(made: Rebuilt, gone: Sequence[Gone], named: Collection[str]) -> None:
    made.gone += gone
    made.findings += [
        Finding("gone", "its events are not in the archive, and no decision says so", each.path)
        for each in gone
        if each.path not in named
    ]


def lost_hours(gone: Iterable[Gone]) -> LostHours:
    """The hours of each node of which events are gone, as spans that are apart: their first hours and their last (µs)."""
    spans: dict[str, list[tuple[int, int]]] = {}
    for each in gone:
        spans.setdefault(each.node, []).append((each.first_hour_us, each.last_hour_us))
    return {node: _apart(of_node) for node, of_node in spans.items()}


def _apart(spans: Iterable[tuple[int, int]]) -> tuple[Hours, Hours]:
    firsts, lasts = list[int](), list[int]()
    for first, last in sorted(spans):
        if lasts and first <= lasts[-1]:
            lasts[-1] = max(lasts[-1], last)
        else:
            firsts.append(first)
            lasts.append(last)
    return np.array(firsts, np.int64), np.array(lasts, np.int64)


def differences(
    ours: pa.Table, theirs: pa.Table, lost: LostHours, limit: int
) -> tuple[int, list[dict[str, Any]]]:
    """How many cells differ, and the first `limit` of them: key, `archive` and `database` sums of what differs.

    Cells of a node in hours of which events are gone and not known cannot be compared, and are not; that they are gone
    is a finding already.
    """
    negative = pa.Table.from_arrays(
        [theirs[name] for name in KEYS] + [pc.negate(theirs[name]) for name in QUANTITIES], schema=SUM_SCHEMA
    )
    left = grouped(pa.concat_tables([ours, negative]))
    differs = pc.not_equal(left[QUANTITIES[0]], 0)
    for name in QUANTITIES[1:]:
        differs = pc.or_(differs, pc.not_equal(left[name], 0))
    found = left.filter(differs)
    for node, (firsts, lasts) in lost.items():
        hours = found["hour"].cast(pa.int64()).to_numpy()
        at = np.searchsorted(firsts, hours, side="right") - 1
        inside = (at >= 0) & (hours <= lasts[at])
        found = found.filter(pc.invert(pc.and_(pc.equal(found["node"], node), pa.array(inside))))
    shown = found.sort_by([("hour", "ascending"), ("customer", "ascending")]).slice(0, limit)
    return found.num_rows, [_difference(row, ours, theirs) for row in shown.to_pylist()]


def _difference(row: Mapping[str, Any], ours: pa.Table, theirs: pa.Table) -> dict[str, Any]:
    sums = {"archive": _sums(row, ours), "database": _sums(row, theirs)}
    changed = [name for name in QUANTITIES if sums["archive"][name] != sums["database"][name]]
    ids = {
        name: None if row[name] is None else str(UUID(bytes=row[name]))
        for name in ("customer", "project", "key")
    }
    return {
        **{name: row[name] for name in KEYS},
        "hour": row["hour"].astimezone(UTC).isoformat().replace("+00:00", "Z"),
        **ids,
        **{side: {name: found[name] for name in changed} for side, found in sums.items()},
    }


def _sums(row: Mapping[str, Any], cells: pa.Table) -> dict[str, int]:
    same = None
    for name in KEYS:
        value = pa.scalar(row[name], SUM_SCHEMA.field(name).type)
        equal = pc.is_null(cells[name]) if row[name] is None else pc.equal(cells[name], value)
        equal = pc.fill_null(equal, False)
        same = equal if same is None else pc.and_(same, equal)
    found = cells.filter(same)
    return {name: pc.sum(found[name]).as_py() or 0 for name in QUANTITIES}


def days_of(start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    """UTC days, cut at `start` and `end`, that together are [start, end)."""
    begin = start
    while begin < end:
        midnight = begin.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        yield begin, min(midnight, end)
        begin = midnight


def day_number(moment: datetime) -> int:
    """Days since 1970 of an instant in UTC."""
    return int(moment.timestamp()) // (DAY_US // 1_000_000)


def day_start(day: int) -> datetime:
    """The first instant of a day since 1970."""
    return instant(day * DAY_US)


def _read(path: Path) -> pa.Table:
    try:
        with pa.OSFile(str(path), "rb") as source:
            return pa.ipc.open_file(source).read_all()
    except OSError as fault:
        raise Unavailable(
            "scratch_unavailable", f"the scratch folder can't be read: {fault}", where=str(path)
        ) from None
