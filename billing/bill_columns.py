"""Bills of many customers at once, as columns: rules 7 and 8 over lines that are columns too. No adjustments.

The same arithmetic as `billing.bill.make_bill`, for who asks for nothing but amounts (`billing.what_if`): a property test
holds one to the other. Amounts are int64, Python's integers where 64 bits might not hold a sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from billing.bill import segment_of
from billing.charged_lines import LineColumns
from billing.facts import Facts
from billing.fees import days_in_force, fee_lines
from billing.floor import floor_days
from billing.hourly import Flags, Integers
from billing.line import UNBILLED
from billing.money import round_half_away
from billing.period import Period
from billing.terms import TermsRow

_SAFE = 2**62


@dataclass(frozen=True, slots=True)
class BillColumns:
    """One period's bills in minor units, by customer: `usage` (lines), `discounts` (at most 0 where usage is not
    negative), `floors`, `fees`; all as long as `customers`."""

    customers: Sequence[str]
    usage: Integers
    discounts: Integers
    floors: Integers
    fees: Integers

    @property
    def net(self) -> Integers:
        net: Integers = self.usage + self.discounts + self.floors + self.fees
        return net


def bill_columns(
    lines: LineColumns,
    customers: Sequence[str],
    segments: Sequence[str | None],
    facts: Facts,
    period: Period,
    currency: str,
) -> BillColumns:
    """The bills of `customers`: the first of them are those that `lines` speak of by place, others have no usage.

    `segments`: each one's in the period's last hour.
    """
    count = len(customers)
    amounts = _summable(lines.amount)
    usage = _sums(lines.customer, amounts, count)
    discounts = _discounts(lines, amounts, customers, segments)
    fees = np.zeros(count, np.int64)
    places = {customer: place for place, customer in enumerate(customers)}
    for customer, contracts in facts.contracts.items():
        if customer in places and any(contract.fees for contract in contracts):
            made = sum(line.amount for line in fee_lines(contracts, period, currency))
            fees[places[customer]] = made
    floors = np.maximum(_floors(lines, customers, facts, period) - usage - discounts, 0)
    return BillColumns(customers, usage, discounts, floors, fees)


def billed_customers(with_usage: Sequence[str], facts: Facts, period: Period) -> list[str]:
    """Whose bills a period has: who has usage, and after them who has but a contract in force on a day of it."""
    known = set(with_usage)
    others = [
        customer
        for customer, contracts in facts.contracts.items()
        if customer not in known and days_in_force(contracts, period)
    ]
    return [*with_usage, *others]


def _discounts(
    lines: LineColumns, amounts: Integers, customers: Sequence[str], segments: Sequence[str | None]
) -> Integers:
    """Rule 7: per customer and (tariff version, contract version) the segment's discount, then the contract's."""
    count = len(customers)
    terms: dict[tuple[str, str | None], TermsRow] = {}
    for price in lines.prices:
        terms.setdefault((price.row.tariff_version, price.row.contract_version), price.row)
    if not any(row.terms.tariff.segments or row.terms.contract for row in terms.values()):
        return np.zeros(count, np.int64)
    places = {key: place for place, key in enumerate(terms)}
    of_price = np.array(
        [places[price.row.tariff_version, price.row.contract_version] for price in lines.prices], np.int64
    )
    listed = np.array([price.row.name.startswith("tariff:") for price in lines.prices], np.bool_)
    key = lines.customer * len(terms) + of_price[lines.price]
    keys, group = np.unique(key, return_inverse=True)
    customer, at = np.divmod(keys, len(terms) or 1)
    rows = list(terms.values())
    of_listed = _sums(group, np.where(listed[lines.price], amounts, 0), len(keys))
    named = sorted({segment or "" for segment in segments})
    segment = np.array([named.index(each or "") for each in segments], np.int64)
    by_segment = [[Fraction(row.terms.tariff.segments.get(name, 0)) for name in named] for row in rows]
    off = _shares(of_listed, at * len(named) + segment[customer], [each for of in by_segment for each in of])
    percents = [Fraction(row.terms.contract.discount) if row.terms.contract else Fraction(0) for row in rows]
    remains = _sums(group, amounts, len(keys)) - off
    return -_sums(customer, off + _shares(remains, at, percents), count)


def _shares(minor: Integers, at: Integers, percents: Sequence[Fraction]) -> Integers:
    """round(minor × percent ÷ 100) of each, its percent at a place among `percents`."""
    numerators = np.array([percent.numerator for percent in percents], object)
    denominators = np.array([100 * percent.denominator for percent in percents], object)
    most = int(np.abs(minor).max(initial=0))
    if 2 * most * int(numerators.max(initial=0)) + int(denominators.max(initial=1)) < _SAFE:
        numerators, denominators = numerators.astype(np.int64), denominators.astype(np.int64)
        above, below = numerators[at], denominators[at]
        found: Integers = np.sign(minor) * ((2 * np.abs(minor) * above + below) // (2 * below))
        return found
    return np.array(
        [
            round_half_away(percents[of] * Fraction(each, 100))
            for each, of in zip(minor.tolist(), at.tolist(), strict=True)
        ],
        object,
    )


def _floors(lines: LineColumns, customers: Sequence[str], facts: Facts, period: Period) -> Integers:
    """Rule 8's floor of each customer, before what is used is taken off."""
    used = np.zeros(len(customers), np.bool_)
    billed: Flags = np.array([price.tier != UNBILLED for price in lines.prices], np.bool_)
    used[lines.customer[billed[lines.price]]] = True
    if not _any_floor(facts):
        return np.zeros(len(customers), np.int64)
    found = np.where(used, _floor("", period, facts, used=True), 0)
    known: dict[object, int] = {}  # many contracts are alike in what a floor goes by
    for place, customer in enumerate(customers):
        if contracts := facts.contracts.get(customer):
            alike = (
                bool(used[place]),
                *((each.valid_from, each.valid_until, each.commitment, each.tariff) for each in contracts),
            )
            if alike not in known:
                known[alike] = _floor(customer, period, facts, used=bool(used[place]))
            found[place] = known[alike]
    return found


