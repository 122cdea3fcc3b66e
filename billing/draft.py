"""Drafting: a difference as the invoice or credit note that asks for it (arithmetic rules 9 and 10)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from billing.bill import (
    DISCOUNT_CODE,
    MISCELLANEOUS_CODE,
    Bill,
    Difference,
    difference,
    invoices_to_reduce,
)
from billing.bill_part import BillPart
from billing.description import describe
from billing.document import CREDIT_NOTE, INVOICE, ISSUED, Document
from billing.document_parts import AllowanceOrCharge, DocumentLine, Reference
from billing.line import Line, item_line
from billing.money import MAX_MINOR, format_minor, round_half_away
from billing.period import Period
from billing.site import Customer, Operator
from billing.tax import TaxCase, tax_case, taxes
from metering.refusal import Refusal

ADJUSTMENT_METER = "adjustment"


@dataclass(frozen=True, slots=True)
class Waiting:
    """A difference below the operator's `smallest_document`: it waits for a later close of the same period."""

    customer: str
    net: int


def next_document(
    bill: Bill,
    documents: Sequence[Document],
    operator: Operator,
    customer: Customer,
    *,
    may_wait: bool = True,
) -> Document | Waiting | None:
    """The next document of a customer and period as a draft; None where the difference is 0.

    `documents` are that customer's of that period, oldest first. `operator` and `customer` are the versions
    of the period's last day. Refuses (`tax_case_not_supported`) what can't be taxed yet.
    """
    wanted = difference(bill, documents)
    if wanted.net == 0:
        return None
    if may_wait and abs(wanted.net) < operator.smallest_document_minor:
        return Waiting(bill.customer, wanted.net)
    return draw(wanted, bill.period, documents, operator, customer)


def draw(
    wanted: Difference,
    period: Period,
    documents: Sequence[Document],
    operator: Operator,
    customer: Customer,
) -> Document:
    """`wanted` as the document that asks for it or gives it back, naming the issued ones among `documents` that it
    follows or reduces; a net of 0 makes an invoice of 0, which is only ever shown. Refuses `tax_case_not_supported`.
    """
    issued = [document for document in documents if document.state == ISSUED]
    if wanted.net >= 0:
        case = tax_case(operator, customer, period.last_day)
        draft = make_draft(wanted, 1, case, period, issued, operator, customer)
        earlier = [document for document in issued if document.kind == INVOICE]
        return replace(draft, supplements=tuple(map(reference, earlier)))
    reduced = invoices_to_reduce(documents, wanted)
    case = case_of(reduced[0]) if reduced else tax_case(operator, customer, period.last_day)
    draft = make_draft(wanted, -1, case, period, issued, operator, customer)
    return replace(draft, corrects=tuple(map(reference, reduced)))


def make_draft(
    wanted: Difference,
    sign: int,
    case: TaxCase,
    period: Period,
    documents: Sequence[Document],
    operator: Operator,
    customer: Customer,
) -> Document:
    """`wanted` as an invoice (sign 1) or, all signs turned, a credit note (−1), numbered after `documents`."""
    lines = [
        _document_line(number, signed(line, sign), describe(line), case)
        for number, line in enumerate(wanted.lines, 1)
    ]
    allowances: list[AllowanceOrCharge] = []
    charges: list[AllowanceOrCharge] = []
    for part in wanted.parts:
        amount = sign * part.amount
        if not wanted.lines:  # EN 16931 BR-16 wants a line
            line = item_line(ADJUSTMENT_METER, amount, operator.currency)
            lines.append(_document_line(len(lines) + 1, line, part.reason, case, part=part.key))
        elif amount < 0:
            allowances.append(_modifier(part, DISCOUNT_CODE, case))
        else:
            charges.append(_modifier(part, MISCELLANEOUS_CODE, case))
    return finish(
        Document(
            id=f"{customer.id}.{period}.{next_ordinal(documents)}",
            kind=INVOICE if sign > 0 else CREDIT_NOTE,
            operator=operator.id,
            customer=customer.id,
            customer_name=customer.name,
            customer_vat_id=customer.vat_id,
            country=customer.country,
            period=period,
            currency=operator.currency,
            lines=tuple(lines),
            allowances=tuple(allowances),
            charges=tuple(charges),
            taxes=(),
            buyer_reference=customer.buyer_reference,
            purchase_order=customer.purchase_order,
        )
    )


