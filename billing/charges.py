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
from billing.tariff import Graduated, Package, Plain, Pricing, Volume
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


@dataclass(frozen=True, slots=True)
class MeterPricing:
    """How each price row prices one meter, by place: in which of the four ways (in none: no price), the upper bounds of
    its tiers, the size of its packages. `included`: free units by customer; None: nobody has any.
    """

    meter: str
    plain: Flags
    graduated: Flags
    volume: Flags
    package: Flags
    bounds: Integers
    sizes: Integers
    included: Integers | None
    models: int


def meter_pricing(
    meter: str, rows: Sequence[TermsRow], included: Integers | None, models: int
) -> MeterPricing:
    """How `rows` price a meter, of usage of so many models."""
    pricings = [row.pricing(meter) for row in rows]
    return MeterPricing(
        meter=meter,
        plain=_of_kind(Plain, pricings),
        graduated=_of_kind(Graduated, pricings),
        volume=_of_kind(Volume, pricings),
        package=_of_kind(Package, pricings),
        bounds=price_graduated.upper_bounds(
            [pricing.tiers if isinstance(pricing, Graduated | Volume) else () for pricing in pricings]
        ),
        sizes=np.array(
            [pricing.size if isinstance(pricing, Package) else 1 for pricing in pricings], np.int64
        ),
        included=included,
        models=models,
    )


def charges_under(pricing: MeterPricing, quantity: Integers, filling: Filling) -> Iterator[Charges]:
    """The charges of one meter, of which each row of `filling` has a `quantity`.

    What has no price here, or lies in an hour that no window covers, is left out: `billing.unpriced_usage` names it.
    """
    if not quantity.any():
        return
    groups, group = filling.groups, filling.group
    count = len(groups.row)
    packaged = pricing.package[groups.row]
    windowed = (pricing.plain | pricing.graduated | pricing.volume)[groups.row] & (groups.window >= 0)
    covered = packaged | windowed

    billed = quantity if filling.billed.all() else np.where(filling.billed, quantity, 0)
    rest = sums(group, billed, count)
    if billed is not quantity:
        unbilled = sums(group, quantity, count) - rest
        yield from _marked(UNBILLED_TIER, unbilled, windowed, packaged, groups, pricing)

    if pricing.included is not None:
        taking = filling.billed & (covered & (pricing.included[groups.customer] > 0))[group]
        free = free_units(groups.customer[group], np.where(taking, billed, 0), pricing.included)
        billed = billed - free
        of_group = sums(group, free, count)
        rest -= of_group
        yield from _marked(FREE_TIER, of_group, windowed, packaged, groups, pricing)

    plain = np.flatnonzero(windowed & pricing.plain[groups.row] & (rest != 0))
    yield _of_groups(pricing.meter, groups, plain, np.full(len(plain), NO_TIER, np.int64), rest[plain])
    yield from _graduated(billed, rest, filling, windowed, pricing)
    yield from _volume(rest, groups, windowed, pricing)
    yield from _packages(rest, groups, packaged, pricing)


def _graduated(
    billed: Integers, rest: Integers, filling: Filling, windowed: Flags, pricing: MeterPricing
) -> Iterator[Charges]:
    """Tiers of graduated prices: pools that stay in their first tier as a whole, the others row by row."""
    groups = filling.groups
    chosen, pool, _, row = _pools(groups, windowed & pricing.graduated[groups.row])
    if not len(chosen):
        return
    upper = pricing.bounds[row]
    crosses = sums(pool, rest[chosen], len(row)) > upper[:, 0]
    if (billed < 0).any():
        crosses[:] = True  # a pool may have been fuller than it is in the end
    whole = chosen[~crosses[pool] & (rest[chosen] != 0)]
    yield _of_groups(pricing.meter, groups, whole, np.ones(len(whole), np.int64), rest[whole])

    pool_of_group = np.full(len(groups.row), -1, np.int64)
    pool_of_group[chosen[crosses[pool]]] = pool[crosses[pool]]
    pool_of_step = pool_of_group[filling.group]
    steps = np.flatnonzero((pool_of_step >= 0) & (billed != 0))
    steps = steps[np.argsort(pool_of_step[steps], kind="stable")]
    group = filling.group[steps]
    for tier, parts in price_graduated.quantities(pool_of_step[steps], billed[steps], upper):
        of_group = sums(group, parts, len(groups.row))
        used = np.flatnonzero(of_group)
        yield _of_groups(pricing.meter, groups, used, np.full(len(used), tier, np.int64), of_group[used])


