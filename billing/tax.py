"""VAT on a document: which category and rate holds, and the tax per category and rate (arithmetic rule 9).

What is known here: an operator registered for VAT who sells to a customer in its own country, at the
standard rate (EN 16931 category S). Every other case (a customer abroad, an exempt body, an operator
without a VAT number) needs a legal text on the document, and is refused by name rather than billed wrongly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from fractions import Fraction

from billing.document_parts import Tax
from billing.money import round_half_away
from billing.site import Customer, Operator
from metering.refusal import Refusal

STANDARD = "S"

_EVER = date(2020, 1, 1)  # no usage is older
_STANDARD_RATES: dict[str, tuple[tuple[date, Decimal], ...]] = {
    "LT": ((_EVER, Decimal(21)),),
    "LV": ((_EVER, Decimal(21)),),
    "EE": ((_EVER, Decimal(20)), (date(2024, 1, 1), Decimal(22)), (date(2025, 7, 1), Decimal(24))),
    "FI": ((_EVER, Decimal(24)), (date(2024, 9, 1), Decimal("25.5"))),
    "DE": ((_EVER, Decimal(19)), (date(2020, 7, 1), Decimal(16)), (date(2021, 1, 1), Decimal(19))),
    "IT": ((_EVER, Decimal(22)),),
    "SE": ((_EVER, Decimal(25)),),
}
"""Standard rates in percent points, from the day on which each came into force, oldest first."""


@dataclass(frozen=True, slots=True, order=True)
class TaxCase:
    """A VAT category (UNTDID 5305) and its rate in percent points."""

    category: str
    rate: Decimal


def tax_case(operator: Operator, customer: Customer, day: date) -> TaxCase:
    """Category and rate for a sale of `operator` to `customer` on `day`, the period's last.

    Refuses (`tax_case_not_supported`) what needs more than the standard rate at home.
    """
    if operator.vat_id is None:
        raise _not_supported(f"operator {operator.id} has no vat_id", "declare the operator's vat_id")
    if customer.country != operator.country:
        raise _not_supported(
            f"customer {customer.id} is in {customer.country}, operator {operator.id} in {operator.country}",
            "only customers in the operator's own country can be billed yet",
        )
    rates = _STANDARD_RATES.get(operator.country)
    if rates is None:
        raise _not_supported(
            f"the VAT rate of {operator.country} is not known",
            f"operators can be in {', '.join(sorted(_STANDARD_RATES))} yet",
        )
    in_force = [rate for start, rate in rates if start <= day]
    assert in_force, f"usage is not older than {_EVER}"
    return TaxCase(STANDARD, in_force[-1])


def _not_supported(what: str, remedy: str) -> Refusal:
    return Refusal("tax_case_not_supported", what, remedy=remedy)


def taxes(amounts: Iterable[tuple[TaxCase, int]]) -> tuple[Tax, ...]:
    """A document's VAT: per category and rate round(basis × rate), in minor units.

    `amounts` are the document's lines and charges, and its allowances negative.
    """
    bases: Counter[TaxCase] = Counter()
    for case, amount in amounts:
        bases[case] += amount
    return tuple(
        Tax(case.category, case.rate, basis, round_half_away(Fraction(case.rate) * Fraction(basis, 100)))
        for case, basis in sorted(bases.items())
    )
