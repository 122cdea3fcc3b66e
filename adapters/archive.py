"""Batches in a folder: the archive of everything accepted, and, apart from it, what is held.

A batch is two files side by side, `PATH.seal` (the signed note, byte for byte) and `PATH.parquet` (the body, byte for
byte; a heartbeat has none). `put` returns when files and the names of files and folders are on disk, so that a
transaction that is committed afterwards never lists what a power cut took away. The archive's Parquet files are read
as they lie there: `SELECT … FROM 'archive/telecentras/**/*.parquet'` in DuckDB.

A file is written beside its place and renamed, so a reader never meets half of one. Names hold a digest of what is in
them, so writing the same again changes nothing, and other bytes under such a name are damage, which is mended.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

from billing.intake_ports import StoredBatch
from metering.durable import fsync_folder, make_folder, write_file
from metering.refusal import Unavailable

_SEAL = ".seal"
_BODY = ".parquet"


class BatchFolder:
    """Batches by path below `root`, which is made if it is missing. Blocking; safe among threads and processes."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lasting: set[Path] = set()

    def put(self, batches: Sequence[StoredBatch]) -> None:
        """Stores them, on disk when this returns; `Unavailable` if the disk does not take them."""
        with _translated(self._root):
            touched: dict[Path, None] = {}
            for batch in batches:
                place = self._place(batch.path)
                self._make_folder(place.parent)
                files = [(_SEAL, batch.note)]
                if batch.body:
                    files.insert(0, (_BODY, batch.body))  # a seal that is there has its body
                for suffix, content in files:
                    _write_once(place.with_name(place.name + suffix), content)
                touched[place.parent] = None
            for folder in touched:
                fsync_folder(folder)

    def get(self, path: str) -> StoredBatch | None:
        """The batch at `path`, or None if there is none (any more)."""
        with _translated(self._root):
            place = self._place(path)
            try:
                note = place.with_name(place.name + _SEAL).read_bytes()
            except FileNotFoundError:
                return None
            try:
                body = place.with_name(place.name + _BODY).read_bytes()
            except FileNotFoundError:
                body = b""
            return StoredBatch(path, note, body)

    def remove(self, paths: Sequence[str]) -> None:
        """Takes them away; it does not matter whether they are there."""
        with _translated(self._root):
            for path in paths:
                place = self._place(path)
                for suffix in (_SEAL, _BODY):
                    place.with_name(place.name + suffix).unlink(missing_ok=True)

    def _make_folder(self, folder: Path) -> None:
        """The folder, its name and those above it on disk: one that is there may be from a process that was killed
        before it had made the name last, so the first use by this process makes sure."""
        make_folder(folder)
        if folder in self._lasting:
            return
        above = folder
        while above != self._root:
            above = above.parent
            fsync_folder(above)
        self._lasting.add(folder)

    def _place(self, path: str) -> Path:
        place = self._root / path
        assert ".." not in place.parts, "paths are built from checked names"
        return place


def _write_once(place: Path, content: bytes) -> None:
    with contextlib.suppress(FileNotFoundError):
        if place.read_bytes() == content:
            return
    # Chance keeps two writers of one file apart; what a killed one leaves is a stray that nobody reads.
    beside = place.with_name(f".{place.name}.{secrets.token_hex(8)}.new")
    write_file(beside, content)
    beside.replace(place)


@contextlib.contextmanager
def _translated(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(
            "archive_unavailable",
            f"batches can't be stored or read: {error.strerror}",
            where=str(error.filename or root),
            remedy="free or mend the disk; intake goes on by itself",
        ) from error
