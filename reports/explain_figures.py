"""Steps of an explanation, and figures as they stand in them: exact, plain digits, units named.

step("exact product", "2501 × 0.4 ÷ 1000000", "0.0010004 EUR")
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

from billing.money import format_minor, format_price

Step = dict[str, str]
"""{what, from, to} of docs/commands.md."""

MINUS = "\N{MINUS SIGN}"
_MOST_PLACES = 1000


def step(what: str, before: str, after: str) -> Step:
    return {"what": what, "from": before, "to": after}


def figure(quantity: int, unit: str) -> str:
    """`1 token`, `2501 tokens`."""
    return f"{quantity} {unit}" if abs(quantity) == 1 else f"{quantity} {unit}s"


def money(minor: int, currency: str) -> str:
    return f"{format_minor(minor, currency)} {currency}"


def bracketed(minor: int, currency: str) -> str:
    """An amount among others in a sum."""
    text = format_minor(minor, currency)
    return f"({text})" if minor < 0 else text


def exact(value: Fraction) -> str:
    """Every digit of a product: prices are decimals and bases powers of ten, so the fraction ends."""
    places = 0
    while value.denominator != 1:
        value *= 10
        places += 1
        assert places < _MOST_PLACES, "a product of decimals ends"
    digits = tuple(map(int, str(abs(value.numerator))))
    return format_price(Decimal((value < 0, digits, -places)))


def percent(points: Decimal) -> str:
    return f"{format_price(points)} %"
