"""Crediting an issued invoice by hand (`tally invoice credit`).

    --net N             an adjustment of −N, which is part of the bill from then on, and a credit note over it
    --full              the same over the invoice's whole net
    --full --reissue    a credit note that mirrors the invoice, and no adjustment: once it is issued, the next close
                        bills again by today's facts. Like every draft, it is dropped by a close that comes first.

What is refused: crediting a draft, a credit note, or more than earlier credit notes (drafts included) have
left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from billing.adjustment import Adjustment
from billing.bill import Difference, remaining_of_invoices
from billing.bill_part import BillPart
from billing.document import CREDIT_NOTE, DRAFT, INVOICE, ISSUED, Document
from billing.draft import case_of, finish, make_draft, next_ordinal, reference
from billing.money import format_minor
from billing.site import Customer, Operator
from metering.refusal import Refusal


def credit(
    document: Document,
    documents: Sequence[Document],
    operator: Operator,
    customer: Customer,
    *,
    net: int | None,
    adjustment_id: str,
    reason: str,
    by: str,
    at: datetime,
) -> tuple[Adjustment, Document]:
    """The adjustment and the drafted credit note for `net` minor units of an issued invoice (None: all of
    it).

    `documents` are all of that customer and period, oldest first, drafts included. Refuses `not_issued`,
    `not_an_invoice`, `bad_amount`, `reason_missing`, `credit_exceeds_invoice`.
    """
    amount = document.net if net is None else net
    _check(document, documents, amount, reason)
    adjustment = Adjustment(
        adjustment_id, document.customer, document.period, -amount, reason, by, at, document.id
    )
    wanted = Difference((), (BillPart(adjustment.part, reason, -amount),))
    note = make_draft(wanted, -1, case_of(document), document.period, documents, operator, customer)
    return adjustment, replace(note, corrects=(reference(document),))


def mirror(document: Document, documents: Sequence[Document], *, reason: str) -> Document:
    """The drafted credit note that takes an issued invoice back line by line, to be billed again. Refuses
    as `credit`.
    """
    _check(document, documents, document.net, reason)
    return finish(
        replace(
            document,
            id=f"{document.customer}.{document.period}.{next_ordinal(documents)}",
            number=None,
            kind=CREDIT_NOTE,
            state=DRAFT,
            issue_date=None,
            due_date=None,
            payment_reference=None,
            corrects=(reference(document),),
            supplements=(),
            reason=reason,
            prepaid=0,
            paid=0,
            checkpoint=None,
            files=(),
        )
    )


def _check(document: Document, documents: Sequence[Document], amount: int, reason: str) -> None:
    name = document.number or document.id
    if document.kind != INVOICE:
        raise Refusal("not_an_invoice", f"{name} is a {document.kind}", remedy="credit the invoice instead")
    if document.state != ISSUED:
        raise Refusal(
            "not_issued", f"{name} is a draft", remedy="a draft changes with the next close; issue it first"
        )
    if not reason.strip():
        raise Refusal("reason_missing", f"why {name} is credited is not said", remedy="give a reason")
    if amount <= 0:
        raise Refusal(
            "bad_amount", "a credit is more than 0", where="--net", remedy="name the net amount to credit"
        )
    left = remaining_of_invoices(documents)[document.id]
    if amount > left:
        of, remains = format_minor(amount, document.currency), format_minor(left, document.currency)
        raise Refusal(
            "credit_exceeds_invoice",
            f"{of} {document.currency} can't be credited: of {name} there remain {remains}",
            where=name,
            remedy=f"credit at most {remains} with --net" if left > 0 else "nothing of it is left to credit",
        )
