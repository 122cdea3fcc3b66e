"""Two operators in one database: neither sees or changes anything of the other, in any table."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from operator_rows import ROWS, fill, insert_of
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from adapters.postgres.database import Database
from adapters.postgres.schema import metadata

pytestmark = pytest.mark.anyio

MONEY = ("document", "number_series", "adjustment", "settlement", "journal_entry", "posting", "period_close")


@pytest.fixture
async def owner(database: Database) -> AsyncIterator[asyncpg.Connection[Any]]:
    """The owner's connection to a database with a row of operators a and b in every table."""
    assert database.urls.owner is not None
    connection = await asyncpg.connect(database.urls.owner)
    await fill(connection, database, "a")
    await fill(connection, database, "b")
    yield connection
    await connection.close()


async def seen(database: Database, operator: str, table: str) -> set[str]:
    async with database.app(operator) as connection:
        return set((await connection.execute(text(f"SELECT operator FROM {table}"))).scalars())


async def refused(database: Database, operator: str, statement: str) -> str:
    """The SQLSTATE with which the statement is refused as `operator`; '' when it was taken."""
    try:
        async with database.app(operator) as connection:
            await connection.exec_driver_sql(statement)
    except DBAPIError as error:
        return str(getattr(error.orig, "sqlstate", "?"))
    return ""


def test_every_table_has_a_row_here() -> None:
    assert set(ROWS) == set(metadata.tables)


async def test_an_operator_sees_its_own_rows_and_no_others(
    database: Database, owner: asyncpg.Connection[Any]
) -> None:
    for table in [*ROWS, "usage_cell"]:
        expected = {"*", "a", "b"} if table == "operator" else {"a"}
        assert await seen(database, "a", table) == expected, table


@pytest.mark.parametrize("nobody", ["", "c", "*"])
async def test_who_names_no_operator_or_another_sees_nothing(
    database: Database, owner: asyncpg.Connection[Any], nobody: str
) -> None:
    for table in [*ROWS, "usage_cell"]:
        if table != "operator":
            assert await seen(database, nobody, table) == set(), table


async def test_a_session_without_the_setting_sees_nothing(
    database: Database, owner: asyncpg.Connection[Any]
) -> None:
    raw = await asyncpg.connect(database.urls.app)
    for table in ROWS:
        if table != "operator":
            assert await raw.fetch(f"SELECT operator FROM {table}") == [], table
    await raw.close()


async def test_the_setting_ends_with_its_transaction(
    database: Database, owner: asyncpg.Connection[Any]
) -> None:
    for _ in range(20):  # more transactions than the pool has connections
        async with database.app("a") as connection:
            assert (await connection.execute(text("SELECT count(*) FROM document"))).scalar_one() == 1
        async with database.app("") as connection:
            assert (await connection.execute(text("SELECT count(*) FROM document"))).scalar_one() == 0


async def test_an_operator_cannot_write_rows_of_another(
    database: Database, owner: asyncpg.Connection[Any]
) -> None:
    insufficient_privilege = "42501"
    for table in ROWS:
        statement = insert_of(table, "b")
        assert await refused(database, "a", statement) == insufficient_privilege, table


async def test_an_operator_cannot_give_its_rows_to_another(
    database: Database, owner: asyncpg.Connection[Any]
) -> None:
    for table in ("site_document", "number_series"):
        assert await refused(database, "a", f"UPDATE {table} SET operator = 'b'") != "", table
        assert await seen(database, "a", table) == {"a"}


async def test_what_an_operator_deletes_is_its_own(
    database: Database, owner: asyncpg.Connection[Any]
) -> None:
    await owner.execute("""
        INSERT INTO document SELECT operator, 'draft', kind, 'draft', NULL, customer, party, period, currency,
            line_total, net, tax, gross, sign, NULL, content, created_at, NULL FROM document
        """)
    async with database.app("a") as connection:
        await connection.execute(text("DELETE FROM document WHERE state = 'draft'"))
    assert await owner.fetch("SELECT operator FROM document WHERE state = 'draft'") == [("b",)]


async def test_the_application_has_no_way_to_a_partition(
    database: Database, owner: asyncpg.Connection[Any]
) -> None:
    partitions = await owner.fetch(
        "SELECT relname FROM pg_class WHERE relispartition AND relkind IN ('r', 'p')"
    )
    assert len(partitions) == 8
    for row in partitions:
        for statement in ("SELECT * FROM {0}", "DELETE FROM {0}", "INSERT INTO {0} SELECT * FROM {0}"):
            assert await refused(database, "a", statement.format(row["relname"])) == "42501"


async def test_a_partition_that_was_granted_by_mistake_shows_nothing(
    database: Database, owner: asyncpg.Connection[Any]
) -> None:
    name = await owner.fetchval("SELECT max(tableoid::regclass::text) FROM hourly_usage WHERE operator = 'a'")
    await owner.execute(f"GRANT SELECT ON {name} TO tally_app")
    assert await seen(database, "a", name) == set()


@pytest.mark.parametrize("table", [*MONEY, "api_key"])
async def test_intake_has_no_access_to_money_or_keys(database: Database, table: str) -> None:
    with pytest.raises(DBAPIError, match="permission denied"):
        async with database.intake() as connection:
            await connection.exec_driver_sql(f"SELECT * FROM {table}")


async def test_intake_sees_every_operators_usage(database: Database, owner: asyncpg.Connection[Any]) -> None:
    async with database.intake() as connection:
        found = await connection.execute(
            text("SELECT operator, count(*) FROM usage_cell GROUP BY 1 ORDER BY 1")
        )
        assert found.all() == [("a", 2), ("b", 2)]
