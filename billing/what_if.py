"""What-if: what bills of a period come to under other facts than those in force. Pure, exact, and made for repetition.

The arithmetic is rating's own (`placing`, `window`, `filling`, `meters`, `charges`, `charged_lines`), fed with less. Of a
customer whose bill no order of hours can change, all hours of a run that lie in one window under one set of facts are one
sum, and a period has some ten thousand such sums where it has millions of rows. Order shows only where units are included
and used up, where a graduated pool leaves its first tier, or where a quantity is negative; of those customers there is a
sum for what lies between two hours in which a pool turns (`billing.what_if_condensed`).

    runs × stretches → price rows;  hours → windows;  rows → sums by (run, window) → who needs order → charges → bills

`bench.what_if` measures it over a year of 10,000 customers and 20 M rows.

Beside bills there is what usage is worth before any rounding, by model, region and hour of the operator's day: see
`billing.what_if_worth`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from billing.bill_columns import BillColumns, bill_columns, billed_customers, segments_of
from billing.charged_lines import line_columns
from billing.charges import Charges, MeterPricing, charges_under, meter_pricing
from billing.facts import Facts
from billing.filling import fillings
from billing.hourly import Flags, Hourly, Integers, distinct, hour_number, sums
from billing.included import included_by_meter
from billing.meters import Metered, MeterRules, meter_rules
from billing.period import Period
from billing.placing import Placed
from billing.tariff import METERS
from billing.unpriced import Unpriced
from billing.unpriced_usage import unpriced_among
from billing.usage_runs import LazyQuantities, UsageRuns
from billing.what_if_condensed import condensed
from billing.what_if_view import Hours, View, taken, view_of
from billing.what_if_worth import Cells, Worth, WorthSum


@dataclass(frozen=True, slots=True)
class PeriodOutcome:
    """A period under some facts: bills by customer, each one's segment, what usage is worth, what packages cost (in
    minor units), and what has no price."""

    period: Period
    bills: BillColumns
    segments: Sequence[str | None]
    worth: Worth
    packages: int
    unpriced: tuple[Unpriced, ...]


@dataclass(frozen=True, slots=True)
class Shared:
    """What the sides of one period have in common: sums of rows by how hours fall into columns, alike where windows are;
    and customers' segments."""

    sums: dict[bytes, Mapping[str, Integers]] = field(default_factory=dict)
    segments: dict[tuple[str, ...], Sequence[str | None]] = field(default_factory=dict)


def period_outcome(
    usage: UsageRuns, facts: Facts, period: Period, shared: Shared | None = None
) -> PeriodOutcome:
    """What the bills of `period` come to under `facts`, which have the period's holidays; adjustments aside.

    Equals `rate` and `make_bill` over the same usage. `shared` is kept between calls for
    the same usage and the same customers.
    """
    shared = shared or Shared()
    zone, currency = facts.operator[-1].zone, facts.operator[-1].currency
    start, end = period.bounds(zone)
    hours = Hours(hour_number(start), hour_number(end))
    view = view_of(usage, facts, period, zone, hours, shared.sums)
    included = included_by_meter(usage.customers, facts, hours.end - 1, zone)
    rows, rules = view.placed.rows, meter_rules(view.placed.rows)
    pricings = [meter_pricing(meter, rows, included.get(meter), len(usage.models)) for meter in METERS]
    ordered = _need_order(usage, view, rules, pricings)
    hourly, placed, cells = view.hourly, view.placed, Cells(np.zeros(len(view.hourly.hours), np.bool_), None)
    if ordered.any():
        hourly, placed, cells = _with_condensed(ordered, usage, view, rules, pricings)
    worth = WorthSum(usage, view, hourly, placed, cells, hours.of_day(zone), currency)
    charged: list[Charges] = []
    uncovered: list[tuple[Integers, Integers]] = []
    for filling in fillings(hourly, placed, view.windows):
        metered = Metered(hourly, rules, filling.at, filling.row)
        for pricing in pricings:
            quantity = metered.quantity(pricing.meter)
            charged += charges_under(pricing, quantity, filling)
            worth.add(quantity, filling, pricing)
        uncovered.append(filling.uncovered())
    lines = line_columns(charged, rows, view.windows, usage.models, currency)
    customers = billed_customers(usage.customers, facts, period)
    billed = tuple(customers)
    if billed not in shared.segments:
        shared.segments[billed] = segments_of(customers, period, facts)
    segments = shared.segments[billed]
    packaged = np.array([price.base == 1 for price in lines.prices], np.bool_)
    return PeriodOutcome(
        period=period,
        bills=bill_columns(lines, customers, segments, facts, period, currency),
        segments=segments,
        worth=worth.worth(),
        packages=sum(lines.amount[packaged[lines.price]].tolist()) if len(packaged) else 0,
        unpriced=unpriced_among(hourly, placed, uncovered),
    )


