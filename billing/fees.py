"""Fees of contracts as lines (arithmetic rule 6): a month's fee by days, a fee once whole. Pure.

A month's fee is charged for each version by the days on which it is in force, a line per version:

    500.00 a month, the version from 2026-10-11 on:  21 of 31 days, 338.71

A fee `once` is whole, in the month in which the first version of the contract that states a fee of that name begins;
versions that follow may go on stating it and charge nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date
from fractions import Fraction
from itertools import zip_longest

from billing.line import FEE, Line, item_line
from billing.money import round_half_away
from billing.period import Period
from billing.tariff import Contract

MONTHLY = "month"
ONCE = "once"


def fee_lines(contracts: Sequence[Contract], period: Period, currency: str) -> Iterator[Line]:
    """The fees of one customer in a period, by version and in file order. `contracts`: all versions, oldest first."""
    days = days_in_force(contracts, period)
    for contract in contracts:
        for fee in contract.fees:
            if fee.every == MONTHLY and days[contract.version]:
                share = Fraction(days[contract.version], period.days)
                yield _line(contract, fee.name, round_half_away(fee.amount * share), currency)
            elif (
                fee.every == ONCE
                and _begins_here(contract, period)
                and _first(contracts, fee.name) is contract
            ):
                yield _line(contract, fee.name, fee.amount, currency)


def days_in_force(contracts: Sequence[Contract], period: Period) -> Counter[str]:
    """For each version of a contract the days of the period on which it is in force; those with none are left out.

    A version holds from its first day until the next begins, or its own end comes.
    """
    days: Counter[str] = Counter()
    after = period.next.first_day
    for contract, following in zip_longest(contracts, contracts[1:]):
        begin = max(contract.valid_from or date.min, period.first_day)
        ends = (following.valid_from if following else None, contract.valid_until, after)
        held = min(end for end in ends if end is not None) - begin
        if held.days > 0:
            days[contract.version] = held.days
    return days


def _begins_here(contract: Contract, period: Period) -> bool:
    return contract.valid_from is not None and period.first_day <= contract.valid_from <= period.last_day


def _first(contracts: Sequence[Contract], name: str) -> Contract:
    """The first version that states a fee of that name, be it monthly there."""
    return next(each for each in contracts if any(fee.name == name for fee in each.fees))


def _line(contract: Contract, name: str, amount: int, currency: str) -> Line:
    return item_line(FEE, amount, currency, contract_version=contract.version, item=name)
