"""The bill, and the next document as what it is beyond the issued ones (arithmetic rules 7, 8 and 10).

A bill is what a customer owes for a period by today's knowledge: the rated lines, and parts outside usage
(discounts, the floor's shortfall, adjustments; each is an allowance or a charge). Issued documents say what was
already asked for. Both are sums per key (rule 6's key and the unit price; a part's own key), so the next document
is a subtraction per key:

    late usage               quantity grew:                     a line with the rest
    a corrected price        old key gone, new key there:       the old line negative, the new one positive
    a goodwill credit        a part that no document carries:   an allowance, or a credit note

Successive documents therefore sum to the bill in every quantity and to the cent, whatever was issued in
between.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from billing.adjustment import Adjustment
from billing.bill_part import BillPart
from billing.discount import SEGMENT, discount_parts, group_of, is_listed
from billing.document import ISSUED, Document
from billing.facts import Facts
from billing.floor import floor_part
from billing.hourly import hour_instant, hour_number
from billing.line import FEE, Line, LineKey
from billing.period import Period
from billing.site import in_force_at

__all__ = [
    "DISCOUNT_CODE",
    "MISCELLANEOUS_CODE",
    "ROUNDING_PART",
    "Bill",
    "BillPart",
    "Difference",
    "difference",
    "invoices_to_reduce",
    "make_bill",
    "remaining_of_invoices",
    "segment_of",
]

DISCOUNT_CODE = "95"
"""UNTDID 5189: discount, the reason code of an allowance."""
MISCELLANEOUS_CODE = "ABK"
"""UNTDID 7161: miscellaneous, the reason code of a charge."""
ROUNDING_PART = "rounding"


@dataclass(frozen=True, slots=True)
class Bill:
    """What a customer owes for a period, all told."""

    customer: str
    period: Period
    currency: str
    lines: tuple[Line, ...]
    parts: tuple[BillPart, ...] = ()

    @property
    def net(self) -> int:
        return sum(line.amount for line in self.lines) + sum(part.amount for part in self.parts)


def make_bill(
    customer: str,
    period: Period,
    currency: str,
    lines: Sequence[Line],
    facts: Facts,
    adjustments: Sequence[Adjustment],
) -> Bill:
    """The bill of one customer: what `rate` found, then rules 7 and 8.

    Discounts on its usage lines, the floor under what remains of them, and its adjustments in the order in which
    they were made.
    """
    discounts = tuple(discount_parts(lines, facts, customer, segment_of(customer, period, facts)))
    floor = floor_part(customer, period, lines, discounts, facts)
    adjusted = [BillPart(each.part, each.reason, each.net, each.document) for each in adjustments]
    return Bill(
        customer=customer,
        period=period,
        currency=currency,
        lines=tuple(lines),
        parts=(*discounts, *([floor] if floor else []), *adjusted),
    )


def segment_of(customer: str, period: Period, facts: Facts) -> str | None:
    """The segment by which a customer's whole period is discounted: that of its last hour."""
    zone = facts.operator[-1].zone
    last_hour = hour_instant(hour_number(period.bounds(zone)[1]) - 1)
    version = in_force_at(facts.customers.get(customer, ()), last_hour, zone)
    return version.segment if version else None


@dataclass(frozen=True, slots=True)
class Difference:
    """What a bill holds beyond the issued documents: lines and parts, each with the sign it adds with."""

    lines: tuple[Line, ...]
    parts: tuple[BillPart, ...]

    @property
    def net(self) -> int:
        return sum(line.amount for line in self.lines) + sum(part.amount for part in self.parts)


@dataclass(slots=True)
class _Asked:
    """What documents have asked for under each key, signs counted."""

    lines: dict[LineKey, Line] = field(default_factory=dict)
    quantities: Counter[LineKey] = field(default_factory=Counter)
    tokens: Counter[LineKey] = field(default_factory=Counter)
    amounts: Counter[LineKey] = field(default_factory=Counter)
    parts: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, str] = field(default_factory=dict)
    percents: dict[str, Decimal] = field(default_factory=dict)


