"""Which paper can be written in which format, and the one place that writes it.

    render_document(document, operator, customer, language, "pdf") -> bytes
    render_usage(report, language, "csv") -> bytes
    render_price_sheet(sheet, language, "html") -> bytes

FORMATS names the media type of each; anything else is refused with the names of those there are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from billing.document import Document
from billing.site import Customer, Operator
from metering.refusal import Refusal
from reports.invoice import render_invoice_pdf
from reports.price_sheet import PriceSheet, price_sheet_html, price_sheet_pdf
from reports.usage import UsageReport, usage_csv, usage_json
from reports.usage_page import usage_pdf

DOCUMENT = "document"
USAGE = "usage"
PRICE_SHEET = "price sheet"

FORMATS: Mapping[str, Mapping[str, str]] = {
    DOCUMENT: {"pdf": "application/pdf"},
    USAGE: {"pdf": "application/pdf", "csv": "text/csv; charset=utf-8", "json": "application/json"},
    PRICE_SHEET: {"html": "text/html; charset=utf-8", "pdf": "application/pdf"},
}


def media_type(paper: str, format: str) -> str:
    """The media type of `paper` (a key of FORMATS) in `format`. Refuses (`unknown_format`) what is not in FORMATS."""
    formats = FORMATS[paper]
    if format not in formats:
        raise Refusal(
            "unknown_format",
            f"a {paper} can't be written as {format!r}",
            where="--format",
            remedy=f"one of: {', '.join(formats)}",
        )
    return formats[format]


def render_document(
    document: Document | Mapping[str, Any],
    operator: Operator,
    customer: Customer | None,
    language: str | None,
    format: str,
) -> bytes:
    """An invoice or credit note. Refuses `unknown_format`, and `not_rendered` kinds without a page of their own."""
    media_type(DOCUMENT, format)
    return render_invoice_pdf(document, operator, customer, language)


def render_usage(report: UsageReport, language: str | None, format: str) -> bytes:
    """The usage report; CSV and JSON are the same in every language. Refuses `unknown_format`."""
    media_type(USAGE, format)
    if format == "csv":
        return usage_csv(report.detail)
    if format == "json":
        return json.dumps(usage_json(report), ensure_ascii=False, indent=2).encode() + b"\n"
    return usage_pdf(report, language)


def render_price_sheet(sheet: PriceSheet, language: str, format: str) -> bytes:
    """The public price sheet in one of `languages.SHEET_LANGUAGES`. Refuses `unknown_format`."""
    media_type(PRICE_SHEET, format)
    if format == "html":
        return price_sheet_html(sheet, language).encode()
    return price_sheet_pdf(sheet, language)
