"""Closing a billing period: rate what was used, draft what is owed beyond the issued, issue if asked.

    lock → facts, held batches, usage, documents (one snapshot) → rate → next documents → drafts (→ numbers, entries)

A period may be closed any number of times; each close replaces its drafts, and what is issued stays. Of two
closes at once the second waits for the operator's book lock and then finds nothing left to do. A refused
close changes nothing.

Small differences wait (`smallest_document`), but not beyond their year: the close of its last period drafts
what waits in the earlier ones too, by closing those again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from billing.document import Document
from billing.facts import Facts
from billing.gaps import NO_GAPS, AcceptedGaps, Gap, gap_json
from billing.holiday import with_holidays
from billing.issue import issue_drafts, short_row
from billing.kept_facts import kept_facts
from billing.may_close import (
    Accepted,
    accepted_gaps,
    check_held,
    check_imports,
    check_named_gaps,
    check_roots,
    check_time,
)
from billing.money import format_minor
from billing.next_documents import Outcome, next_documents
from billing.past_end import past_end, past_end_json
from billing.period import Period
from billing.ports import Book, Books, PeriodClose
from billing.rating import Rated, rate
from billing.site import Operator, in_force
from billing.unpriced import unpriced_refusal
from metering.refusal import Refusal
from metering.steps import step

LAST_MONTH = 12


async def close_periods(
    books: Books,
    operators: Sequence[str],
    period: Period,
    now: datetime,
    *,
    issue: bool = False,
    accept_unfinished: bool = False,
    accept_gaps: AcceptedGaps = NO_GAPS,
) -> list[dict[str, Any]]:
    """Close `period` of these operators and say what came of it: an operator's row of `period close` each,
    with `unfinished`, `rated` (tokens per meter) and `earlier` (rows of periods closed again at the year's end).

    What one operator's close refuses, refuses the whole: every book stays open until all are closed, and none
    is kept then. Refuses `unknown_operator`, `period_not_begun`, `period_not_over`, `held_batches`, `root_fault`,
    `roots_unchecked`, `import_unfinished`, `incomplete_lane`, `unmetered_interval`, `no_gap`, `unpriced`,
    `unknown_customer`, `tax_case_not_supported`.
    """
    rows: list[dict[str, Any]] = []
    opened: list[Book] = []
    async with AsyncExitStack() as stack:
        # Locks are taken in one order, so that two closes of several operators wait instead of locking up.
        for operator in sorted(operators):
            book = await stack.enter_async_context(books.write(operator))
            opened.append(book)
            accepted = Accepted(accept_unfinished, accept_gaps)
            rows.append(await _close_book(book, operator, period, now, issue=issue, accepted=accepted))
        check_named_gaps(rows, accept_gaps)
        for book in opened:
            await (
                book.archive()
            )  # all of them before the first commits: an archive that is away refuses the whole
        if issue:
            step("issue")
    if issue:
        step("issue")
    return rows


async def close_period(
    books: Books,
    operator: str,
    period: Period,
    now: datetime,
    *,
    issue: bool = False,
    accept_unfinished: bool = False,
    accept_gaps: AcceptedGaps = NO_GAPS,
) -> dict[str, Any]:
    """`close_periods` of one operator: its row."""
    [row] = await close_periods(
        books,
        [operator],
        period,
        now,
        issue=issue,
        accept_unfinished=accept_unfinished,
        accept_gaps=accept_gaps,
    )
    return row


async def _close_book(
    book: Book, operator: str, period: Period, now: datetime, *, issue: bool, accepted: Accepted
) -> dict[str, Any]:
    facts = await book.facts()
    if not facts.operator:
        raise Refusal(
            "unknown_operator", f"operator {operator} is not declared", remedy="`tally apply` it first"
        )
    unfinished = check_time(facts.operator[-1], period, now, accepted.unfinished)
    await check_held(book, facts.operator[-1], period)
    waiting = await _waiting_until(book, period)
    gaps: dict[Period, list[Gap]] = {}
    for closed in (*waiting, period):
        await check_imports(book, facts.operator[-1], closed)
        await check_roots(book, facts.operator[-1], closed)
        running = unfinished and closed == period
        gaps[closed] = await accepted_gaps(
            book, facts.operator[-1], closed, accepted.gaps, unfinished=running
        )
    row = await _close(book, facts, period, now, issue=issue, unfinished=unfinished, gaps=gaps[period])
    row["earlier"] = [
        await _close(book, facts, each, now, issue=issue, unfinished=False, gaps=gaps[each])
        for each in waiting
    ]
    return row


async def _waiting_until(book: Book, period: Period) -> list[Period]:
    """At the close of a year's last period: its earlier ones in which something still waits."""
    if period.month != LAST_MONTH:
        return []
    waiting: list[Period] = []
    for month in range(1, LAST_MONTH):
        earlier = Period(period.year, month)
        close = await book.last_close(earlier)
        if close is not None and close.result["waiting"]:
            waiting.append(earlier)
    return waiting


async def _close(
    book: Book,
    facts: Facts,
    period: Period,
    now: datetime,
    *,
    issue: bool,
    unfinished: bool,
    gaps: Sequence[Gap],
) -> dict[str, Any]:
    """Close one period inside the open transaction."""
    operator = in_force(facts.operator, period.last_day) or facts.operator[-1]
    usage = await book.usage(*period.bounds(operator.zone))
    last = await book.last_close(period)
    fixed = last.holidays if last else {}
    facts = with_holidays(facts, period, fixed)
    rated = await asyncio.to_thread(rate, usage, facts, period)
    if rated.unpriced:
        raise unpriced_refusal(operator.id, period, rated.unpriced)
    may_wait = period.month != LAST_MONTH and await book.last_close(Period(period.year, LAST_MONTH)) is None
    documents = await book.documents(period=period)
    adjustments = await book.adjustments(period)
    outcome = await asyncio.to_thread(
        next_documents,
        *(facts, operator, period, rated, _users(usage), adjustments, documents),
        may_wait=may_wait,
    )
    checkpoint = await book.checkpoint()
    drafts = [replace(draft, checkpoint=checkpoint) for draft in outcome.drafts]
    await book.replace_drafts(period, drafts)
    made: Sequence[Document] = drafts
    if issue:
        made = await issue_drafts(book, facts, drafts, now)
    row = _row(operator, period, rated, outcome, made, gaps, issue=issue, unfinished=unfinished)
    row["warnings"] = past_end_json(await asyncio.to_thread(past_end, usage, facts, period))
    await book.add_close(
        PeriodClose(
            period=period,
            number=last.number + 1 if last else 1,
            closed_at=now,
            heads=await book.lane_heads(),
            facts=kept_facts(facts, period, outcome, fixed),
            result=row,
            unfinished=unfinished,
            checkpoint=checkpoint,
        )
    )
    return row


def _users(usage: pa.Table) -> set[str]:
    """Customers with usage that did not come too late."""
    in_time = usage.filter(pc.invert(usage["late"]))
    return set(pc.unique(in_time["customer"]).to_pylist())


def _row(
    operator: Operator,
    period: Period,
    rated: Rated,
    outcome: Outcome,
    made: Sequence[Document],
    gaps: Sequence[Gap],
    *,
    issue: bool,
    unfinished: bool,
) -> dict[str, Any]:
    currency = operator.currency
    rows = [short_row(document) for document in made]

    def total(name: str) -> str:
        return format_minor(sum(each.sign * getattr(each, name) for each in made), currency)

    return {
        "operator": operator.id,
        "period": str(period),
        "currency": currency,
        "drafts": [] if issue else rows,
        "issued": rows if issue else [],
        "set_aside": [],
        "waiting": [
            {"customer": each.customer, "net": format_minor(each.net, currency)} for each in outcome.waiting
        ],
        "zero": list(outcome.zero),
        "net": total("net"),
        "tax": total("tax"),
        "gross": total("gross"),
        "gaps": [gap_json(gap) for gap in gaps],
        "late_not_billed": dict(rated.late),
        "rated": dict(rated.tokens),
        "unfinished": unfinished,
    }
