"""Crediting an invoice, in one transaction: the adjustment and its credit note's draft (`billing.credit`
decides).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from billing.credit import credit, mirror
from billing.document import Document
from billing.issue import issue_drafts
from billing.ports import Books
from billing.site import in_force
from metering.refusal import Refusal
from metering.steps import step


async def credit_invoice(
    books: Books,
    operator: str,
    reference: str,
    now: datetime,
    *,
    net: int | None,
    reissue: bool,
    reason: str,
    by: str,
    issue: bool = False,
) -> Document:
    """Credit the invoice with this id or number by `net` minor units (None: whole) and return the credit
    note.

    `reissue`, with net None only: the note mirrors the invoice and there is no adjustment. `issue`: issue
    it at once. Refuses what `billing.credit.credit` does, and `unknown_document`.
    """
    assert net is None or not reissue, "only a whole invoice is billed again"
    async with books.write(operator) as book:
        found = await book.documents(references=[reference])
        if not found:
            raise Refusal(
                "unknown_document",
                f"{operator} has no document {reference}",
                remedy="see `tally invoice list`",
            )
        document = found[0]
        facts = await book.facts()
        of_period = await book.documents(period=document.period)
        documents = [each for each in of_period if each.customer == document.customer]
        if reissue:
            note = mirror(document, documents, reason=reason)
        else:
            versions = facts.customers[document.customer]
            made = len(await book.adjustments(document.period))
            adjustment, note = credit(
                document,
                documents,
                in_force(facts.operator, document.period.last_day) or facts.operator[-1],
                in_force(versions, document.period.last_day) or versions[-1],
                net=net,
                adjustment_id=f"{document.period}.{made + 1}",
                reason=reason,
                by=by,
                at=now,
            )
            await book.add_adjustment(adjustment)
        note = replace(note, checkpoint=await book.checkpoint())
        await book.add_drafts([note])
        if issue:
            [note] = await issue_drafts(book, facts, [note], now)
            step("issue")
    if issue:
        step("issue")
    return note
