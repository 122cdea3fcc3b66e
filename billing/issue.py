"""Issuing: drafts become documents for good, numbered without gaps and journalled, in one transaction.

Numbers are taken from the series inside the transaction that issues, so a number exists if and only if its
document does. Issuing what is issued already changes nothing and succeeds with the number it has.

A close's draft is issued only while the facts say what they said at that close: a version may be changed in place until
an issued document rests on it, and a document that names a version has to be one that this version's text explains.
Credit notes that people asked for rest on the invoice that they take back, and on no facts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from billing.document import DRAFT, ISSUED, Document
from billing.facts import Facts
from billing.kept_facts import changed_since
from billing.money import format_minor
from billing.numbering import check_numbering, first_number, pattern, render, series
from billing.period import Period
from billing.ports import Book, Books
from billing.posting import document_entry
from billing.site import Operator, in_force
from metering.refusal import Fault, Refusal
from metering.steps import step


async def issue_documents(
    books: Books, operator: str, references: Sequence[str], now: datetime
) -> list[Document]:
    """Issue the drafts with these ids; what is issued already, by id or number, comes back as it is.

    Refuses as a whole, naming each: `unknown_document`, what is not there; `facts_changed`, drafts to close again.
    """
    async with books.write(operator) as book:
        documents = await book.documents(references=references)
        known = {name for document in documents for name in (document.id, document.number)}
        missing = [name for name in references if name not in known]
        if missing:
            raise Refusal(
                "unknown_document",
                f"{operator} has no document {', '.join(missing)}",
                remedy="`tally invoice list` shows ids and numbers; a draft's id may have gone with a later close",
                faults=[Fault("no such document", where=name) for name in missing],
            )
        facts = await book.facts()
        await _check_facts(book, facts, documents)
        issued = await issue_drafts(book, facts, documents, now)
        step("issue")
    step("issue")
    return issued


async def issue_period(books: Books, operator: str, period: Period, now: datetime) -> list[Document]:
    """Issue every draft of the period; returns those issued now. Refuses `facts_changed`."""
    async with books.write(operator) as book:
        drafts = [each for each in await book.documents(period=period) if each.state == DRAFT]
        facts = await book.facts()
        await _check_facts(book, facts, drafts)
        issued = await issue_drafts(book, facts, drafts, now)
        step("issue")
    step("issue")
    return issued


async def _check_facts(book: Book, facts: Facts, documents: Sequence[Document]) -> None:
    """Refuse drafts of a close that went by other facts than those in force now."""
    faults: list[Fault] = []
    for period in sorted({each.period for each in documents if each.state == DRAFT}):
        close = await book.last_close(period)
        if close is None:
            continue
        made = {row["id"] for row in close.result["drafts"]}
        customers = {each.customer for each in documents if each.period == period and each.id in made}
        names = changed_since(facts, period, close.facts, customers) if customers else ()
        remedy = f"`tally period close {period}` again, and issue what that drafts"
        faults += [Fault(f"{name} changed since close {close.number}", str(period), remedy) for name in names]
    if faults:
        first, more = faults[0], f", and {len(faults) - 1} more" if len(faults) > 1 else ""
        what = f"drafts of {first.where} rest on facts that are no longer so: {first.what}{more}"
        raise Refusal("facts_changed", what, where=first.where, remedy=first.remedy, faults=faults)


async def issue_drafts(
    book: Book, facts: Facts, documents: Sequence[Document], now: datetime
) -> list[Document]:
    """Number, date, post and store the drafts among `documents`; all come back as they now are, in order."""
    today = now.astimezone(facts.operator[-1].zone).date()
    operator = in_force(facts.operator, today) or facts.operator[-1]
    check_numbering(operator.numbering)
    drafts = sorted((each for each in documents if each.state == DRAFT), key=_issuing_order)
    by_kind: dict[str, list[Document]] = defaultdict(list)
    for draft in drafts:
        by_kind[draft.kind].append(draft)
    issued: dict[str, Document] = {}
    for kind, of_kind in sorted(by_kind.items()):
        text = pattern(operator.numbering, kind)
        drawn = series(operator.id, kind, text, today.year)
        first = await book.take_numbers(drawn, len(of_kind), first_number(operator.numbering))
        for count, draft in enumerate(of_kind, first):
            issued[draft.id] = as_issued(draft, render(text, today.year, count), operator, now)
    if issued:
        await book.issue([issued[draft.id] for draft in drafts], now)
        await book.post([document_entry(issued[draft.id], now) for draft in drafts])
        for period in sorted({draft.period for draft in drafts}):
            await book.set_late_bound(period, now + timedelta(days=operator.late_days))
    return [issued.get(document.id, document) for document in documents]


def _issuing_order(document: Document) -> tuple[Period, str, int]:
    return document.period, document.customer, int(document.id.rpartition(".")[2])


def as_issued(draft: Document, number: str, operator: Operator, now: datetime) -> Document:
    """The draft as issued now, in the operator's zone; an invoice is due after its payment terms."""
    today = now.astimezone(operator.zone).date()
    due = today + timedelta(days=operator.payment_terms_days) if draft.sign > 0 else None
    return replace(
        draft,
        state=ISSUED,
        number=number,
        issue_date=today,
        due_date=due,
        payment_reference=number if draft.sign > 0 else None,
    )


def short_row(document: Document) -> dict[str, Any]:
    """A document in a list of what was done: {customer, id, number, kind, net}, the net with its sign."""
    return {
        "customer": document.customer,
        "id": document.id,
        "number": document.number,
        "kind": document.kind,
        "net": format_minor(document.sign * document.net, document.currency),
    }
