"""Pools: what is used up in an order, free units and tiers alike (arithmetic rule 5).

A pool is known by its content alone. With c its content before a step and d after it, the step took from the part of
the pool up to a bound min(d, bound) − min(c, bound). That is exact, needs no loop over rows, and for steps of one line
within one hour adds up, so neither their number nor the order of nodes shows. A negative step (a void that outweighs
its hour) empties the pool from the top.
"""

from __future__ import annotations

import numpy as np

from billing.hourly import Integers

NO_BOUND = 2**63 - 1


def contents(pools: Integers, values: Integers) -> tuple[Integers, Integers]:
    """Each step's content of its pool (before, after). Rows of one pool stand together, in the order of steps."""
    if not len(values):
        return values, values
    # Sums across pools may wrap around; differences within one pool are right all the same, modulo 2**64.
    content = np.cumsum(values)
    first = np.flatnonzero(np.diff(pools, prepend=-1))
    before_pool = content[first] - values[first]
    after = content - np.repeat(before_pool, np.diff(np.append(first, len(pools))))
    return after - values, after
