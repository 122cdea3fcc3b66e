"""Rating: hourly usage of a period, and the facts in force, to exact lines. Pure, and a function of a set:
neither the order of rows nor their number per cell shows.

The order of steps is `rate`; rules 1 to 6 of docs/arithmetic.md are what they do:

    hourly usage → terms (tariff and contract version) → price row → disjoint meters → tiers → lines

Rows of usage are only ever handled as columns of int64. Python loops run over what is distinct (customer
and stretch of unchanged facts; terms, region and model) and over the lines that come out. Money appears
with the lines.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import pyarrow as pa

from billing import price_graduated, price_plain
from billing.facts import Facts
from billing.hourly import Flags, Hourly, Integers, distinct, hour_instant, read_hourly, sums
from billing.line import BASE_WINDOW, NO_FACTOR, UNBILLED, UNITS, Line, Tier
from billing.money import line_amount
from billing.period import Period
from billing.placing import Placed, place
from billing.tariff import METERS, PRICE_BASE, Graduated, Plain
from billing.terms import NO_PRICE_ROW, Terms, TermsRow, matching_row
from billing.unpriced import Unpriced

__all__ = ["Line", "Rated", "Unpriced", "rate"]

_TOKEN_METERS = ("input", "cached_input", "output", "reasoning")
_MUST_BE_PRICED = ("input", "output", "audio_seconds")


@dataclass(frozen=True, slots=True)
class Rated:
    """A period, rated. `lines` has every customer with usage; without lines where nothing of it makes one.

    `tokens` sums each token meter over all lines; `late` holds the quantities that came too late to be
    billed.
    """

    lines: Mapping[str, tuple[Line, ...]]
    unpriced: tuple[Unpriced, ...]
    tokens: Mapping[str, int]
    late: Mapping[str, int]


def rate(usage: pa.Table, facts: Facts, period: Period) -> Rated:
    """The lines of every customer of one operator in `period`.

    `usage` is as `billing.hourly` says; rows of other periods are left out. Where anything is unpriced, the
    rest is rated all the same, for a preview. Refuses (`quantity_overflow`) only what int64 can't hold.
    """
    zone = facts.operator[-1].zone
    hourly, late = read_hourly(usage, *period.bounds(zone))
    placed = place(hourly, facts, period, zone)
    meters = _meters(hourly, placed)
    lines: dict[str, list[Line]] = {customer: [] for customer in _present(hourly)}
    for customer, line in _lines(hourly, placed, meters, facts.operator[-1].currency):
        lines[customer].append(line)
    tokens = dict.fromkeys(_TOKEN_METERS, 0)
    for line in (line for of_customer in lines.values() for line in of_customer):
        if line.tokens:
            tokens[line.meter] += line.tokens
    unpriced = tuple(_unpriced(hourly, placed, meters))
    return Rated(
        lines={customer: tuple(sorted(lines[customer], key=_reading_order)) for customer in sorted(lines)},
        unpriced=unpriced,
        tokens=tokens,
        late=late,
    )


def _meters(hourly: Hourly, placed: Placed) -> dict[str, Integers]:
    """Rule 3: disjoint quantities per meter, a meter that its row does not price added to its parent."""
    given = hourly.quantities
    # the last of the table is for rows without a price row (−1): nothing is priced there
    priced = np.array([row.prices() for row in placed.rows] + [(False,) * len(METERS)], np.bool_)
    generated = np.array(
        [row.terms.tariff.bill_output == "generated" for row in placed.rows] + [False], np.bool_
    )[placed.row]

    def prices(meter: str) -> Flags:
        flags: Flags = priced[placed.row, METERS.index(meter)]
        return flags

    output = np.where(generated, given["generated_tokens"], given["completion_tokens"])
    reasoning = np.where(generated, given["generated_reasoning_tokens"], given["reasoning_tokens"])
    cached = np.where(prices("cached_input"), given["cached_tokens"], 0)
    apart = np.where(prices("reasoning"), reasoning, 0)
    return {
        "input": given["prompt_tokens"] - cached,
        "cached_input": cached,
        "output": output - apart,
        "reasoning": apart,
        "requests": np.where(prices("requests"), given["requests"], 0),
        "audio_seconds": given["audio_seconds"],
    }


def _present(hourly: Hourly) -> Iterator[str]:
    for code in np.unique(hourly.customer).tolist():
        yield hourly.customers[code]


def _lines(
    hourly: Hourly, placed: Placed, meters: Mapping[str, Integers], currency: str
) -> Iterator[tuple[str, Line]]:
    """Rules 5 and 6: (customer, line) for every quantity that is not 0, in no particular order."""
    with_row = np.flatnonzero(placed.row >= 0)
    pool = hourly.customer[with_row] * len(placed.rows) + placed.row[with_row]
    groups, group = distinct(pool * len(hourly.models) + hourly.model[with_row])
    order = _filling_order(hourly, placed, with_row, pool)
    for meter in METERS:
        values = meters[meter][with_row]
        columns = _Columns(pool, group, placed.row[with_row], hourly.billed[with_row], values, order)
        for at, tier, quantity in _quantities(placed, meter, columns, len(groups)):
            rest, model = divmod(groups[at], len(hourly.models))
            customer, row = divmod(rest, len(placed.rows))
            line = _line(placed.rows[row], hourly.models[model], meter, tier, quantity, currency)
            yield hourly.customers[customer], line


@dataclass(frozen=True, slots=True)
class _Columns:
    """One meter of the rows that have a price row: pool, group (pool and model), price row, billed or not,
    quantity; `order` lists the rows with graduated prices as they fill their pools.
    """

    pool: Integers
    group: Integers
    row: Integers
    billed: Flags
    values: Integers
    order: Integers


def _quantities(
    placed: Placed, meter: str, columns: _Columns, groups: int
) -> Iterator[tuple[int, Tier, int]]:
    """(group, tier, quantity) of one meter, by the pricer that each price row names for it."""
    pricings = [row.pricing(meter) for row in placed.rows]
    plain = _flags(isinstance(pricing, Plain) for pricing in pricings)[columns.row]
    tiered = _flags(isinstance(pricing, Graduated) for pricing in pricings)[columns.row]

    unbilled = np.flatnonzero(~columns.billed & (plain | tiered))
    for at, quantity in price_plain.quantities(columns.group[unbilled], columns.values[unbilled], groups):
        yield at, UNBILLED, quantity

    chosen = np.flatnonzero(columns.billed & plain)
    for at, quantity in price_plain.quantities(columns.group[chosen], columns.values[chosen], groups):
        yield at, None, quantity

    chosen = columns.order[(columns.billed & tiered)[columns.order]]
    pools, pool = distinct(columns.pool[chosen])
    tiers = [pricings[name % len(pricings)] for name in pools]
    yield from price_graduated.quantities(
        pool,
        columns.group[chosen],
        columns.values[chosen],
        [pricing.tiers for pricing in tiers if isinstance(pricing, Graduated)],
        groups,
    )


def _flags(values: Iterable[bool]) -> Flags:
    return np.array(list(values), np.bool_)


def _filling_order(hourly: Hourly, placed: Placed, with_row: Integers, pool: Integers) -> Integers:
    """Which of the rows in `with_row` have a graduated price, in rule 5's order: pool, hour, model.

    A pool has one price row, and nodes of one hour and model go to the same lines, so neither needs to be
    sorted.
    """
    tiered = _flags(
        any(isinstance(pricing, Graduated) for pricing in row.row.prices.values()) for row in placed.rows
    )
    places = np.flatnonzero(tiered[placed.row[with_row]]) if len(with_row) else with_row
    if not len(places):
        return places
    hours = hourly.hours[with_row[places]]
    first, span = int(hours.min()), int(hours.max()) - int(hours.min()) + 1
    pools, pool_place = distinct(pool[places])
    assert len(pools) * span * len(hourly.models) < 2**63, "sort keys fit into 63 bits"
    keys = (pool_place * span + (hours - first)) * len(hourly.models) + hourly.model[with_row[places]]
    ordered: Integers = places[np.argsort(keys, kind="stable")]
    return ordered


def _price(row: TermsRow, meter: str, tier: Tier) -> Decimal:
    pricing = row.pricing(meter)
    if tier == UNBILLED:
        return Decimal(0)
    if isinstance(pricing, Plain):
        return pricing.price
    assert isinstance(pricing, Graduated)
    assert isinstance(tier, int)
    return pricing.tiers[tier - 1].price


def _line(row: TermsRow, model: str, meter: str, tier: Tier, quantity: int, currency: str) -> Line:
    price = _price(row, meter, tier)
    return Line(
        tariff_version=row.tariff_version,
        contract_version=row.contract_version,
        price_row=row.name,
        model=model,
        meter=meter,
        window=BASE_WINDOW,
        tier=tier,
        quantity=quantity,
        unit=UNITS[meter],
        price_base=PRICE_BASE,
        list_price=price,
        factor=NO_FACTOR,
        unit_price=price,
        amount=line_amount(quantity, price, PRICE_BASE, currency),
        tokens=quantity if meter in _TOKEN_METERS else 0,
    )


def _reading_order(line: Line) -> tuple[object, ...]:
    """Lines as a person reads them: by model, meter, then what priced them, tiers ascending, unbilled last."""
    kind, _, number = (line.price_row or "").partition(":")
    return (
        line.model or "",
        METERS.index(line.meter),
        line.tariff_version or "",
        line.contract_version or "",
        kind,
        int(number or 0),
        isinstance(line.tier, str),
        line.tier if isinstance(line.tier, int) else 0,
        line.tier if isinstance(line.tier, str) else "",
    )


def _unpriced(hourly: Hourly, placed: Placed, meters: Mapping[str, Integers]) -> Iterator[Unpriced]:
    """Usage without a price, per model, meter, region and reason. What was voided (net 0) needs none."""
    found: dict[tuple[str, str, str, str], list[tuple[int, int]]] = defaultdict(list)
    for meter in _MUST_BE_PRICED:
        priced = np.array([meter in row.row.prices for row in placed.rows] + [False], np.bool_)
        lacking = np.flatnonzero(~priced[placed.row] & (meters[meter] != 0))
        keys, place = distinct(hourly.customer[lacking] * len(placed.cases) + placed.case[lacking])
        totals = sums(place, meters[meter][lacking], len(keys))
        first = np.full(len(keys), np.iinfo(np.int64).max)
        np.minimum.at(first, place, hourly.hours[lacking])
        for key, total, hour in zip(keys, totals.tolist(), first.tolist(), strict=True):
            terms, region, model = placed.cases[key % len(placed.cases)]
            why = terms if isinstance(terms, str) else _why(terms, model, region, meter)
            if total:
                found[model, meter, region, why].append((total, hour))
    for (model, meter, region, why), parts in sorted(found.items()):
        total = sum(tokens for tokens, _ in parts)
        yield Unpriced(model, meter, region, total, hour_instant(min(hour for _, hour in parts)), why)


def _why(terms: Terms, model: str, region: str, meter: str) -> str:
    row = matching_row(terms, model, region)
    source = terms.contract_version or terms.tariff.version
    return f"{source}: {row.name} has no price for {meter}" if row else f"{source}: {NO_PRICE_ROW}"
