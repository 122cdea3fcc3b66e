"""Priced usage in the order in which pools fill, and the groups that become lines (arithmetic rules 5 and 6).

The order is customer, hour, model, price row (contract's first, then file order). A node decides only which price row
it is, so nodes of one hour, model and row go to the same lines and need no order; nor do outcomes and prompt bands.

A group is one (customer, price row under its terms, model, window): per meter and tier it is one line. Most of rating
then works on sums per group, of which there are far fewer than rows of usage; only pools that cross a bound are gone
through row by row.

Customers share no pool, so usage is taken a few customers at a time: as many rows as fit into a processor's cache. That
keeps the cost of a row the same from a hundred thousand rows to ten million, and memory to what a block needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from billing.hourly import Flags, Hourly, Integers, distinct
from billing.placing import Placed
from billing.window import WindowTable

_ROWS_A_BLOCK = 1 << 17
_MOST_BLOCKS = 1 << 15


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

    `at`: their places in the usage as read; `group`: each one's place in `groups`; `row`: its price row.
    """

    at: Integers
    row: Integers
    group: Integers
    billed: Flags
    groups: Groups

    def uncovered(self) -> tuple[Integers, Integers]:
        """(places in the usage as read, window codes) of the rows whose hour a series does not cover."""
        code = self.groups.window[self.group]
        outside = np.flatnonzero(code < 0)
        return self.at[outside], code[outside]


def fillings(hourly: Hourly, placed: Placed, windows: WindowTable) -> Iterator[Filling]:
    """All usage that a row prices, a few customers at a time."""
    ranks, tariff_of = _ranks(placed), windows.tariff_of(placed.rows)
    for at in _blocks(hourly.customer, len(hourly.customers)):
        yield _ordered(at[placed.row[at] >= 0], hourly, placed, windows, ranks, tariff_of)


def _ranks(placed: Placed) -> Integers:
    return np.array([row.rank for row in placed.rows], np.int64)


def _blocks(customer: Integers, customers: int) -> Iterator[Integers]:
    """Places of rows, ascending; those of one customer together."""
    blocks = min(len(customer) // _ROWS_A_BLOCK + 1, _MOST_BLOCKS)
    width = -(-max(customers, 1) // blocks)
    # of 16-bit numbers NumPy's stable sort is a radix sort
    block = (customer // width).astype(np.uint16)
    order = np.argsort(block, kind="stable")
    edges = np.searchsorted(block[order], np.arange(blocks + 1, dtype=np.uint16))
    for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        yield order[start:end]


def _ordered(
    at: Integers, hourly: Hourly, placed: Placed, windows: WindowTable, ranks: Integers, tariff_of: Integers
) -> Filling:
    """The rows `at`, which have a price row. `ranks` and `tariff_of` (a place in `windows`) are by price row."""
    models, rows, span = len(hourly.models), len(placed.rows), windows.codes.shape[1]
    customer, row, model, billed = hourly.customer[at], placed.row[at], hourly.model[at], placed.billed[at]
    hour = hourly.hours[at] - windows.first
    deepest = int(ranks.max(initial=0)) + 1
    assert len(hourly.customers) * span * models * deepest < 2**63, "sort keys fit into 63 bits"
    rank = ((customer * span + hour) * models + model) * deepest + ranks[row]
    if np.any(rank[1:] < rank[:-1]):
        order = np.argsort(rank)
        at, customer, row, model, hour = (each[order] for each in (at, customer, row, model, hour))
        billed = billed[order]

    code = windows.codes[tariff_of[row], hour]
    lowest = min(int(windows.codes.min(initial=0)), 0)
    width = int(windows.codes.max(initial=0)) + 1 - lowest
    assert len(hourly.customers) * rows * models * width < 2**63, "keys of groups fit into 63 bits"
    keys, group = distinct(((customer * rows + row) * models + model) * width + (code - lowest))
    rest, window = np.divmod(keys, width)
    rest, of_model = np.divmod(rest, models or 1)
    of_customer, of_row = np.divmod(rest, rows or 1)
    return Filling(
        at=at,
        row=row,
        group=group,
        billed=billed,
        groups=Groups(of_customer, of_row, of_model, window + lowest),
    )
