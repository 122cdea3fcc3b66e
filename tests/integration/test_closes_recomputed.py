"""What a close keeps is enough to rate its month again, whatever was superseded and whatever a calendar says since."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any

import pytest
from sqlalchemy import select
from test_close_in_postgres import NOW, OCTOBER, OPERATOR, SITE, declare, event, use

from adapters.postgres.books import PostgresBooks
from adapters.postgres.closes import load_closes
from adapters.postgres.database import Database
from adapters.postgres.schema import site_document, superseded
from billing import holiday
from billing.bill import make_bill
from billing.close import close_period
from billing.facts import Facts, facts_from_documents
from billing.kept_facts import body_digest
from billing.money import format_minor
from billing.rating import rate
from billing.site import version_name
from billing.stored import StoredDocument

pytestmark = pytest.mark.anyio

HALF_ON_HOLIDAYS = SITE.replace(
    "prices:", "windows: [{name: holidays, days: [holiday], factor: 0.5}]\nprices:", 1
)
CONTRACT = "---\n{kind: contract, customer: acme, tariff: vilnius, discount: 10%}\n"
DEARER = """kind: tariff
id: vilnius
operator: telecentras
currency: EUR
supersedes: first
reason: The list of the year before was taken
windows: [{name: holidays, days: [holiday], factor: 0.5}]
prices: [{models: ["*"], input: 900.00, output: 1600.00}]
"""


async def bodies(database: Database, kept: Mapping[str, str]) -> list[StoredDocument]:
    """Of all bodies that there were, those that a close went by: told by their digests."""
    found = []
    async with database.app(OPERATOR) as connection:
        for table in (site_document, superseded):
            for row in await connection.execute(select(table).where(table.c.operator == OPERATOR)):
                begins = None if row.valid_from == date.min else row.valid_from
                document = StoredDocument(row.kind, row.id, OPERATOR, begins, row.body)
                name = f"{row.kind} {version_name(row.id, begins)}"
                if kept.get(name) == body_digest(document):
                    found.append(document)
    return found


def calendar(day: date) -> Callable[[str, int], frozenset[date]]:
    return lambda _name, _year: frozenset([day])


async def test_each_close_is_rated_again_from_what_it_kept(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await declare(database, HALF_ON_HOLIDAYS + CONTRACT)
    await use(database, [event("acme", 12, 100_000)])
    books = PostgresBooks(database, lambda: NOW)
    monkeypatch.setattr(holiday, "calendar_days", calendar(date(2026, 10, 1)))
    first = await close_period(books, OPERATOR, OCTOBER, NOW, issue=True)
    await declare(database, DEARER)
    monkeypatch.setattr(holiday, "calendar_days", calendar(date(2026, 10, 9)))
    second = await close_period(books, OPERATOR, OCTOBER, datetime(2026, 11, 3, tzinfo=UTC), issue=True)
    # the 1st is a holiday: half of 30.00 + 2.50 and of 90.00, less 10 %
    assert [each["net"] for row in (first, second) for each in row["issued"]] == ["14.62", "25.88"]

    async with database.app(OPERATOR) as connection:
        closes = await load_closes(connection, OPERATOR)
    async with books.read(OPERATOR) as book:
        usage = await book.usage(*OCTOBER.bounds((await book.facts()).operator[0].zone))
    nets = []
    for close in closes:
        found = await bodies(database, close.facts["versions"])
        assert len(found) == len(close.facts["versions"])
        nets.append(
            net_of(holiday.with_holidays(facts_from_documents(found), OCTOBER, close.holidays), usage)
        )
    assert nets == ["14.62", "40.50"], "what was issued, and with the second close in all"


def net_of(facts: Facts, usage: Any) -> str:
    bill = make_bill("acme", OCTOBER, "EUR", rate(usage, facts, OCTOBER).lines["acme"], facts, ())
    return format_minor(bill.net, "EUR")
