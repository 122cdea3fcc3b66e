"""Discounts on usage lines (arithmetic rule 7): the segment's share off the tariff's prices, then the contract's.

Lines are taken together by (tariff version, contract version), so a version that begins inside a month has its own
percentages on its own lines:

    lines from tariff rows 80.00, from contract rows 20.00; segment sme 15%, contract 10%
    segment discount     80.00 × 15%              12.00
    contract discount    (100.00 − 12.00) × 10%    8.80

Fees are outside: they name no tariff version.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from decimal import Decimal
from fractions import Fraction

from billing.bill_part import BillPart
from billing.facts import Facts
from billing.line import FEE, Line
from billing.money import round_half_away
from billing.tariff import Contract, Tariff

SEGMENT, DISCOUNT = "segment:", "discount:"
"""What the keys of the two kinds of part begin with; `group_of` follows."""
_OF_TARIFF = "tariff:"


def discount_parts(
    lines: Sequence[Line], facts: Facts, customer: str, segment: str | None
) -> Iterator[BillPart]:
    """The allowances on `lines`, all of one customer: by tariff and contract version, the segment's first.

    `segment` is the customer's in the period's last hour; None: no segment's discount.
    """
    groups: dict[tuple[str, str], list[Line]] = defaultdict(list)
    for line in lines:
        if line.tariff_version is not None:
            groups[line.tariff_version, line.contract_version or ""].append(line)
    for (tariff_version, contract_version), group in sorted(groups.items()):
        name = group_of(group[0])
        assert name is not None, group[0]
        listed = sum(line.amount for line in group if is_listed(line))
        percent = _tariff(facts, tariff_version).segments.get(segment or "", Decimal(0))
        off = share(listed, percent)
        if off:
            yield BillPart(SEGMENT + name, "Segment discount", -off, base=listed, percent=percent)
        if contract_version:
            remains = sum(line.amount for line in group) - off
            percent = _contract(facts, customer, contract_version).discount
            off = share(remains, percent)
            if off:
                yield BillPart(DISCOUNT + name, "Contract discount", -off, base=remains, percent=percent)


def group_of(line: Line) -> str | None:
    """The lines that a line is discounted together with: "vilnius@2026-10-01|acme"; None: a fee, by none."""
    if line.meter == FEE:
        return None
    assert line.tariff_version is not None, line
    return f"{line.tariff_version}|{line.contract_version or ''}"


def is_listed(line: Line) -> bool:
    """Whether a row of the tariff priced it, not one of the contract: what a segment's discount is on."""
    return (line.price_row or "").startswith(_OF_TARIFF)


def share(minor: int, percent: Decimal) -> int:
    """round(minor × percent ÷ 100), percent in points: 2.5 is 2.5 %."""
    return round_half_away(Fraction(percent) * Fraction(minor, 100))


def _tariff(facts: Facts, version: str) -> Tariff:
    versions = facts.tariffs[version.partition("@")[0]]
    return next(tariff for tariff in versions if tariff.version == version)


def _contract(facts: Facts, customer: str, version: str) -> Contract:
    return next(contract for contract in facts.contracts[customer] if contract.version == version)
