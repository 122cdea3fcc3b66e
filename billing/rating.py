"""Rating: hourly usage of a period, and the facts in force, to exact lines. Pure, and a function of a set:
neither the order of rows nor their number per cell shows.

The order of steps is `rate`; rules 1 to 6 of docs/arithmetic.md are what they do:

    hourly usage → terms → price row → window → disjoint meters → included → tiers, packages → lines → fees
    1  hourly      2  placing      4  window   3  meters          5  charges            6  charged_lines, fees

Rows of usage are only ever handled as columns of integers. Python loops run over what is distinct (customer
and stretch of unchanged facts; terms, region and model) and over the lines that come out. Money appears
with the lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from billing.charged_lines import line_columns
from billing.charges import Charges, charges_under, meter_pricing
from billing.facts import Facts
from billing.fees import days_in_force, fee_lines
from billing.filling import fillings
from billing.hourly import Flags, Hourly, Integers, hour_number, read_hourly
from billing.included import included_by_meter
from billing.line import TOKEN_METERS, Line
from billing.meters import Metered, meter_rules
from billing.period import Period
from billing.placing import place
from billing.rated_lines import RatedLines
from billing.tariff import METERS, Tariff
from billing.terms import TermsRow
from billing.unpriced import Unpriced
from billing.unpriced_usage import unpriced_among
from billing.window import window_table

__all__ = ["Line", "Rated", "Unpriced", "rate"]


@dataclass(frozen=True, slots=True)
class Rated:
    """A period, rated. `lines` has every customer with usage, or with a contract in force on a day of the period;
    without lines where nothing makes one. They are made each time they are asked for.

    `tokens` sums each token meter over all lines; `late` holds the quantities that came too late to be
    billed.
    """

    lines: Mapping[str, tuple[Line, ...]]
    unpriced: tuple[Unpriced, ...]
    tokens: Mapping[str, int]
    late: Mapping[str, int]


def rate(usage: pa.Table, facts: Facts, period: Period) -> Rated:
    """The lines of every customer of one operator in `period`.

    `usage` is as `billing.hourly` says; rows of other periods are left out. `facts` have the period's holidays
    (`billing.holiday.with_holidays`). Where anything is unpriced, the rest is rated all the same, for a preview.
    Refuses (`quantity_overflow`) only what int64 can't hold.
    """
    zone, currency = facts.operator[-1].zone, facts.operator[-1].currency
    start, end = period.bounds(zone)
    hourly, late = read_hourly(usage, start, end)
    placed = place(hourly, facts, period, zone)
    windows = window_table(_tariffs(placed.rows), facts, hour_number(start), hour_number(end) - 1)
    included = included_by_meter(hourly.customers, facts, hour_number(end) - 1, zone)
    pricings = [
        meter_pricing(meter, placed.rows, included.get(meter), len(hourly.models)) for meter in METERS
    ]
    rules = meter_rules(placed.rows)
    charged: list[Charges] = []
    uncovered: list[tuple[Integers, Integers]] = []
    for filling in fillings(hourly, placed, windows):
        metered = Metered(hourly, rules, filling.at, filling.row)
        for pricing in pricings:
            charged += charges_under(pricing, metered.quantity(pricing.meter), filling)
        uncovered.append(filling.uncovered())
    columns = line_columns(charged, placed.rows, windows, hourly.models, currency)
    return Rated(
        lines=RatedLines(hourly.customers, _present(hourly), columns, dict(_fees(facts, period, currency))),
        unpriced=unpriced_among(hourly, placed, uncovered),
        tokens=_tokens(charged),
        late=late,
    )


def _tariffs(rows: Sequence[TermsRow]) -> list[Tariff]:
    """The tariff versions that price something."""
    return list({row.tariff_version: row.terms.tariff for row in rows}.values())


def _present(hourly: Hourly) -> Flags:
    """Which customers have usage."""
    present = np.zeros(len(hourly.customers), np.bool_)
    present[hourly.customer] = True
    return present


def _fees(facts: Facts, period: Period, currency: str) -> Iterator[tuple[str, tuple[Line, ...]]]:
    """The fees of each customer with a contract in force on a day of the period; perhaps none."""
    for customer, contracts in facts.contracts.items():
        if days_in_force(contracts, period):
            yield customer, tuple(fee_lines(contracts, period, currency))


def _tokens(charged: Iterable[Charges]) -> dict[str, int]:
    tokens = dict.fromkeys(TOKEN_METERS, 0)
    for each in charged:
        if each.meter in tokens:
            tokens[each.meter] += int(each.units.sum())
    return tokens
