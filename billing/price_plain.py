"""The plain pricer: every unit of a meter at one price, so a line's quantity is a sum."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from billing.hourly import Integers, sums


def quantities(groups: Integers, values: Integers, count: int) -> Iterator[tuple[int, int]]:
    """(group, quantity) for every group whose quantity is not 0.

    `groups` and `values` run side by side; groups are numbered below `count`.
    """
    totals = sums(groups, values, count)
    filled = np.flatnonzero(totals)
    yield from zip(filled.tolist(), totals[filled].tolist(), strict=True)
