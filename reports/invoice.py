"""An invoice or credit note as a page: everything the law wants on it, in the customer's language, as PDF/A-3b.

    render_invoice_pdf(document, operator, customer, customer.language) -> bytes

Amounts, quantities and prices are the document's own, written by `reports.figures`; nothing is computed here.
Usage lines are worded in the page's language from their model, meter and tier; what a person worded (the
reason of a credit, say) stands as written. Operator and customer are the versions of the day of issue; the
buyer's name and VAT id are the document's own. What becomes known after issue (paid, open) is not printed,
so an issued document always looks the same. A draft says so on every page, and has no number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from itertools import groupby
from typing import Any

from billing.bill import ROUNDING_PART
from billing.document import CREDIT_NOTE, INVOICE, ISSUED, Document, DocumentLine, from_json
from billing.document_parts import AllowanceOrCharge, Reference, Tax
from billing.line import BASE_WINDOW, FREE, UNBILLED, Line
from billing.money import format_price
from billing.site import Customer, Operator
from billing.tariff import METERS, PRICE_BASE
from metering.refusal import Refusal
from reports import figures
from reports.languages import Words, language_of, words
from reports.parties import buyer_block, grouped_iban, seller_block
from reports.pdf import html, to_pdf

PRINTED_KINDS = (INVOICE, CREDIT_NOTE)

_NOTHING = "–"


@dataclass(frozen=True, slots=True)
class PrintedLine:
    """One row of the table of lines. `source` says which row of which version priced it; `price_room` is the
    room to the right of the price, in widths of a digit, that puts the column's decimal marks below one another.
    """

    id: str
    what: str
    source: str
    quantity: str
    unit: str
    price: str
    price_note: str
    price_room: Decimal
    tax: str
    amount: str


@dataclass(frozen=True, slots=True)
class LineGroup:
    """The lines of one model under its name; `source` where one price row priced all of them."""

    title: str
    source: str
    lines: tuple[PrintedLine, ...]


@dataclass(frozen=True, slots=True)
class TotalRow:
    """A row under the lines; `strong` is the style of sums that a reader looks for."""

    what: str
    amount: str
    strong: str = ""


@dataclass(frozen=True, slots=True)
class _Page:
    """What is printed, and in which language."""

    document: Document
    words: Words
    language: str

    @property
    def draft(self) -> bool:
        return self.document.state != ISSUED

    @property
    def per_million(self) -> bool:
        """Whether the column of prices is headed "per 1,000,000"."""
        return any(entry.line.price_base == PRICE_BASE for entry in self.document.lines)

    def amount(self, minor: int) -> str:
        return figures.amount(minor, self.document.currency, self.language)

    def money(self, minor: int) -> str:
        return figures.money(minor, self.document.currency, self.language)

    def percent(self, points: Decimal) -> str:
        return figures.percent(points, self.language)

    def reference(self, reference: Reference) -> str:
        day = figures.day(reference.issue_date, self.language)
        return self.words["reference"].format(number=reference.number, date=day)


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
    page = _Page(document, words(language), language)
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
        groups=tuple(_groups(page)),
        totals=tuple(_totals(page)),
        payment=_payment(page, operator),
        checkpoint=_checkpoint_line(document),
        tax_reasons=tuple(dict.fromkeys(tax.reason for tax in document.taxes if tax.reason)),
    )


def _checkpoint_line(document: Document) -> str | None:
    """Origin, size and root of the log's checkpoint: what `tally log check --seen` takes. The signature stays out."""
    return None if document.checkpoint is None else " ".join(document.checkpoint.split("\n")[:3])


def _facts(page: _Page) -> Iterator[tuple[str, str]]:
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


def _headline(page: _Page) -> tuple[str, str]:
    """The figure that the reader looks for, and what it is: on a draft nothing is payable yet."""
    what = "amount_payable" if page.document.sign > 0 else "amount_credited"
    return page.words["gross" if page.draft else what], page.money(page.document.payable)


