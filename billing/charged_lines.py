"""Lines of charges: prices, factors, amounts, and the order in which a person reads them (arithmetic rule 6).

Prices are looked up once per (price row, meter, tier, window). Amounts are computed for all lines at once in 64 bits,
2 × |quantity| × numerator + denominator over 2 × denominator, and in Python's integers where that could leave 63 bits;
both are exact. A `Line` is an object, and many customers have millions of them, so they are made when asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache

import numpy as np

from billing.charges import FREE_TIER, NO_TIER, UNBILLED_TIER, Charges
from billing.hourly import Integers, distinct
from billing.line import FREE, TOKEN_METERS, UNBILLED, UNITS, Line, Tier
from billing.money import exact_product, line_amount, minor_per_unit
from billing.tariff import METERS, PRICE_BASE, Graduated, Package, Plain, Pricing, Volume
from billing.terms import TermsRow
from billing.window import PricedWindow, WindowTable

_BITS = 2**62
_NOTHING = Decimal(0)


@dataclass(frozen=True, slots=True)
class LinePrice:
    """What lines with one price have in common."""

    row: TermsRow
    meter: str
    window: PricedWindow
    tier: Tier
    unit: str
    base: int
    list_price: Decimal
    unit_price: Decimal


@dataclass(frozen=True, slots=True)
class LineColumns:
    """Lines of usage as columns: by customer, and each customer's as they are read (model, meter, then what priced it;
    free before tiers, unbilled last; packages, which have no model, after all models).

    `price` is a place in `prices`, `model` one in `models`. Amounts are in minor units; Python's integers where 64 bits
    don't hold them.
    """

    customer: Integers
    price: Integers
    model: Integers
    quantity: Integers
    amount: Integers
    tokens: Integers
    prices: Sequence[LinePrice]
    models: Sequence[str | None]

    def made(self, start: int, end: int) -> Iterator[Line]:
        """The lines from one place to another."""
        part = slice(start, end)
        columns = (self.price, self.model, self.quantity, self.amount, self.tokens)
        for at, model, quantity, amount, tokens in zip(
            *(each[part].tolist() for each in columns), strict=True
        ):
            price = self.prices[at]
            yield Line(
                price.row.tariff_version,
                price.row.contract_version,
                price.row.name,
                self.models[model],
                price.meter,
                price.window.name,
                price.tier,
                quantity,
                price.unit,
                price.base,
                price.list_price,
                price.window.factor,
                price.unit_price,
                amount,
                tokens,
            )


def line_columns(
    charges: Sequence[Charges],
    rows: Sequence[TermsRow],
    windows: WindowTable,
    models: Sequence[str],
    currency: str,
) -> LineColumns:
    """The lines of all charges."""
    nothing = np.zeros(0, np.int64)
    if not any(len(each.row) for each in charges):
        return LineColumns(nothing, nothing, nothing, nothing, nothing, nothing, (), models)
    customer, row, model, window, tier, quantity, units = (
        np.concatenate([getattr(each, name) for each in charges])
        for name in ("customer", "row", "model", "window", "tier", "quantity", "units")
    )
    meter = np.concatenate([np.full(len(each.row), METERS.index(each.meter), np.int64) for each in charges])
    order = np.argsort(_reading_key(customer, model, meter, row, window, tier, rows, len(models)))
    customer, row, model, window, tier, quantity, units, meter = (
        each[order] for each in (customer, row, model, window, tier, quantity, units, meter)
    )
    price, prices = _prices(row, meter, tier, window, model == len(models), rows, windows)
    tokens = np.where(np.array([name in TOKEN_METERS for name in METERS])[meter], units, 0)
    amount = _amounts(quantity, price, prices, currency)
    return LineColumns(customer, price, model, quantity, amount, tokens, prices, (*models, None))


def _reading_key(
    customer: Integers,
    model: Integers,
    meter: Integers,
    row: Integers,
    window: Integers,
    tier: Integers,
    rows: Sequence[TermsRow],
    models: int,
) -> Integers:
    """One number a line that sorts as lines are read; no two lines of a period have the same."""
    by_name = sorted(
        range(len(rows)),
        key=lambda at: (rows[at].tariff_version, rows[at].contract_version or "", rows[at].rank),
    )
    rank = np.empty(len(rows), np.int64)
    rank[by_name] = np.arange(len(rows))
    last = int(tier[tier != UNBILLED_TIER].max(initial=0)) + 1
    parts = (
        (model, models + 1),
        (meter, len(METERS)),
        (rank[row], len(rows)),
        (window, int(window.max()) + 1),
        (np.minimum(tier, last) - FREE_TIER, last + 1 - FREE_TIER),
    )
    key, limit = customer, int(customer.max()) + 1
    for part, count in parts:
        key, limit = key * count + part, limit * count
    assert limit < 2**63, "sort keys fit into 63 bits"
    return key


def _prices(
    row: Integers,
    meter: Integers,
    tier: Integers,
    window: Integers,
    is_package: Integers,
    rows: Sequence[TermsRow],
    windows: WindowTable,
) -> tuple[Integers, list[LinePrice]]:
    """Every price there is, and the place of each line's among them."""
    tiers, tier_place = np.unique(tier, return_inverse=True)
    width, deep = int(window.max()) + 1, len(tiers)
    keys, place = distinct(
        (((row * len(METERS) + meter) * deep + tier_place) * width + window) * 2 + is_package
    )
    tariff_of = windows.tariff_of(rows)
    unit_prices = cache(exact_product)  # contracts repeat the same few prices
    prices: list[LinePrice] = []
    for key in keys.tolist():
        rest, package = divmod(key, 2)
        rest, of_window = divmod(rest, width)
        rest, of_tier = divmod(rest, deep)
        of_row, of_meter = divmod(rest, len(METERS))
        row_of, meter_of, tier_of = rows[of_row], METERS[of_meter], int(tiers[of_tier])
        named = windows.windows[tariff_of[of_row]][of_window]
        listed = _listed(row_of.pricing(meter_of), tier_of)
        unit, base = ("package", 1) if package else (UNITS[meter_of], PRICE_BASE)
        unit_price = unit_prices(listed, named.factor)
        prices.append(LinePrice(row_of, meter_of, named, _named(tier_of), unit, base, listed, unit_price))
    return place, prices


