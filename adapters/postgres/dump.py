"""Every row of a database, out and in again: what a backup is made of.

One REPEATABLE READ transaction as `tally_owner`, whose policy lets it see all operators, copies table after table in
PostgreSQL's binary COPY format. It is the same for the embedded server and for one of the operator's own: pg_dump
would be another program of the right version to find there, and it stops at row-level security that is forced.

The catalogue says what there is, so no table can be forgotten. Two things stay behind: partitions (their rows come
through the table that they are part of) and columns of type xid8, which count the transactions of one server and mean
something else on the next.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager
from graphlib import TopologicalSorter
from typing import Any, TypeAlias

import asyncpg

from adapters.backup_file import TableRows
from adapters.postgres.connecting import connected, engine
from adapters.postgres.database import Database, driver
from metering.refusal import Refusal

Connection: TypeAlias = "asyncpg.Connection[Any]"

_TABLES = """
    SELECT c.relname AS name, array_agg(a.attname::text ORDER BY a.attnum) AS columns,
        array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum) AS types
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
        AND c.relname <> 'alembic_version'
        AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND a.atttypid <> 'xid8'::regtype
    GROUP BY c.relname ORDER BY c.relname
"""
_REFERENCES = """
    SELECT conrelid::regclass::text AS name, confrelid::regclass::text AS needed FROM pg_constraint
    WHERE contype = 'f' AND connamespace = 'public'::regnamespace AND conrelid <> confrelid AND conparentid = 0
"""
_SEQUENCES = """
    SELECT t.relname AS name, a.attname AS column, s.oid::regclass::text AS sequence
    FROM pg_class s JOIN pg_depend d ON d.objid = s.oid AND d.classid = 'pg_class'::regclass AND d.deptype IN ('i', 'a')
        JOIN pg_class t ON t.oid = d.refobjid JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
    WHERE s.relkind = 'S' AND s.relnamespace = 'public'::regnamespace ORDER BY 1, 2
"""
_PARTITIONS = """
    SELECT DISTINCT operator, to_char(hour AT TIME ZONE 'UTC', 'YYYY-MM-01') AS month FROM usage_cell ORDER BY 1, 2
"""
_UNBALANCED = """
    SELECT p.operator, p.currency, sum(p.amount) AS amount FROM posting p
    GROUP BY p.operator, p.entry, p.currency HAVING sum(p.amount) <> 0 LIMIT 1
"""


@asynccontextmanager
async def as_owner(database: Database) -> AsyncIterator[Connection]:
    """A connection of `tally_owner`'s, outside any transaction. Refusal `no_owner_login` where none is configured."""
    if database.urls.owner is None:
        raise Refusal(
            "no_owner_login",
            "no login of tally_owner is configured, and only that one sees every operator's rows",
            remedy="set TALLY_DATABASE_OWNER_URL",
        )
    pool = engine(database.urls.owner)
    try:
        async with connected(pool) as connection:
            yield await driver(connection)
    finally:
        await pool.dispose()


async def tables_of(connection: Connection) -> list[TableRows]:
    """Every table with its columns, in an order in which what a row refers to comes before it."""
    found = {
        row["name"]: TableRows(row["name"], tuple(zip(row["columns"], row["types"], strict=True)))
        for row in await connection.fetch(_TABLES)
    }
    # A partition too is made for an operator that is registered.
    order: TopologicalSorter[str] = TopologicalSorter({name: {"operator"} - {name} for name in found})
    for row in await connection.fetch(_REFERENCES):
        order.add(row["name"], row["needed"])
    return [found[name] for name in order.static_order()]


async def sequences_of(connection: Connection) -> tuple[tuple[str, str, int], ...]:
    """(table, column, last value) of every sequence that was used. Sequences are of no snapshot: read them last."""
    found = []
    for row in await connection.fetch(_SEQUENCES):
        last = await connection.fetchrow(f"SELECT last_value, is_called FROM {row['sequence']}")  # noqa: S608 - the catalogue's own name
        assert last is not None
        if last["is_called"]:
            found.append((row["name"], row["column"], last["last_value"]))
    return tuple(found)


async def partitions_of(connection: Connection) -> tuple[tuple[str, str], ...]:
    """(operator, first day of a UTC month) for which there is usage."""
    return tuple((row["operator"], row["month"]) for row in await connection.fetch(_PARTITIONS))


async def copy_out(
    connection: Connection, table: TableRows, write: Callable[[bytes], Coroutine[Any, Any, None]]
) -> int:
    """Hands the table's rows to `write` as they come; returns how many there were."""
    columns = ", ".join(_quoted(name) for name, _ in table.columns)
    query = f"SELECT {columns} FROM {_quoted(table.table)}"  # noqa: S608 - the catalogue's own names
    done = await connection.copy_from_query(query, output=write, format="binary")
    return int(done.split()[-1])


async def filled(connection: Connection, tables: Iterable[TableRows]) -> list[str]:
    """The names of the tables that hold rows, but for the installation's own row of the registry."""
    names = []
    for table in tables:
        rest = "WHERE operator <> '*'" if table.table == "operator" else ""
        if await connection.fetchval(f"SELECT EXISTS (SELECT FROM {_quoted(table.table)} {rest})"):  # noqa: S608 - the catalogue's own names
            names.append(table.table)
    return names


@asynccontextmanager
async def unguarded(connection: Connection, tables: Iterable[TableRows]) -> AsyncIterator[None]:
    """Inside the block the owner may COPY into these tables, and no trigger of ours fires for what it writes.

    COPY refuses row-level security even where its policy lets everything pass, so it is not forced on the owner
    for so long. All of it is of the transaction: whoever else looks, waits, and sees the tables guarded.
    """
    names = [_quoted(table.table) for table in tables]
    assert connection.is_in_transaction(), "a table is never left unguarded"
    for name in names:
        await connection.execute(f"ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY, DISABLE TRIGGER USER")
    yield
    await connection.execute(
        "SET CONSTRAINTS ALL IMMEDIATE"
    )  # ALTER TABLE refuses while a check is still to come
    for name in names:
        await connection.execute(f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY, ENABLE TRIGGER USER")


async def copy_in(connection: Connection, table: TableRows, pieces: Iterator[bytes]) -> int:
    """Appends the rows of a COPY stream; returns how many there were. Raises what PostgreSQL says of rows that don't fit."""

    async def given() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    done = await connection.copy_to_table(
        table.table, source=given(), columns=[name for name, _ in table.columns], format="binary"
    )
    return int(done.split()[-1])


async def ensure_partitions(connection: Connection, partitions: Iterable[tuple[str, str]]) -> None:
    for operator, month in partitions:
        await connection.execute("SELECT ensure_usage_partitions($1, $2::text::date)", operator, month)


async def set_sequence(connection: Connection, table: str, column: str, last: int) -> None:
    """What the column's sequence gives next is larger than `last`."""
    await connection.execute("SELECT setval(pg_get_serial_sequence($1, $2), $3)", table, column, last)


async def unbalanced(connection: Connection) -> str | None:
    """An entry of the journal that does not balance; the trigger that forbids it did not fire for copied rows."""
    row = await connection.fetchrow(_UNBALANCED)
    return None if row is None else f"{row['operator']}: {row['currency']} {row['amount']}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
