"""Usage of customers whose bill depends on the order of hours, condensed: what lies between two turns is one sum.

A pool turns in the hour in which its content reaches a bound: included units are used up, a tier is left. Between two
turns of any of a customer's pools all that a run used in one column (`billing.what_if_view.View`) is free or not, and in one
tier, so it may be summed; the hours of turns stay as they are, for there the order within the hour counts.

    hours    1   2   3   4   5   6   7          included 100, used up in hour 4
    input   30  20  10  90  10  10  20      →   60 in hour 1,  90 in hour 4,  40 in hour 5

Quantities that fall below zero empty a pool again: hours of such a customer are all kept apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from billing.charges import MeterPricing
from billing.hourly import Flags, Hourly, Integers, distinct
from billing.meters import Metered, MeterRules
from billing.pool import contents
from billing.usage_runs import LazyQuantities, UsageRuns
from billing.what_if_turns import included_turns
from billing.what_if_view import View

_ROWS_AT_ONCE = 1 << 17
"""Of usage, and the rest of the last customer's: what is computed on the way stays in a processor's cache."""


@dataclass(frozen=True, slots=True)
class Condensed:
    """Sums of some rows of usage: the run and an hour of each, whether it is of one hour in which a pool turns; `rows`
    (places in the usage) and the sum that each of them is part of."""

    run: Integers
    hour: Integers
    turning: Flags
    rows: Integers
    sum_of_row: Integers


def condensed(
    ordered: Flags, usage: UsageRuns, view: View, rules: MeterRules, pricings: Sequence[MeterPricing]
) -> Condensed:
    """The rows of the customers `ordered`, of whom there are some, condensed."""
    asked = [each for each in pricings if each.included is not None or each.graduated.any()]
    ranks = np.array([row.rank for row in view.at_stretch.rows], np.int64)
    tariff_of = view.windows.tariff_of(view.at_stretch.rows)
    parts: list[Condensed] = []
    made = 0
    known, turns = included_turns(usage, view, rules, asked)
    for rows in _blocks(ordered & known, usage):
        run, hour = usage.run[rows].astype(np.int64), usage.hour[rows].astype(np.int64)
        part = np.zeros(len(rows), np.int64)
        for turn in turns:  # its hour is a part of its own, and an odd one
            of_row = turn[usage.customer[run]]
            part += hour > of_row
            part += hour >= of_row
        parts.append(_summed(rows, run, hour, part, view, made))
        made += len(parts[-1].run)
    for rows in _blocks(ordered & ~known, usage):
        block = _Block(rows, usage, view, ranks, tariff_of)
        turning = usage.negative[block.customer]
        for pricing in asked:
            turning |= block.turns(pricing, rules)
        parts.append(block.condensed(turning, made))
        made += len(parts[-1].run)
    return _joined(parts)


def _joined(parts: Sequence[Condensed]) -> Condensed:
    return Condensed(
        run=np.concatenate([each.run for each in parts]),
        hour=np.concatenate([each.hour for each in parts]),
        turning=np.concatenate([each.turning for each in parts]),
        rows=np.concatenate([each.rows for each in parts]),
        sum_of_row=np.concatenate([each.sum_of_row for each in parts]),
    )


def _blocks(ordered: Flags, usage: UsageRuns) -> Iterator[Integers]:
    """Places of rows, a few customers at a time."""
    customers = np.flatnonzero(ordered)
    if not len(customers):
        return
    counts = (usage.starts[1:] - usage.starts[:-1])[customers]
    block = np.cumsum(counts) // _ROWS_AT_ONCE
    for edge in np.split(customers, np.flatnonzero(np.diff(block)) + 1):
        wanted = np.zeros(edge[-1] + 1 - edge[0], np.bool_)
        wanted[edge - edge[0]] = True
        bounds = usage.starts[edge[0] : edge[-1] + 2]
        yield bounds[0] + np.flatnonzero(np.repeat(wanted, np.diff(bounds)))


class _Block:
    """Rows of some customers in rule 5's order."""

    def __init__(
        self, rows: Integers, usage: UsageRuns, view: View, ranks: Integers, tariff_of: Integers
    ) -> None:
        run, hour = usage.run[rows].astype(np.int64), usage.hour[rows].astype(np.int64)
        placed, at = view.at_stretch, run * view.stretches + view.stretch[hour]
        row = placed.row[at]
        model, deepest = usage.model[run], int(ranks.max(initial=0)) + 1
        span = len(view.column)
        moment = usage.customer[run] * span + hour
        rank = (moment * max(len(usage.models), 1) + model) * deepest
        if len(ranks):
            rank += np.where(row >= 0, ranks[row], 0)
        if np.any(rank[1:] < rank[:-1]):
            order = np.argsort(rank, kind="stable")
            rows, run, hour, row, at, moment = (each[order] for each in (rows, run, hour, row, at, moment))
        self._usage, self._view = usage, view
        self._rows, self._run, self._hour, self._row, self._moment = rows, run, hour, row, moment
        self._billed = placed.billed[at]
        self.customer = usage.customer[run]
        found = row >= 0
        self._placed = found
        self._window = np.where(found, view.windows.codes[tariff_of[row], hour], -1) if len(ranks) else row
        self._hourly = Hourly(
            hours=hour,
            customers=usage.customers,
            customer=self.customer,
            nodes=usage.nodes,
            node=run,
            models=usage.models,
            model=run,
            outcomes=usage.outcomes,
            outcome=run,
            band=run,
            quantities=LazyQuantities(usage.magnitudes, self._quantity),
        )

    def _quantity(self, name: str) -> Integers:
        kept = self._usage.quantity(name)
        return np.zeros(len(self._rows), np.int64) if kept is None else kept[self._rows].astype(np.int64)

    def turns(self, pricing: MeterPricing, rules: MeterRules) -> Flags:
        """The rows in which a pool of the meter reaches a bound."""
        row = self._row
        metered = Metered(self._hourly, rules, np.arange(len(row)), row)
        of_windows = pricing.plain | pricing.graduated | pricing.volume
        windowed = _of_rows(of_windows, row) & (self._window >= 0)
        rest = np.where(self._billed & self._placed, metered.quantity(pricing.meter), 0)
        found = self._of_customers_with(rest < 0)
        if pricing.included is not None:
            bound = pricing.included[self.customer]
            taking = windowed | _of_rows(pricing.package, row) if pricing.package.any() else windowed
            before, after = contents(self.customer, np.where(taking & (bound > 0), rest, 0))
            found |= (before < bound) & (after >= bound)
            rest = rest - (np.minimum(after, bound) - np.minimum(before, bound))
        if pricing.graduated.any():
            chosen = np.flatnonzero(windowed & _of_rows(pricing.graduated, row))
            keys, pool = distinct(self.customer[chosen] * len(pricing.plain) + row[chosen])
            order = np.argsort(pool, kind="stable")
            chosen, pool = chosen[order], pool[order]
            upper = pricing.bounds[keys % len(pricing.plain)]
            before, after = contents(pool, rest[chosen])
            for tier in range(upper.shape[1]):
                bound = upper[pool, tier]
                found[chosen] |= (before < bound) & (after >= bound)
        return found

    def _of_customers_with(self, flags: Flags) -> Flags:
        """The rows of customers of whom any row has the flag."""
        if not flags.any():
            return flags
        meant = np.zeros(len(self._usage.customers), np.bool_)
        meant[self.customer[flags]] = True
        found: Flags = meant[self.customer]
        return found

    def condensed(self, turning: Flags, first: int) -> Condensed:
        """The rows as sums, numbered from `first` on: hours with a turning row alone, what lies between them together."""
        count = len(self._rows)
        begins = np.flatnonzero(np.diff(self._moment, prepend=-1))
        ends = np.append(begins[1:], count)
        alone = np.logical_or.reduceat(turning, begins) if count else turning
        # A part of a customer's hours is odd where it is one hour alone.
        steps = np.zeros(count + 1, np.int64)
        steps[begins[alone]] += 1
        steps[ends[alone]] += 1
        part = np.cumsum(steps[:count])
        of_customer = np.flatnonzero(np.diff(self.customer, prepend=-1))
        before = 2 * np.searchsorted(begins[alone], of_customer)
        part -= np.repeat(before, np.diff(np.append(of_customer, count)))
        return _summed(self._rows, self._run, self._hour, part, self._view, first)


def _summed(
    rows: Integers, run: Integers, hour: Integers, part: Integers, view: View, first: int
) -> Condensed:
    """Rows with one run, column and part as one sum, numbered from `first` on; of odd parts each hour turns."""
    cell = run * view.columns + view.column[hour]
    deep = int(part.max(initial=0)) + 1
    least = int(cell.min()) * deep if len(rows) else 0
    keys, place = distinct(cell * deep + part - least, (int(cell.max(initial=0)) + 1) * deep - least)
    keys += least
    example = np.zeros(len(keys), np.int64)
    example[place[::-1]] = hour[::-1]
    return Condensed(
        run=keys // deep // view.columns,
        hour=example,
        turning=keys % deep % 2 == 1,
        rows=rows,
        sum_of_row=place + first,
    )


def _of_rows(flags: Flags, row: Integers) -> Flags:
    """Each row's flag by its price row; False without one (−1)."""
    found: Flags = np.append(flags, False)[row]
    return found
