"""A document's month rated again, and whether what stands on the document comes out of it. Pure.

A document is a bill less what earlier documents asked for, by the usage and the facts of one close. Whoever explains it
later finds versions superseded perhaps, and takes their text of then (`billing.kept_facts`); or more usage. So each
entry is first held against the bill as the month's usage makes it now, by the facts of then:

    entry × sign = the bill's quantity and amount now − Σ of the earlier documents      then its working explains it
    anything else                                                                       then only its own figures do

    standing = line_standing(again, line)       40000 tokens, 0.02 on the bill; 37499 tokens, 0.01 on TLC-1
    standing.gives(2501, 1)                     True: the document's line is the rest
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from billing.adjustment import Adjustment
from billing.bill import Bill, make_bill
from billing.document import ISSUED, Document
from billing.facts import Facts
from billing.holiday import with_holidays
from billing.kept_facts import as_kept
from billing.line import Line
from billing.period import Period
from billing.ports import PeriodClose
from billing.preview import of_customer
from billing.rating import rate
from billing.stored import StoredDocument
from billing.terms import Terms, TermsRow
from billing.working import Working, working


@dataclass(frozen=True, slots=True)
class RatedAgain:
    """What the customer's month comes to now, by the `facts` that the document's close went by. `earlier`: documents
    issued before the one that is explained; `close`: the one that drafted it, if any did; `superseded`: versions that
    are taken as they stood then; `replaced`: those that it went by, whose text is another now, and was not kept.
    """

    facts: Facts
    period: Period
    working: Working
    bill: Bill
    earlier: tuple[Document, ...]
    close: PeriodClose | None
    superseded: tuple[str, ...]
    replaced: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """What an earlier document asked for under one key, signs counted."""

    number: str
    quantity: int
    amount: int


@dataclass(frozen=True, slots=True)
class Standing:
    """One key of the bill: what it is now, and what each earlier document asked for. Amounts are minor units."""

    quantity: int
    amount: int
    earlier: tuple[Asked, ...]

    def gives(self, quantity: int, amount: int) -> bool:
        """Whether the bill less the earlier documents is this."""
        return (
            self.quantity - sum(each.quantity for each in self.earlier) == quantity
            and self.amount - sum(each.amount for each in self.earlier) == amount
        )


def rated_again(
    document: Document,
    usage: pa.Table,
    facts: Facts,
    adjustments: Sequence[Adjustment],
    documents: Sequence[Document],
    closes: Sequence[PeriodClose],
    former: Sequence[StoredDocument] = (),
) -> RatedAgain:
    """The month of `document` by what is known now. `usage` may hold other customers'; `documents` are the customer's of
    that period, `closes` the period's, both oldest first. The holidays are those that the closes fixed. `former`:
    versions that were superseded, as they stood.
    """
    customer, period = document.customer, document.period
    close = _close_of(document, closes)
    kept = {} if close is None else close.facts
    then = as_kept(facts, former, kept.get("versions", {}), kept.get("hours", {}))
    known = with_holidays(then.facts, period, closes[-1].holidays if closes else None)
    own = of_customer(usage, customer)
    rated = rate(own, known, period)
    made = [each for each in adjustments if each.customer == customer]
    bill = make_bill(customer, period, document.currency, rated.lines.get(customer, ()), known, made)
    return RatedAgain(
        facts=known,
        period=period,
        working=working(own, known, period, customer),
        bill=bill,
        earlier=_before(document, documents),
        close=close,
        superseded=then.superseded,
        replaced=then.lost,
    )


def line_standing(again: RatedAgain, line: Line) -> Standing:
    """Where a document's line stands on the bill now, by rule 6's key and the unit price."""
    found = [each for each in again.bill.lines if each.key == line.key]
    assert len(found) <= 1, "a bill has one line for a key"
    earlier = [
        Asked(each.number or each.id, each.sign * entry.line.quantity, each.sign * entry.line.amount)
        for each in again.earlier
        for entry in each.lines
        if entry.part is None and entry.line.key == line.key
    ]
    now = found[0] if found else replace(line, quantity=0, amount=0)
    return Standing(now.quantity, now.amount, tuple(earlier))


def price_row_of(again: RatedAgain, line: Line) -> TermsRow | None:
    """The price row that a usage line names; None where its versions say something else since its close, or may."""
    if again.close is None:
        return None
    names = {f"tariff {line.tariff_version}", f"contract {line.contract_version}"}
    if not names.isdisjoint(again.replaced):
        return None
    tariffs = [each for versions in again.facts.tariffs.values() for each in versions]
    contracts = again.facts.contracts.get(again.bill.customer, ())
    tariff = next((each for each in tariffs if each.version == line.tariff_version), None)
    contract = next((each for each in contracts if each.version == line.contract_version), None)
    if tariff is None or (contract is None and line.contract_version is not None):
        return None
    terms = Terms(tariff, contract)
    rows = (
        TermsRow(terms, name, row, tariff.version, terms.contract_version, rank)
        for rank, (name, row) in enumerate(terms.rows())
    )
    return next((row for row in rows if row.name == line.price_row), None)


def part_standing(again: RatedAgain, key: str) -> Standing:
    """Where a part of the bill outside its usage stands now; it has no quantity."""
    earlier: list[Asked] = []
    for each in again.earlier:
        amount = sum(entry.line.amount for entry in each.lines if entry.part == key)
        amount += sum(charge.amount for charge in each.charges if charge.part == key)
        amount -= sum(allowance.amount for allowance in each.allowances if allowance.part == key)
        if amount:
            earlier.append(Asked(each.number or each.id, 0, each.sign * amount))
    now = sum(part.amount for part in again.bill.parts if part.key == key)
    return Standing(0, now, tuple(earlier))


def _before(document: Document, documents: Sequence[Document]) -> tuple[Document, ...]:
    """The issued documents that were there before this one was drafted."""
    ids = [each.id for each in documents]
    place = ids.index(document.id) if document.id in ids else len(ids)
    return tuple(each for each in documents[:place] if each.state == ISSUED)


def _close_of(document: Document, closes: Sequence[PeriodClose]) -> PeriodClose | None:
    """The newest close that drafted the document; a credit note was drafted without one."""
    for close in reversed(closes):
        rows = (*close.result["drafts"], *close.result["issued"])
        if any(row["id"] == document.id for row in rows):
            return close
    return None
