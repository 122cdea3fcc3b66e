"""What usage is worth before any rounding, by model, region and hour of the operator's day. Exact integers.

A line's amount is rounded once, so parts of lines have no amounts; they have a worth, quantity × unit price. Worth is
counted in one unit for all prices, a power of ten of the minor unit's, small enough that each unit price is a whole number
of it; sums are then sums of integers. Rows that were rated as one sum have one price a meter, so a row's worth is linear
in its quantities:

    input = prompt − cached at 40, cached at 10:      worth = 40 × prompt + (10 − 40) × cached

Hours in which a pool turns have a worth tier by tier. Packages have none: what they cost depends on the pool alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from billing import price_graduated, price_volume
from billing.charges import NO_TIER, MeterPricing
from billing.filling import Filling
from billing.hourly import Flags, Hourly, Integers, distinct, sums
from billing.included import free_units
from billing.placing import Placed
from billing.tariff import METERS
from billing.usage_runs import UsageRuns
from billing.what_if_units import Units
from billing.what_if_view import View

_CHUNK_ROWS = 1 << 17
_SAFE = 2**62
HOURS = 24


_READ = {
    "input": {"prompt_tokens", "cached_tokens"},
    "cached_input": {"cached_tokens"},
    "output": {"completion_tokens", "generated_tokens", "reasoning_tokens", "generated_reasoning_tokens"},
    "reasoning": {"reasoning_tokens", "generated_reasoning_tokens"},
    **{name: {name} for name in ("requests", "audio_seconds")},
}
"""Quantities that a meter is counted from. Their sums may be 0 in every cell, and yet some hours be worth something."""


@dataclass(frozen=True, slots=True)
class Worth:
    """Sums of worth in 1/`per_minor` of the minor unit."""

    per_minor: int
    by_model: Mapping[str, int]
    by_region: Mapping[str, int]
    by_hour: Sequence[int]

    @property
    def total(self) -> Fraction:
        """All of it, in minor units."""
        return Fraction(sum(self.by_hour), self.per_minor)


@dataclass(frozen=True, slots=True)
class Cells:
    """What each row of usage is part of: `of_row` is a place in the rated usage, None for run × columns + column of the
    view. `alone`: by such place, whether it is of one hour in which a pool turns, so that it may lie in several tiers.
    """

    alone: Flags
    of_row: Integers | None

    def of(self, usage: UsageRuns, view: View, part: slice) -> Integers:
        """What the rows of usage in `part` are part of."""
        if self.of_row is not None:
            return self.of_row[part]
        found: Integers = usage.run[part] * np.int64(view.columns) + view.column[usage.hour[part]]
        return found


class WorthSum:
    """Worth as it is summed up, filling by filling.

    `hourly` and `placed` are what is rated, `cells` says of which rows of usage. `of_day`: the local hour of each hour of
    the period.
    """

    def __init__(
        self,
        usage: UsageRuns,
        view: View,
        hourly: Hourly,
        placed: Placed,
        cells: Cells,
        of_day: Integers,
        currency: str,
    ) -> None:
        self._usage, self._view, self._hourly, self._placed = usage, view, hourly, placed
        self._cells, self._of_day = cells, of_day
        self._units = Units(placed.rows, view.windows, currency)
        self._places, self._place_of_cell = _places(placed)
        self._table = [0] * (len(self._places) * HOURS)
        self._priced: dict[str, Integers] = {}

    def add(self, quantity: Integers, filling: Filling, pricing: MeterPricing) -> None:
        """Adds what one meter of a filling is worth, of which each row has a `quantity`."""
        if _READ[pricing.meter].isdisjoint(self._usage.quantities):
            return  # most have no audio, and no price for it
        of_meter = _OfMeter(quantity, filling, pricing, self._units)
        unit = self._priced.setdefault(pricing.meter, np.zeros(len(self._placed.row), self._units.dtype))
        alone = self._cells.alone[filling.at]
        unit[filling.at] = np.where(alone, 0, of_meter.unit)
        of_hours = np.flatnonzero(alone)
        if len(of_hours):
            at = filling.at[of_hours]
            key = _place_of_case(self._placed, self._places)[self._placed.case[at]] * HOURS
            key += self._of_day[self._hourly.hours[at] - self._usage.first]
            self._add(key, of_meter.values()[of_hours])

    def _add(self, key: Integers, value: Integers) -> None:
        totals = np.zeros(len(self._table), object)
        if value.dtype != np.dtype(object) and int(np.abs(value).max(initial=0)) * len(value) < _SAFE:
            totals = np.zeros(len(self._table), np.int64)
        np.add.at(totals, key, value)
        for at, total in enumerate(totals.tolist()):
            self._table[at] += total

    def worth(self) -> Worth:
        """All of it, once every filling was added."""
        coefficients = _coefficients(self._priced, self._placed)
        found = _of_runs(
            self._usage, self._view, self._cells, coefficients, self._place_of_cell, self._of_day
        )
        for key, value in found:
            self._add(key[: len(self._table)], value[: len(self._table)])
        return _summed(self._table, self._places, self._units.per_minor)


def _places(placed: Placed) -> tuple[list[tuple[str, str]], Integers]:
    """Every (region, model) there is, and which of them each row's is."""
    places = list(dict.fromkeys((region, model) for _, region, model in placed.cases))
    return places, _place_of_case(placed, places)[placed.case]


