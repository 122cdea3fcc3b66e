"""What the database refuses whoever asks: the design's invariants of money and streams, repeated as constraints."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import asyncpg
import pytest
from operator_rows import fill, insert_of

from adapters.postgres.database import Database, DatabaseUrls

pytestmark = pytest.mark.anyio


@pytest.fixture
async def owner(database: Database) -> AsyncIterator[asyncpg.Connection[Any]]:
    """The owner's connection (no privilege stands in its way) to a database with a row of operator a in every table."""
    assert database.urls.owner is not None
    connection = await asyncpg.connect(database.urls.owner)
    await fill(connection, database, "a")
    yield connection
    await connection.close()


@pytest.fixture(scope="module")
async def untouched(fresh_urls: Callable[[], DatabaseUrls]) -> AsyncIterator[asyncpg.Connection[Any]]:
    """The same, shared by tests of which every statement is refused."""
    opened = await Database.open(await asyncio.to_thread(fresh_urls))
    assert opened.urls.owner is not None
    connection = await asyncpg.connect(opened.urls.owner)
    await fill(connection, opened, "a")
    yield connection
    await connection.close()
    await opened.close()


async def refusal(owner: asyncpg.Connection[Any], statement: str) -> str:
    """With which words the database refuses the statement; nothing of it stays."""
    with pytest.raises(asyncpg.PostgresError) as refused:
        async with owner.transaction():
            await owner.execute(statement)
    return str(refused.value)


async def post(owner: asyncpg.Connection[Any], declared: int, sides: Sequence[tuple[str, int]]) -> None:
    """Adds an entry that says that it has `declared` postings, with these (currency, amount)."""
    async with owner.transaction():
        entry = await owner.fetchval(
            "INSERT INTO journal_entry (operator, posted_at, period, kind, postings)"
            " VALUES ('a', now(), '2026-10', 'correction', $1) RETURNING id",
            declared,
        )
        for number, (currency, amount) in enumerate(sides, 1):
            await owner.execute(
                "INSERT INTO posting VALUES ('a', $1, $2, 'revenue', NULL, $3, $4)",
                entry,
                number,
                currency,
                amount,
            )


async def test_an_entry_balances_per_currency(owner: asyncpg.Connection[Any]) -> None:
    await post(owner, 4, [("EUR", 100), ("EUR", -100), ("SEK", 7), ("SEK", -7)])
    with pytest.raises(asyncpg.PostgresError, match="out of balance by EUR 1"):
        await post(owner, 2, [("EUR", 100), ("EUR", -99)])
    with pytest.raises(asyncpg.PostgresError, match="out of balance by EUR 100, SEK -100"):
        await post(owner, 2, [("EUR", 100), ("SEK", -100)])


async def test_an_entry_has_the_postings_that_it_says(owner: asyncpg.Connection[Any]) -> None:
    with pytest.raises(asyncpg.PostgresError, match="has not the postings that it says"):
        await post(owner, 3, [("EUR", 100), ("EUR", -100)])
    with pytest.raises(asyncpg.PostgresError, match="has not the postings that it says"):
        await post(owner, 2, [])


async def test_a_balanced_pair_of_postings_cannot_be_slipped_into_an_old_entry(
    owner: asyncpg.Connection[Any],
) -> None:
    entry = await owner.fetchval("SELECT max(id) FROM journal_entry")
    said = await refusal(
        owner,
        f"INSERT INTO posting VALUES ('a', {entry}, 3, 'revenue', NULL, 'EUR', 5),"
        f" ('a', {entry}, 4, 'vat', NULL, 'EUR', -5)",
    )
    assert "has not the postings that it says" in said


@pytest.mark.parametrize(
    "table", ["journal_entry", "posting", "adjustment", "settlement", "period_close", "late_bound"]
)
async def test_what_happened_is_only_ever_added_to(untouched: asyncpg.Connection[Any], table: str) -> None:
    for statement in (
        f"UPDATE {table} SET operator = operator",
        f"DELETE FROM {table}",
        f"TRUNCATE {table} CASCADE",
    ):
        assert "only ever added to" in await refusal(untouched, statement)


async def test_an_issued_document_never_changes_and_a_draft_may(owner: asyncpg.Connection[Any]) -> None:
    assert "never changes" in await refusal(owner, "UPDATE document SET net = 0, gross = 21")
    assert "never changes" in await refusal(owner, "UPDATE document SET state = 'draft'")
    assert "never changes" in await refusal(owner, "DELETE FROM document")
    assert "only ever added to" in await refusal(owner, "TRUNCATE document CASCADE")
    draft = insert_of("document", "a").replace("'d1'", "'d2'").replace("'issued', 'N-1'", "'draft', NULL")
    await owner.execute(draft.replace("'2026-11-01'", "NULL").replace("now(), now())", "now(), NULL)"))
    await owner.execute("UPDATE document SET net = 200, gross = 221 WHERE state = 'draft'")
    await owner.execute("DELETE FROM document WHERE state = 'draft'")


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        (("'issued', 'N-1'", "'issued', NULL"), "document_issued_has_number_and_date"),
        (("'issued', 'N-1'", "'draft', 'N-2'"), "document_issued_has_number_and_date"),
        (("'d1'", "'d2'"), "document_number"),
        (("100, 21, 121, 1", "100, 21, 120, 1"), "document_amounts"),
        (("100, 21, 121, 1", "-100, -21, -121, 1"), "document_amounts"),
        (("121, 1", "121, -1"), "document_sign"),
        (("'c', NULL", "NULL, NULL"), "document_has_one_buyer_or_party"),
        (("'c', NULL", "'c', 'p'"), "document_has_one_buyer_or_party"),
        (("'2026-10'", "'2026-13'"), "document_period"),
        (("'EUR'", "'eur'"), "document_currency"),
        (("'invoice'", "'bill'"), "document_kind"),
    ],
)
async def test_a_document_that_contradicts_itself_is_refused(
    untouched: asyncpg.Connection[Any], change: tuple[str, str], constraint: str
) -> None:
    statement = insert_of("document", "a")
    assert constraint in await refusal(untouched, statement.replace(*change))


