"""`tally backup`, `tally restore`: a ledger in one file, and a ledger made of it and of the archive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

from adapters.backup import Taken, held_files, key_files, take_backup
from adapters.cli.framework import Context, Result, command, counted
from adapters.cli.progress import progress_bar
from adapters.cli.wiring import DataFolder, held_objects, now
from adapters.objects import FolderObjects


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
