"""`tally backup`, `tally restore`: a ledger in one file, and a ledger made of it and of the archive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

from adapters.archive import BatchObjects
from adapters.archived_logs import archived_logs, archived_operators
from adapters.backup import Taken, held_files, key_files, take_backup
from adapters.backup_file import Backup, verified
from adapters.bring_forward import bring_forward
from adapters.cli.framework import Context, Result, command, counted
from adapters.cli.progress import Told, progress_bar
from adapters.cli.wiring import archive_objects, held_objects
from adapters.data_folder import DataFolder, now
from adapters.held_again import take_held_again
from adapters.log_replay import Brought
from adapters.objects import FolderObjects
from adapters.postgres.database import INSTALLATION, Database
from adapters.restoring import check_keys, restore_files, restore_rows
from adapters.uncovered import Uncovered


class _Uncovered(StrEnum):
    """How `adapters.uncovered.decide` is told."""

    refuse = "refuse"
    take = "take"
    leave = "leave"


def register(app: typer.Typer) -> None:
    @command(app, "backup", path="backup", example="tally backup --out .")
    async def backup(
        context: Context,
        out: Annotated[
            Path,
            typer.Option(
                "--out", metavar="FILE|DIR", help="The file to write, or a folder: the name then says when."
            ),
        ],
        with_keys: Annotated[
            bool,
            typer.Option(
                "--with-keys", help="Private keys too: who has the backup can then sign in your name."
            ),
        ] = False,
    ) -> Result:
        """Write the whole database, as it is at one moment, and what is held into one file.

        The archive is not in it: back it up by its own means, more often, because an older backup is brought forward
        from it. The file is read back and checked before it gets its name.
        """
        folder = DataFolder(context.data)
        made_at = now()
        if out.is_dir():
            out = out / f"tally-{made_at:%Y%m%dT%H%M%S.%fZ}.tar"
        with progress_bar(context.stderr) as told:
            async with context.database() as database:
                taken = await take_backup(
                    database,
                    out.absolute(),
                    files=_files(folder, with_keys),
                    keys=with_keys,
                    made_at=made_at,
                    progress=told,
                )
        if with_keys:
            context.say(f"{out} holds private keys: whoever reads it can sign in your name.")
        return Result(_document(taken), _said(taken))

    @command(app, "restore", path="restore", example="tally restore")
    async def restore(
        context: Context,
        backup: Annotated[
            Path | None,
            typer.Argument(metavar="[BACKUP]", help="A file that `tally backup` wrote. Default: none."),
        ] = None,
        uncovered: Annotated[
            _Uncovered,
            typer.Option(
                "--uncovered",
                help="What to do with changes that were archived and that no checkpoint covers: refuse and name them,"
                " take them, or leave them.",
            ),
        ] = _Uncovered.refuse,
    ) -> Result:
        """Make the database of a backup, and bring it forward from the archive: same numbers, same totals.

        Without a backup the database is brought forward as it is; an empty one is made of the archive alone. What does
        not fit is refused by name, and the database then stays read-only.
        """
        folder = DataFolder(context.data)
        folder.make()
        with progress_bar(context.stderr) as told:
            found = None if backup is None else await asyncio.to_thread(_checked, backup)
            async with context.database() as database:
                rows = 0
                if found is not None:
                    check_keys(found, folder.root)
                    rows = await restore_rows(database, found, now(), told)
                    restore_files(found, folder.root, held_objects(folder))
                brought = await _forward(folder, database, uncovered.value, told)
                held = await take_held_again(database, archive_objects(folder), held_objects(folder), now)
        document = {
            "backup": None if found is None else {"file": str(found.path), "made_at": found.manifest.made_at},
            "rows": rows,
            "held": held,
            "operators": [asdict(each) for each in brought],
        }
        return Result(document, _restored(found, rows, brought))


async def _forward(folder: DataFolder, database: Database, uncovered: Uncovered, told: Told) -> list[Brought]:
    objects = archive_objects(folder)
    operators = {*await database.operators(), INSTALLATION}
    operators |= await asyncio.to_thread(archived_operators, objects)
    return await bring_forward(
        database,
        objects,
        await asyncio.to_thread(archived_logs, objects, folder.keys, operators),
        now=now(),
        held=BatchObjects(held_objects(folder)),
        uncovered=uncovered,
        progress=told,
    )


def _checked(path: Path) -> Backup:
    """The backup, read to its last bit before anything is made of it."""
    backup = verified(path)
    backup.check()
    return backup


def _restored(backup: Backup | None, rows: int, brought: Sequence[Brought]) -> list[str]:
    lines = []
    if backup is not None:
        lines.append(f"{counted(rows, 'row')} of the backup of {backup.manifest.made_at}")
    for each in brought:
        name = "the installation" if each.operator == INSTALLATION else each.operator
        lines.append(
            f"{name}: {counted(each.leaves, 'change')} brought forward from the archive, of them"
            f" {counted(each.batches, 'batch', 'batches')} with {counted(each.events, 'event')};"
            f" {counted(each.heartbeats, 'heartbeat')} between them; its log has"
            f" {counted(each.size, 'leaf', 'leaves')} as signed"
            + ("" if each.proved else ", by whom was not checked: its key is not here")
        )
        lines += _behind(each)
        if each.drafts_dropped:
            lines.append(
                f"  {counted(each.drafts_dropped, 'draft')} dropped: close the period again to draft them"
            )
        if each.uncovered_taken:
            lines.append(f"  {counted(each.uncovered_taken, 'change')} taken that no checkpoint covers")
        if each.uncovered_left:
            lines.append(f"  {counted(each.uncovered_left, 'change')} left that no checkpoint covers")
    return lines or ["nothing to restore: the archive holds no log"]


def _behind(brought: Brought) -> list[str]:
    """What was accepted and no checkpoint covers."""
    lines = []
    if brought.behind_batches:
        lines.append(
            f"  {counted(brought.behind_batches, 'batch', 'batches')} with {counted(brought.behind_events, 'event')}"
            " taken in that no checkpoint covers, as accepted now"
        )
    if brought.bound_passed:
        lines.append(
            f"  events of {', '.join(brought.bound_passed)} among them are reported, not billed: whether they came in"
            " time is not known"
        )
    lines += [f"  left in the archive: {left.where}: {left.what}" for left in brought.left]
    return lines


def _files(folder: DataFolder, with_keys: bool) -> Callable[[], Iterator[tuple[str, Callable[[], bytes]]]]:
    held = held_objects(folder)
    # A bucket is kept by who runs it; a folder by us.
    in_folder = isinstance(held, FolderObjects)
    return lambda: chain(held_files(held) if in_folder else (), key_files(folder.root) if with_keys else ())


def _document(taken: Taken) -> dict[str, Any]:
    manifest = taken.backup.manifest
    return {
        "file": str(taken.backup.path),
        "bytes": taken.bytes,
        "made_at": manifest.made_at,
        "schema": manifest.schema,
        "operators": list(manifest.operators),
        "rows": {table.table: table.rows for table in manifest.tables},
        "logs": [
            {"operator": each, "size": size, "root": root} for each, (size, root) in manifest.logs.items()
        ],
        "files": len(manifest.files),
        "keys": manifest.keys,
    }


def _said(taken: Taken) -> str:
    manifest = taken.backup.manifest
    rows = counted(sum(table.rows for table in manifest.tables), "row")
    keys = "with" if manifest.keys else "without"
    return (
        f"{taken.backup.path}: {rows} of {counted(len(manifest.tables), 'table')},"
        f" {counted(len(manifest.operators), 'operator')}, {taken.bytes:,} bytes, {keys} private keys"
    )
