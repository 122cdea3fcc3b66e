"""A period's usage as some facts see it: hours that are alike become one column, and usage one row a run and column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from zoneinfo import ZoneInfo

import numpy as np

from billing.facts import Facts
from billing.hourly import Hourly, Integers, hour_instant, sums
from billing.period import Period
from billing.placing import Placed, place
from billing.terms import stretches
from billing.usage_runs import LazyQuantities, UsageRuns
from billing.window import WindowTable, window_table


@dataclass(frozen=True, slots=True)
class Hours:
    """The UTC hours of a period, from `first` to before `end` (numbers since 1970)."""

    first: int
    end: int

    def of_day(self, zone: ZoneInfo) -> Integers:
        """The local hour of each hour's start, 0 to 23."""
        return np.array(
            [hour_instant(hour).astimezone(zone).hour for hour in range(self.first, self.end)], np.int64
        )


@dataclass(frozen=True, slots=True)
class View:
    """A period's usage as some facts see it: `column` of each hour, alike in stretch and windows; and a row for each run
    and column, in this order (run × columns + column), with its sums."""

    column: Integers
    columns: int
    stretch: Integers
    hourly: Hourly
    placed: Placed
    at_stretch: Placed
    stretches: int
    windows: WindowTable


def view_of(
    usage: UsageRuns,
    facts: Facts,
    period: Period,
    zone: ZoneInfo,
    hours: Hours,
    known: dict[bytes, Mapping[str, Integers]],
) -> View:
    """The view of a period's usage; `known` keeps sums for other facts under which hours fall into the same columns."""
    starts = np.array(stretches(facts, *period.bounds(zone), zone), np.int64)
    stretch = np.searchsorted(starts, np.arange(hours.first, hours.end), side="right") - 1
    by_stretch = place(_of_runs(usage, starts, {}), facts, period, zone)
    tariffs = list({row.tariff_version: row.terms.tariff for row in by_stretch.rows}.values())
    windows = window_table(tariffs, facts, hours.first, hours.end - 1)
    alike, first, column = np.unique(
        np.vstack([stretch[None, :], windows.codes]), axis=1, return_index=True, return_inverse=True
    )
    column = column.reshape(-1)
    of_column = alike[0]
    runs, count = len(usage.customer), len(first)
    quantities = known.setdefault(column.tobytes(), _sums_by_cell(usage, column, runs * count))
    hourly = _of_runs(usage, hours.first + first, quantities)
    at = (np.arange(runs)[:, None] * len(starts) + of_column[None, :]).reshape(-1)
    return View(
        column,
        count,
        stretch,
        hourly,
        taken(by_stretch, at),
        by_stretch,
        len(starts),
        windows,
    )


def _sums_by_cell(usage: UsageRuns, column: Integers, count: int) -> Mapping[str, Integers]:
    """Each quantity summed by run and column."""
    columns = int(column.max()) + 1
    cell: list[Integers] = []

    def made(name: str) -> Integers:
        values = usage.quantity(name)
        if values is None:
            return np.zeros(count, np.int64)
        if not cell:
            run = usage.run.astype(np.int64)
            cell.append(run if columns == 1 else run * columns + column[usage.hour])
        return sums(cell[0], values.astype(np.int64), count)

    return LazyQuantities(usage.magnitudes, made)


def _of_runs(usage: UsageRuns, hours: Integers, quantities: Mapping[str, Integers]) -> Hourly:
    """Every run in every one of these hours."""
    count = len(hours)

    def each(column: Integers) -> Integers:
        return np.repeat(column, count)

    return Hourly(
        hours=np.tile(hours, len(usage.customer)),
        customers=usage.customers,
        customer=each(usage.customer),
        nodes=usage.nodes,
        node=each(usage.node),
        models=usage.models,
        model=each(usage.model),
        outcomes=usage.outcomes,
        outcome=each(usage.outcome),
        band=each(usage.band),
        quantities=quantities,
    )


def taken(placed: Placed, at: Integers) -> Placed:
    """Those places of usage, in that order."""
    return replace(placed, row=placed.row[at], billed=placed.billed[at], case=placed.case[at])
