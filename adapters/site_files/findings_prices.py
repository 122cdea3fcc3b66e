"""Prices of one row beside each other: what is legal and odd about tiers, packages and meters.

A volume price is that of the tier in which the whole total falls. Where the next tier is cheaper, one more unit lowers
the bill: customers may then buy what they do not need, so the warning says at which quantity, by how much, and up to
which quantity more costs less.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from fractions import Fraction

from adapters.site_files.findings_rows import Place
from adapters.site_files.findings_scale import MUCH, first_price, not_of_a_million, shortened
from billing.money import format_price
from billing.tariff import PRICE_BASE, Graduated, Package, PriceRow, Pricing, Tier, Volume
from metering.refusal import Fault

APART = 5
"""Reasoning so many times dearer or cheaper than output is presumed to be a slip."""


def odd_prices(rows: Sequence[PriceRow], currency: str, place: Place) -> Iterator[Fault]:
    for at, row in enumerate(rows):
        for meter, pricing in row.prices.items():
            yield from _odd_pricing(pricing, meter, at, currency, place)
        yield from _odd_meters(row, at, place)


def _odd_meters(row: PriceRow, at: int, place: Place) -> Iterator[Fault]:
    first = {meter: first_price(pricing) for meter, pricing in row.prices.items()}
    fresh, cached = first.get("input"), first.get("cached_input")
    output, reasoning = first.get("output"), first.get("reasoning")
    if fresh and output and output < fresh <= output * MUCH:
        what = f"output {format_price(output)} is cheaper than input {format_price(fresh)}"
        yield Fault(what, place("prices", at, "output"), "compare them: they may be swapped")
    if fresh and cached and fresh < cached <= fresh * MUCH:
        what = f"cached_input {format_price(cached)} is dearer than input {format_price(fresh)}"
        yield Fault(what, place("prices", at, "cached_input"), "compare them: they may be swapped")
    if output and reasoning and APART < max(output / reasoning, reasoning / output) <= MUCH:
        word = "dearer" if reasoning > output else "cheaper"
        what = f"reasoning {format_price(reasoning)} is more than {APART} times {word} than output {format_price(output)}"
        yield Fault(
            what, place("prices", at, "reasoning"), "compare them; absent, reasoning is counted as output"
        )


def _odd_pricing(pricing: Pricing, meter: str, at: int, currency: str, place: Place) -> Iterator[Fault]:
    match pricing:
        case Package():
            yield from _odd_package(pricing, meter, currency, place("prices", at, meter, "package"))
        case Graduated() | Volume():
            way = "volume" if isinstance(pricing, Volume) else "graduated"
            if len(pricing.tiers) == 1:
                where = place("prices", at, meter, way)
                what = f"{meter} has a single tier: the same as a plain price"
                yield Fault(what, where, f"write {meter}: {format_price(pricing.tiers[0].price)}")
            for number, (tier, following) in enumerate(
                zip(pricing.tiers, pricing.tiers[1:], strict=False), 1
            ):
                where = place("prices", at, meter, way, number)
                yield from _odd_step(way, tier, following, f"{meter}, tier {number + 1}", currency, where)


def _odd_step(way: str, tier: Tier, following: Tier, name: str, currency: str, where: str) -> Iterator[Fault]:
    assert tier.up_to is not None, "only the last tier has no end"
    whole = Fraction(tier.price) * tier.up_to
    beyond = Fraction(following.price) * (tier.up_to + 1)
    one, other = format_price(tier.price), format_price(following.price)
    if following.price == tier.price:
        yield Fault(f"{name} has the price of the tier before it, {one}", where, "leave one of them out")
    elif following.price > tier.price and way == "graduated":
        what = f"{name} rises from {one} to {other}: more than {tier.up_to:,} costs more per unit"
        yield Fault(what, where, "compare the tiers: later ones are mostly cheaper")
    elif following.price > tier.price:
        step = _amount(beyond - whole)
        what = f"{name} rises from {one} to {other}: unit {tier.up_to + 1:,} raises the bill by {step} {currency}"
        yield Fault(what, where, "graduated prices only the units above the edge")
    elif way == "volume" and whole > beyond:
        drop = _amount(whole - beyond)
        what = f"{name}: unit {tier.up_to + 1:,} lowers the bill by {drop} {currency}"
        if following.price:
            until = whole // Fraction(following.price)
            what += f"; up to {until:,} cost no more than {tier.up_to:,}"
        yield Fault(
            what, where, "graduated prices only the units above the edge, so that more never costs less"
        )


def _odd_package(package: Package, meter: str, currency: str, where: str) -> Iterator[Fault]:
    each = first_price(package)
    if package.size == 1:
        what = f"a package of 1 at {format_price(package.price)} {currency}: {format_price(shortened(each))} per 1,000,000"
        yield Fault(
            what,
            where,
            f"a package's price is that of all its units; write {meter}: {format_price(shortened(each))} if meant",
        )
    elif package.price and not_of_a_million(package, meter):
        what = f"a package of {package.size:,} at {format_price(package.price)} is {format_price(shortened(each))} a million"
        meant = format_price(package.price * package.size / PRICE_BASE)
        yield Fault(
            what, where, f"the price is the package's, not that of 1,000,000; presumably {meant} is meant"
        )


def _amount(micro: Fraction) -> str:
    """An amount of price × units, shown to the cent, or exactly where it is less."""
    amount = Decimal(micro.numerator) / micro.denominator / PRICE_BASE
    return f"{amount:,.2f}" if amount >= Decimal("0.01") else format_price(amount)
