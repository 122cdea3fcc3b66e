"""Documents as files, with their operator and customer as of the period's last day, in the customer's language."""

from __future__ import annotations

import asyncio
import hashlib
import re

from adapters.answers import Found
from billing.document import Document
from billing.site import in_force


def render(found: Found, format: str) -> bytes:
    """The document's file. Refusals: unknown_format.

    Versions that an issued document rests on cannot be changed, so it always comes out with the same words.
    """
    from reports.formats import (
        render_document,  # loads the page layout, which listing documents does not need
    )

    document, facts = found.document, found.facts
    day = document.period.last_day
    operator = in_force(facts.operator, day) or facts.operator[-1]
    versions = facts.customers.get(document.customer, ())
    customer = in_force(versions, day) or (versions[-1] if versions else None)
    language = (customer.language if customer is not None else None) or operator.language
    return render_document(document, operator, customer, language, format)


async def render_aside(found: Found, format: str) -> bytes:
    """`render` beside the event loop, which goes on answering."""
    return await asyncio.to_thread(render, found, format)


def file_name(document: Document, format: str) -> str:
    """`TLC-2026-000001.pdf`, or `draft-acme.2026-10.1.pdf`; what no file can be called becomes a hyphen."""
    name = document.number or f"draft-{document.id}"
    return re.sub(r"[^A-Za-z0-9._-]", "-", name) + f".{format}"


def digest(content: bytes) -> str:
    """SHA-256, hex."""
    return hashlib.sha256(content).hexdigest()
