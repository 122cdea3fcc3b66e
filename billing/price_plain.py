"""The plain pricer: every unit of a meter at one price, so what is charged is the sum itself, in no tier."""

from __future__ import annotations

from decimal import Decimal

from billing.line import Tier
from billing.tariff import Plain

TIER: Tier = None


def price(pricing: Plain) -> Decimal:
    """The price of 1,000,000 units."""
    return pricing.price
