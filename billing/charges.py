"""Charges: what of each meter lies on which line, before there are any prices (arithmetic rule 5).

    quantities by row of usage → not billed, free, the rest → tiers or packages → a charge a line

Quantities are summed per group (`billing.filling`) at once; only where units are included, or a graduated pool crosses
a bound, the order of rows matters and they are gone through as they fill the pool. Σ quantities in = Σ `units` out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from billing import price_graduated, price_package, price_volume
from billing.filling import Filling, Groups
from billing.hourly import Flags, Integers, distinct, sums
from billing.included import free_units
from billing.tariff import Graduated, Package, Plain, Pricing, Tier, Volume
from billing.terms import TermsRow
from billing.window import BASE

FREE_TIER, NO_TIER, UNBILLED_TIER = -1, 0, 1 << 20
"""Tiers as integers, in the order in which lines are read: free, plain, 1…n, unbilled."""


@dataclass(frozen=True, slots=True)
class Charges:
    """Quantities of one meter, n of them, none of them 0; columns n long.

    `model` is one beyond the last for a package, whose `quantity` is of packages; `units` is what it is of the meter.
    """

    meter: str
    customer: Integers
    row: Integers
    model: Integers
    window: Integers
    tier: Integers
    quantity: Integers
    units: Integers


def charges(
    meter: str,
    quantity: Integers,
    filling: Filling,
    rows: Sequence[TermsRow],
    included: Integers | None,
    models: int,
) -> Iterator[Charges]:
    """The charges of one meter.

    `quantity` of each row of `filling`; `included`: free units by customer, None where nobody has any. What has no
    price here, or lies in an hour that no window covers, is left out: `billing.unpriced_usage` names it.
    """
    if not quantity.any():
        return
    groups, group = filling.groups, filling.group
    count = len(groups.row)
    pricings = [row.pricing(meter) for row in rows]
    packaged = _priced_by(Package, pricings)[groups.row]
    priced = np.array([pricing is not None for pricing in pricings], np.bool_)[groups.row]
    covered = priced & (packaged | (groups.window >= 0))

    billed = np.where(filling.billed, quantity, 0)
    rest = sums(group, billed, count)
    unbilled = sums(group, quantity, count) - rest
    yield from _marked(meter, UNBILLED_TIER, unbilled, covered, packaged, groups, models)

    if included is not None:
        taking = np.flatnonzero(
            filling.billed & (covered & (included[groups.customer] > 0))[group] & (quantity != 0)
        )
        free = free_units(groups.customer[group[taking]], billed[taking], included)
        billed[taking] -= free
        of_group = sums(group[taking], free, count)
        rest -= of_group
        yield from _marked(meter, FREE_TIER, of_group, covered, packaged, groups, models)

    plain = np.flatnonzero(covered & _priced_by(Plain, pricings)[groups.row] & (rest != 0))
    yield _of_groups(meter, groups, plain, np.full(len(plain), NO_TIER, np.int64), rest[plain])
    pools = _Pools(pricings, groups, len(rows))
    yield from _graduated(meter, billed, rest, filling, covered, pools)
    yield from _volume(meter, rest, groups, covered, pools)
    yield from _packages(meter, rest, covered, pools, models)


class _Pools:
    """The pools (customer, price row) that some groups of one meter fill."""

    def __init__(self, pricings: Sequence[Pricing | None], groups: Groups, rows: int) -> None:
        self._pricings, self._groups, self._rows = pricings, groups, rows

    def of(self, kind: type, covered: Flags) -> tuple[Integers, Integers, Integers, Integers]:
        """(groups that `kind` prices, the pool of each, each pool's customer, each pool's row)."""
        chosen = np.flatnonzero(covered & _priced_by(kind, self._pricings)[self._groups.row])
        keys, pool = distinct(self._groups.customer[chosen] * self._rows + self._groups.row[chosen])
        customer, row = np.divmod(keys, self._rows or 1)
        return chosen, pool, customer, row

    def tiers(self, rows: Integers) -> list[Sequence[Tier]]:
        """The tiers of each pool's price row."""
        found: list[Sequence[Tier]] = []
        for row in rows.tolist():
            pricing = self._pricings[row]
            assert isinstance(pricing, Graduated | Volume)
            found.append(pricing.tiers)
        return found

    def package_sizes(self, rows: Integers) -> Integers:
        sizes = [
            pricing.size
            for pricing in (self._pricings[row] for row in rows.tolist())
            if isinstance(pricing, Package)
        ]
        return np.array(sizes, np.int64)


