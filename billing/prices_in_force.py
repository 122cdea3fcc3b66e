"""Prices in force: what a tariff, with or without a customer's contract, asks at one instant.

The same rules as rating's, asked of one instant instead of a month of usage: which versions hold (rule 2), which
row prices a model in a region and prompt band (rule 3), which window holds in the hour (rule 4), and what each
meter then costs (rule 6: unit price = list price × factor, packages aside). Pure; `tally tariff show` prints it.

    vilnius@2026-10-01, window night × 0.5
    tariff:1  output  tier 1 up to 50,000,000   list 1.60   0.80

`billing.price_changes` looks ahead: from when on that is otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import groupby

from billing.facts import Facts
from billing.hourly import hour_instant, hour_number
from billing.line import BASE_WINDOW, NO_FACTOR
from billing.money import exact_product, format_price
from billing.tariff import (
    METERS,
    PROMPT_BANDS,
    Package,
    Plain,
    PriceRow,
    Pricing,
    Tariff,
    glob_matches,
)
from billing.terms import Terms, matching_row
from billing.window import holds, window_at

PARENTS: Mapping[str, str] = {"cached_input": "input", "reasoning": "output"}
"""What a meter without a price of its own counts as (rule 3)."""

COUNTED, FREE, NOT_PRICED = "counted", "free", "not_priced"


@dataclass(frozen=True, slots=True)
class WindowInForce:
    """What multiplies unit prices in an hour; `number`: its place in the tariff's list, from 1, None: none holds.

    Of a series window: the hour's price and the step, from 1, that it falls in. `factor` None: its series has no
    price for that hour, so nothing is priced in it.
    """

    number: int | None
    name: str
    factor: Decimal | None
    series_price: Decimal | None = None
    step: int | None = None


@dataclass(frozen=True, slots=True)
class TierInForce:
    """A tier's price as the tariff states it, and as it is with the window's factor (None where that is unknown)."""

    up_to: int | None
    list_price: Decimal
    unit_price: Decimal | None


@dataclass(frozen=True, slots=True)
class MeterInForce:
    """What a meter costs in a row. `pricing`: plain, graduated, volume or package (with its `size`);

    COUNTED: its units count as those of `counted_as`; FREE: no charge; NOT_PRICED: usage of it stops a close.
    """

    meter: str
    pricing: str
    tiers: tuple[TierInForce, ...] = ()
    size: int | None = None
    counted_as: str | None = None


@dataclass(frozen=True, slots=True)
class RowInForce:
    """A price row with its meters, for prompts of more than `prompt_over` up to and including `prompt_up_to`.

    `regions`: where it holds for the model that was asked for; empty: as the row itself says. `row` None: there no
    row prices the model.
    """

    name: str | None
    row: PriceRow | None
    version: str | None
    meters: tuple[MeterInForce, ...]
    regions: tuple[str, ...] = ()
    prompt_over: int | None = None
    prompt_up_to: int | None = None


def window_in_force(tariff: Tariff, facts: Facts, instant: datetime) -> WindowInForce:
    """The window of the instant's hour (rule 4). `facts.holidays` has the tariff's calendar where a window asks for it."""
    hour = hour_number(instant)
    local = hour_instant(hour).astimezone(tariff.zone)
    priced = window_at(tariff, facts, hour)
    held = ((n, each) for n, each in enumerate(tariff.windows, 1) if holds(each, local, tariff, facts))
    number, window = next(held, (None, None))
    if window is None:
        return WindowInForce(None, BASE_WINDOW, NO_FACTOR)
    if priced is None:
        return WindowInForce(number, window.name, None)
    price = window.series.at(hour) if window.series else None
    step = None if price is None else window.step_of(price) + 1
    return WindowInForce(number, priced.name, priced.factor, price, step)


def all_rows(terms: Terms, region: str | None, factor: Decimal | None) -> list[RowInForce]:
    """Every row in the order in which they are tried, of one region or of all."""
    contract, tariff = terms.contract_version, terms.tariff.version
    return [
        RowInForce(
            name,
            row,
            contract if name.startswith("contract") else tariff,
            meters_in_force(row, factor),
            prompt_over=row.prompt_over,
        )
        for name, row in terms.rows()
        if region is None or holds_in(row, region)
    ]


def holds_in(row: PriceRow, region: str) -> bool:
    """Whether a row prices usage of nodes in `region`."""
    return not row.regions or any(glob_matches(glob, region) for glob in row.regions)


def rows_for_model(
    terms: Terms, model: str, regions: Sequence[str], factor: Decimal | None
) -> list[RowInForce]:
    """The rows that price `model`, by region ("": none) and prompt band; regions of the same rows stand together."""
    by_region = {region: _bands(terms, model, region) for region in regions}
    found: list[RowInForce] = []
    for bands in dict.fromkeys(by_region.values()):
        same = tuple(region for region in regions if region and by_region[region] == bands)
        found += [_row(terms, band, same, factor) for band in bands]
    return found


Band = tuple[int | None, int | None, str | None]
"""(larger than, up to and including, name of the row) of the prompts that one row prices."""


def _bands(terms: Terms, model: str, region: str) -> tuple[Band, ...]:
    edges = (0, *PROMPT_BANDS)
    rows = [(edge, matching_row(terms, model, region, edge)) for edge in edges]
    bands: list[Band] = []
    for name, group in groupby(rows, key=lambda pair: pair[1].name if pair[1] else None):
        members = list(group)
        following = edges.index(members[-1][0]) + 1
        bands.append((members[0][0] or None, edges[following] if following < len(edges) else None, name))
    return tuple(bands)


def _row(terms: Terms, band: Band, regions: tuple[str, ...], factor: Decimal | None) -> RowInForce:
    over, up_to, name = band
    if name is None:
        return RowInForce(None, None, None, (), regions, over, up_to)
    row = dict(terms.rows())[name]
    version = terms.contract_version if name.startswith("contract") else terms.tariff.version
    return RowInForce(name, row, version, meters_in_force(row, factor), regions, over, up_to)


def meters_in_force(row: PriceRow, factor: Decimal | None) -> tuple[MeterInForce, ...]:
    """Each meter of METERS, in their order."""
    return tuple(_meter(row, meter, factor) for meter in METERS)


def _meter(row: PriceRow, meter: str, factor: Decimal | None) -> MeterInForce:
    pricing = row.prices.get(meter)
    if pricing is None:
        if meter == "requests":
            return MeterInForce(meter, FREE)
        parent = PARENTS.get(meter)
        if parent is None or parent not in row.prices:
            return MeterInForce(meter, NOT_PRICED)
        return MeterInForce(meter, COUNTED, counted_as=parent)
    if isinstance(pricing, Package):
        price = TierInForce(None, pricing.price, pricing.price)
        return MeterInForce(meter, "package", (price,), size=pricing.size)
    return MeterInForce(meter, pricing_name(pricing), tuple(_tiers(pricing, factor)))


def pricing_name(pricing: Pricing) -> str:
    """The word of site files for how a meter is priced: plain, graduated, volume or package."""
    return type(pricing).__name__.lower()


def _tiers(pricing: Pricing, factor: Decimal | None) -> Iterator[TierInForce]:
    assert not isinstance(pricing, Package)
    steps = (
        [(None, pricing.price)]
        if isinstance(pricing, Plain)
        else [(tier.up_to, tier.price) for tier in pricing.tiers]
    )
    for up_to, price in steps:
        yield TierInForce(up_to, price, None if factor is None else exact_product(price, factor))


def included_in_force(terms: Terms) -> dict[str, tuple[int, str]]:
    """Free units a month by meter, each with the version that states them: a contract replaces the tariff's."""
    found = {meter: (units, terms.tariff.version) for meter, units in terms.tariff.included.items()}
    if terms.contract is not None:
        found |= {meter: (units, terms.contract.version) for meter, units in terms.contract.included.items()}
    return {meter: found[meter] for meter in METERS if meter in found}


def window_text(window: WindowInForce) -> str:
    """`window night, factor 0.5`; `no window, factor 1`; of a series its price and step too."""
    if window.number is None:
        return "no window, factor 1"
    if window.factor is None:
        return f"window {window.name}: its series has no price for this hour, so its usage is not priced"
    priced = "" if window.series_price is None else f" at a price of {format_price(window.series_price)}"
    return f"window {window.name}{priced}, factor {format_price(window.factor)}"
