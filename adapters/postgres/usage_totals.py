"""Totals of usage, grouped by what `tally usage --by` offers.

The database sums, in numbers without end: a total may exceed 64 bits where no cell does. Names, regions and local days
are put on afterwards. Days, months and changes of region are cut at instants that Python's zones give, so the bill and
the totals agree about where a day begins.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cache
from operator import itemgetter
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import ARRAY, ColumnElement, DateTime, Numeric, Select, cast, func, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres.schema import site_document, usage_cell
from adapters.postgres.usage import slugs
from billing.period import Period, midnight

BY = ("operator", "customer", "project", "key", "model", "node", "region", "outcome", "hour", "day", "month")
FIGURES = (
    "requests",
    "aborted",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "generated_tokens",
    "audio_seconds",
    "unwitnessed_requests",
)
_SUBJECTS = ("customer", "project", "key")

# Per node, oldest first: from which instant on it is in which region (None: no version in force).
Regions = Mapping[str, Sequence[tuple[datetime, str | None]]]


async def usage_totals(
    conn: AsyncConnection,
    operator: str,
    start: datetime,
    end: datetime,
    by: Sequence[str],
    zone: ZoneInfo,
    customer: UUID | None = None,
) -> list[dict[str, Any]]:
    """The rows of `tally usage` for the hours [start, end), of one customer or of all: each word of `by` (from BY),
    then FIGURES.

    Hours and days (`2026-10-25T00:00:00+03:00`) and months (`2026-10`) are in `zone`; of the two hours of one name in
    a night of October each has its row. Subjects are the ids that users wrote, None where an event has no project or
    key. Sorted by `by` in its order. Late usage is counted too.
    """
    assert set(by) <= set(BY), by
    regions = await _regions(conn, operator, zone) if "region" in by else {}
    changes = {begins for versions in regions.values() for begins, _ in versions if begins > start}
    cuts = {
        "day": _days(start, end, zone),
        "month": [day for day in _days(start, end, zone) if day.astimezone(zone).day == 1 or day <= start],
        "region": [start, *sorted(changes)],
    }  # instants at which one ends and the next begins
    names = await slugs(conn, operator, [word for word in by if word in _SUBJECTS])
    query = _query(operator, start, end, by, cuts)
    if customer is not None:
        query = query.where(usage_cell.c.customer == customer)
    read = _readers(operator, by, list(query.selected_columns.keys()), names, regions, cuts)
    sums: dict[tuple[Any, ...], Sequence[int]] = {}
    for row in await conn.execute(query):
        key = tuple(reader(row) for reader in read)
        figures = [int(figure) for figure in row[-len(FIGURES) :]]
        before = sums.get(key)  # two nodes of one region, two customers' projects of one name
        sums[key] = (
            figures if before is None else [one + other for one, other in zip(before, figures, strict=True)]
        )
    write = [_writer(word, zone) for word in by]
    return [
        {word: text(value) for word, text, value in zip(by, write, key, strict=True)}
        | dict(zip(FIGURES, sums[key], strict=True))
        for key in sorted(sums, key=lambda key: [(value is not None, value) for value in key])
    ]


def _readers(
    operator: str,
    by: Sequence[str],
    columns: Sequence[str],
    names: Mapping[UUID, str],
    regions: Regions,
    cuts: Mapping[str, Sequence[datetime]],
) -> list[Callable[[Sequence[Any]], Any]]:
    """For each word of `by`, what reads it off a row of the query: a name for an id, an instant for a place in `cuts`."""

    def reader(word: str) -> Callable[[Sequence[Any]], Any]:
        if word == "operator":
            return lambda _row: operator
        place = columns.index(word)
        if word in _SUBJECTS:
            return lambda row: None if row[place] is None else names.get(row[place], str(row[place]))
        if word == "region":
            node, begins = columns.index("node"), cuts[word]
            return lambda row: _region_at(regions.get(row[node], ()), begins[row[place] - 1])
        if word in cuts:
            begins = cuts[word]
            return lambda row: begins[row[place] - 1]  # `width_bucket` counts from 1
        return itemgetter(place)

    return [reader(word) for word in by]


def _writer(word: str, zone: ZoneInfo) -> Callable[[Any], Any]:
    """How a value is told: hours and days as local time with its offset, months as periods, all else as it is."""
    if word in ("hour", "day"):
        return cache(lambda instant: instant.astimezone(zone).isoformat())
    if word == "month":
        return lambda instant: str(Period.holding(instant, zone))
    return lambda value: value


def total(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """FIGURES over all of the rows."""
    listed = list(rows)
    return {name: sum(row[name] for row in listed) for name in FIGURES}


def _query(
    operator: str, start: datetime, end: datetime, by: Sequence[str], cuts: Mapping[str, Sequence[datetime]]
) -> Select[Any]:
    """One row a group: its columns, named by their words, then FIGURES in order."""
    cell = usage_cell.c
    groups: dict[str, ColumnElement[Any]] = {}
    for word in by:
        if word in cuts:
            bounds = literal(list(cuts[word]), ARRAY(DateTime(timezone=True)))
            groups[word] = func.width_bucket(cell.hour, bounds)
        elif word != "operator":
            groups[word] = cell[word]
    if "region" in by:
        groups["node"] = cell.node
    figures: dict[str, ColumnElement[Any]] = {name: func.sum(cell[name]) for name in FIGURES if name in cell}
    figures["aborted"] = func.coalesce(func.sum(cell.requests).filter(cell.outcome == "aborted"), 0)
    columns = [expression.label(word) for word, expression in groups.items()]
    return (
        select(*columns, *(cast(figures[name], Numeric).label(f"sum_{name}") for name in FIGURES))
        .where(cell.operator == operator, cell.hour >= start, cell.hour < end)
        .group_by(*(column.name for column in columns))
        .having(func.count() > 0)  # without groups there would be one row of nulls
    )


async def _regions(conn: AsyncConnection, operator: str, zone: ZoneInfo) -> Regions:
    """Every node's regions; a version begins at local midnight of its day, the first one from ever."""
    table = site_document.c
    rows = await conn.execute(
        select(table.id, table.valid_from, table.valid_until, table.body["region"].astext.label("region"))
        .where(table.operator == operator, table.kind == "node")
        .order_by(table.id, table.valid_from)
    )
    regions: defaultdict[str, list[tuple[datetime, str | None]]] = defaultdict(list)
    ends: dict[str, date | None] = {}
    for row in rows:
        ended = ends.get(row.id)
        if ended is not None and ended < row.valid_from:
            regions[row.id].append((midnight(ended, zone), None))
        begins = (
            datetime.min.replace(tzinfo=UTC) if row.valid_from == date.min else midnight(row.valid_from, zone)
        )
        regions[row.id].append((begins, row.region))
        ends[row.id] = row.valid_until
    for node, ended in ends.items():
        if ended is not None:
            regions[node].append((midnight(ended, zone), None))
    return regions


def _region_at(versions: Sequence[tuple[datetime, str | None]], instant: datetime) -> str | None:
    place = bisect_right([begins for begins, _ in versions], instant)
    return versions[place - 1][1] if place else None


def _days(start: datetime, end: datetime, zone: ZoneInfo) -> list[datetime]:
    """The local midnights from the one that begins `start`'s day to the last one before `end`."""
    day = start.astimezone(zone).date()
    days = [midnight(day, zone)]
    while days[-1] < end:
        day += timedelta(days=1)
        days.append(midnight(day, zone))
    return days