def _graduated(
    meter: str, billed: Integers, rest: Integers, filling: Filling, covered: Flags, pools: _Pools
) -> Iterator[Charges]:
    """Tiers of graduated prices: pools that stay in their first tier as a whole, the others row by row."""
    groups = filling.groups
    chosen, pool, _, row = pools.of(Graduated, covered)
    if not len(chosen):
        return
    tiers = pools.tiers(row)
    crosses = sums(pool, rest[chosen], len(row)) > price_graduated.upper_bounds(tiers)[:, 0]
    if (billed < 0).any():
        crosses[:] = True  # a pool may have been fuller than it is in the end
    whole = chosen[~crosses[pool] & (rest[chosen] != 0)]
    yield _of_groups(meter, groups, whole, np.ones(len(whole), np.int64), rest[whole])

    pool_of_group = np.full(len(groups.row), -1, np.int64)
    pool_of_group[chosen[crosses[pool]]] = pool[crosses[pool]]
    steps = np.flatnonzero((pool_of_group >= 0)[filling.group] & (billed != 0))
    pool_of_step = pool_of_group[filling.group[steps]]
    order = np.argsort(pool_of_step, kind="stable")
    steps, pool_of_step = steps[order], pool_of_step[order]
    for tier, parts in price_graduated.quantities(pool_of_step, billed[steps], tiers):
        of_group = sums(filling.group[steps], parts, len(groups.row))
        used = np.flatnonzero(of_group)
        yield _of_groups(meter, groups, used, np.full(len(used), tier, np.int64), of_group[used])


def _volume(meter: str, rest: Integers, groups: Groups, covered: Flags, pools: _Pools) -> Iterator[Charges]:
    chosen, pool, _, row = pools.of(Volume, covered)
    if len(chosen):
        tier = price_volume.tiers(sums(pool, rest[chosen], len(row)), pools.tiers(row))[pool]
        used = rest[chosen] != 0
        yield _of_groups(meter, groups, chosen[used], tier[used], rest[chosen[used]])


def _packages(meter: str, rest: Integers, covered: Flags, pools: _Pools, models: int) -> Iterator[Charges]:
    chosen, pool, customer, row = pools.of(Package, covered)
    totals = sums(pool, rest[chosen], len(row))
    used = np.flatnonzero(totals)
    if len(used):
        started = price_package.started(totals[used], pools.package_sizes(row[used]))
        no_model, base = np.full(len(used), models, np.int64), np.full(len(used), BASE, np.int64)
        tier = np.full(len(used), NO_TIER, np.int64)
        yield Charges(meter, customer[used], row[used], no_model, base, tier, started, totals[used])


def _marked(
    meter: str, tier: int, of_group: Integers, covered: Flags, packaged: Flags, groups: Groups, models: int
) -> Iterator[Charges]:
    """Free and unbilled quantities. Those of packages have no window, like the packages themselves."""
    used = np.flatnonzero(covered & ~packaged & (of_group != 0))
    yield _of_groups(meter, groups, used, np.full(len(used), tier, np.int64), of_group[used])
    used = np.flatnonzero(covered & packaged & (of_group != 0))
    if len(used):
        keys, place = distinct(
            (groups.customer[used] * (int(groups.row.max()) + 1) + groups.row[used]) * models
            + groups.model[used]
        )
        totals = sums(place, of_group[used], len(keys))
        rest, model = np.divmod(keys, models)
        customer, row = np.divmod(rest, int(groups.row.max()) + 1)
        kept = totals != 0
        base, tiers = np.full(len(keys), BASE, np.int64), np.full(len(keys), tier, np.int64)
        customer, row, model, base, tiers, totals = (
            each[kept] for each in (customer, row, model, base, tiers, totals)
        )
        yield Charges(meter, customer, row, model, base, tiers, totals, totals)


def _of_groups(meter: str, groups: Groups, at: Integers, tier: Integers, quantity: Integers) -> Charges:
    customer, row, model, window = (
        each[at] for each in (groups.customer, groups.row, groups.model, groups.window)
    )
    return Charges(meter, customer, row, model, window, tier, quantity, quantity)


def _priced_by(kind: type, pricings: Sequence[Pricing | None]) -> Flags:
    """By price row, whether its pricing of the meter is of that kind."""
    return np.array([isinstance(pricing, kind) for pricing in pricings], np.bool_)
