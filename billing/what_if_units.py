"""Unit prices as whole numbers of one fraction of the minor unit, so that sums of worth are sums of integers.

0.4 and 0.15 EUR per million × windows 1 and 0.5     →  1/40,000,000 cent:  1600, 800, 600, 300 a token
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from math import lcm

import numpy as np

from billing.charged_lines import list_price
from billing.hourly import Integers, distinct
from billing.money import exact_product, minor_per_unit
from billing.tariff import PRICE_BASE, Graduated, Package, Plain, Volume
from billing.terms import TermsRow
from billing.window import WindowTable


class Units:
    """Unit prices as whole numbers of 1/`per_minor` minor units."""

    def __init__(self, rows: Sequence[TermsRow], windows: WindowTable, currency: str) -> None:
        self._rows, self._windows, self._currency = rows, windows, currency
        self._tariff_of = windows.tariff_of(rows)
        exact = {
            minor_per_unit(exact_product(price, window.factor), PRICE_BASE, currency)
            for row, tariff in zip(rows, self._tariff_of.tolist(), strict=True)
            for price in _listed(row)
            for window in windows.windows[tariff]
        }
        self.per_minor = lcm(*(below for _, below in exact))
        #: No unit price is above this.
        self.most = max((above * (self.per_minor // below) for above, below in exact), default=0)
        #: Python's integers where unit prices are that large, or that fine.
        self.dtype: type = np.int64 if self.most < 2**40 else object

    def of(self, meter: str, row: Integers, tier: Integers, window: Integers) -> Integers:
        """The unit price of each (price row, tier, window code); 0 where no window covers the hour."""
        lowest = min(int(window.min(initial=0)), 0)
        width, deep = int(window.max(initial=0)) + 1 - lowest, int(tier.max(initial=0)) + 1
        keys, at = distinct((row * deep + tier) * width + (window - lowest), len(self._rows) * deep * width)
        units: list[int] = []
        for key in keys.tolist():
            rest, code = divmod(key, width)
            of_row, of_tier = divmod(rest, deep)
            units.append(self._unit(meter, of_row, of_tier, code + lowest))
        return np.array(units, self.dtype)[at] if len(keys) else np.zeros(0, self.dtype)

    def _unit(self, meter: str, row: int, tier: int, window: int) -> int:
        pricing = self._rows[row].pricing(meter)
        if window < 0 or pricing is None or isinstance(pricing, Package):
            return 0
        named = self._windows.windows[int(self._tariff_of[row])][window]
        price = exact_product(list_price(pricing, tier), named.factor)
        above, below = minor_per_unit(price, PRICE_BASE, self._currency)
        return above * (self.per_minor // below)


def _listed(row: TermsRow) -> Iterator[Decimal]:
    for pricing in row.row.prices.values():
        match pricing:
            case Plain():
                yield pricing.price
            case Graduated() | Volume():
                yield from (tier.price for tier in pricing.tiers)
            case Package():
                pass
