"""The steps of what is no usage line: a contract's fees, discounts, the floor; each from what the facts state.

    fee               vilnius.yaml:50, contract acme: 500.00 EUR a month, 21 of 31 days     338.71 EUR
    Segment discount  vilnius.yaml:31, tariff vilnius: 15 % for segment sme, of 80.00       -12.00 EUR
    floor             commitment 1000.00 on 21 days, minimum 5.00 on 10 days, averaged      679.03 EUR

None is given where what the facts state now does not come to the document's figure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from fractions import Fraction

from billing.bill import segment_of
from billing.bill_part import BillPart
from billing.document import Document
from billing.fees import MONTHLY, days_in_force
from billing.floor import FLOOR_PART, floor_days, minimum_tariffs, was_used
from billing.line import FEE, Line
from billing.money import format_minor, round_half_away
from billing.rated_again import RatedAgain, Standing, part_standing
from reports.explain_figures import MINUS, Step, money, percent, step
from reports.explain_terms import contract_words, tariff_words

_DISCOUNTS = ("segment", "discount")


def fee_steps(line: Line, again: RatedAgain) -> Iterator[Step]:
    """A fee by the days of its version, rounded; nothing where the contract states another one now."""
    contracts = again.facts.contracts.get(again.bill.customer, ())
    currency = again.bill.currency
    for contract in contracts:
        for number, fee in enumerate(contract.fees, 1):
            if contract.version != line.contract_version or fee.name != line.item:
                continue
            said = f"{contract_words(contract, f'fees.{number}')}: {money(fee.amount, currency)}"
            if fee.every != MONTHLY:
                yield step("fee", f"{said} once, as the contract begins", money(line.amount, currency))
                continue
            days, of = days_in_force(contracts, again.period)[contract.version], again.period.days
            share = f"{format_minor(fee.amount, currency)} × {days} ÷ {of}"
            shown = f"{said} a month, in force on {days} of {of} days: {share}, rounded"
            yield step("fee", shown, money(round_half_away(fee.amount * Fraction(days, of)), currency))


def part_steps(key: str, amount: int, document: Document, again: RatedAgain) -> Iterator[Step]:
    """How an allowance, a charge or a line that stands for one came about. `amount`: signed as on the bill, minor units;
    nothing where the bill comes to another one now, and for what a person decided.
    """
    standing = part_standing(again, key)
    if not standing.gives(0, amount):
        return
    part = next((each for each in again.bill.parts if each.key == key), None)
    if part is not None and key.partition(":")[0] in _DISCOUNTS:
        yield _discount(part, again)
    if part is not None and key == FLOOR_PART:
        yield from _floor(part, again)
    if standing.earlier:
        yield _beyond(standing, amount, document)


def _beyond(standing: Standing, amount: int, document: Document) -> Step:
    currency = document.currency
    earlier = [f"{format_minor(each.amount, currency)} on {each.number}" for each in standing.earlier]
    said = f" {MINUS} ".join([format_minor(standing.amount, currency), *earlier])
    return step("less earlier documents", said, money(amount, currency))


def _discount(part: BillPart, again: RatedAgain) -> Step:
    kind, _, about = part.key.partition(":")
    tariff_version, _, contract_version = about.partition("|")
    assert part.base is not None
    assert part.percent is not None
    currency = again.bill.currency
    base = format_minor(part.base, currency)
    contracts = again.facts.contracts.get(again.bill.customer, ())
    if kind == "segment":
        segment = segment_of(again.bill.customer, again.period, again.facts)
        tariff = next(
            each
            for versions in again.facts.tariffs.values()
            for each in versions
            if each.version == tariff_version
        )
        said = (
            f"{tariff_words(tariff, f'segments.{segment}')}: {percent(part.percent)} for segment {segment}, of {base} on"
            " lines from its rows"
        )
    else:
        contract = next(each for each in contracts if each.version == contract_version)
        said = (
            f"{contract_words(contract, 'discount')}: {percent(part.percent)} of {base}, its lines less their segment"
            " discount"
        )
    return step(part.reason, said, money(part.amount, currency))


def _floor(part: BillPart, again: RatedAgain) -> Iterator[Step]:
    """The month's floor as a day's average, and what usage lacks of it."""
    bill, period = again.bill, again.period
    currency = bill.currency
    days: Counter[tuple[str, int]] = Counter()
    used = was_used(bill.lines)
    for commitment, minimum in floor_days(bill.customer, period, again.facts, used=used):
        days[
            "minimum" if commitment is None else "commitment", minimum if commitment is None else commitment
        ] += 1
    stated = [
        f"{word} {format_minor(amount, currency)} on {count} day{'' if count == 1 else 's'}"
        for (word, amount), count in sorted(days.items())
    ]
    total = sum(amount * count for (_, amount), count in days.items())
    floor = round_half_away(Fraction(total, period.days))
    places = "; ".join(_places(again)) or "no version states one"
    said = f"{places}: {', '.join(stated)}; a day's average, rounded"
    yield step("floor", said, money(floor, currency))
    usage = sum(line.amount for line in bill.lines if line.meter != FEE)
    discounts = sum(each.amount for each in bill.parts if each.key.partition(":")[0] in _DISCOUNTS)
    lacking = f"{format_minor(floor, currency)} {MINUS} {format_minor(usage + discounts, currency)} of usage after discounts"
    yield step(part.reason, lacking, money(part.amount, currency))


def _places(again: RatedAgain) -> Iterator[str]:
    """Where commitments and minimums are stated, of the versions that hold on days of the period."""
    contracts = again.facts.contracts.get(again.bill.customer, ())
    in_force = days_in_force(contracts, again.period)
    for contract in contracts:
        if in_force[contract.version] and contract.commitment is not None:
            yield contract_words(contract, "commitment")
    if was_used(again.bill.lines):
        for tariff in minimum_tariffs(again.bill.customer, again.period, again.facts):
            yield tariff_words(tariff, "minimum")
