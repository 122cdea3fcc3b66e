"""Bringing a database to the schema of this version: Alembic, as `tally_owner`, one command at a time.

Alembic takes longer to import than to find that there is nothing to do, so the version is asked first, by hand.
"""

from __future__ import annotations

import logging
from importlib import resources
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError

from adapters.postgres.connecting import connected, engine
from adapters.postgres.database import Database
from metering.refusal import Refusal

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0001"  # the newest migration; a test compares it with the folder
_KNOWN = ("0001",)
_MIGRATION_LOCK = 0x7A11_0001  # one migration at a time in a database
_UNDEFINED_TABLE = "42P01"


async def ensure_current(database: Database) -> None:
    """Migrates to `HEAD` when the database is behind.

    Raises `Refusal`: `database_behind` where no owner's URL is configured, `database_ahead` where a newer Tallygrid
    made the schema.
    """
    found = await version(database)
    if found == HEAD:
        return
    if found is not None and found not in _KNOWN:
        raise Refusal(
            "database_ahead",
            f"the database has schema {found}, newer than this version's {HEAD}",
            remedy="use the Tallygrid that migrated it, or a newer one",
        )
    if database.urls.owner is None:
        raise Refusal(
            "database_behind",
            f"the database has {'no schema' if found is None else f'schema {found}'}, this version needs {HEAD}",
            remedy="set TALLY_DATABASE_OWNER_URL to the login of tally_owner once, and run the command again",
        )
    await migrate(database.urls.owner)


async def version(database: Database) -> str | None:
    """The schema's version as `tally_app` reads it; None for a database without one."""
    try:
        async with database.app("*") as connection:
            found = await connection.execute(text("SELECT version_num FROM alembic_version"))
            return found.scalar_one_or_none()
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) == _UNDEFINED_TABLE:
            return None
        raise


async def migrate(owner_url: str) -> None:
    """Runs every migration that is missing, as the owner; waits for another command that is at it."""
    owner = engine(owner_url)
    try:
        async with connected(owner) as connection:
            # Held by the session, because each migration is a transaction of its own; ends with the connection.
            await connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _MIGRATION_LOCK})
            await connection.commit()
            await connection.run_sync(_upgrade)
            await connection.commit()
    finally:
        await owner.dispose()


def _upgrade(connection: Connection) -> None:
    from alembic import command

    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def alembic_config() -> Config:
    """Alembic's configuration without an ini file: the migrations of the installed package."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(resources.files("migrations")).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
