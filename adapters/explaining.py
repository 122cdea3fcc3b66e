"""`tally invoice explain`: a document, its month's usage and facts read again, and the steps that they make."""

from __future__ import annotations

import asyncio
from typing import Any

from adapters import answers
from adapters.postgres.closes import load_closes
from adapters.postgres.database import Database
from adapters.postgres.documents import load_adjustments, load_documents
from adapters.postgres.site import operator_facts, superseded_documents
from adapters.postgres.usage import usage_table
from billing.document import Document, to_json
from billing.rated_again import RatedAgain, rated_again
from metering.refusal import Refusal
from reports.explain import explain


async def explained(
    database: Database, reference: str, operator: str | None = None, line: str | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the document's JSON, the explanation) of the document with this id or number; of one line, or of all.

    Refusals: unknown_document, which_operator, unknown_line.
    """
    document = await answers.find_document(database, reference, operator)
    content = to_json(document)
    names = [entry.id for entry in document.lines]
    if line is not None and line not in names:
        raise Refusal(
            "unknown_line",
            f"{reference} has no line {line}",
            where="--line",
            remedy=f"it has the lines 1 to {len(names)}" if names else "it has none",
        )
    again = await _rated_again(database, document)
    steps = await asyncio.to_thread(explain, content, again)
    chosen = [each for each in steps if line is None or each["line"] == line]
    return content, {"id": document.id, "lines": chosen}


async def _rated_again(database: Database, document: Document) -> RatedAgain:
    """The document's month by what is known now and the versions that it was billed by, of one snapshot."""
    owner, period, customer = document.operator, document.period, document.customer
    async with database.app(owner, snapshot=True) as connection:
        facts = await operator_facts(connection, owner)
        start, end = period.bounds(facts.operator[-1].zone)
        usage = await usage_table(connection, owner, start, end, customer)
        adjustments = await load_adjustments(connection, owner, period)
        documents = await load_documents(connection, owner, period=period, customer=customer)
        closes = await load_closes(connection, owner, period=period)
        former = [each.document for each in await superseded_documents(connection, owner)]
    return await asyncio.to_thread(
        rated_again, document, usage, facts, adjustments, documents, closes, former
    )
