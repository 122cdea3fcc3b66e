"""Priced usage in the order in which pools fill, and the groups that become lines (arithmetic rules 5 and 6).

The order is customer, hour, model, price row (contract's first, then file order). A node decides only which price row
it is, so nodes of one hour, model and row go to the same lines and need no order; nor do outcomes and prompt bands.

A group is one (customer, price row under its terms, model, window): per meter and tier it is one line. Most of rating
then works on sums per group, of which there are far fewer than rows of usage; only pools that cross a bound are gone
through row by row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from billing.hourly import Flags, Hourly, Integers, distinct
from billing.placing import Placed
from billing.window import WindowTable


@dataclass(frozen=True, slots=True)
class Groups:
    """Customer, price row, model and window code of each group, side by side; window −1 − w: uncovered."""

    customer: Integers
    row: Integers
    model: Integers
    window: Integers


@dataclass(frozen=True, slots=True)
class Filling:
    """Rows of usage that have a price row, in rule 5's order.

    `at`: their places in the usage as read; `group`: each one's place in `groups`.
    """

    at: Integers
    group: Integers
    billed: Flags
    groups: Groups


def in_filling_order(hourly: Hourly, placed: Placed, windows: WindowTable) -> Filling:
    """Usage that a row prices, ordered and grouped."""
    models, rows = len(hourly.models), len(placed.rows)
    at = np.flatnonzero(placed.row >= 0)
    customer, row, model = hourly.customer[at], placed.row[at], hourly.model[at]
    hour = hourly.hours[at] - windows.first
    ranks = np.array([priced.rank for priced in placed.rows] or [0], np.int64)
    span, deepest = windows.codes.shape[1], int(ranks.max()) + 1
    assert len(hourly.customers) * span * models * deepest < 2**63, "sort keys fit into 63 bits"
    key = ((customer * span + hour) * models + model) * deepest + ranks[row]
    if np.any(key[1:] < key[:-1]):
        order = np.argsort(key)
        at, customer, row, model, hour = (each[order] for each in (at, customer, row, model, hour))

    code = windows.codes[windows.tariff_of(placed.rows)[row], hour]
    lowest = min(int(windows.codes.min(initial=0)), 0)
    width = int(windows.codes.max(initial=0)) + 1 - lowest
    keys, group = distinct(((customer * rows + row) * models + model) * width + (code - lowest))
    rest, window = np.divmod(keys, width)
    rest, of_model = np.divmod(rest, models or 1)
    of_customer, of_row = np.divmod(rest, rows or 1)
    return Filling(
        at=at,
        group=group,
        billed=placed.billed[at],
        groups=Groups(of_customer, of_row, of_model, window + lowest),
    )
