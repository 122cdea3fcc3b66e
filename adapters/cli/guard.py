"""The guard of every command: a database that does not extend the newest archived checkpoint is read-only.

Such a database was restored and not brought forward, is an old clone, or belongs beside another archive. Whatever is
written to it would be another history than the one that was signed: the same invoice number for two customers. So every
command is refused (`behind_archive`, `log_differs`, `log_missing`), but for those that only read, which are listed here
and warn; their transactions are read-only for PostgreSQL too. A command that nobody has listed is taken to write.

Costs a file and a query for each operator: where the archived checkpoint is the database's newest, nothing more is read.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

from billing.log import checkpoint_path
from metering.refusal import Refusal, Unavailable

if TYPE_CHECKING:
    from adapters.postgres.database import Database
    from billing.objects import Objects

#: Commands that only read, by path.
READING = frozenset(
    {
        "api",
        "archive hold list",
        "archive query",
        "archive rebuild",
        "backup",
        "check",
        "doctor",
        "get",
        "invoice explain",
        "invoice list",
        "invoice render",
        "invoice show",
        "key list",
        "ledger trial-balance",
        "log check",
        "log checkpoint",
        "log key",
        "log prove",
        "node list",
        "period list",
        "period show",
        "reconcile",
        "report usage",
        "settlement list",
        "settlement show",
        "streams",
        "usage",
    }
)
#: What ends the state, and what makes a data folder of its own.
EXEMPT = frozenset({"restore", "demo"})
#: The engine stays reachable: a sidecar takes such a ledger as one that is away.
CAPTURING = "sidecar"


async def guard(path: str, data: Path, database: Database) -> str | None:
    """What the command `path` has to warn of, if anything; the database is read-only from then on.

    Refusals: behind_archive, log_differs, log_missing, damaged_log, bad_checkpoint. For a sidecar these are `Unavailable`.
    """
    if path in EXEMPT:
        return None
    refusal = await behind(database, _archive(data))
    if refusal is None:
        return None
    if path == CAPTURING:
        raise Unavailable(refusal.code, refusal.what, where=refusal.where, remedy=refusal.remedy)
    if path not in READING:
        raise refusal
    database.read_only = refusal
    return f"{refusal.what}: nothing can be written, and figures may be old; {refusal.remedy}"


async def behind(database: Database, objects: Objects) -> Refusal | None:
    """Why nothing may be written to this database beside this archive; None where it extends what the archive says."""
    from adapters.postgres import log
    from adapters.postgres.database import INSTALLATION

    operators = await database.operators()
    if not operators and await asyncio.to_thread(lambda: next(iter(objects.list("")), None)) is not None:
        return Refusal(
            "behind_archive",
            "the archive holds what this empty database knows nothing of",
            remedy="`tally restore` makes the database of a backup and the archive, or of the archive alone; or name"
            " another archive (TALLY_ARCHIVE)",
        )
    for operator in (*operators, INSTALLATION):
        note = await asyncio.to_thread(objects.get, checkpoint_path(operator))
        async with database.app(operator) as connection:
            standing = await log.standing(connection, operator)
        known = None if standing.head is None else standing.head.checkpoint
        if note == known and not standing.is_being_restored:
            continue
        # Imported here: few commands on few days come so far.
        from adapters.log_sequencer import check_extends

        try:
            await check_extends(database, objects, operator)
        except Refusal as refusal:
            if refusal.code != "log_missing" or not await asyncio.to_thread(_is_elsewhere, objects):
                return refusal
    return None


def _is_elsewhere(objects: Objects) -> bool:
    """Whether this machine only shares the database: a site's, an accountant's. The archive is where intake runs."""
    from adapters.postgres.open import APP_URL

    return bool(os.environ.get(APP_URL)) and next(iter(objects.list("")), None) is None


def _archive(data: Path) -> Objects:
    """The archive without the rest of wiring.py, for which a quick command would have to wait."""
    named = os.environ.get("TALLY_ARCHIVE", "")
    if "://" in named:
        from adapters.s3_objects import bucket_objects

        return bucket_objects(named, "TALLY_ARCHIVE")
    from adapters.objects import FolderObjects

    return FolderObjects(Path(named).absolute() if named else data / "archive")
