"""The package pricer: each started package of a pool's total has its price; windows have no effect (rules 5 and 6).

The total is what `included` left of the customer's usage under one price row, meter and period, over all models. A
total below zero takes packages back, as many as its magnitude starts.

    packages of 1,000,000:   1 → 1,   1,000,000 → 1,   1,000,001 → 2,   −1 → −1,   0 → no line
"""

from __future__ import annotations

import numpy as np

from billing.hourly import Integers


def started(totals: Integers, sizes: Integers) -> Integers:
    """Started packages of each total."""
    whole, rest = np.divmod(np.abs(totals), sizes)
    packages: Integers = np.sign(totals) * (whole + (rest > 0))
    return packages