async def test_a_number_series_never_steps_back_or_starts_again(owner: asyncpg.Connection[Any]) -> None:
    await owner.execute("UPDATE number_series SET next = 5")
    assert "never steps back" in await refusal(owner, "UPDATE number_series SET next = 4")
    assert "never steps back" in await refusal(owner, "UPDATE number_series SET next = 6, year = 2027")
    assert "only ever added to" in await refusal(owner, "DELETE FROM number_series")


@pytest.mark.parametrize(
    ("table", "change", "constraint"),
    [
        ("batch", (", 0, 'ab", ", 1, 'ab"), "batch_successor"),
        ("batch", ("'genesis', 1, 1, 1", "'" + "9" * 64 + "', 1, 1, 1"), "batch_pkey"),
        ("batch", ("'genesis', 1, 1, 1", "'genesis', 1, 3, 1"), "batch_sequence_is_dense"),
        ("batch", ("'genesis', 1, 1, 1", "'genesis', 0, 0, 1"), "batch_sequence_is_dense"),
        ("batch", ("'genesis'", "'first'"), "batch_previous"),
        ("lane", ("'0', 'sidecar'", "'1', 'pump'"), "lane_kind"),
        ("partial_sum", ("08:00Z", "08:30Z"), "hour_is_whole"),
        ("hourly_usage", ("'finished', 0", "'lost', 0"), "hourly_usage_outcome"),
        ("hourly_usage", ("'finished', 0", "'finished', 7"), "hourly_usage_band"),
        ("hourly_usage", ("2026-10-05", "2026-12-05"), "no partition"),
        ("hourly_usage", ("'a'", "'b'"), "no partition"),
        ("import_file", ("'i1'", "'i1'"), "import_file_pkey"),
        ("import_file", ("'i1'", "'i2'"), "import_file_stands_once"),
        ("import_file", ("'accepted'", "'voided'"), "import_file_void_has_a_reason"),
        ("site_document", ("'node', 'n1'", "'party', 'p1'"), "site_document_owner"),
        (
            "site_document",
            ("'node', 'n1', '-infinity', NULL", "'node', 'n2', '2026-10-01', '2026-10-01'"),
            "ends_after",
        ),
        ("subject", ("'customer', 'customer-a'", "'project', 'customer-a'"), "subject_parent_is_a_customers"),
        ("subject", ("00000-", "00001-"), "subject_customer_slug"),
        ("api_key", ("'finance'", "'king'"), "api_key_role"),
        ("api_key", ("'finance'", "NULL"), "api_key_is_a_customers_or_a_roles"),
        ("operator", ("'a'", "'A'"), "operator_id_is_an_id"),
        ("operator", ("'a'", "'" + "a" * 64 + "'"), "operator_id_is_an_id"),
        ("adjustment", ("-5, 'goodwill'", "0, 'goodwill'"), "adjustment_moves_money"),
        ("adjustment", ("'goodwill'", "''"), "adjustment_says_why_and_who"),
    ],
)
async def test_rows_that_break_an_invariant_are_refused(
    untouched: asyncpg.Connection[Any], table: str, change: tuple[str, str], constraint: str
) -> None:
    original = insert_of(table, "a")
    assert change[0] in original
    assert constraint in await refusal(untouched, original.replace(*change, 1))


async def test_of_an_accepted_batch_only_the_second_passs_verdict_is_added(
    owner: asyncpg.Connection[Any],
) -> None:
    assert "is accepted, and never changes" in await refusal(owner, "UPDATE batch SET requests = 2")
    await owner.execute("UPDATE batch SET root_checked = true")
    assert "is accepted, and never changes" in await refusal(owner, "UPDATE batch SET root_checked = false")
    assert "only ever added to" in await refusal(owner, "DELETE FROM batch")


async def test_two_operators_cannot_have_a_customer_of_one_name(
    owner: asyncpg.Connection[Any], database: Database
) -> None:
    await fill(owner, database, "b")
    said = await refusal(
        owner, "INSERT INTO subject VALUES ('b', gen_random_uuid(), 'customer', 'customer-a', NULL)"
    )
    assert "subject_customer_slug" in said
