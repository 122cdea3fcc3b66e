"""A database from a backup: its rows, as they were, in one transaction, or none of them.

The backup is read from end to end before the first row. The database has to be empty, but for its schema, which is the
backup's: a ledger is never mixed with another. What has happened since the backup is not here but in the archive;
`adapters/bring_forward.py` adds it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import asyncpg

from adapters.backup import HELD, KEYS
from adapters.backup_file import Backup, TableRows
from adapters.postgres.database import INSTALLATION, Database
from adapters.postgres.dump import (
    Connection,
    as_owner,
    copy_in,
    ensure_partitions,
    filled,
    set_sequence,
    tables_of,
    unbalanced,
    unguarded,
)
from adapters.postgres.migrate import HEAD
from adapters.postgres.replay import mark_unfinished
from billing.objects import Objects
from metering.durable import create_once, make_folder
from metering.refusal import Fault, Refusal
from metering.steps import step

Progress = Callable[[str, int, int], None]


async def restore_rows(
    database: Database,
    backup: Backup,
    now: datetime,
    progress: Progress = lambda _what, _done, _total: None,
) -> int:
    """Puts every row of the backup into the empty database, which is read-only until it is brought forward; returns how
    many.

    Refusals, with nothing changed: `backup_version` (another schema), `not_empty`, `bad_backup`, `no_owner_login`.
    """
    manifest = backup.manifest
    if manifest.schema != HEAD:
        raise Refusal(
            "backup_version",
            f"the backup has schema {manifest.schema}, this version's is {HEAD}",
            where=str(backup.path),
            remedy=f"restore it with Tallygrid {manifest.tallygrid}, which made it; a newer one then migrates the database",
        )
    total = sum(table.bytes for table in manifest.tables)
    done = rows = 0
    async with as_owner(database) as connection, connection.transaction():
        here = await tables_of(connection)
        _ensure_same_tables(backup, here)
        await _ensure_empty(connection, here)
        async with unguarded(connection, here):
            await connection.execute("DELETE FROM operator")
            for table in _in_order(manifest.tables, here):
                if table.table in ("partial_sum", "hourly_usage"):
                    await ensure_partitions(connection, manifest.partitions)
                rows += await _copy(connection, backup, table)
                done += table.bytes
                progress("restore", done, total)
                step("restored-table")
            for name, column, last in manifest.sequences:
                await set_sequence(connection, name, column, last)
        wrong = await unbalanced(connection)
        if wrong is not None:
            raise _bad(backup, f"an entry of its journal does not balance ({wrong})")
        made_at = datetime.fromisoformat(manifest.made_at)
        for operator in (INSTALLATION, *manifest.operators):
            await mark_unfinished(connection, operator, made_at, now)
        step("restoring")
    step("restored")
    return rows


def check_keys(backup: Backup, root: Path) -> None:
    """Refusals: `file_differs` where another key than the backup's lies under a key's name; `bad_backup` where a file's
    name leads out of the data folder: the digest of a backup says that it is whole, not who made it."""
    for path in backup.manifest.files:
        parts = path.split("/")
        if len(parts) < 2 or not {"", ".", ".."}.isdisjoint(parts) or "\0" in path or "\\" in path:
            raise _bad(backup, f"a file of it has a name that none of ours has: {path!r}")
    faults = [
        Fault("another key than the backup's", path)
        for path in _keys(backup)
        if (root / path).exists() and (root / path).read_bytes() != backup.file(path)
    ]
    if faults:
        raise Refusal(
            "file_differs",
            f"{len(faults)} keys of the data folder are not those of the backup",
            where=str(root),
            remedy="restore into an empty data folder, or move these away",
            faults=faults,
        )


def restore_files(backup: Backup, root: Path, held: Objects) -> int:
    """Puts back what is held, and private keys, with mode 0600, where the backup has them; returns how many were missing.

    Refusals: as `check_keys`, with nothing changed; `damaged_object` as `Objects.put`.
    """
    check_keys(backup, root)
    missing = [path for path in _keys(backup) if not (root / path).exists()]
    for path in missing:
        make_folder((root / path).parent)
        create_once(root / path, backup.file(path), mode=0o600)
    waiting = [path.removeprefix(HELD) for path in backup.manifest.files if path.startswith(HELD)]
    gone = [path for path in waiting if held.get(path) is None]
    for path in waiting:
        held.put([(path, backup.file(HELD + path))])
    return len(missing) + len(gone)


def _keys(backup: Backup) -> list[str]:
    return sorted(path for path in backup.manifest.files if path.startswith(KEYS))


async def _copy(connection: Connection, backup: Backup, table: TableRows) -> int:
    try:
        rows = await copy_in(connection, table, backup.rows(table))
    except asyncpg.PostgresError as error:
        raise _bad(backup, f"PostgreSQL does not take the rows of {table.table}: {error}") from error
    if rows != table.rows:
        raise _bad(backup, f"{table.table} has {rows} rows, its manifest says {table.rows}")
    return rows


async def _ensure_empty(connection: Connection, tables: Sequence[TableRows]) -> None:
    names = await filled(connection, tables)
    if names:
        raise Refusal(
            "not_empty",
            f"the database is not empty: there are rows in {', '.join(sorted(names))}",
            remedy="name an empty data folder with --data, or make a new database; to bring this one forward from the"
            " archive, run tally restore without a backup",
        )


def _ensure_same_tables(backup: Backup, here: Sequence[TableRows]) -> None:
    theirs = {table.table: table.columns for table in backup.manifest.tables}
    ours = {table.table: table.columns for table in here}
    if theirs != ours:
        differing = sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name))
        raise Refusal(
            "backup_version",
            f"these tables are not as they were when the backup was made: {', '.join(differing)}",
            where=str(backup.path),
            remedy=f"restore it with the Tallygrid that made it, {backup.manifest.tallygrid}",
        )


def _in_order(tables: Sequence[TableRows], here: Sequence[TableRows]) -> list[TableRows]:
    """The backup's tables in this database's order of references; the registry is what all others refer to."""
    place = {table.table: rank for rank, table in enumerate(here)}
    return sorted(tables, key=lambda table: place[table.table])


def _bad(backup: Backup, what: str) -> Refusal:
    return Refusal(
        "bad_backup",
        f"this backup cannot be restored: {what}",
        where=str(backup.path),
        remedy="take an older backup: what it lacks is brought forward from the archive",
    )
