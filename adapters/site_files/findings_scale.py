"""Prices that look a thousand or a million times off: per token or per 1,000 where 1,000,000 is meant.

A price is held against three things: the prices of the same meter beside it (the other rows', the version before, the
tariff row that a contract's row hides), and what such a meter costs anywhere. None of them is a rule, so they only
warn; the presumed figure is the one a thousand or a million times away that lies nearest to the best of the three.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from adapters.site_files.findings_rows import Place
from billing.money import format_price
from billing.tariff import METERS, PRICE_BASE, Package, Plain, PriceRow, Pricing
from metering.refusal import Fault


@dataclass(frozen=True, slots=True)
class Usual:
    """What a meter costs per 1,000,000 in euros: seldom below `least` or above `most`, often about `often`."""

    least: Decimal
    often: Decimal
    most: Decimal


USUAL: Mapping[str, Usual] = {
    "input": Usual(Decimal("0.004"), Decimal("0.5"), Decimal(300)),
    "cached_input": Usual(Decimal("0.0004"), Decimal("0.1"), Decimal(300)),
    "output": Usual(Decimal("0.004"), Decimal(2), Decimal(1200)),
    "reasoning": Usual(Decimal("0.004"), Decimal(2), Decimal(1200)),
    "requests": Usual(Decimal(1), Decimal(5000), Decimal(10_000_000)),
    "audio_seconds": Usual(Decimal(1), Decimal(100), Decimal(20_000)),
}
"""Prices of hosted models as of 2026, from the smallest to the dearest, with a margin of two on each side."""

UNITS_PER_EURO: Mapping[str, int] = {
    **dict.fromkeys(("EUR", "USD", "GBP", "CHF", "CAD", "AUD", "NZD", "SGD"), 1),
    **dict.fromkeys(("PLN", "BRL", "RON", "MYR", "ILS", "AED", "SAR"), 5),
    **dict.fromkeys(("DKK", "SEK", "NOK", "CNY", "HKD", "MXN", "ZAR"), 10),
    **dict.fromkeys(("CZK", "TRY", "UAH", "THB", "PHP", "TWD"), 40),
    **dict.fromkeys(("HUF", "JPY", "ISK", "INR", "RSD"), 200),
    **dict.fromkeys(("KRW", "CLP", "COP"), 2000),
    **dict.fromkeys(("IDR", "VND"), 20_000),
}
"""Orders of magnitude only. A currency that is not here is held against the prices beside it, not against a range."""

MUCH = 300
"""Prices of one meter that are so many times apart are presumed to be in different units."""

OTHER_UNITS: Mapping[str, Sequence[tuple[str, Decimal]]] = {
    "requests": (("per 1,000", Decimal(1000)), ("per request", Decimal(1_000_000))),
    "audio_seconds": (
        ("per second", Decimal(1_000_000)),
        ("per minute", Decimal(1_000_000) / 60),
        ("per hour", Decimal(1_000_000) / 3600),
        ("per 1,000", Decimal(1000)),
    ),
}
TOKEN_UNITS = (("per 1,000", Decimal(1000)), ("per token", Decimal(1_000_000)))


def first_price(pricing: Pricing) -> Decimal:
    """The price per 1,000,000 units of the pool's first units."""
    match pricing:
        case Plain():
            return pricing.price
        case Package():
            return pricing.price * PRICE_BASE / pricing.size
        case _:
            return pricing.tiers[0].price


def not_of_a_million(package: Package, meter: str) -> bool:
    """A package whose price is the usual one of 1,000,000 units, while it holds far fewer or more; or only one."""
    usual = USUAL[meter]
    far = package.size * 100 <= PRICE_BASE or package.size >= PRICE_BASE * 100
    usually = usual.least <= package.price <= usual.most
    return package.size == 1 or (far and usually and not usual.least <= first_price(package) <= usual.most)


