"""Documents as files: which format a document can be written in, and what the file is called."""

from __future__ import annotations

import asyncio
import hashlib
import re

from adapters.answers import Found
from billing.document import Document
from billing.site import in_force
from metering.refusal import Refusal

FORMATS = {"pdf": "application/pdf"}


def render(found: Found, format: str) -> bytes:
    """The document in that format, with its operator and customer as of the period's last day, in the customer's language.

    Refusals: unknown_format.
    """
    if format not in FORMATS:
        raise Refusal(
            "unknown_format",
            f"not a format of documents: {format}",
            where="--format",
            remedy=f"one of: {', '.join(FORMATS)}",
        )
    document, facts = found.document, found.facts
    day = document.period.last_day
    operator = in_force(facts.operator, day) or facts.operator[-1]
    versions = facts.customers.get(document.customer, ())
    customer = in_force(versions, day) or (versions[-1] if versions else None)
    language = (customer.language if customer is not None else None) or operator.language
    # Imported here: fonts and layout take half a second to load, which lists and bookings need not wait for.
    from reports.invoice import render_invoice_pdf

    return render_invoice_pdf(document, operator, customer, language)


# Fonts and layout are C libraries with state of their own: one page at a time.
ONE_AT_A_TIME = asyncio.Lock()


async def render_aside(found: Found, format: str) -> bytes:
    """`render` beside the event loop, which goes on answering."""
    async with ONE_AT_A_TIME:
        return await asyncio.to_thread(render, found, format)


def file_name(document: Document, format: str) -> str:
    """`TLC-2026-000001.pdf`, or `draft-acme.2026-10.1.pdf`: what is in a number that no file can be called is a hyphen."""
    name = document.number or f"draft-{document.id}"
    return re.sub(r"[^A-Za-z0-9._-]", "-", name) + f".{format}"


def digest(content: bytes) -> str:
    """SHA-256, hex."""
    return hashlib.sha256(content).hexdigest()
