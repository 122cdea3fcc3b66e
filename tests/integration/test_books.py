"""The books in PostgreSQL keep what billing's ports promise, and one writer at a time."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError, IntegrityError

from adapters.postgres.books import PostgresBooks
from adapters.postgres.database import Database
from adapters.postgres.documents import load_documents
from adapters.postgres.journal import trial_balance
from adapters.postgres.schema import journal_entry, posting
from adapters.postgres.schema import operator as operators
from billing.adjustment import Adjustment
from billing.document import DRAFT, INVOICE, ISSUED, Document, DocumentLine, Tax
from billing.journal import Balance, Entry, Posting
from billing.line import BASE_WINDOW, NO_FACTOR, Line
from billing.period import Period
from billing.ports import Book, Books, PeriodClose, Series
from billing.posting import document_entry
from billing.settlement import PartyShare, Settlement
from metering.refusal import Unavailable

pytestmark = pytest.mark.anyio

OCTOBER = Period(2026, 10)
NOW = datetime(2026, 11, 2, 9, tzinfo=UTC)
SERIES = Series("telecentras", INVOICE, 2026)


def line(meter: str, amount: int) -> DocumentLine:
    quantity = amount * 10_000
    price = Decimal("1.00")
    return DocumentLine(
        id=meter,
        line=Line(
            *(
                "vilnius@2026-10-01",
                None,
                "tariff:1",
                "qwen3-32b",
                meter,
                BASE_WINDOW,
                None,
                quantity,
                "token",
            ),
            *(1_000_000, price, NO_FACTOR, price, amount, quantity),
        ),
        description=f"qwen3-32b, {meter}",
        tax_category="S",
        tax_rate=Decimal(21),
    )


def draft(customer: str, number: int = 1, net: int = 100, lines: int = 1) -> Document:
    """An invoice over `net` cents in equal lines, with 21 % VAT."""
    meters = ("input", "cached_input", "output", "reasoning", "requests", "audio_seconds")[:lines]
    parts = tuple(line(meter, net // lines) for meter in meters)
    return Document(
        id=f"{customer}.{OCTOBER}.{number}",
        kind=INVOICE,
        operator="telecentras",
        customer=customer,
        customer_name=f"UAB {customer}",
        customer_vat_id=None,
        country="LT",
        period=OCTOBER,
        currency="EUR",
        lines=parts,
        allowances=(),
        charges=(),
        taxes=(Tax("S", Decimal(21), net // lines * lines, net // lines * lines * 21 // 100),),
    )


def issued(document: Document, number: int) -> Document:
    return replace(document, state=ISSUED, number=f"TLC-2026-{number:06}", issue_date=date(2026, 11, 2))


@pytest.fixture
async def books(database: Database) -> Books:
    """The books of an installation with one operator, telecentras."""
    async with database.app("telecentras") as connection:
        await connection.execute(operators.insert().values(operator="telecentras"))
    return PostgresBooks(database, lambda: NOW)


async def issue(book: Book, drafts: list[Document]) -> list[Document]:
    """What issuing does: numbers, documents, entries."""
    first = await book.take_numbers(SERIES, len(drafts), 1)
    made = [issued(document, first + place) for place, document in enumerate(drafts)]
    await book.issue(made, NOW)
    await book.post([document_entry(document, NOW) for document in made])
    return made


async def test_drafts_of_a_period_are_replaced_and_read_back_as_they_were(books: Books) -> None:
    first, second = draft("acme"), draft("beta", net=300, lines=3)
    async with books.write("telecentras") as book:
        await book.replace_drafts(OCTOBER, [first, draft("gone")])
        await book.replace_drafts(OCTOBER, [first, second])
    async with books.read("telecentras") as book:
        assert await book.documents(period=OCTOBER) == [first, second]
        assert await book.documents(period=OCTOBER.next) == []
        assert await book.documents(references=[second.id]) == [second]


async def test_an_issued_document_is_found_by_its_number_and_survives_new_drafts(books: Books) -> None:
    async with books.write("telecentras") as book:
        await book.add_drafts([draft("acme"), draft("beta")])
    async with books.write("telecentras") as book:
        (invoice,) = await issue(book, [draft("beta")])
    async with books.write("telecentras") as book:
        await book.replace_drafts(OCTOBER, [draft("beta", 2, net=50)])
        assert await book.documents(references=["TLC-2026-000001"]) == [invoice]
        assert {document.state for document in await book.documents(period=OCTOBER)} == {DRAFT, ISSUED}


async def test_a_customers_documents_come_oldest_first_also_past_nine(books: Books) -> None:
    many = [draft("acme", number) for number in range(1, 12)]
    async with books.write("telecentras") as book:
        await book.add_drafts(many[::-1])
        assert await book.documents(period=OCTOBER) == many


async def test_lists_are_filtered_by_customer_and_state(books: Books, database: Database) -> None:
    async with books.write("telecentras") as book:
        await book.add_drafts([draft("acme"), draft("beta")])
        (invoice,) = await issue(book, [draft("acme")])
    async with database.app("telecentras") as connection:
        assert await load_documents(connection, "telecentras", customer="acme") == [invoice]
        assert await load_documents(connection, "telecentras", state=DRAFT) == [draft("beta")]
        assert await load_documents(connection, "telecentras", customer="acme", state=DRAFT) == []


async def test_numbers_have_no_gap_when_a_step_fails(books: Books) -> None:
    async with books.write("telecentras") as book:
        assert await book.take_numbers(SERIES, 3, 100) == 100

    async def fail_after_five() -> None:
        async with books.write("telecentras") as book:
            assert await book.take_numbers(SERIES, 5, 100) == 103
            raise RuntimeError("the printer is on fire")

    with pytest.raises(RuntimeError):
        await fail_after_five()
    async with books.write("telecentras") as book:
        assert await book.take_numbers(SERIES, 1, 100) == 103
        assert await book.take_numbers(replace(SERIES, year=2027), 1, 1) == 1


async def test_a_refused_step_leaves_nothing(books: Books) -> None:
    async def draft_and_fail() -> None:
        async with books.write("telecentras") as book:
            await book.add_drafts([draft("acme")])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await draft_and_fail()
    async with books.read("telecentras") as book:
        assert await book.documents() == []


async def test_two_documents_cannot_have_one_number(books: Books) -> None:
    async with books.write("telecentras") as book:
        await book.add_drafts([draft("acme"), draft("beta")])
    with pytest.raises(IntegrityError, match="document_number"):
        async with books.write("telecentras") as book:
            await book.issue([issued(draft("acme"), 7), issued(draft("beta"), 7)], NOW)


async def test_the_second_of_two_writers_waits_and_sees_what_the_first_did(books: Books) -> None:
    inside = asyncio.Event()
    seen: list[str] = []

    async def first() -> None:
        async with books.write("telecentras") as book:
            inside.set()
            await book.add_drafts([draft("acme")])
            await asyncio.sleep(0.2)
            seen.append("first")

    async def second() -> None:
        await inside.wait()
        async with books.write("telecentras") as book:
            seen.extend(document.customer for document in await book.documents())

    await asyncio.gather(first(), second())
    assert seen == ["first", "acme"]


async def test_more_writers_than_the_pool_has_connections_all_get_their_turn(books: Books) -> None:
    async def add(number: int) -> None:
        async with books.write("telecentras") as book:
            await book.add_drafts([draft("acme", number)])

    await asyncio.gather(*(add(number) for number in range(1, 21)))
    async with books.read("telecentras") as book:
        assert len(await book.documents()) == 20


async def test_thirty_books_are_open_at_once_without_waiting_for_a_pool(books: Books) -> None:
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(books.write(f"operator-{n}")) for n in range(30)]
        assert [await book.held_batches(NOW) for book in opened] == [0] * 30
    assert time.monotonic() - began < 10


async def test_more_books_than_postgresql_has_connections_are_refused_by_that_name(books: Books) -> None:
    async def open_a_hundred() -> None:
        async with AsyncExitStack() as stack:
            for n in range(100):
                await stack.enter_async_context(books.write(f"operator-{n}"))

    with pytest.raises(Unavailable) as refused:
        await open_a_hundred()
    assert refused.value.code == "too_many_connections"


async def test_a_reader_sees_one_moment(books: Books) -> None:
    async with books.read("telecentras") as reader:
        assert await reader.documents() == []
        async with books.write("telecentras") as writer:
            await writer.add_drafts([draft("acme")])
        assert await reader.documents() == []


async def test_the_trial_balance_sums_every_posting(books: Books, database: Database) -> None:
    async with books.write("telecentras") as book:
        await book.add_drafts([draft("acme"), draft("beta", net=200)])
        await issue(book, [draft("acme"), draft("beta", net=200)])
    async with database.app("telecentras") as connection:
        balances, balanced = await trial_balance(connection, "telecentras")
        assert await trial_balance(connection, "telecentras", as_of=NOW) == ((), True)
        about_acme = await connection.execute(
            select(posting.c.account, posting.c.subject, posting.c.currency, posting.c.amount)
            .join(journal_entry)
            .where(journal_entry.c.document == f"acme.{OCTOBER}.1")
            .order_by(posting.c.number)
        )
        posted = tuple(Posting(*row) for row in about_acme)
    assert balanced
    assert balances == (
        Balance("receivable", "EUR", 363, 0),
        Balance("revenue", "EUR", 0, 300),
        Balance("vat", "EUR", 0, 63),
    )
    assert posted == document_entry(issued(draft("acme"), 1), NOW).postings


async def test_an_entry_is_posted_once_for_a_document(books: Books) -> None:
    async with books.write("telecentras") as book:
        await book.add_drafts([draft("acme")])
        (invoice,) = await issue(book, [draft("acme")])
    with pytest.raises(IntegrityError, match="journal_entry_document"):
        async with books.write("telecentras") as book:
            await book.post([document_entry(invoice, NOW)])


async def test_adjustments_come_in_the_order_in_which_they_were_made(books: Books) -> None:
    made = [
        Adjustment(f"a{number}", "acme", OCTOBER, -number, "goodwill", "jonas", NOW.replace(minute=number))
        for number in (1, 2, 3)
    ]
    async with books.write("telecentras") as book:
        for adjustment in reversed(made):
            await book.add_adjustment(adjustment)
        assert await book.adjustments(OCTOBER) == made
        assert await book.adjustments(OCTOBER.next) == []


async def test_closes_and_settlements_are_kept(books: Books) -> None:
    closes = [
        PeriodClose(
            OCTOBER, number, NOW, {"n1/0": "ab" * 32}, {"tariffs": ["vilnius"]}, {"net": "1.00"}, number == 1
        )
        for number in (1, 2)
    ]
    settlement = Settlement(
        id="telecentras.2026-10.1",
        operator="telecentras",
        period=OCTOBER,
        number=1,
        currency="EUR",
        base=100,
        shares=(
            PartyShare("model-fund", Decimal("2.5"), 3, 0),
            PartyShare("telecentras", Decimal("97.5"), 97, 0),
        ),
        share_version="telecentras@2026-10-01",
    )
    entry = Entry(
        NOW,
        OCTOBER,
        "settlement",
        (Posting("share_expense", None, "EUR", 3), Posting("payable", "model-fund", "EUR", -3)),
        settlement=settlement.id,
    )
    async with books.write("telecentras") as book:
        assert await book.last_close(OCTOBER) is None
        for close in closes:
            await book.add_close(close)
        await book.add_settlement(settlement, NOW)
        await book.post([entry])
    async with books.read("telecentras") as book:
        assert await book.last_close(OCTOBER) == closes[1]
        assert await book.settlements(OCTOBER) == [settlement]
        assert await book.held_batches(NOW) == 0
        assert await book.lane_heads() == {}
    with pytest.raises(DBAPIError, match="period_close_pkey"):
        async with books.write("telecentras") as book:
            await book.add_close(closes[1])


async def test_only_the_first_late_bound_counts(books: Books, database: Database) -> None:
    for at in (NOW, NOW.replace(year=2030)):
        async with books.write("telecentras") as book:
            await book.set_late_bound(OCTOBER, at)
    async with database.intake() as connection:
        found = await connection.exec_driver_sql("SELECT period, late_after FROM late_bound")
        assert [tuple(row) for row in found] == [("2026-10", NOW)]


async def test_710_customers_are_issued_in_seconds(books: Books) -> None:
    drafts = [draft(f"customer-{number}", net=600, lines=6) for number in range(710)]
    began = time.monotonic()
    async with books.write("telecentras") as book:
        await book.replace_drafts(OCTOBER, drafts)
    async with books.write("telecentras") as book:
        await issue(book, list(await book.documents(period=OCTOBER)))
    took_s = time.monotonic() - began
    print(f"710 documents of 6 lines drafted, read, issued and posted in {took_s:.2f} s")
    assert took_s < 10  # some 1.5 s on a quiet core; what is caught here is a query a document
