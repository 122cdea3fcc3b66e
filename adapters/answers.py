"""What people ask of the ledger, answered as JSON documents: the command line and the API print the same.

Every answer is read in one transaction an operator. Where no operator is named, all of them are asked in the order of
their ids; one database may hold several, and each sees its own rows only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres import documents as document_rows
from adapters.postgres import settlements as settlement_rows
from adapters.postgres.closes import load_closes
from adapters.postgres.database import Database
from adapters.postgres.journal import trial_balance
from adapters.postgres.site import operator_facts, operator_zone
from adapters.postgres.subjects import find_subjects
from adapters.postgres.unfinished_imports import unfinished_imports
from adapters.postgres.usage_totals import BY, total, usage_totals
from billing.document import Document, to_json
from billing.facts import Facts
from billing.money import format_minor
from billing.period import Period, midnight, within_calendar
from billing.settlement import settlement_json
from billing.unfinished_import import UnfinishedImport, unfinished_warning
from metering.refusal import Refusal

EVER = datetime(2020, 1, 1, tzinfo=UTC)
PARTS_OF_A_DOCUMENT = ("lines", "allowances", "charges", "taxes")


@dataclass(frozen=True, slots=True)
class Span:
    """A time that was asked for: a period, or from–to (half open; a day stands for its local midnight)."""

    period: Period | None = None
    since: str | None = None
    until: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A document with the facts of its operator."""

    document: Document
    facts: Facts


async def named_operators(database: Database, operator: str | None) -> list[str]:
    """The operator that was named, or all of them. Refusals: unknown_operator."""
    declared = await database.operators()
    if operator is None:
        return declared
    if operator not in declared:
        remedy = f"declared are: {', '.join(declared)}" if declared else "declare it with tally apply"
        raise Refusal("unknown_operator", f"no such operator: {operator}", where="--operator", remedy=remedy)
    return [operator]


async def facts_of(database: Database, operator: str) -> Facts:
    async with database.app(operator) as connection:
        return await operator_facts(connection, operator)


async def usage(
    database: Database, operator: str | None, span: Span, by: Sequence[str], customer: str | None = None
) -> dict[str, Any]:
    """`tally usage`: totals by the words of `by`, of one customer or of all, and `warnings` of imports of which only a part
    is in them.

    Refusals: unknown_by, unknown_customer, bad_time, bad_span.
    """
    unknown = [word for word in by if word not in BY]
    if unknown or not by:
        what = f"cannot be grouped by: {', '.join(unknown)}" if by else "nothing is named to group by"
        raise Refusal("unknown_by", what, where="--by", remedy=f"one or more of: {', '.join(BY)}")
    rows: list[dict[str, Any]] = []
    whose: list[str] = []
    unfinished: list[UnfinishedImport] = []
    for each in await named_operators(database, operator):
        async with database.app(each, snapshot=True) as connection:
            zone = await operator_zone(connection, each)
            start, end = instants(span, zone)
            found = None if customer is None else await _customer(connection, each, customer)
            if customer is None or found is not None:
                whose.append(each)
                rows += await usage_totals(connection, each, start, end, by, zone, found)
                unfinished += await unfinished_imports(connection, each, start, end)
    if customer is not None and not whose:
        raise Refusal(
            "unknown_customer",
            f"no such customer: {customer}",
            where="--customer",
            remedy="`tally get customer` lists the declared ones",
        )
    return {"rows": rows, "total": total(rows), "warnings": list(map(unfinished_warning, unfinished))}


async def _customer(connection: AsyncConnection, operator: str, slug: str) -> UUID | None:
    return (await find_subjects(connection, operator, "customer", [slug])).get(slug)


