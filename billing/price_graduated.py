"""The graduated pricer: each unit at the price of the tier that it falls in (arithmetic rule 5).

A pool (customer, price row under its terms, meter) is filled in the order hour, model; `billing.pool` says what a step
takes from the part of it up to a bound, and a tier is what lies between two bounds. What goes below zero lies in the
first tier: quantities over tiers always sum to the pool's net. `up_to` is inclusive.

    up_to 100, steps +70 (model a), +50 (model b):  a: 70 in tier 1;  b: 30 in tier 1, 20 in tier 2
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from billing.hourly import Integers
from billing.pool import NO_BOUND, contents
from billing.tariff import Tier


def quantities(pools: Integers, values: Integers, upper: Integers) -> Iterator[tuple[int, Integers]]:
    """(tier from 1, what of each row's value lies in it), for as many tiers as the longest has.

    The rows are in order: by pool, then hour, then model. `pools` numbers each row's pool, `upper` holds the
    `upper_bounds` of each number.
    """
    before, after = contents(pools, values)
    filled_below = np.zeros(len(values), np.int64)
    for tier in range(upper.shape[1]):
        bound = upper[pools, tier]
        filled = np.minimum(after, bound) - np.minimum(before, bound)
        yield tier + 1, filled - filled_below
        filled_below = filled


def upper_bounds(tiers_of_each: Sequence[Sequence[Tier]]) -> Integers:
    """`up_to` of each one's tiers side by side; where there is no bound, or no tier any more, one beyond all."""
    deepest = max((len(tiers) for tiers in tiers_of_each), default=0)
    bounds = [
        [NO_BOUND if tier.up_to is None else min(tier.up_to, NO_BOUND) for tier in tiers]
        + [NO_BOUND] * (deepest - len(tiers))
        for tiers in tiers_of_each
    ]
    return np.array(bounds, np.int64).reshape(len(tiers_of_each), deepest)
