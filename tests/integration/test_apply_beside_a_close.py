"""An apply cannot slip between a close's reading of the facts and its commit, and who only looks waits for neither."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from test_books import draft, line
from usage_cells import site_documents

from adapters.postgres.books import PostgresBook, PostgresBooks
from adapters.postgres.database import Database
from adapters.postgres.site import site_reader, site_store
from adapters.site_files.apply import Applied, add_private_customers, apply_site, check_site
from adapters.site_files.reading import read_files
from billing.issue import issue_period
from billing.period import Period
from metering.refusal import Refusal

pytestmark = pytest.mark.anyio

OCTOBER = Period(2026, 10)
NOW = datetime(2026, 11, 2, 9, tzinfo=UTC)
SITE = """kind: operator
id: telecentras
name: AB Pavyzdys
country: LT
vat_id: LT100001234510
currency: EUR
timezone: Europe/Vilnius
default_tariff: vilnius
---
{kind: customer, id: acme, operator: telecentras, name: Acme UAB, country: LT}
---
kind: tariff
id: vilnius
operator: telecentras
currency: EUR
prices: [{models: ["*"], input: 400, output: 1600}]
"""
CHEAPER_OCTOBER = """kind: tariff
id: vilnius
operator: telecentras
currency: EUR
valid_from: 2026-10-01
prices: [{models: ["*"], input: 1, output: 1}]
"""
OTHER_OPERATOR = """kind: operator
id: roma
name: Roma SpA
country: IT
currency: EUR
timezone: Europe/Rome
default_tariff: roma
---
kind: tariff
id: roma
operator: roma
currency: EUR
prices: [{models: ["*"], input: 1, output: 1}]
"""


class HeldBooks(PostgresBooks):
    """Books whose writer has done everything, and waits for `go` before it commits."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, lambda: NOW)
        self.before_commit, self.go = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def write(self, operator: str) -> AsyncIterator[PostgresBook]:
        async with super().write(operator) as book:
            yield book
            self.before_commit.set()
            await self.go.wait()


async def applied(database: Database, site: str) -> Applied:
    async with site_store(database) as store:
        return await apply_site(store, read_files(["-"], site.encode), NOW)


@pytest.fixture
async def issuing(database: Database) -> AsyncIterator[HeldBooks]:
    """One draft for October, rated by the tariff from ever, being issued: all is read and written but committed."""

    async with site_store(database) as store:
        await store.save(site_documents(SITE))
    of_tariff = line("input", 100)
    priced = replace(of_tariff, line=replace(of_tariff.line, tariff_version="vilnius"))
    async with PostgresBooks(database).write("telecentras") as book:
        await book.add_drafts([replace(draft("acme"), lines=(priced,))])
    books = HeldBooks(database)
    task = asyncio.create_task(issue_period(books, "telecentras", OCTOBER, NOW))
    await books.before_commit.wait()
    yield books
    books.go.set()
    assert [document.number for document in await task] == ["INV-2026-000001"]


async def test_an_apply_waits_for_the_close_and_is_then_refused_the_version_that_it_used(
    database: Database, issuing: HeldBooks
) -> None:
    apply = asyncio.create_task(applied(database, CHEAPER_OCTOBER))
    done, _ = await asyncio.wait([apply], timeout=0.3)
    assert not done, "the close that is under way has read the tariff"
    issuing.go.set()
    with pytest.raises(Refusal) as refused:
        await apply
    assert [fault.what for fault in refused.value.faults] == [
        "tariff/vilnius was used by issued documents and can't be changed"
    ]


async def test_a_close_waits_for_the_apply_and_reads_what_it_changed(database: Database) -> None:
    async with site_store(database) as store:
        await store.save(site_documents(SITE))
    books = PostgresBooks(database, lambda: NOW)
    began = asyncio.Event()

    async def read() -> list[str]:
        began.set()
        async with books.write("telecentras") as book:
            return [tariff.version for tariff in (await book.facts()).tariffs["vilnius"]]

    async with site_store(database) as store:
        await apply_site(store, read_files(["-"], CHEAPER_OCTOBER.encode), NOW)
        closing = asyncio.create_task(read())
        await began.wait()
        done, _ = await asyncio.wait([closing], timeout=0.3)
        assert not done
    assert await closing == ["vilnius", "vilnius@2026-10-01"]


async def test_who_looks_changes_nothing_or_is_another_operator_does_not_wait_for_a_close(
    database: Database, issuing: HeldBooks
) -> None:
    async with asyncio.timeout(5):
        async with site_reader(database) as store:
            checked = await check_site(store, read_files(["-"], CHEAPER_OCTOBER.encode), NOW)
        assert [each.state for each in checked.placed] == ["created"], (
            "nothing is issued yet for one who looks"
        )
        assert (await applied(database, SITE)).created == ()
        async with site_store(database) as store:
            assert await add_private_customers(store, "telecentras", ["trace_1"]) == ("trace_1",)
        assert (await applied(database, OTHER_OPERATOR)).created == ("operator/roma", "tariff/roma")
    assert not issuing.go.is_set()
