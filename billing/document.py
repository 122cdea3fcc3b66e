"""A document: an invoice or credit note as it is printed, stored and exchanged, and its JSON.

The JSON's keys are D of docs/commands.md with `lines`, `allowances`, `charges` and `taxes`
(`billing.document_parts`). Amounts in JSON are text with the currency's digits, quantities integers, prices
and percents shortest text.

A credit note's figures are positive as printed; `sign` is −1, and Σ sign × net of all documents is the
revenue. An issued document never changes: `paid` and `files` are told beside it by whoever reads it.
`checkpoint` is the newest signed one of the operator's log at the close that drafted it, the whole note.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from billing.document_parts import (
    AllowanceOrCharge,
    DocumentLine,
    Reference,
    Tax,
    line_from,
    line_json,
    part_from,
    part_json,
    reference_from,
    reference_json,
    tax_from,
    tax_json,
)
from billing.money import format_minor, parse_amount
from billing.period import Period

__all__ = [
    "CREDIT_NOTE",
    "DRAFT",
    "INVOICE",
    "ISSUED",
    "SIGNS",
    "AllowanceOrCharge",
    "Document",
    "DocumentLine",
    "Reference",
    "Tax",
    "from_json",
    "listed_json",
    "to_json",
]

INVOICE = "invoice"
CREDIT_NOTE = "credit_note"
DRAFT = "draft"
ISSUED = "issued"
SIGNS = {
    "invoice": 1,
    "credit_note": -1,
    "self_billed_invoice": 1,
    "self_billed_credit_note": -1,
    "prepayment_invoice": 1,
}
"""The kinds of document, and the sign with which each one's amounts count."""


@dataclass(frozen=True, slots=True)
class Document:
    """An invoice or credit note. Amounts are minor units of `currency`, as printed.

    `reason` says why a credit note that takes an invoice back whole was made; other credits say it on their
    line.
    """

    id: str
    kind: str
    operator: str
    customer: str
    customer_name: str
    customer_vat_id: str | None
    country: str
    period: Period
    currency: str
    lines: tuple[DocumentLine, ...]
    allowances: tuple[AllowanceOrCharge, ...]
    charges: tuple[AllowanceOrCharge, ...]
    taxes: tuple[Tax, ...]
    number: str | None = None
    state: str = DRAFT
    issue_date: date | None = None
    due_date: date | None = None
    buyer_reference: str | None = None
    purchase_order: str | None = None
    payment_reference: str | None = None
    corrects: tuple[Reference, ...] = ()
    supplements: tuple[Reference, ...] = ()
    reason: str | None = None
    prepaid: int = 0
    paid: int = 0
    checkpoint: str | None = None
    files: tuple[Mapping[str, str], ...] = ()

    @property
    def sign(self) -> int:
        return SIGNS[self.kind]

    @property
    def line_total(self) -> int:
        return sum(line.line.amount for line in self.lines)

    @property
    def allowance_total(self) -> int:
        return sum(allowance.amount for allowance in self.allowances)

    @property
    def charge_total(self) -> int:
        return sum(charge.amount for charge in self.charges)

    @property
    def net(self) -> int:
        return self.line_total - self.allowance_total + self.charge_total

    @property
    def tax(self) -> int:
        return sum(tax.amount for tax in self.taxes)

    @property
    def gross(self) -> int:
        return self.net + self.tax

    @property
    def payable(self) -> int:
        return self.gross - self.prepaid

    @property
    def open(self) -> int:
        """What is still to be paid; a draft is owed by nobody."""
        return self.payable - self.paid if self.state == ISSUED else 0


def to_json(document: Document) -> dict[str, Any]:
    """The document as the JSON of docs/commands.md, keys in that order."""
    currency = document.currency
    amounts = {
        name: format_minor(getattr(document, name), currency)
        for name in (
            *("line_total", "allowance_total", "charge_total", "net", "tax", "gross"),
            *("prepaid", "payable", "paid", "open"),
        )
    }
    return {
        "id": document.id,
        "number": document.number,
        "kind": document.kind,
        "state": document.state,
        "sign": document.sign,
        "operator": document.operator,
        "customer": document.customer,
        "customer_name": document.customer_name,
        "customer_vat_id": document.customer_vat_id,
        "country": document.country,
        "period": str(document.period),
        "period_start": document.period.first_day.isoformat(),
        "period_end": document.period.last_day.isoformat(),
        "issue_date": document.issue_date.isoformat() if document.issue_date else None,
        "due_date": document.due_date.isoformat() if document.due_date else None,
        "currency": currency,
        **amounts,
        "buyer_reference": document.buyer_reference,
        "purchase_order": document.purchase_order,
        "payment_reference": document.payment_reference,
        "corrects": [reference_json(reference) for reference in document.corrects],
        "supplements": [reference_json(reference) for reference in document.supplements],
        "reason": document.reason,
        "checkpoint": document.checkpoint,
        "files": [dict(file) for file in document.files],
        "lines": [line_json(line, currency) for line in document.lines],
        "allowances": [part_json(allowance, currency) for allowance in document.allowances],
        "charges": [part_json(charge, currency) for charge in document.charges],
        "taxes": [tax_json(tax, currency) for tax in document.taxes],
    }


def listed_json(document: Document) -> dict[str, Any]:
    """D alone, as `invoice list` shows it: without lines, allowances, charges and taxes."""
    content = to_json(document)
    for name in ("lines", "allowances", "charges", "taxes"):
        del content[name]
    return content


def from_json(content: Mapping[str, Any]) -> Document:
    """The document that `to_json` wrote; the stored totals must be those of its parts."""
    currency = content["currency"]
    document = Document(
        id=content["id"],
        kind=content["kind"],
        operator=content["operator"],
        customer=content["customer"],
        customer_name=content["customer_name"],
        customer_vat_id=content["customer_vat_id"],
        country=content["country"],
        period=Period.parse(content["period"]),
        currency=currency,
        lines=tuple(line_from(line, currency) for line in content["lines"]),
        allowances=tuple(part_from(part, currency) for part in content["allowances"]),
        charges=tuple(part_from(part, currency) for part in content["charges"]),
        taxes=tuple(tax_from(tax, currency) for tax in content["taxes"]),
        number=content["number"],
        state=content["state"],
        issue_date=_day(content["issue_date"]),
        due_date=_day(content["due_date"]),
        buyer_reference=content["buyer_reference"],
        purchase_order=content["purchase_order"],
        payment_reference=content["payment_reference"],
        corrects=tuple(reference_from(reference) for reference in content["corrects"]),
        supplements=tuple(reference_from(reference) for reference in content["supplements"]),
        reason=content.get("reason"),
        prepaid=parse_amount(content["prepaid"], currency),
        paid=parse_amount(content["paid"], currency),
        checkpoint=content["checkpoint"],
        files=tuple(content["files"]),
    )
    assert format_minor(document.net, currency) == content["net"], document.id
    assert format_minor(document.gross, currency) == content["gross"], document.id
    return document


def _day(text: str | None) -> date | None:
    return date.fromisoformat(text) if text is not None else None
