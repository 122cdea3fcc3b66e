"""The bills of a site file and of usage, as billing makes them: what the slow bill is held against."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
from plain_bill import Key, Unpriced
from usage_cells import site_facts

from billing.adjustment import Adjustment
from billing.bill import Bill, make_bill
from billing.facts import Facts
from billing.holiday import with_holidays
from billing.line import Line
from billing.period import Period
from billing.rating import Rated, rate

Adjustments = Mapping[str, Sequence[tuple[str, int]]]
"""(id, net in minor units) by customer, as `plain_bills` takes them."""


@dataclass(frozen=True, slots=True)
class RatedBills:
    """What `rate` said, and the bill of each customer that it names."""

    rated: Rated
    bills: Mapping[str, Bill]

    @property
    def nets(self) -> dict[str, int]:
        return {customer: bill.net for customer, bill in self.bills.items()}


def facts_for(site: str, period: Period) -> Facts:
    """A site file's facts with the holidays of the period."""
    return with_holidays(site_facts(site), period)


def rated_bills(
    usage: pa.Table, facts: Facts, period: Period, adjustments: Adjustments | None = None
) -> RatedBills:
    """`usage` rated, and every bill made of it."""
    rated = rate(usage, facts, period)
    bills = {
        customer: make_bill(
            customer,
            period,
            facts.operator[-1].currency,
            lines,
            facts,
            _adjustments(customer, period, (adjustments or {}).get(customer, ())),
        )
        for customer, lines in rated.lines.items()
    }
    return RatedBills(rated, bills)


def plain_key(line: Line) -> Key:
    """The line's key in the slow bill's words."""
    return Key(
        line.tariff_version,
        line.contract_version,
        line.price_row,
        line.model,
        line.meter,
        line.window,
        line.tier,
        line.item,
    )


def plain_unpriced(rated: Rated) -> dict[Unpriced, int]:
    """Quantities that nothing prices, whatever the reason, in the slow bill's words."""
    found: dict[Unpriced, int] = {}
    for each in rated.unpriced:
        name = Unpriced(each.model, each.meter, each.region)
        found[name] = found.get(name, 0) + each.tokens
    return found


def _adjustments(customer: str, period: Period, stated: Iterable[tuple[str, int]]) -> list[Adjustment]:
    at = datetime(2026, 11, 2, 9, tzinfo=UTC)
    return [Adjustment(name, customer, period, net, "Goodwill", "finance", at) for name, net in stated]