def instants(span: Span, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """The whole hours [start, end) that a span means for an operator; nothing named: all there is."""
    if span.period is not None:
        if span.since is not None or span.until is not None:
            raise Refusal(
                "bad_span",
                "a period and a time at once",
                where="--period, --from, --to",
                remedy="name one of them",
            )
        return span.period.bounds(zone)
    start = EVER if span.since is None else _instant(span.since, zone, "--from")
    end = datetime.now(UTC) + timedelta(hours=2) if span.until is None else _instant(span.until, zone, "--to")
    end = end.replace(minute=0, second=0, microsecond=0) if span.until is None else end
    if start >= end:
        raise Refusal(
            "bad_span",
            "the end is not after the beginning",
            where="--from, --to",
            remedy="the end is not included: to see a day, name it and the next one",
        )
    return start, end


def _instant(text: str, zone: ZoneInfo, where: str) -> datetime:
    """A local day, or an RFC 3339 time on a whole hour: usage is kept by the hour."""
    moment = read_moment(text, zone)
    if moment is None or moment.tzinfo is None:
        raise Refusal(
            "bad_time",
            f"not a day and not a time with a zone: {text}",
            where=where,
            remedy="2026-10-05, or 2026-10-05T08:00:00Z",
        )
    moment = moment.astimezone(UTC)
    if (moment.minute, moment.second, moment.microsecond) != (0, 0, 0):
        raise Refusal(
            "bad_time", f"not on a whole hour: {text}", where=where, remedy="usage is kept by the hour"
        )
    return moment


def read_moment(text: str, zone: ZoneInfo) -> datetime | None:
    """A day's local midnight, or the time that is written; None for what is neither, or at the calendar's ends."""
    try:
        if len(text) == len("2026-10-05"):
            day = date.fromisoformat(text)
            return midnight(day, zone) if within_calendar(day) else None
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if within_calendar(moment) else None


async def invoices(
    database: Database,
    *,
    operator: str | None = None,
    period: Period | None = None,
    customer: str | None = None,
    state: str | None = None,
) -> list[Document]:
    """Documents that match, oldest first. Refusals: unknown_state."""
    if state not in (None, "draft", "issued"):
        raise Refusal("unknown_state", f"no such state: {state}", where="--state", remedy="draft or issued")
    found: list[Document] = []
    for each in await named_operators(database, operator):
        async with database.app(each) as connection:
            found += await document_rows.load_documents(
                connection, each, period=period, customer=customer, state=state
            )
    return found


def short(document: Document) -> dict[str, Any]:
    """A document without its lines."""
    return {key: value for key, value in to_json(document).items() if key not in PARTS_OF_A_DOCUMENT}


async def find_document(database: Database, reference: str, operator: str | None = None) -> Document:
    """The document with this id or number. Refusals: unknown_document, which_operator."""
    found: list[Document] = []
    for each in await named_operators(database, operator):
        async with database.app(each) as connection:
            found += await document_rows.load_documents(connection, each, references=[reference])
    if not found:
        raise Refusal(
            "unknown_document",
            f"no such document: {reference}",
            where=reference,
            remedy="`tally invoice list` shows ids and numbers",
        )
    if len(found) > 1:
        owners = ", ".join(each.operator for each in found)
        raise Refusal(
            "which_operator",
            f"several operators have a document {reference}: {owners}",
            where=reference,
            remedy="use its id, or name the operator",
        )
    return found[0]


async def with_facts(database: Database, document: Document) -> Found:
    """The document beside what its operator and customer are, which its file shows."""
    return Found(document, await facts_of(database, document.operator))


async def found_documents(
    database: Database, *, operator: str | None = None, period: Period | None = None
) -> list[Found]:
    """Every document of a period, each with the facts of its operator."""
    found: list[Found] = []
    for each in await named_operators(database, operator):
        async with database.app(each, snapshot=True) as connection:
            facts = await operator_facts(connection, each)
            rows = await document_rows.load_documents(connection, each, period=period)
            found += [Found(row, facts) for row in rows]
    return found


async def settlements(
    database: Database, *, operator: str | None = None, period: Period | None = None
) -> list[dict[str, Any]]:
    """Settlements that match, oldest first."""
    found: list[dict[str, Any]] = []
    for each in await named_operators(database, operator):
        async with database.app(each) as connection:
            found += [
                settlement_json(row)
                for row in await settlement_rows.load_settlements(connection, each, period=period)
            ]
    return found


async def settlement(database: Database, id: str, operator: str | None = None) -> dict[str, Any]:
    """One settlement. Refusals: unknown_settlement."""
    for each in await named_operators(database, operator):
        async with database.app(each) as connection:
            for row in await settlement_rows.load_settlements(connection, each, id=id):
                return settlement_json(row)
    raise Refusal(
        "unknown_settlement",
        f"no such settlement: {id}",
        where=id,
        remedy="`tally settlement list` shows them",
    )


async def closes(
    database: Database, *, operator: str | None = None, period: Period | None = None
) -> list[dict[str, Any]]:
    """What each close of a period came to, oldest first."""
    found: list[dict[str, Any]] = []
    for each in await named_operators(database, operator):
        async with database.app(each) as connection:
            for close in await load_closes(connection, each, period=period):
                closed_at = close.closed_at.astimezone(UTC).isoformat().replace("+00:00", "Z")
                found.append({**close.result, "number": close.number, "closed_at": closed_at})
    return found


async def balances(
    database: Database, operator: str | None = None, as_of: datetime | None = None
) -> dict[str, Any]:
    """`tally ledger trial-balance`: every account of every operator named, and whether debits equal credits."""
    accounts: list[dict[str, Any]] = []
    balanced = True
    for each in await named_operators(database, operator):
        async with database.app(each, snapshot=True) as connection:
            found, even = await trial_balance(connection, each, as_of)
            balanced = balanced and even
            accounts += [
                {
                    "operator": each,
                    "account": row.account,
                    "currency": row.currency,
                    "debit": format_minor(row.debit, row.currency),
                    "credit": format_minor(row.credit, row.currency),
                    "balance": format_minor(row.balance, row.currency),
                }
                for row in found
            ]
    moment = as_of or datetime.now(UTC)
    return {
        "as_of": moment.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "accounts": accounts,
        "balanced": balanced,
    }
