"""Rows and leaves as the log tells them, written again: the database's side of bringing it forward.

All of it in one transaction of `tally_owner`, which sees every operator, and may keep the triggers still that make
leaves: what is written here has its leaves already. Every other trigger and constraint holds as ever, so that nothing
gets in that could not have happened.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres.database import Database, DatabaseUrls, take_lock
from adapters.postgres.dump import Connection, set_sequence
from adapters.postgres.log import lock_name
from adapters.postgres.site import book_lock
from billing.log import Content
from metering.refusal import Refusal

_LEAF_TRIGGERS = """
    SELECT c.relname AS name, t.tgname AS trigger, t.tgname = 'log_leaf' AND c.relname <> 'batch' AS told
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
    WHERE t.tgname = 'log_leaf' OR (c.relname, t.tgname) = ('leaf', 'waits') ORDER BY c.relname
"""
_SECURED = """
    SELECT relname FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND relforcerowsecurity AND NOT relispartition
    ORDER BY relname
"""
_COLUMNS = """
    SELECT a.attname AS name, coalesce(a.attnum = ANY (i.indkey), false) AS is_key,
        a.attidentity <> '' AS is_identity
    FROM pg_attribute a LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
    WHERE a.attrelid = $1::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_ADD_LEAF = """
    WITH made AS (
        INSERT INTO leaf (operator, kind, data, nonce, content, made_at) VALUES ($1, $3, $4, $5, $6, $7) RETURNING id)
    INSERT INTO log_entry (operator, index, leaf) SELECT $1, $2, id FROM made
"""
_HEAD = """
    INSERT INTO log_head (operator, size, root, checkpoint, signed_at) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (operator) DO UPDATE
        SET size = excluded.size, root = excluded.root, checkpoint = excluded.checkpoint, signed_at = excluded.signed_at
        WHERE log_head.size < excluded.size
"""


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    is_key: bool
    is_identity: bool


class OneTransaction(Database):
    """The database as intake sees it, in a transaction that is open already, and commits with that."""

    def __init__(self, urls: DatabaseUrls, connection: AsyncConnection) -> None:
        super().__init__(urls)
        self._open = connection

    @asynccontextmanager
    async def intake(self) -> AsyncIterator[AsyncConnection]:
        yield self._open


