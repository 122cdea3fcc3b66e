"""The lines of each customer, made when they are asked for: ten thousand bills are drafted one after the other, and their
lines together would take many times the memory of the columns that say what they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from billing.charged_lines import LineColumns
from billing.hourly import Flags
from billing.line import Line


class RatedLines(Mapping[str, tuple[Line, ...]]):
    """Customer → lines of usage as `columns` have them, then fees; customers sorted. Equal to a dictionary of them."""

    def __init__(
        self,
        customers: Sequence[str],
        present: Flags,
        columns: LineColumns,
        fees: Mapping[str, tuple[Line, ...]],
    ) -> None:
        """`columns` number `customers`; those without usage (`present`) have lines only if they have `fees`."""
        edges = np.searchsorted(columns.customer, np.arange(len(customers) + 1)).tolist()
        spans = {
            customer: (edges[code], edges[code + 1])
            for code, customer in enumerate(customers)
            if present[code]
        }
        self._spans = {name: spans.get(name, (0, 0)) for name in sorted({*spans, *fees})}
        self._columns = columns
        self._fees = fees

    @property
    def columns(self) -> LineColumns:
        """The lines of usage of all customers, for who counts them without making them."""
        return self._columns

    def __getitem__(self, customer: str) -> tuple[Line, ...]:
        return (*self._columns.made(*self._spans[customer]), *self._fees.get(customer, ()))

    def __iter__(self) -> Iterator[str]:
        return iter(self._spans)

    def __len__(self) -> int:
        return len(self._spans)

    def __contains__(self, customer: object) -> bool:
        return customer in self._spans

    def __repr__(self) -> str:
        return f"RatedLines({dict(self)!r})"