def odd_scales(
    rows: Sequence[PriceRow],
    currency: str,
    place: Place,
    references: Mapping[int, tuple[str, PriceRow]],
) -> Iterator[Fault]:
    """`references`: for some rows (from 0) another's row for the same models, and what it is called."""
    beside = {meter: _likely(rows, meter, currency) for meter in METERS}
    for at, row in enumerate(rows):
        named, reference = references.get(at, ("", None))
        for meter, pricing in row.prices.items():
            price = first_price(pricing)
            if price == 0 or (isinstance(pricing, Package) and not_of_a_million(pricing, meter)):
                continue
            before = first_price(reference.prices[meter]) if reference and meter in reference.prices else None
            what, near = _off(meter, price, currency, before, named, _without(beside[meter], price))
            if what:
                yield _fault(meter, price, what, near, place("prices", at, meter))


@dataclass(frozen=True, slots=True)
class _Beside:
    """The prices of other rows for a meter: how many there are, and the middle one."""

    count: int
    middle: Decimal | None


def _likely(rows: Sequence[PriceRow], meter: str, currency: str) -> list[Decimal]:
    """What rows charge for a meter, sorted, free and unlikely prices aside."""
    usual, units = USUAL[meter], UNITS_PER_EURO.get(currency)
    prices = sorted(first_price(row.prices[meter]) for row in rows if meter in row.prices)
    return [
        price
        for price in prices
        if price and (not units or usual.least * units <= price <= usual.most * units)
    ]


def _without(prices: list[Decimal], own: Decimal) -> _Beside:
    """The middle of sorted `prices`, the row's own taken out."""
    at = bisect_left(prices, own)
    if at == len(prices) or prices[at] != own:
        return _Beside(len(prices), prices[(len(prices) - 1) // 2] if prices else None)
    count = len(prices) - 1
    middle = (count - 1) // 2
    return _Beside(count, prices[middle + (middle >= at)] if count else None)


def _off(
    meter: str, price: Decimal, currency: str, before: Decimal | None, named: str, others: _Beside
) -> tuple[str, Decimal]:
    """Why the price looks off, and the figure that it should be near to; "" where it does not."""
    if before and _ratio(price, before) >= MUCH:
        return f"{named} has {format_price(before)}", before
    usual, units = USUAL[meter], UNITS_PER_EURO.get(currency)
    often, middle = usual.often * units if units else None, others.middle
    if units and often and not usual.least * units <= price <= usual.most * units:
        least, most = format_price(usual.least * units), format_price(usual.most * units)
        return f"such prices are seldom below {least} or above {most} {currency}", middle or often
    if (
        middle
        and _ratio(price, middle) >= MUCH
        and (others.count > 2 or often is None or _ratio(price, often) > _ratio(middle, often))
    ):
        return f"other rows have about {format_price(middle)}", middle
    return "", price


def _fault(meter: str, price: Decimal, what: str, near: Decimal, where: str) -> Fault:
    units = OTHER_UNITS.get(meter, TOKEN_UNITS)
    multiplied = [(f"a price {name}", price * factor) for name, factor in units]
    divided = [("multiplied twice", price / factor) for factor in (Decimal(1000), Decimal(1_000_000))]
    name, presumed = min((*multiplied, *divided), key=lambda each: _ratio(each[1], near))
    counted = {"requests": "requests", "audio_seconds": "seconds"}.get(meter, "tokens")
    if _ratio(presumed, near) >= _ratio(price, near):
        return Fault(
            f"{meter} {format_price(price)} per 1,000,000 {counted} looks off: {what}", where, "compare it"
        )
    return Fault(
        f"{meter} {format_price(price)} per 1,000,000 {counted} looks like {name}: {what}",
        where,
        f"presumably {format_price(shortened(presumed))} is meant; prices are per 1,000,000 {counted}",
    )


def shortened(price: Decimal) -> Decimal:
    """Four significant digits: 0.006 a minute is 100 for a million seconds, not 99.9999…"""
    return Decimal(f"{price:.4g}") if price else price


def _ratio(one: Decimal, other: Decimal) -> Decimal:
    return max(one / other, other / one)