def _place_of_case(placed: Placed, places: Sequence[tuple[str, str]]) -> Integers:
    at = {place: number for number, place in enumerate(places)}
    return np.array([at[region, model] for _, region, model in placed.cases], np.int64)


def _summed(table: list[int], places: Sequence[tuple[str, str]], per_minor: int) -> Worth:
    by_model, by_region, by_hour = Counter[str](), Counter[str](), [0] * HOURS
    for at, value in enumerate(table):
        place, hour = divmod(at, HOURS)
        region, model = places[place]
        by_region[region] += value
        by_model[model] += value
        by_hour[hour] += value
    return Worth(per_minor, by_model, by_region, by_hour)


class _OfMeter:
    """One meter of the rows of a filling: the unit price of each that has one alone, and what each is worth."""

    def __init__(self, quantity: Integers, filling: Filling, pricing: MeterPricing, units: Units) -> None:
        self._pricing, self._units, self._row = pricing, units, filling.row
        self._customer = filling.groups.customer[filling.group]
        self._window = filling.groups.window[filling.group]
        windowed = (pricing.plain | pricing.graduated | pricing.volume)[filling.row] & (self._window >= 0)
        rest = np.where(filling.billed, quantity, 0)
        free: Flags = np.zeros(len(rest), np.bool_)
        if pricing.included is not None:
            taking = (windowed | pricing.package[filling.row]) & (pricing.included[self._customer] > 0)
            taken = free_units(self._customer, np.where(taking, rest, 0), pricing.included)
            free = taking & (taken == rest)
            rest = rest - taken
        self._rest = np.where(windowed, rest, 0)
        tier = np.where(pricing.graduated[filling.row], 1, NO_TIER)
        self._volume(tier)
        self._graduated(tier)
        #: Of what has no turn within it: all of a row is free, or none, and in one tier.
        self.unit = np.where(
            filling.billed & ~free & windowed, units.of(pricing.meter, self._row, tier, self._window), 0
        )

    def values(self) -> Integers:
        """What each row is worth."""
        rest = self._rest
        if int(np.abs(rest).max(initial=0)) * self._units.most >= _SAFE:
            rest = rest.astype(object)
        found = self.unit * rest
        found[self._pricing.graduated[self._row]] = 0
        for tier, chosen, parts in self._tiers():
            used = np.flatnonzero(parts)
            at = chosen[used]
            of_tier = np.full(len(at), tier, np.int64)
            unit = self._units.of(self._pricing.meter, self._row[at], of_tier, self._window[at])
            found[at] += parts[used].astype(rest.dtype) * unit
        return found

    def _graduated(self, tier: Integers) -> None:
        """The tier of rows that lie in one beyond their pool's first, into `tier`."""
        for number, at, parts in self._tiers():
            whole = at[(parts == self._rest[at]) & (parts != 0)]
            tier[whole] = number

    def _tiers(self) -> Iterator[tuple[int, Integers, Integers]]:
        """(tier, places of graduated rows, what of each lies in it)."""
        chosen, pool, row = self._pools(self._pricing.graduated[self._row] & (self._rest != 0))
        if len(chosen):
            order = np.argsort(pool, kind="stable")
            chosen, pool = chosen[order], pool[order]
            upper = self._pricing.bounds[row]
            for tier, parts in price_graduated.quantities(pool, self._rest[chosen], upper):
                yield tier, chosen, parts

    def _volume(self, tier: Integers) -> None:
        """The tier of volume pools, into `tier`."""
        chosen, pool, row = self._pools(self._pricing.volume[self._row])
        if len(chosen):
            totals = sums(pool, self._rest[chosen], len(row))
            tier[chosen] = price_volume.tiers(totals, self._pricing.bounds[row])[pool]

    def _pools(self, wanted: Flags) -> tuple[Integers, Integers, Integers]:
        """(the wanted rows, the pool of each, each pool's price row)."""
        chosen = np.flatnonzero(wanted)
        rows = len(self._pricing.plain)
        keys, pool = distinct(self._customer[chosen] * rows + self._row[chosen])
        return chosen, pool, keys % rows