def _groups(page: _Page) -> Iterator[LineGroup]:
    """Lines that follow one another for the same model, under its name."""
    lines = page.document.lines
    decimals = max((_decimals(entry.line) for entry in lines), default=0)
    for model, entries in groupby(lines, key=lambda entry: entry.line.model):
        group = list(entries)
        sources = {_source(page, entry.line) for entry in group}
        shared = sources.pop() if len(sources) == 1 else None
        yield LineGroup(
            title=page.words["other_lines"] if model is None else model,
            source=shared or "",
            lines=tuple(_printed(page, entry, decimals, named=shared is None) for entry in group),
        )


def _printed(page: _Page, entry: DocumentLine, decimals: int, *, named: bool) -> PrintedLine:
    line = entry.line
    unit = page.words.get(f"unit_{line.unit}", line.unit)
    per_million = line.price_base == PRICE_BASE
    assert per_million or line.price_base == 1, f"no column says per {line.price_base}"
    return PrintedLine(
        id=entry.id,
        what=_what(page, entry),
        source=_source(page, line) if named else "",
        quantity=figures.quantity(line.quantity, page.language),
        unit=unit,
        price=figures.exact(line.unit_price, page.language),
        price_note=f"/ {unit}" if page.per_million and not per_million else "",
        price_room=_room(_decimals(line), decimals) if per_million else Decimal(0),
        tax=page.percent(entry.tax_rate),
        amount=page.amount(line.amount),
    )


def _decimals(line: Line) -> int:
    return len(format_price(line.unit_price).partition(".")[2])


def _room(decimals: int, most: int) -> Decimal:
    """Widths of a digit that a price lacks behind its point, the point itself being half a digit wide."""
    return Decimal(most - decimals) + (Decimal("0.5") if most and not decimals else 0)


def _what(page: _Page, entry: DocumentLine) -> str:
    """What a line is for: usage in the page's language, anything else as it was worded."""
    line, names = entry.line, page.words
    if entry.part == ROUNDING_PART:
        return names["rounding"]
    if line.meter not in METERS:
        return entry.description
    parts = [names[f"meter_{line.meter}"]]
    if line.window != BASE_WINDOW:
        parts.append(names["window"].format(window=line.window))
    if line.tier in (FREE, UNBILLED):
        parts.append(names[f"tier_{line.tier}"])
    elif line.tier is not None:
        parts.append(names["tier"].format(tier=line.tier))
    return " · ".join(parts)


def _source(page: _Page, line: Line) -> str:
    """Which version's row priced the line; empty where none did."""
    if line.price_row is None:
        return ""
    kind, _, row = line.price_row.partition(":")
    version = line.contract_version if kind == "contract" else line.tariff_version
    return page.words[f"source_{kind}"].format(version=version, row=row)


def _totals(page: _Page) -> Iterator[TotalRow]:
    document, names = page.document, page.words
    if document.allowances or document.charges:
        yield TotalRow(names["line_total"], page.amount(document.line_total))
        for part in document.allowances:
            yield TotalRow(_modifier(page, "allowance", part), page.amount(-part.amount))
        for part in document.charges:
            yield TotalRow(_modifier(page, "charge", part), page.amount(part.amount))
    yield TotalRow(names["net"], page.amount(document.net), "strong")
    for tax in document.taxes:
        yield TotalRow(_tax(page, tax), page.amount(tax.amount))
    yield TotalRow(names["gross"], page.money(document.gross), "strong")
    if document.prepaid:
        yield TotalRow(names["prepaid"], page.amount(-document.prepaid))
    if not page.draft:
        yield TotalRow(*_headline(page), "payable")


def _modifier(page: _Page, kind: str, part: AllowanceOrCharge) -> str:
    reason = page.words["rounding"] if part.part == ROUNDING_PART else part.reason
    text = page.words[kind].format(reason=reason)
    if part.percent is None or part.base is None:
        return text
    share = page.words["percent_of"].format(percent=page.percent(part.percent), base=page.amount(part.base))
    return f"{text}, {share}"


def _tax(page: _Page, tax: Tax) -> str:
    text = page.words["vat_of"].format(rate=page.percent(tax.rate), basis=page.amount(tax.basis))
    return f"{text} ({page.words['vat_category'].format(category=tax.category)})"


def _payment(page: _Page, operator: Operator) -> tuple[tuple[str, str], ...]:
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