class Replay:
    """One replay into one database: what it learnt of the tables, and the connection of its transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._columns: dict[str, list[Column]] = {}
        self.told: frozenset[str] = frozenset()

    @asynccontextmanager
    async def silenced(self) -> AsyncIterator[None]:
        """Inside the block nothing that is written makes a leaf, and the owner may COPY. See `dump.unguarded`."""
        triggers = await self._connection.fetch(_LEAF_TRIGGERS)
        self.told = frozenset(row["name"] for row in triggers if row["told"])
        for row in triggers:
            await self._connection.execute(f'ALTER TABLE "{row["name"]}" DISABLE TRIGGER "{row["trigger"]}"')
        async with self.copying():
            yield
        for row in triggers:
            await self._connection.execute(f'ALTER TABLE "{row["name"]}" ENABLE TRIGGER "{row["trigger"]}"')

    @asynccontextmanager
    async def copying(self) -> AsyncIterator[None]:
        """Inside the block the owner may COPY, which PostgreSQL refuses under row-level security; leaves are made."""
        secured = [row["relname"] for row in await self._connection.fetch(_SECURED)]
        for name in secured:
            await self._connection.execute(f'ALTER TABLE "{name}" NO FORCE ROW LEVEL SECURITY')
        yield
        await self._connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        await self._connection.execute("SET CONSTRAINTS ALL DEFERRED")
        for name in secured:
            await self._connection.execute(f'ALTER TABLE "{name}" FORCE ROW LEVEL SECURITY')

    async def apply(self, operator: str, table: str, content: Content, where: str) -> datetime:
        """Writes the row of a content again; returns when it was first written.

        What is inserted must not be there, but for a draft that became a document; an update brings the row if the
        database lacks it. Refusals: bad_content (of another table, operator or version), replay_differs.
        """
        told = json.loads(content.content)
        if told["table"] != table or table not in self.told:
            raise Refusal(
                "bad_content", f"the log tells of {table}, its content of {told['table']}", where=where
            )
        known = await self._of(table)
        if told["row"].get("operator") != operator or not told["row"].keys() <= {each.name for each in known}:
            raise Refusal(
                "bad_content",
                f"the row of {table} is another operator's, or of another version of Tallygrid",
                where=where,
                remedy="restore it with the Tallygrid that wrote it",
            )
        named = [column for column in known if column.name in told["row"]]
        try:
            await self._connection.execute(_statement(table, told["op"], known, named), content.content)
        except asyncpg.PostgresError as error:
            raise Refusal(
                "replay_differs",
                f"the row of {table} does not fit: {str(error).splitlines()[0]}",
                where=where,
                remedy="this database was written to after its backup was made: restore the backup into an empty one",
            ) from error
        return datetime.fromisoformat(told["at"])

    async def check(self, where: str) -> None:
        """That what was written is whole: entries balance. Refusal: replay_differs."""
        try:
            await self._connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
            await self._connection.execute("SET CONSTRAINTS ALL DEFERRED")
        except asyncpg.PostgresError as error:
            raise Refusal(
                "replay_differs",
                f"these changes are not whole, so they were never committed: {str(error).splitlines()[0]}",
                where=where,
                remedy="--uncovered leave does without them",
            ) from error

    async def is_taken(self, content: Content) -> bool:
        """Whether the row that a content inserts is there already, or the number that it takes was taken."""
        told = json.loads(content.content)
        table = told["table"]
        if told["op"] != "insert" and table != "number_series":
            return False
        keys = [column.name for column in await self._of(table) if column.is_key]
        same = " AND ".join(f't."{key}" = r."{key}"' for key in keys)
        also = {"number_series": "t.next >= r.next", "document": "t.state = 'issued'"}.get(table, "true")
        return bool(
            await self._connection.fetchval(
                f'SELECT EXISTS (SELECT FROM "{table}" t, json_populate_record(NULL::"{table}", $1::json -> \'row\') r'  # noqa: S608 - the catalogue's names
                f" WHERE {same} AND {also})",
                content.content,
            )
        )

    async def _of(self, table: str) -> list[Column]:
        if table not in self._columns:
            found = await self._connection.fetch(_COLUMNS, table)
            self._columns[table] = [Column(row["name"], row["is_key"], row["is_identity"]) for row in found]
        return self._columns[table]

    async def drop_drafts(self, operator: str, period: str) -> int:
        """What a close that is written again had replaced; it drafts anew when it is asked to."""
        done = await self._connection.execute(
            "DELETE FROM document WHERE operator = $1 AND period = $2 AND state = 'draft'", operator, period
        )
        return int(done.split()[-1])

    async def add_leaf(
        self,
        operator: str,
        index: int,
        kind: str,
        data: bytes,
        content: Content | None,
        made_at: datetime,
    ) -> None:
        """The leaf at its place in the log."""
        nonce, text = (None, None) if content is None else (content.nonce, content.content)
        await self._connection.execute(_ADD_LEAF, operator, index, kind, data, nonce, text, made_at)

    async def finish_sequences(self) -> None:
        """Numbers that the database gives itself go on after those that were written again."""
        for table in sorted(self._columns):
            for column in self._columns[table]:
                if column.is_identity:
                    last = await self._connection.fetchval(f'SELECT max("{column.name}") FROM "{table}"')  # noqa: S608 - the catalogue's names
                    if last is not None:
                        await set_sequence(self._connection, table, column.name, last)


def _statement(table: str, op: str, known: Sequence[Column], named: Sequence[Column]) -> str:
    """The SQL that writes a row again, its content as $1. All names are the catalogue's."""
    row = f"json_populate_record(NULL::\"{table}\", $1::json -> 'row')"
    keys = ", ".join(f'"{column.name}"' for column in known if column.is_key)
    if op == "delete":
        return f'DELETE FROM "{table}" WHERE ({keys}) IN (SELECT {keys} FROM {row})'  # noqa: S608 - as above
    names = ", ".join(f'"{column.name}"' for column in named)
    values = ", ".join(f'"{column.name}" = excluded."{column.name}"' for column in named if not column.is_key)
    follows = op == "update" or table == "document"
    conflict = f"ON CONFLICT ({keys}) DO UPDATE SET {values}" if follows else ""
    return f'INSERT INTO "{table}" ({names}) OVERRIDING SYSTEM VALUE SELECT {names} FROM {row} {conflict}'  # noqa: S608 - as above


async def hold_operator(connection: AsyncConnection, raw: Connection, operator: str) -> None:
    """Registers the operator, and keeps its sequencer and its books waiting."""
    await raw.execute("INSERT INTO operator VALUES ($1) ON CONFLICT DO NOTHING", operator)
    await take_lock(connection, lock_name(operator))
    await take_lock(connection, book_lock(operator))


async def mark_unfinished(
    connection: Connection, operator: str, made_at: datetime | None, now: datetime
) -> None:
    """From here on the operator's ledger is read-only."""
    await connection.execute(
        "INSERT INTO unfinished_restore VALUES ($1, $2, $3)"
        " ON CONFLICT (operator) DO UPDATE SET made_at = excluded.made_at, begun_at = excluded.begun_at",
        operator,
        made_at,
        now,
    )


async def number_leaf(connection: Connection, operator: str, index: int, leaf: int) -> None:
    """A leaf that the database has gets the place that the archived log gives it."""
    await connection.execute("INSERT INTO log_entry VALUES ($1, $2, $3)", operator, index, leaf)
    await connection.execute("DELETE FROM leaf_waiting WHERE operator = $1 AND leaf = $2", operator, leaf)


async def set_archived_head(
    connection: Connection, operator: str, size: int, root: bytes, checkpoint: bytes, signed_at: datetime
) -> None:
    """The archived checkpoint is the database's newest, unless that covers more."""
    await connection.execute(_HEAD, operator, size, root, checkpoint.decode(), signed_at)
