"""The floor under a month's usage (arithmetic rule 8): a contract's commitment, else the tariff's minimum, by days.

Each local day of the period has the commitment of the contract in force as it begins, if that contract states one (0 is
a statement); else, where something was used, the minimum of the tariff in force then. The floor is a day's average,
and what usage lines after discounts lack of it is a charge:

    minimum 5.00 until 2026-10-10, then a contract with a commitment of 1000.00 for 21 of 31 days
    floor      (10 × 5.00 + 21 × 1000.00) ÷ 31 = 679.03

A floor of 0 is one too: usage taken back beyond what was used leaves no negative month behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date, timedelta
from fractions import Fraction

from billing.bill_part import BillPart
from billing.facts import Facts, tariff_in_force_at
from billing.line import FEE, UNBILLED, Line
from billing.money import round_half_away
from billing.period import Period, midnight
from billing.site import Version, in_force
from billing.tariff import Contract, Tariff

FLOOR_PART = "floor"
COMMITMENT = "Commitment"
MINIMUM = "Minimum charge"
_A_DAY_APART = (timedelta(days=-1), timedelta(0), timedelta(days=1))


def floor_part(
    customer: str, period: Period, lines: Sequence[Line], discounts: Sequence[BillPart], facts: Facts
) -> BillPart | None:
    """The shortfall of one customer's usage `lines` less `discounts`, as a charge; None where there is none."""
    usage = [line for line in lines if line.meter != FEE]
    committed = False
    total = 0
    for commitment, minimum in floor_days(customer, period, facts, used=was_used(usage)):
        committed = committed or bool(commitment)
        total += minimum if commitment is None else commitment
    remains = sum(line.amount for line in usage) + sum(part.amount for part in discounts)
    shortfall = round_half_away(Fraction(total, period.days)) - remains
    if shortfall <= 0:
        return None
    return BillPart(FLOOR_PART, COMMITMENT if committed else MINIMUM, shortfall)


def was_used(lines: Sequence[Line]) -> bool:
    """Whether there is a billed or free line of usage, without which no minimum is asked for."""
    return any(line.meter != FEE and line.tier != UNBILLED for line in lines)


def floor_days(
    customer: str, period: Period, facts: Facts, *, used: bool
) -> Iterator[tuple[int | None, int]]:
    """Each day's (commitment, if one is stated; minimum), in minor units."""
    contracts = facts.contracts.get(customer, ())
    changes = _days_of_change(contracts, facts)
    found: tuple[int | None, int] = (None, 0)
    for number in range(period.days):
        day = period.first_day + timedelta(days=number)
        if number == 0 or day in changes:
            found = _of_day(contracts, day, facts, used=used)
        yield found


def _days_of_change(contracts: Sequence[Contract], facts: Facts) -> set[date]:
    """Days on which another contract, operator or tariff version may hold than the day before.

    As a day of the operator begins, a tariff's zone may be a day behind or ahead.
    """
    names = {each.tariff for each in contracts} | {each.default_tariff for each in facts.operator}
    versions: list[Version] = [*contracts, *facts.operator]
    tariffs: list[Version] = [tariff for name in names for tariff in facts.tariffs.get(name or "", ())]
    return _edges(versions) | {edge + offset for edge in _edges(tariffs) for offset in _A_DAY_APART}


def _edges(versions: Iterable[Version]) -> set[date]:
    edges = {edge for version in versions for edge in (version.valid_from, version.valid_until)}
    return {edge for edge in edges if edge is not None}


def _of_day(contracts: Sequence[Contract], day: date, facts: Facts, *, used: bool) -> tuple[int | None, int]:
    contract = in_force(contracts, day)
    if contract is not None and contract.commitment is not None:
        return contract.commitment, 0
    tariff = _tariff(facts, day, contract.tariff if contract else None) if used else None
    return None, tariff.minimum or 0 if tariff else 0


def minimum_tariffs(customer: str, period: Period, facts: Facts) -> list[Tariff]:
    """The tariff versions whose minimum counts on days of the period, where something was used; in their order."""
    contracts = facts.contracts.get(customer, ())
    found: list[Tariff] = []
    for number in range(period.days):
        day = period.first_day + timedelta(days=number)
        contract = in_force(contracts, day)
        if contract is not None and contract.commitment is not None:
            continue
        tariff = _tariff(facts, day, contract.tariff if contract else None)
        if tariff is not None and tariff.minimum is not None and tariff not in found:
            found.append(tariff)
    return found


def _tariff(facts: Facts, day: date, agreed: str | None) -> Tariff | None:
    """The tariff that was `agreed`, or the default one, as the operator's `day` begins."""
    operator = in_force(facts.operator, day)
    name = agreed or (operator.default_tariff if operator else None)
    versions = facts.tariffs.get(name or "", ())
    return tariff_in_force_at(versions, midnight(day, facts.operator[-1].zone))
