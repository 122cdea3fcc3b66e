"""A backup: everything of the database, and of the data folder what lies nowhere else.

    one REPEATABLE READ snapshot of every table of every operator ─▶ FILE.new ─▶ read back, every bit ─▶ FILE

What is held belongs to it (its senders have let it go, and the archive does not have it). Private keys do only where
they are asked for, since a backup with them can sign in this installation's name. The archive does not: it is backed up
by its own means, more often than the database, because from it an older backup is brought forward.

A killed backup leaves FILE.new and no FILE; the next one writes over it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from hashlib import sha256
from importlib.metadata import version as version_of
from pathlib import Path

from adapters.backup_file import (
    Backup,
    BackupWriter,
    Manifest,
    RowsWriter,
    TableRows,
    put_in_place,
    verified,
)
from adapters.log_remembered import SUFFIX
from adapters.postgres.database import INSTALLATION, Database
from adapters.postgres.dump import (
    Connection,
    as_owner,
    copy_out,
    partitions_of,
    sequences_of,
    tables_of,
)
from adapters.postgres.migrate import HEAD
from billing.objects import Objects
from metering.instant import time_text
from metering.refusal import Refusal, Unavailable

#: Where in a backup, and in a data folder, lies what is held, and the keys.
HELD, KEYS = "held/", "keys/"

Progress = Callable[[str, int, int], None]
#: Path in the data folder, and what reads it.
Files = Callable[[], Iterator[tuple[str, Callable[[], bytes]]]]

_SIZES = """
    SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
"""


@dataclass(frozen=True, slots=True)
class Taken:
    """A backup that was written, read back and found whole."""

    backup: Backup
    bytes: int


async def take_backup(
    database: Database,
    out: Path,
    *,
    files: Files,
    keys: bool,
    made_at: datetime,
    progress: Progress = lambda _what, _done, _total: None,
) -> Taken:
    """Writes a backup of the database and of `files` to `out`. `keys` says whether private keys are among the files.

    Refusals: `no_owner_login`, `bad_out` (the file is there, or its folder can't be written). `Unavailable`
    (`backup_unwritten`, or the database's): then there is no file.
    """
    if out.exists():  # noqa: ASYNC240 - a command's loop has nothing else to do
        raise Refusal(
            "bad_out", "a file of this name is there", where=str(out), remedy="name another, or remove it"
        )
    beside = out.with_name(out.name + ".new")
    try:
        with _errors_named(out):
            await _write(database, beside, files, keys, made_at, progress)
            verified(beside).check()
            put_in_place(beside, out)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    return Taken(verified(out), out.stat().st_size)  # noqa: ASYNC240 - as above


async def _write(
    database: Database,
    beside: Path,
    files: Files,
    keys: bool,
    made_at: datetime,
    progress: Progress,
) -> None:
    # Names of customers and digests of keys are in it: nobody else's to read. What lies there is a killed backup's, or
    # somebody's who would like to read this one: it is never written into.
    beside.unlink(missing_ok=True)  # noqa: ASYNC240 - as above
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(beside, flags, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        writer = BackupWriter(file)
        # Before the snapshot and after it: a batch that is held or accepted meanwhile is not missing from both.
        digests = _copy_files(writer, files, {})
        async with (
            as_owner(database) as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            tables = await _copy_tables(connection, writer, progress)
            manifest = await _manifest(connection, tables, made_at, keys)
        writer.finish(replace(manifest, files=_copy_files(writer, files, digests)))


def _copy_files(writer: BackupWriter, files: Files, known: dict[str, str]) -> dict[str, str]:
    """Adds the files that are not `known` yet; path -> SHA-256 of them all."""
    digests = dict(known)
    for path, read in files():
        if path in digests:
            continue
        with contextlib.suppress(FileNotFoundError):  # accepted meanwhile
            content = read()
            with writer.member(path) as member:
                member.write(content)
            digests[path] = sha256(content).hexdigest()
    return digests


async def _copy_tables(
    connection: Connection, writer: BackupWriter, progress: Progress
) -> tuple[TableRows, ...]:
    copied = []
    total = await connection.fetchval(_SIZES)
    done = 0
    for table in await tables_of(connection):
        with writer.member(table.member) as member:
            rows = RowsWriter(member)

            async def write(piece: bytes, rows: RowsWriter = rows) -> None:
                nonlocal done
                await rows.write(piece)
                done += len(piece)
                progress("backup", min(done, total), total)

            copied.append(rows.finish(table, await copy_out(connection, table, write)))
    return tuple(copied)


async def _manifest(
    connection: Connection, tables: tuple[TableRows, ...], made_at: datetime, keys: bool
) -> Manifest:
    operators = await connection.fetch("SELECT operator FROM operator ORDER BY operator")
    logs = await connection.fetch("SELECT operator, size, root FROM log_head ORDER BY operator")
    return Manifest(
        made_at=time_text(int(made_at.timestamp()) * 1_000_000 + made_at.microsecond),
        tallygrid=version_of("tallygrid"),
        schema=HEAD,
        server=str(await connection.fetchval("SHOW server_version")),
        operators=tuple(row["operator"] for row in operators if row["operator"] != INSTALLATION),
        logs={row["operator"]: (row["size"], row["root"].hex()) for row in logs},
        partitions=await partitions_of(connection),
        sequences=await sequences_of(connection),
        keys=keys,
        tables=tables,
    )


def held_files(held: Objects) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """What is held, with what reads it."""
    for name in held.list(""):
        yield HELD + name, partial(_got, held, name)


def _got(objects: Objects, name: str) -> bytes:
    content = objects.get(name)
    if content is None:
        raise FileNotFoundError(name)
    return content


def key_files(root: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """The private keys of a data folder, and the secret that ids are signed with; not the sidecars' copy of API keys, nor
    what the logs' keys signed last."""
    for path in sorted((root / "keys").rglob("*")):
        copied = path.parent == root / "keys" and path.match(
            "snapshot-*.json"
        )  # of a sidecar; no key of ours
        if path.is_file() and not copied and path.suffix not in (".new", SUFFIX):
            yield path.relative_to(root).as_posix(), path.read_bytes


@contextlib.contextmanager
def _errors_named(out: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise Refusal(
            "bad_out",
            f"the folder cannot be written: {error.strerror}",
            where=str(out.parent),
            remedy="make it, or name another with --out",
        ) from error
    except OSError as error:
        raise Unavailable(
            "backup_unwritten",
            f"the backup cannot be written: {error.strerror}",
            where=str(error.filename or out),
            remedy="free the disk, or name another place with --out",
        ) from error
