"""Opening the database of a data folder: the embedded one, or the one that the environment names.

Either way the schema is current afterwards, or the command is refused by name.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from adapters.postgres.database import Database, DatabaseUrls
from adapters.postgres.embedded import Embedded
from adapters.postgres.migrate import ensure_current
from adapters.postgres.roles import APP, INTAKE, OWNER
from metering.refusal import Refusal

APP_URL = "TALLY_DATABASE_URL"
INTAKE_URL = "TALLY_DATABASE_INTAKE_URL"
OWNER_URL = "TALLY_DATABASE_OWNER_URL"


def outside_urls(environ: Mapping[str, str]) -> DatabaseUrls | None:
    """The logins of an operator's own PostgreSQL; None for the embedded one. Raises `Refusal` (`database_url`)."""
    urls = {name: environ[name] for name in (APP_URL, INTAKE_URL, OWNER_URL) if environ.get(name)}
    for name, url in urls.items():
        if url.partition("+")[0].partition("://")[0] not in ("postgresql", "postgres") or not _has_sane_port(
            url
        ):
            raise Refusal(
                "database_url",
                f"{name} is not the URL of a PostgreSQL database",
                where=name,
                remedy="write postgresql://USER:PASSWORD@HOST:PORT/DATABASE",
            )
    if urls and APP_URL not in urls:
        raise Refusal(
            "database_url",
            f"{' and '.join(urls)} set without {APP_URL}",
            where=APP_URL,
            remedy=f"set {APP_URL} to the login of {APP}, or unset all of them for the embedded database",
        )
    return DatabaseUrls(urls[APP_URL], urls.get(INTAKE_URL), urls.get(OWNER_URL)) if urls else None


def _has_sane_port(url: str) -> bool:
    try:
        urlsplit(url).port  # noqa: B018 - reading it checks it
    except ValueError:
        return False
    return True


@asynccontextmanager
async def open_database(data: Path, environ: Mapping[str, str]) -> AsyncIterator[Database]:
    """The database, with a current schema. The embedded server runs at least until the block is left.

    Raises `Refusal` and `Unavailable` as `Embedded.acquire`, `Database.open` and `ensure_current` do.
    """
    urls = outside_urls(environ)
    if urls is not None:
        async with _current(await Database.open(urls)) as database:
            yield database
        return
    # Starting and stopping a server blocks; the loop has other things to do meanwhile.
    lease = await asyncio.to_thread(Embedded.acquire, data)
    try:
        url = lease.server.url

        async def revive() -> None:
            await asyncio.to_thread(lease.revive)

        embedded = DatabaseUrls(url(APP), url(INTAKE), url(OWNER))
        async with _current(await Database.open(embedded, revive)) as database:
            yield database
    finally:
        await asyncio.to_thread(lease.release)


@asynccontextmanager
async def _current(database: Database) -> AsyncIterator[Database]:
    try:
        await ensure_current(database)
        yield database
    finally:
        await database.close()
