"""An invoice or credit note as a page: everything the law wants on it, in the customer's language, as PDF/A-3b.

    render_invoice_pdf(document, operator, customer, customer.language) -> bytes

Amounts, quantities and prices are the document's own, written by `reports.figures`; nothing is computed here.
What lines, allowances and charges are for is worded in the page's language (`invoice_words`); what a person
worded (the reason of a credit, a fee's name) stands as written. Operator and customer are the versions of the
day of issue; the buyer's name and VAT id are the document's own. What becomes known after issue (paid, open) is
not printed, so an issued document always looks the same. A draft says so on every page, and has no number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from billing.document import CREDIT_NOTE, INVOICE, Document, from_json
from billing.document_parts import Tax
from billing.site import Customer, Operator
from metering.refusal import Refusal
from reports import figures
from reports.invoice_lines import line_groups
from reports.invoice_words import Page, modifier
from reports.languages import language_of, words
from reports.parties import buyer_block, grouped_iban, seller_block
from reports.pdf import html, to_pdf

PRINTED_KINDS = (INVOICE, CREDIT_NOTE)

_NOTHING = "–"


@dataclass(frozen=True, slots=True)
class TotalRow:
    """A row under the lines; `strong` is the style of sums that a reader looks for."""

    what: str
    amount: str
    strong: str = ""


def render_invoice_pdf(
    document: Document | Mapping[str, Any],
    operator: Operator,
    customer: Customer | None,
    language: str | None,
) -> bytes:
    """The document, or its JSON, as the bytes of a PDF/A-3b in `language`, or in English where that has no words.

    Refuses (`not_rendered`) kinds of document that have no page of their own.
    """
    content = document if isinstance(document, Document) else from_json(document)
    return to_pdf(invoice_html(content, operator, customer, language_of(language)), "invoice.css")


def invoice_html(document: Document, operator: Operator, customer: Customer | None, language: str) -> str:
    """The page as HTML, before it is laid out; `language` is one of `languages.LANGUAGES`."""
    if document.kind not in PRINTED_KINDS:
        raise Refusal(
            "not_rendered",
            f"a {document.kind} has no printed form",
            where=document.number or document.id,
            remedy=f"render one of: {', '.join(PRINTED_KINDS)}",
        )
    page = Page(document, words(language), language)
    return html(
        "invoice.html",
        language=language,
        words=page.words,
        document=document,
        draft=page.draft,
        title=page.words[document.kind],
        name=document.number or page.words["draft"],
        issued=document.issue_date.isoformat() if document.issue_date else None,
        operator=operator,
        seller=seller_block(operator, language),
        buyer=buyer_block(document, customer, language),
        facts=tuple(_facts(page)),
        headline=_headline(page),
        corrects=tuple(map(page.reference, document.corrects)),
        supplements=tuple(map(page.reference, document.supplements)),
        amount_head=page.words["amount_in"].format(currency=document.currency),
        price_head=page.words["unit_price_million" if page.per_million else "unit_price"],
        show_tax=len(document.taxes) > 1,
        groups=tuple(line_groups(page)),
        totals=tuple(_totals(page)),
        payment=_payment(page, operator),
        checkpoint=_checkpoint_line(document),
        tax_reasons=tuple(dict.fromkeys(tax.reason for tax in document.taxes if tax.reason)),
    )


def _checkpoint_line(document: Document) -> str | None:
    """Origin, size and root of the log's checkpoint: what `tally log check --seen` takes. The signature stays out."""
    return None if document.checkpoint is None else " ".join(document.checkpoint.split("\n")[:3])


def _facts(page: Page) -> Iterator[tuple[str, str]]:
    """(what, value) of the band under the title."""
    document, names = page.document, page.words

    def day(value: date | None) -> str:
        return figures.day(value, page.language) if value else _NOTHING

    yield names["number"], document.number or _NOTHING
    yield names["issue_date"], day(document.issue_date)
    yield names["service_period"], f"{day(document.period.first_day)} – {day(document.period.last_day)}"
    if document.sign > 0:
        yield names["due_date"], day(document.due_date)
    if document.buyer_reference:
        yield names["buyer_reference"], document.buyer_reference
    if document.purchase_order:
        yield names["purchase_order"], document.purchase_order


def _headline(page: Page) -> tuple[str, str]:
    """The figure that the reader looks for, and what it is: on a draft nothing is payable yet."""
    what = "amount_payable" if page.document.sign > 0 else "amount_credited"
    return page.words["gross" if page.draft else what], page.money(page.document.payable)


def _totals(page: Page) -> Iterator[TotalRow]:
    document, names = page.document, page.words
    if document.allowances or document.charges:
        yield TotalRow(names["line_total"], page.amount(document.line_total))
        for part in document.allowances:
            yield TotalRow(modifier(page, "allowance", part), page.amount(-part.amount))
        for part in document.charges:
            yield TotalRow(modifier(page, "charge", part), page.amount(part.amount))
    yield TotalRow(names["net"], page.amount(document.net), "strong")
    for tax in document.taxes:
        yield TotalRow(_tax(page, tax), page.amount(tax.amount))
    yield TotalRow(names["gross"], page.money(document.gross), "strong")
    if document.prepaid:
        yield TotalRow(names["prepaid"], page.amount(-document.prepaid))
    if not page.draft:
        yield TotalRow(*_headline(page), "payable")


def _tax(page: Page, tax: Tax) -> str:
    text = page.words["vat_of"].format(rate=page.percent(tax.rate), basis=page.amount(tax.basis))
    return f"{text} ({page.words['vat_category'].format(category=tax.category)})"


def _payment(page: Page, operator: Operator) -> tuple[tuple[str, str], ...]:
    """(what, value) of how to pay; empty where nothing is to be paid: drafts and credit notes."""
    document = page.document
    if page.draft or document.sign < 0 or document.payable <= 0:
        return ()
    values = {
        "payee": operator.name,
        "iban": grouped_iban(operator.iban) if operator.iban else None,
        "bic": operator.bic,
        "payment_reference": document.payment_reference,
        "due_date": figures.day(document.due_date, page.language) if document.due_date else None,
        "amount_payable": page.money(document.payable),
    }
    return tuple((page.words[name], value) for name, value in values.items() if value)