def _named(tier: int) -> Tier:
    """The tier as lines name it."""
    return {FREE_TIER: FREE, NO_TIER: None, UNBILLED_TIER: UNBILLED}.get(tier, tier)


def _listed(pricing: Pricing | None, tier: int) -> Decimal:
    assert pricing is not None
    return _NOTHING if tier in (FREE_TIER, UNBILLED_TIER) else list_price(pricing, tier)


def list_price(pricing: Pricing, tier: int) -> Decimal:
    """The price as the tariff states it; `tier` from 1 where there are tiers."""
    match pricing:
        case Plain() | Package():
            return pricing.price
        case Graduated() | Volume():
            return pricing.tiers[tier - 1].price


def _amounts(quantity: Integers, price: Integers, prices: Sequence[LinePrice], currency: str) -> Integers:
    """round(quantity × unit price ÷ price base) of every line, in minor units."""
    ratio_of = cache(lambda unit_price, base: _ratio(unit_price, base, currency))
    ratios = np.array([ratio_of(each.unit_price, each.base) for each in prices], np.int64)
    numerators, denominators, most = ratios[:, 0], ratios[:, 1], ratios[:, 2]
    magnitude = np.abs(quantity)
    fitting = magnitude <= most[price]
    kept = np.where(fitting, magnitude, 0)
    below = 2 * denominators[price]
    amounts: Integers = np.sign(quantity) * ((2 * kept * numerators[price] + denominators[price]) // below)
    beyond = np.flatnonzero(~fitting)
    if not len(beyond):
        return amounts
    exact = amounts.astype(object)
    for at in beyond.tolist():
        made = prices[price[at]]
        exact[at] = line_amount(int(quantity[at]), made.unit_price, made.base, currency)
    return exact


def _ratio(unit_price: Decimal, base: int, currency: str) -> tuple[int, int, int]:
    """Minor units of one unit as numerator and denominator, and the greatest quantity with which
    2 × quantity × numerator + denominator stays below 2**62; −1: none, for Python's integers only.
    """
    numerator, denominator = minor_per_unit(unit_price, base, currency)
    if not (0 <= numerator < _BITS and denominator < _BITS // 4):
        return 0, 1, -1
    return numerator, denominator, (_BITS - denominator) // (2 * max(numerator, 1))
