"""Numbers of documents in PostgreSQL: where a series begins, and that a number names one document."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from books_in_memory import BookInMemory
from sqlalchemy.exc import IntegrityError
from usage_cells import usage_table

from adapters.postgres.books import PostgresBooks
from adapters.postgres.database import Database
from adapters.postgres.schema import operator as operators
from billing.document import CREDIT_NOTE, INVOICE, ISSUED, Document, Tax
from billing.facts import facts_from_documents
from billing.period import Period
from billing.ports import Books, Series

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 11, 2, 9, tzinfo=UTC)
INVOICES = Series("telecentras", INVOICE, 2026)


@pytest.fixture
async def books(database: Database) -> Books:
    async with database.app("telecentras") as connection:
        await connection.execute(operators.insert().values(operator="telecentras"))
    return PostgresBooks(database, lambda: NOW)


async def test_series_begin_at_start_in_the_operators_first_year_and_at_one_in_later_ones(
    books: Books,
) -> None:
    twin = BookInMemory(facts_from_documents([]), usage_table([]))
    notes = replace(INVOICES, kind=CREDIT_NOTE)
    for series, first in (
        (INVOICES, 100),
        (notes, 100),
        (INVOICES, 101),
        (replace(INVOICES, year=2027), 1),
        (replace(INVOICES, kind="prepayment_invoice", year=2027), 1),
        (replace(INVOICES, entity="another", year=2027), 100),
        (replace(notes, year=0), 100),
    ):
        assert await twin.take_numbers(series, 1, 100) == first
        async with books.write("telecentras") as book:
            assert await book.take_numbers(series, 1, 100) == first


async def test_a_pattern_that_gains_the_year_begins_at_one(books: Books) -> None:
    async with books.write("telecentras") as book:
        assert await book.take_numbers(replace(INVOICES, year=0), 5, 100) == 100
        assert await book.take_numbers(INVOICES, 1, 100) == 1


async def test_two_documents_of_an_operator_cannot_have_one_number_whatever_their_kind(books: Books) -> None:
    def paper(ordinal: int, kind: str) -> Document:
        return Document(
            id=f"acme.2026-10.{ordinal}",
            kind=kind,
            operator="telecentras",
            customer="acme",
            customer_name="Acme UAB",
            customer_vat_id=None,
            country="LT",
            period=Period(2026, 10),
            currency="EUR",
            lines=(),
            allowances=(),
            charges=(),
            taxes=(Tax("S", Decimal(21), 0, 0),),
        )

    drafts = [paper(1, INVOICE), paper(2, CREDIT_NOTE)]
    async with books.write("telecentras") as book:
        await book.add_drafts(drafts)
    same = [replace(each, state=ISSUED, number="T-2026-1", issue_date=date(2026, 11, 2)) for each in drafts]
    with pytest.raises(IntegrityError, match="document_number"):
        async with books.write("telecentras") as book:
            await book.issue(same, NOW)