def finish(document: Document) -> Document:
    """The document with its lines numbered from 1 and its VAT computed on its own basis.

    Refuses (`amount_too_large`) what is beyond `MAX_MINOR`: a price or a meter is wrong, and the ledger could
    not hold it.
    """
    lines = tuple(_numbered(line, str(number)) for number, line in enumerate(document.lines, 1))
    amounts = [(TaxCase(line.tax_category, line.tax_rate), line.line.amount) for line in lines]
    for turn, modifiers in ((-1, document.allowances), (1, document.charges)):
        amounts += [(TaxCase(each.tax_category, each.tax_rate), turn * each.amount) for each in modifiers]
    finished = replace(document, lines=lines, taxes=taxes(amounts))
    largest = max((abs(amount) for _, amount in amounts), default=0)
    if max(largest, abs(finished.gross)) > MAX_MINOR:
        shown = format_minor(max(largest, abs(finished.gross)), document.currency)
        raise Refusal(
            "amount_too_large",
            f"{document.customer} would be asked for {shown} {document.currency} for {document.period}",
            where=document.customer,
            remedy="look at the prices and the usage: see `tally usage --by customer,model`",
        )
    return finished


def _numbered(line: DocumentLine, number: str) -> DocumentLine:
    return line if line.id == number else replace(line, id=number)


def next_ordinal(documents: Sequence[Document]) -> int:
    """n of the next id `<customer>.<period>.<n>`: one more than the greatest there."""
    return 1 + max((int(document.id.rpartition(".")[2]) for document in documents), default=0)


def under_an_id_of_its_own(draft: Document, replaced: Sequence[Document]) -> Document:
    """The draft with the id by which it is known: that of its equal among the drafts that it replaces, or one
    that none of them had. Who issues by an id issues what they read under it, or nothing.
    """
    for each in replaced:
        if replace(draft, id=each.id) == each:
            return each
    name, _, ordinal = draft.id.rpartition(".")
    return replace(draft, id=f"{name}.{max(int(ordinal), next_ordinal(replaced))}")


def reference(document: Document) -> Reference:
    """An issued document as another one names it."""
    assert document.number is not None
    assert document.issue_date is not None
    return Reference(document.number, document.issue_date)


def case_of(document: Document) -> TaxCase:
    """The VAT category and rate of a document (until legal documents are built, each has one)."""
    assert len(document.taxes) == 1, document.id
    return TaxCase(document.taxes[0].category, document.taxes[0].rate)


def signed(line: Line, sign: int) -> Line:
    """The line as a document of that sign prints it."""
    if sign == 1:
        return line
    return replace(line, quantity=sign * line.quantity, amount=sign * line.amount, tokens=sign * line.tokens)


def _document_line(
    number: int, line: Line, description: str, case: TaxCase, part: str | None = None
) -> DocumentLine:
    return DocumentLine(str(number), line, description, case.category, case.rate, part=part)


def _modifier(part: BillPart, code: str, case: TaxCase) -> AllowanceOrCharge:
    """A part as an allowance or charge: what it is a percent of stands there only where the percent gives its amount,
    which a document over several changes at once need not do.
    """
    amount = abs(part.amount)
    base = percent = None
    if part.base is not None and part.percent is not None:
        of = part.base if part.amount < 0 else -part.base
        if of >= 0 and round_half_away(Fraction(part.percent) * Fraction(of, 100)) == amount:
            base, percent = of, part.percent
    return AllowanceOrCharge(part.reason, code, amount, case.category, case.rate, base, percent, part.key)