def _volume(rest: Integers, groups: Groups, windowed: Flags, pricing: MeterPricing) -> Iterator[Charges]:
    """The tier of volume prices: that of their pool's total."""
    chosen, pool, _, row = _pools(groups, windowed & pricing.volume[groups.row])
    if len(chosen):
        tier = price_volume.tiers(sums(pool, rest[chosen], len(row)), pricing.bounds[row])[pool]
        used = rest[chosen] != 0
        yield _of_groups(pricing.meter, groups, chosen[used], tier[used], rest[chosen[used]])


def _packages(rest: Integers, groups: Groups, packaged: Flags, pricing: MeterPricing) -> Iterator[Charges]:
    """Started packages of each pool's total, on one line whatever the models and hours."""
    chosen, pool, customer, row = _pools(groups, packaged)
    totals = sums(pool, rest[chosen], len(row))
    used = np.flatnonzero(totals)
    if len(used):
        started = price_package.started(totals[used], pricing.sizes[row[used]])
        no_model, base, tier = (
            np.full(len(used), value, np.int64) for value in (pricing.models, BASE, NO_TIER)
        )
        yield Charges(pricing.meter, customer[used], row[used], no_model, base, tier, started, totals[used])


def _pools(groups: Groups, wanted: Flags) -> tuple[Integers, Integers, Integers, Integers]:
    """(the wanted groups, the pool of each, each pool's customer, each pool's price row)."""
    chosen = np.flatnonzero(wanted)
    rows = int(groups.row.max()) + 1
    keys, pool = distinct(groups.customer[chosen] * rows + groups.row[chosen])
    customer, row = np.divmod(keys, rows)
    return chosen, pool, customer, row


def _marked(
    tier: int, of_group: Integers, windowed: Flags, packaged: Flags, groups: Groups, pricing: MeterPricing
) -> Iterator[Charges]:
    """Free and unbilled quantities. Those of packages have no window, like the packages themselves."""
    used = np.flatnonzero(windowed & (of_group != 0))
    yield _of_groups(pricing.meter, groups, used, np.full(len(used), tier, np.int64), of_group[used])
    used = np.flatnonzero(packaged & (of_group != 0))
    if len(used):
        rows, models = int(groups.row.max()) + 1, pricing.models
        keys, place = distinct(
            (groups.customer[used] * rows + groups.row[used]) * models + groups.model[used]
        )
        totals = sums(place, of_group[used], len(keys))
        keys, totals = keys[totals != 0], totals[totals != 0]
        rest, model = np.divmod(keys, models)
        customer, row = np.divmod(rest, rows)
        base, tiers = np.full(len(keys), BASE, np.int64), np.full(len(keys), tier, np.int64)
        yield Charges(pricing.meter, customer, row, model, base, tiers, totals, totals)


def _of_groups(meter: str, groups: Groups, at: Integers, tier: Integers, quantity: Integers) -> Charges:
    customer, row, model, window = (
        each[at] for each in (groups.customer, groups.row, groups.model, groups.window)
    )
    return Charges(meter, customer, row, model, window, tier, quantity, quantity)


def _of_kind(kind: type, pricings: Sequence[Pricing | None]) -> Flags:
    """By price row, whether its pricing of the meter is of that kind."""
    return np.array([isinstance(pricing, kind) for pricing in pricings], np.bool_)