def _any_floor(facts: Facts) -> bool:
    tariffs = (tariff for versions in facts.tariffs.values() for tariff in versions)
    contracts = (contract for versions in facts.contracts.values() for contract in versions)
    return any(tariff.minimum for tariff in tariffs) or any(contract.commitment for contract in contracts)


def _floor(customer: str, period: Period, facts: Facts, *, used: bool) -> int:
    days = floor_days(customer, period, facts, used=used)
    total = sum(minimum if commitment is None else commitment for commitment, minimum in days)
    return round_half_away(Fraction(total, period.days))


def _summable(amounts: Integers) -> Integers:
    """Amounts whose sums 64 bits hold: as they are, or as Python's integers."""
    most = int(np.abs(amounts).max(initial=0))
    return amounts if most * max(len(amounts), 1) < _SAFE else amounts.astype(object)


def _sums(places: Integers, values: Integers, count: int) -> Integers:
    totals = np.zeros(count, values.dtype)
    np.add.at(totals, places, values)
    return totals


def segments_of(customers: Sequence[str], period: Period, facts: Facts) -> list[str | None]:
    """Each customer's segment in the period's last hour (`billing.bill.segment_of`)."""
    found: list[str | None] = []
    for customer in customers:
        versions = facts.customers.get(customer, ())
        alone = len(versions) == 1 and versions[0].valid_from is None and versions[0].valid_until is None
        found.append(versions[0].segment if alone else segment_of(customer, period, facts))
    return found


def totals(bills: BillColumns) -> Mapping[str, int]:
    """Sums over customers, of each part and of the net, in Python's integers."""
    parts = {name: sum(getattr(bills, name).tolist()) for name in ("usage", "discounts", "floors", "fees")}
    return {**parts, "net": sum(parts.values())}
