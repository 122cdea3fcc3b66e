"""The volume pricer: all units of a pool at the price of the tier that their total falls in (arithmetic rule 5).

The total is what `included` left of the customer's usage under one price row, meter and period. `up_to` is inclusive;
a total below zero lies in the first tier.

    up_to 100, total 100: all in tier 1;   total 101: all in tier 2, the first unit too
"""

from __future__ import annotations

import numpy as np

from billing.hourly import Integers


def tiers(totals: Integers, upper: Integers) -> Integers:
    """The tier, from 1, of each pool by its total. `upper`: each pool's bounds (`price_graduated.upper_bounds`)."""
    found: Integers = 1 + np.count_nonzero(totals[:, None] > upper, axis=1)
    return found
