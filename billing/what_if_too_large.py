"""Bills of a what-if that a close would refuse (`amount_too_large`): more than any amount on a document may be.

A close looks at a document's lines, allowances, charges and gross total; here it is the parts of the bill and its gross, as
if nothing were issued yet. VAT is that of the period's last day; where that can't be told yet, the net stands alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from billing.bill_columns import BillColumns
from billing.facts import Facts
from billing.money import MAX_MINOR, round_half_away
from billing.period import Period
from billing.site import in_force
from billing.tax import tax_case
from metering.refusal import Refusal


@dataclass(frozen=True, slots=True)
class TooLarge:
    """The largest amount, in minor units, of a customer's bill of a period."""

    period: Period
    customer: str
    amount: int


def too_large(bills: BillColumns, facts: Facts, period: Period) -> Iterator[TooLarge]:
    """Bills with an amount beyond `MAX_MINOR`, in the order of customers."""
    parts = (bills.usage, bills.discounts, bills.floors, bills.fees, bills.net)
    largest = np.max([np.abs(part) for part in parts], axis=0) if len(bills.customers) else bills.usage
    for place in np.flatnonzero(largest > MAX_MINOR // 2).tolist():  # no VAT doubles a net
        customer = bills.customers[place]
        amount = max(int(largest[place]), abs(_gross(int(bills.net[place]), customer, facts, period)))
        if amount > MAX_MINOR:
            yield TooLarge(period, customer, amount)


def _gross(net: int, customer: str, facts: Facts, period: Period) -> int:
    versions = facts.customers.get(customer, ())
    if not versions:
        return net
    operator = in_force(facts.operator, period.last_day) or facts.operator[-1]
    try:
        case = tax_case(operator, in_force(versions, period.last_day) or versions[-1], period.last_day)
    except Refusal:
        return net
    return net + round_half_away(Fraction(case.rate) * Fraction(net, 100))
