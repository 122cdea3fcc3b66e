"""Connections to PostgreSQL, and what their failures mean.

What goes wrong with the server itself comes out as `Unavailable` (`database_down`, `too_many_connections`), a login or a
database that is not there as `Refusal`; what is about a statement passes as it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from metering.refusal import Refusal, Unavailable

_CONNECT_TIMEOUT_S = 10.0
_AT_ONCE = 24  # transactions out of one pool; more at once wait

_DOWN = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InsufficientResourcesError,  # a full disk, no memory
)

Revive = Callable[[], Awaitable[None]]
"""Starts a server again that is ours and was killed."""


def engine(url: str, pool_size: int = 0) -> AsyncEngine:
    """An engine on asyncpg; `pool_size` 0 opens a connection each time.

    asyncpg reads the URL itself, because it knows libpq's forms (`?host=/run/postgresql`) that SQLAlchemy's doesn't.
    """
    dsn = "postgresql://" + url.partition("://")[2]

    async def creator() -> asyncpg.Connection[Any]:
        return await asyncpg.connect(
            dsn,
            timeout=_CONNECT_TIMEOUT_S,
            server_settings={"application_name": "tallygrid", "timezone": "UTC"},
        )

    if pool_size == 0:
        return create_async_engine("postgresql+asyncpg://", async_creator=creator, poolclass=NullPool)
    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=creator,
        pool_size=pool_size,
        max_overflow=_AT_ONCE - pool_size,
        pool_pre_ping=True,  # a server that was restarted under us costs a ping, not a failed command
    )


@asynccontextmanager
async def down_is_unavailable() -> AsyncIterator[None]:
    """Turns what says that the server is gone, or not letting us in, into `Unavailable` or `Refusal`.

    Only what comes from the driver: an OSError of the block's own, a full disk say, is none of the database's.
    """
    try:
        yield
    except (asyncpg.PostgresError, DBAPIError, PoolTimeout) as error:
        translated = _translated(error)
        if translated is None:
            raise
        raise translated from error


@asynccontextmanager
async def connected(pool: AsyncEngine, revive: Revive | None = None) -> AsyncIterator[AsyncConnection]:
    """A connection for the block, its failures translated. Where none can be had, `revive` is called and it is tried
    once more."""
    try:
        connection = await _connect(pool)
    except Unavailable:
        if revive is not None:
            await revive()
        # A pooled connection to a server that died under it fails in more ways than its ping knows: none is kept.
        await pool.dispose()
        connection = await _connect(pool)
    async with down_is_unavailable(), AsyncExitStack() as stack:
        stack.push_async_exit(connection)  # its own exit gives it back to the pool even when we are cancelled
        yield connection


async def _connect(pool: AsyncEngine) -> AsyncConnection:
    """Whatever goes wrong while connecting is the server's, whichever its type."""
    async with down_is_unavailable():
        try:
            return await pool.connect()
        except (OSError, TimeoutError) as error:
            raise _down(error) from error


def _translated(error: BaseException) -> Unavailable | Refusal | None:
    """What the error means, or a cause under it (SQLAlchemy wraps the driver's); None where it is about a statement."""
    if isinstance(error, PoolTimeout) or (isinstance(error, DBAPIError) and error.connection_invalidated):
        return _down(error)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, asyncpg.InvalidAuthorizationSpecificationError):
            return Refusal(
                "database_login",
                f"PostgreSQL refuses the login: {cause}",
                remedy="check user and password in the URL",
            )
        if isinstance(cause, asyncpg.InvalidCatalogNameError):
            return Refusal(
                "database_missing", str(cause), remedy="`tally database prepare` prints the SQL that makes it"
            )
        if isinstance(cause, asyncpg.TooManyConnectionsError):
            return Unavailable(
                "too_many_connections",
                "PostgreSQL has no connection left for this command",
                remedy="raise its max_connections, or name fewer operators at once: a close holds one for each",
            )
        if isinstance(cause, _DOWN):
            return _down(cause)
        cause = cause.__cause__
    return None


def _down(error: BaseException) -> Unavailable:
    detail = str(error).splitlines()[0] if str(error) else type(error).__name__
    return Unavailable(
        "database_down",
        f"the database does not answer: {detail}",
        remedy="start PostgreSQL, or look at its log; then try again",
    )
