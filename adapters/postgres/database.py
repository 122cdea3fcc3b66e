"""The database as the rest of Tallygrid sees it: transactions of one of two roles, and nothing else.

`app(operator)` is a transaction as `tally_app` that sees one operator's rows; `intake()` one as `tally_intake`, which
sees all operators' usage and no money. The setting that row-level security reads is made inside the transaction and
ends with it: a session's setting would outlive its transaction in the pool and show one operator's rows to the next.
What goes wrong with the server itself comes out as `Unavailable` (`adapters.postgres.connecting`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import asyncpg
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from adapters.postgres.connecting import Revive, connected, engine
from adapters.postgres.schema import operator as operator_table
from metering.refusal import Refusal, Unavailable

INSTALLATION = "*"  # the operator of rows that belong to the installation itself

_START_PATIENCE_S = 5.0  # how long a server that is just coming up is waited for
_APP_POOL = 4  # kept open; the books of a close are not of the pool: see `alone`
_INTAKE_POOL = 2


@dataclass(frozen=True, slots=True)
class DatabaseUrls:
    """`postgresql://…` of each role. `intake` is absent where nothing is taken in, `owner` where somebody else runs
    the migrations."""

    app: str
    intake: str | None = None
    owner: str | None = None

    def __repr__(self) -> str:
        return "DatabaseUrls(…)"  # they hold passwords


class Database:
    """Two small pools on one PostgreSQL database; belongs to the event loop that opened it."""

    def __init__(self, urls: DatabaseUrls, revive: Revive | None = None) -> None:
        self.urls = urls
        self._revive = revive
        self._app = engine(urls.app, _APP_POOL)
        # Whoever waits for a lock keeps a connection, and a close keeps one for each operator: out of the pool, or a
        # command could wait for connections that it holds itself.
        self._apart = engine(urls.app)
        self._intake = engine(urls.intake, _INTAKE_POOL) if urls.intake is not None else None
        #: Why nothing may be written, where that is so: PostgreSQL then refuses it too.
        self.read_only: Refusal | None = None

    @classmethod
    async def open(cls, urls: DatabaseUrls, revive: Revive | None = None) -> Self:
        """Connects once as `tally_app`, waiting up to 5 s for a server that is starting.

        `revive` starts the server again where it is ours and was killed; it is called before a transaction that finds
        nobody to connect to. Raises `Unavailable` (`database_down`) or `Refusal` (`database_login`,
        `database_missing`). Says nothing about the schema: `adapters.postgres.open` looks after that.
        """
        database = cls(urls, revive)
        try:
            await _patiently(database._greet)
        except BaseException:
            await database.close()
            raise
        return database

    async def _greet(self) -> None:
        async with self._connection(self._app):
            pass

    async def close(self) -> None:
        """Closes every pooled connection."""
        await self._app.dispose()
        await self._apart.dispose()
        if self._intake is not None:
            await self._intake.dispose()

    @asynccontextmanager
    async def app(self, operator: str, *, snapshot: bool = False) -> AsyncIterator[AsyncConnection]:
        """A transaction as `tally_app` that sees only `operator`'s rows; commits at the end, rolls back on an error.

        `snapshot`: all of its statements read one moment (REPEATABLE READ). Take locks in another transaction before:
        the snapshot is of the first statement, and a lock that is waited for would be that statement.
        """
        async with self._connection(self._app) as connection:
            if snapshot:
                await connection.execution_options(isolation_level="REPEATABLE READ")
            async with connection.begin():
                if self.read_only is not None:
                    await connection.execute(text("SET TRANSACTION READ ONLY"))
                await see(connection, operator)
                yield connection

    @asynccontextmanager
    async def intake(self) -> AsyncIterator[AsyncConnection]:
        """A transaction as `tally_intake`: all operators' streams and usage, nothing of keys or money."""
        if self.read_only is not None:
            raise self.read_only
        if self._intake is None:
            raise Refusal(
                "no_intake_login",
                "no login of tally_intake is configured, and this needs to take usage in",
                remedy="set TALLY_DATABASE_INTAKE_URL",
            )
        async with self._connection(self._intake) as connection, connection.begin():
            # BEGIN goes out with the first statement; a COPY through the driver must not be it, or it would commit.
            await connection.execute(select(1))
            yield connection

    @asynccontextmanager
    async def exclusively(self, name: str) -> AsyncIterator[None]:
        """Holds the advisory lock of this name alone, waiting for its turn. Ends with the block, or with our life."""
        async with self._connection(self._apart) as connection, connection.begin():
            await take_lock(connection, name)
            yield

    @asynccontextmanager
    async def alone(self, operator: str, name: str) -> AsyncIterator[AsyncConnection]:
        """A snapshot transaction as `app` gives, begun under the advisory lock `name`, which outlasts its commit.

        One connection for both, and not of the pool, so that a command may hold as many as PostgreSQL has. The lock is
        the session's and ends with it. Raises `Unavailable` (`too_many_connections`) where PostgreSQL has none left.
        """
        if self.read_only is not None:
            raise self.read_only
        async with self._connection(self._apart) as connection:
            await connection.execute(
                text("SELECT pg_advisory_lock(hashtextextended(:name, 0))"), {"name": f"tally.{name}"}
            )
            await connection.commit()  # the snapshot below is taken after the lock, not while waiting for it
            await connection.execution_options(isolation_level="REPEATABLE READ")
            async with connection.begin():
                await see(connection, operator)
                yield connection

    def _connection(self, pool: AsyncEngine) -> AbstractAsyncContextManager[AsyncConnection]:
        return connected(pool, self._revive)

    async def operators(self) -> list[str]:
        """Ids of all operators, sorted; without `*`."""
        query = select(operator_table.c.operator).where(operator_table.c.operator != INSTALLATION)
        async with self.app(INSTALLATION) as connection:
            return list((await connection.execute(query.order_by(operator_table.c.operator))).scalars())


async def see(connection: AsyncConnection, operator: str) -> None:
    """From here to the end of the transaction, `connection` sees this operator's rows and no others."""
    await connection.execute(
        text("SELECT set_config('tally.operator', :operator, true)"), {"operator": operator}
    )


async def take_lock(connection: AsyncConnection, name: str) -> None:
    """Waits for the advisory lock of this name, and holds it to the end of the transaction: past its commit."""
    await connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": f"tally.{name}"}
    )


async def driver(connection: AsyncConnection) -> asyncpg.Connection[Any]:
    """asyncpg's own connection under `connection`, in the same transaction: for COPY."""
    raw = await connection.get_raw_connection()
    found = raw.driver_connection
    assert isinstance(found, asyncpg.Connection)
    return found


async def _patiently(attempt: Callable[[], Awaitable[None]]) -> None:
    """Tries again while the server is down, up to `_START_PATIENCE_S`."""
    until = asyncio.get_running_loop().time() + _START_PATIENCE_S
    wait_s = 0.05
    while True:
        try:
            return await attempt()
        except Unavailable:
            if asyncio.get_running_loop().time() + wait_s > until:
                raise
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 2, 1.0)