def _coefficients(priced: Mapping[str, Integers], placed: Placed) -> dict[str, Integers]:
    """What one of each quantity adds to a row's worth, by cell: rule 3 turned around."""
    row = placed.row
    flags = np.array([row.prices() for row in placed.rows] + [(False,) * len(METERS)], np.bool_)[row]
    generated = np.array(
        [row.terms.tariff.bill_output == "generated" for row in placed.rows] + [False], np.bool_
    )[row]

    def unit(meter: str) -> Integers | int:
        return priced.get(meter, 0)

    def where(flag: Flags, value: Integers | int) -> Integers:
        found: Integers = np.where(flag, value, 0)
        return found

    def own(meter: str) -> Flags:
        flags_of: Flags = flags[:, METERS.index(meter)]
        return flags_of

    apart = unit("reasoning") - unit("output")
    found = {
        "prompt_tokens": where(own("input"), unit("input")),
        "cached_tokens": where(own("cached_input"), unit("cached_input") - unit("input")),
        "completion_tokens": where(~generated, unit("output")),
        "reasoning_tokens": where(own("reasoning") & ~generated, apart),
        "generated_tokens": where(generated, unit("output")),
        "generated_reasoning_tokens": where(own("reasoning") & generated, apart),
        "requests": where(own("requests"), unit("requests")),
        "audio_seconds": where(own("audio_seconds"), unit("audio_seconds")),
    }
    return {name: values for name, values in found.items() if values.any()}


def _of_runs(
    usage: UsageRuns,
    view: View,
    cells: Cells,
    coefficients: Mapping[str, Integers],
    place_of_cell: Integers,
    of_day: Integers,
) -> Iterator[tuple[Integers, Integers]]:
    """(place and hour of the day, worth) of all rows, summed over chunks of them."""
    worthy = {name: values for name, values in coefficients.items() if usage.quantity(name) is not None}
    most = sum(usage.magnitudes[name] * int(np.abs(values).max(initial=0)) for name, values in worthy.items())
    kind = np.dtype(np.int64 if most < _SAFE else object)
    first_place = place_of_cell * HOURS
    totals = np.zeros(int(first_place.max(initial=0)) + HOURS, kind)
    for start in range(0, len(usage.hour) if worthy else 0, _CHUNK_ROWS):
        part = slice(start, start + _CHUNK_ROWS)
        hour = usage.hour[part].astype(np.int64)
        cell = cells.of(usage, view, part)
        value = np.zeros(len(hour), kind)
        for name, values in worthy.items():
            value += usage.quantities[name][part] * values[cell].astype(kind, copy=False)
        np.add.at(totals, first_place[cell] + of_day[hour], value)
    yield np.arange(len(totals)), totals
