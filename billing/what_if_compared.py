"""Now and then: bills of some periods under the facts in force, beside those with a tariff put in another's place.

What is replaced: every version of the tariff of that id. The first of the versions put there holds from ever,
whatever day it names, so that it is asked about whole periods; later ones begin when they say. Contracts, customers,
nodes and other tariffs stay, and so do adjustments, which are no part of either side.

Parts sum to the whole: worth by model, region or hour of the day is exact and unrounded, and what lies between its sum and
the net (packages, rounding of lines, discounts, floors, fees) is a part of its own.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from billing.bill_columns import totals
from billing.facts import Facts
from billing.period import Period
from billing.tariff import Tariff
from billing.unpriced import Unpriced
from billing.what_if import PeriodOutcome
from billing.what_if_too_large import TooLarge

PARTS = ("usage", "discounts", "floors", "fees")
"""Of a net amount."""
UNDIVIDED = ("packages", "rounding", "discounts", "floors", "fees")
"""What no model, region or hour has."""
NO_SEGMENT = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """The same amount now and then, in minor units; worth may be a fraction of one."""

    now: Fraction
    then: Fraction

    @property
    def change(self) -> Fraction:
        return self.then - self.now


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both sides over all periods. `parts`: of PARTS and `net`; `undivided`: of UNDIVIDED; the others by what their names
    say, `by_hour` by the hour of the operator's day. `customers`: who has a bill on either side."""

    periods: tuple[Period, ...]
    parts: Mapping[str, Pair]
    undivided: Mapping[str, Pair]
    by_period: Mapping[str, Pair]
    by_segment: Mapping[str, Pair]
    by_model: Mapping[str, Pair]
    by_region: Mapping[str, Pair]
    by_hour: Sequence[Pair]
    customers: Mapping[str, Pair]
    unpriced_now: tuple[Unpriced, ...]
    unpriced_then: tuple[Unpriced, ...]
    too_large_now: tuple[TooLarge, ...] = ()
    too_large_then: tuple[TooLarge, ...] = ()

    def count(self) -> tuple[int, int, int]:
        """How many customers pay more, less, and the same."""
        changes = [pair.change for pair in self.customers.values()]
        up, down = sum(change > 0 for change in changes), sum(change < 0 for change in changes)
        return up, down, len(changes) - up - down


def with_tariff(facts: Facts, versions: Sequence[Tariff]) -> Facts:
    """`facts` with these versions of one tariff, oldest first, in the place of all that it has; the first from ever."""
    first, *later = versions
    assert all(version.id == first.id for version in later), "versions of one tariff"
    put = (replace(first, valid_from=None), *later)
    return replace(facts, tariffs={**facts.tariffs, first.id: put})


class _Side:
    """One side's sums over periods."""

    def __init__(self, outcomes: Sequence[PeriodOutcome]) -> None:
        self.parts, self.undivided = Counter[str](), defaultdict[str, Fraction](Fraction)
        self.period, self.segment, self.customer = Counter[str](), Counter[str](), Counter[str]()
        self._nets: dict[tuple[tuple[str, ...], tuple[str | None, ...]], Any] = {}
        self.model, self.region = defaultdict[str, Fraction](Fraction), defaultdict[str, Fraction](Fraction)
        self.hour = [Fraction(0)] * 24
        for outcome in outcomes:
            self._add(outcome)
        for (customers, segments), nets in self._nets.items():
            for customer, segment, net in zip(customers, segments, nets.tolist(), strict=True):
                self.customer[customer] += net
                self.segment[segment or NO_SEGMENT] += net
        self.unpriced = tuple(each for outcome in outcomes for each in outcome.unpriced)

    def _add(self, outcome: PeriodOutcome) -> None:
        parts = totals(outcome.bills)
        self.parts.update(parts)
        self.period[str(outcome.period)] += parts["net"]
        # Most periods have the same customers in the same segments: one sum of columns, of any size.
        alike = tuple(outcome.bills.customers), tuple(outcome.segments)
        self._nets[alike] = self._nets.get(alike, 0) + outcome.bills.net.astype(object)
        worth = outcome.worth
        rounding = parts["usage"] - outcome.packages - worth.total
        undivided: dict[str, Fraction | int] = {**parts, "packages": outcome.packages, "rounding": rounding}
        for name in UNDIVIDED:
            self.undivided[name] += undivided[name]
        for model, value in worth.by_model.items():
            self.model[model] += Fraction(value, worth.per_minor)
        for region, value in worth.by_region.items():
            self.region[region] += Fraction(value, worth.per_minor)
        for hour, value in enumerate(worth.by_hour):
            self.hour[hour] += Fraction(value, worth.per_minor)


def compared(now: Sequence[PeriodOutcome], then: Sequence[PeriodOutcome]) -> Comparison:
    """Both sides; the same periods in the same order."""
    assert [each.period for each in now] == [each.period for each in then]
    one, other = _Side(now), _Side(then)

    def pairs(
        of_now: Mapping[str, int] | Mapping[str, Fraction],
        of_then: Mapping[str, int] | Mapping[str, Fraction],
    ) -> dict[str, Pair]:
        names = dict.fromkeys([*of_now, *of_then])
        return {name: Pair(Fraction(of_now.get(name, 0)), Fraction(of_then.get(name, 0))) for name in names}

    def ordered(found: dict[str, Pair]) -> dict[str, Pair]:
        return {name: found[name] for name in sorted(found)}

    return Comparison(
        periods=tuple(each.period for each in now),
        parts=pairs(one.parts, other.parts),
        undivided=pairs(one.undivided, other.undivided),
        by_period=pairs(one.period, other.period),
        by_segment=ordered(pairs(one.segment, other.segment)),
        by_model=ordered(pairs(one.model, other.model)),
        by_region=ordered(pairs(one.region, other.region)),
        by_hour=[Pair(a, b) for a, b in zip(one.hour, other.hour, strict=True)],
        customers=ordered(pairs(one.customer, other.customer)),
        unpriced_now=one.unpriced,
        unpriced_then=other.unpriced,
    )