def _need_order(usage: UsageRuns, view: View, rules: MeterRules, pricings: Sequence[MeterPricing]) -> Flags:
    """Customers whose bill depends on the order of hours: included units or a graduated pool's first tier used up.

    With negative quantities pools may have been fuller than they are in the end, so those customers are always meant where
    anything is included or graduated. Of the others a few may be meant without need.
    """
    found = np.zeros(len(usage.customers), np.bool_)
    asked = [each for each in pricings if each.included is not None or each.graduated.any()]
    for filling in fillings(view.hourly, view.placed, view.windows) if asked else ():
        metered = Metered(view.hourly, rules, filling.at, filling.row)
        groups = filling.groups
        for pricing in asked:
            quantity = np.where(filling.billed, metered.quantity(pricing.meter), 0)
            of_group = sums(filling.group, quantity, len(groups.row))
            if pricing.included is not None:
                used = sums(groups.customer, of_group, len(found))
                found |= (pricing.included > 0) & ((used > pricing.included) | usage.negative)
            chosen = np.flatnonzero(pricing.graduated[groups.row])
            rows = len(pricing.plain)
            keys, pool = distinct(groups.customer[chosen] * rows + groups.row[chosen])
            customer, row = np.divmod(keys, rows)
            beyond = sums(pool, of_group[chosen], len(keys)) > pricing.bounds[row, 0] if len(keys) else chosen
            found[customer[beyond | usage.negative[customer]]] = True
    return found


def _with_condensed(
    ordered: Flags, usage: UsageRuns, view: View, rules: MeterRules, pricings: Sequence[MeterPricing]
) -> tuple[Hourly, Placed, Cells]:
    """The sums of the other customers, followed by these ones' condensed; and where each row of usage went."""
    of_sums = ordered[view.hourly.customer]
    kept = np.flatnonzero(~of_sums)
    found = condensed(ordered, usage, view, rules, pricings)
    cell_of_sum = np.cumsum(~of_sums) - 1
    cell_of_row = cell_of_sum[usage.run.astype(np.int64) * view.columns + view.column[usage.hour]]
    cell_of_row[found.rows] = found.sum_of_row + len(kept)
    run, hour = found.run, found.hour

    def both(of_sums: Any, of_condensed: Any) -> Any:
        return np.concatenate([of_sums[kept], of_condensed])

    def quantity(name: str) -> Any:
        values = usage.quantity(name)
        of_rows = found.rows[:0] if values is None else values[found.rows].astype(np.int64)
        places = found.sum_of_row[: len(of_rows)]
        return both(view.hourly.quantities[name], sums(places, of_rows, len(run)))

    hourly = replace(
        view.hourly,
        hours=both(view.hourly.hours, usage.first + hour),
        customer=both(view.hourly.customer, usage.customer[run]),
        node=both(view.hourly.node, usage.node[run]),
        model=both(view.hourly.model, usage.model[run]),
        outcome=both(view.hourly.outcome, usage.outcome[run]),
        band=both(view.hourly.band, usage.band[run]),
        quantities=LazyQuantities(usage.magnitudes, quantity),
    )
    of_runs = taken(view.at_stretch, run * view.stretches + view.stretch[hour])
    placed = replace(
        view.placed,
        row=both(view.placed.row, of_runs.row),
        billed=both(view.placed.billed, of_runs.billed),
        case=both(view.placed.case, of_runs.case),
    )
    alone = np.concatenate([np.zeros(len(kept), np.bool_), found.turning])
    return hourly, placed, Cells(alone, cell_of_row)