def difference(bill: Bill, documents: Iterable[Document]) -> Difference:
    """`bill` − Σ issued documents of that customer and period; drafts among `documents` count for nothing."""
    asked = _asked(document for document in documents if document.state == ISSUED)
    lines: list[Line] = []
    residue = 0
    for line in (*bill.lines, *_dropped(bill, asked)):
        key = line.key
        if key not in asked.lines:
            lines.append(line)
            continue
        quantity = line.quantity - asked.quantities[key]
        amount = line.amount - asked.amounts[key]
        if quantity:
            tokens = line.tokens - asked.tokens[key]
            lines.append(replace(line, quantity=quantity, amount=amount, tokens=tokens))
        else:
            # equal quantities asked for in several documents, one of them taken back whole: a cent may remain
            residue += amount
    wanted = [*bill.parts, *_dropped_parts(bill, asked)]
    if residue or asked.parts[ROUNDING_PART]:
        wanted.append(BillPart(ROUNDING_PART, "Rounding", residue))
    beyond = [replace(part, amount=part.amount - asked.parts[part.key]) for part in wanted]
    parts = tuple(_on_these(part, lines, beyond) for part in beyond if part.amount)
    return Difference(tuple(sorted(lines, key=_is_fee)), parts)


def _is_fee(line: Line) -> bool:
    return line.meter == FEE


def _on_these(part: BillPart, lines: Sequence[Line], parts: Sequence[BillPart]) -> BillPart:
    """A discount's part with the base that it has among these lines and parts: what its own base grew by."""
    if part.percent is None:
        return part
    group = part.key.partition(":")[2]
    of_group = [line for line in lines if group_of(line) == group]
    if part.key == SEGMENT + group:
        return replace(part, base=sum(line.amount for line in of_group if is_listed(line)))
    segment = sum(each.amount for each in parts if each.key == SEGMENT + group)
    return replace(part, base=sum(line.amount for line in of_group) + segment)


def _dropped(bill: Bill, asked: _Asked) -> Iterator[Line]:
    """Lines asked for that the bill no longer has, with nothing in them."""
    present = {line.key for line in bill.lines}
    for key, line in asked.lines.items():
        if key not in present:
            yield replace(line, quantity=0, amount=0, tokens=0)


def _dropped_parts(bill: Bill, asked: _Asked) -> Iterator[BillPart]:
    present = {part.key for part in bill.parts} | {ROUNDING_PART}
    for key in asked.parts:
        if key not in present:
            yield BillPart(key, asked.reasons[key], 0, percent=asked.percents.get(key))


def _asked(documents: Iterable[Document]) -> _Asked:
    asked = _Asked()
    for document in documents:
        sign = document.sign
        for entry in document.lines:
            line = entry.line
            if entry.part is not None:
                asked.parts[entry.part] += sign * line.amount
                asked.reasons.setdefault(entry.part, entry.description)
                continue
            asked.lines.setdefault(line.key, line)
            asked.quantities[line.key] += sign * line.quantity
            asked.tokens[line.key] += sign * line.tokens
            asked.amounts[line.key] += sign * line.amount
        for turn, modifiers in ((-sign, document.allowances), (sign, document.charges)):
            for modifier in modifiers:
                assert modifier.part is not None, document.id
                asked.parts[modifier.part] += turn * modifier.amount
                asked.reasons.setdefault(modifier.part, modifier.reason)
                if modifier.percent is not None:
                    asked.percents[modifier.part] = modifier.percent
    return asked


def remaining_of_invoices(documents: Sequence[Document]) -> dict[str, int]:
    """Per invoice id, the net that credit notes have left of it, by replaying `documents`, oldest first.

    A credit note reduces the invoices that it names, in the order named. Drafts of credit notes count too,
    so that nothing is credited twice while a draft waits; drafts of invoices do not, for there is nothing
    to take back yet.
    """
    remaining: dict[str, int] = {}
    by_number: dict[str, str] = {}
    taken: dict[str, int] = defaultdict(int)
    for document in documents:
        if document.sign > 0 and document.state == ISSUED:
            assert document.number is not None
            remaining[document.id] = document.net
            by_number[document.number] = document.id
    for document in documents:
        if document.sign > 0:
            continue
        left = document.net
        for reference in document.corrects:
            invoice = by_number[reference.number]
            part = min(left, remaining[invoice] - taken[invoice])
            taken[invoice] += part
            left -= part
    return {invoice: net - taken[invoice] for invoice, net in remaining.items()}


def invoices_to_reduce(documents: Sequence[Document], wanted: Difference) -> list[Document]:
    """The issued invoices that a credit note reduces: those that its parts are about, then newest first."""
    net = -wanted.net
    preferred = {part.about for part in wanted.parts if part.about is not None}
    remaining = remaining_of_invoices([document for document in documents if document.state == ISSUED])
    invoices = [document for document in documents if document.id in remaining]
    named = [document for document in invoices if document.id in preferred]
    rest = [document for document in invoices if document.id not in preferred]
    chosen: list[Document] = []
    for document in (*reversed(named), *reversed(rest)):
        if net > 0 and remaining[document.id] > 0:
            chosen.append(document)
            net -= remaining[document.id]
    return chosen
