"""The graduated pricer: each unit at the price of the tier that it falls in (arithmetic rule 5).

A pool is filled in the order hour, model. With c the pool's content before a step and d after it, the step
has min(d, upper) − min(c, upper) less the same at the tier's lower bound in each tier; that is exact, needs
no loop over rows, and for steps of one model within one hour adds up, so neither their number nor the order
of nodes shows. A negative step (a void that outweighs its hour) empties the pool from the top, and what
goes below zero lies in the first tier: quantities over tiers always sum to the pool's net.

    up_to 100, steps +70 (model a), +50 (model b):  a: 70 in tier 1;  b: 30 in tier 1, 20 in tier 2
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from billing.hourly import Integers, sums
from billing.tariff import Tier

_NO_BOUND = 2**63 - 1


def quantities(
    pools: Integers, groups: Integers, values: Integers, tiers_of_pool: Sequence[Sequence[Tier]], count: int
) -> Iterator[tuple[int, int, int]]:
    """(group, tier from 1, quantity) for each that is not 0.

    The rows are in order: by pool, then hour, then model. `pools` numbers each row's pool, `tiers_of_pool`
    holds the tiers of each number; `groups` numbers the line that the row belongs to, below `count`.
    """
    if not len(pools):
        return
    content = np.cumsum(values)
    first = np.flatnonzero(np.diff(pools, prepend=-1))
    before_pool = content[first] - values[first]
    lengths = np.diff(np.append(first, len(pools)))
    after = content - np.repeat(before_pool, lengths)
    before = after - values
    pool_of_run = pools[first]
    deepest = max(len(tiers) for tiers in tiers_of_pool)
    upper = np.array([_bounds(tiers, deepest) for tiers in tiers_of_pool], np.int64)
    filled_below = np.zeros(len(values), np.int64)
    for tier in range(deepest):
        bound = np.repeat(upper[pool_of_run, tier], lengths)
        filled = np.minimum(after, bound) - np.minimum(before, bound)
        totals = sums(groups, filled - filled_below, count)
        filled_below = filled
        used = np.flatnonzero(totals)
        for group, total in zip(used.tolist(), totals[used].tolist(), strict=True):
            yield group, tier + 1, total


def _bounds(tiers: Sequence[Tier], length: int) -> list[int]:
    bounds = [_NO_BOUND if tier.up_to is None else min(tier.up_to, _NO_BOUND) for tier in tiers]
    return bounds + [_NO_BOUND] * (length - len(bounds))
