"""Queries that name more things than PostgreSQL takes parameters (32,767)."""

from __future__ import annotations

from datetime import date

import pytest

from adapters.postgres.database import Database
from adapters.postgres.documents import load_documents
from adapters.postgres.site import site_store
from adapters.postgres.subjects import find_subjects
from billing.stored import StoredDocument

pytestmark = pytest.mark.anyio

MANY = [f"c{number}" for number in range(33_000)]


@pytest.mark.proof
async def test_33_000_customers_are_saved_and_found(database: Database) -> None:
    documents = [StoredDocument("customer", slug, "teleco", date(2026, 1, 1), {}) for slug in MANY]

    async with site_store(database) as store:
        await store.save(documents)

    async with database.app("teleco") as connection:
        assert set(await find_subjects(connection, "teleco", "customer", MANY)) == set(MANY)


@pytest.mark.proof
async def test_33_000_documents_are_asked_for_by_id_or_number(database: Database) -> None:
    async with database.app("teleco") as connection:
        assert await load_documents(connection, "teleco", references=MANY) == []
