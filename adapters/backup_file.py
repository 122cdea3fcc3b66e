"""The file of a backup: a tar, whose last member proves every bit before it.

    tables/operator.copy.zst      a table's rows, PostgreSQL's binary COPY format, zstd
    tables/site_document.copy.zst …
    held/telecentras/….seal       what is held, byte for byte
    keys/log/telecentras.key      private keys, mode 0600, only where they were asked for
    manifest.json                 what is in it: JSON, see `Manifest`
    sha256                        64 hex digits and a line feed: SHA-256 of the file up to this member's header

Any `tar` and any `zstd` read it. Members are written as they come, so that nothing has to fit into memory or is written
twice: a header (GNU's, for long names and for sizes over 8 GiB) is written again with the size when its member has ended.
After the last member come two blocks of zeros, and nothing else: the last 2,048 bytes of the file follow from those
before them, and there is no bit in it whose change would not show.

`verified` reads the file once from end to end, before anything is made of its content.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from metering.durable import fsync_folder
from metering.refusal import Refusal

FORMAT = "tallygrid/backup/v1"
MANIFEST = "manifest.json"
DIGEST = "sha256"

_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)
_TAIL = 2 * _BLOCK + len(_END)  # header and content of the last member, and the end of the tar
_PIECE = 1 << 20
_MOST_MANIFEST = 1 << 28


@dataclass(frozen=True, slots=True)
class TableRows:
    """A table in a backup. `columns`: (name, type) as PostgreSQL writes it; `sha256` is of the COPY stream itself."""

    table: str
    columns: tuple[tuple[str, str], ...]
    rows: int = 0
    bytes: int = 0
    sha256: str = ""

    @property
    def member(self) -> str:
        return f"tables/{self.table}.copy.zst"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup holds. `logs`: operator -> (size, root in hex) of its log; `partitions`: (operator, month) of usage;
    `sequences`: (table, column, last value); `files`: path in the data folder -> SHA-256."""

    made_at: str
    tallygrid: str
    schema: str
    server: str
    operators: tuple[str, ...]
    logs: dict[str, tuple[int, str]]
    partitions: tuple[tuple[str, str], ...]
    sequences: tuple[tuple[str, str, int], ...]
    keys: bool
    tables: tuple[TableRows, ...] = ()
    files: dict[str, str] = field(default_factory=dict)


class BackupWriter:
    """Writes a backup member by member into an open, empty, seekable file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    @contextmanager
    def member(self, name: str, *, mode: int = 0o600) -> Iterator[BinaryIO]:
        """A member of any length; what is written to the file inside the block is its content."""
        place = self._file.tell()
        self._file.write(_header(name, 0, mode))
        begin = self._file.tell()
        yield self._file
        size = self._file.tell() - begin
        self._file.write(bytes(-size % _BLOCK))
        after = self._file.tell()
        self._file.seek(place)
        self._file.write(_header(name, size, mode))
        assert self._file.tell() == begin, "a size takes no room of its own in a header"
        self._file.seek(after)

    def finish(self, manifest: Manifest) -> None:
        """The manifest, the digest, the end; the file is on disk afterwards."""
        with self.member(MANIFEST) as file:
            file.write(_json_of(manifest))
        self._file.flush()
        size = self._file.tell()
        self._file.seek(0)
        digest = _digest(self._file, size)
        self._file.seek(size)
        self._file.write(_tail(digest))
        self._file.flush()
        os.fsync(self._file.fileno())


class RowsWriter:
    """A table's COPY stream into a member: compressed piece by piece, counted and digested on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._codec = pa.Codec("zstd", 3)
        self._pending = bytearray()
        self._sha256 = hashlib.sha256()
        self._bytes = 0

    async def write(self, piece: bytes) -> None:
        self._pending += piece
        if len(self._pending) >= _PIECE:
            self._compress()

    def finish(self, table: TableRows, rows: int) -> TableRows:
        self._compress()
        return replace(table, rows=rows, bytes=self._bytes, sha256=self._sha256.hexdigest())

    def _compress(self) -> None:
        """One frame; frames after one another are one stream (RFC 8878, 3.1)."""
        if not self._pending:
            return
        piece = bytes(self._pending)
        self._pending.clear()
        self._sha256.update(piece)
        self._bytes += len(piece)
        self._file.write(self._codec.compress(piece, asbytes=True))


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that was read from end to end and is whole."""

    path: Path
    manifest: Manifest
    _places: dict[str, tuple[int, int]] = field(repr=False)

    def rows(self, table: TableRows) -> Iterator[bytes]:
        """The table's COPY stream, piece by piece. Refusal `bad_backup` at its end if it is not the one listed."""
        sha256 = hashlib.sha256()
        try:
            with (
                self._opened(table.member) as section,
                pa.CompressedInputStream(pa.PythonFile(section, "r"), "zstd") as stream,
            ):
                while piece := stream.read(_PIECE):
                    sha256.update(piece)
                    yield piece
        except (pa.ArrowException, OSError) as error:
            raise _bad(self.path, f"the rows of {table.table} cannot be read") from error
        if sha256.hexdigest() != table.sha256:
            raise _bad(self.path, f"the rows of {table.table} are not those of its manifest")

    def file(self, path: str) -> bytes:
        """One file of the data folder. Refusal: bad_backup."""
        with self._opened(path) as section:
            content = section.read()
        if hashlib.sha256(content).hexdigest() != self.manifest.files[path]:
            raise _bad(self.path, f"{path} is not the file of its manifest")
        return content

    def check(self) -> None:
        """Reads everything against the manifest. Refusal: bad_backup."""
        for table in self.manifest.tables:
            for _ in self.rows(table):
                pass
        for path in self.manifest.files:
            self.file(path)

    @contextmanager
    def _opened(self, member: str) -> Iterator[_Section]:
        if member not in self._places:
            raise _bad(self.path, f"it lacks {member}, which its manifest lists")
        with self.path.open("rb") as file:
            yield _Section(file, *self._places[member])


def verified(path: Path) -> Backup:
    """Opens a backup whose every bit is as it was written.

    Refusals: `no_backup` (no such file), `bad_backup` (damaged, cut short, or none of ours), `backup_version` (of a
    format that this version does not read).
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END) - _TAIL
            if size < _BLOCK:
                raise _bad(path, "it is too short to be one")
            file.seek(0)
            digest = _digest(file, size)
            if file.read() != _tail(digest):
                raise _bad(path, "its digest does not hold: it is damaged, cut short, or none of ours")
            file.seek(0)
            return _read(path, file)
    except OSError as error:
        raise Refusal(
            "no_backup",
            f"the backup cannot be read: {error.strerror}",
            where=str(path),
            remedy="name a file that `tally backup` wrote",
        ) from error


def _read(path: Path, file: BinaryIO) -> Backup:
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            places = {member.name: (member.offset_data, member.size) for member in tar if member.isreg()}
        offset, length = places[MANIFEST]
        if length > _MOST_MANIFEST:
            raise ValueError(length)
        file.seek(offset)
        content = json.loads(file.read(length))
        if content["format"] != FORMAT:
            raise Refusal(
                "backup_version",
                f"the backup has the format {content['format']}, this version reads {FORMAT}",
                where=str(path),
                remedy="use the Tallygrid that made it",
            )
        return Backup(path, _manifest_of(content), places)
    except (tarfile.TarError, KeyError, TypeError, ValueError) as error:
        raise _bad(path, "it holds no manifest of ours") from error


class _Section(io.RawIOBase):
    """A stretch of a file, as a file of its own."""

    def __init__(self, file: BinaryIO, offset: int, length: int) -> None:
        super().__init__()
        self._file = file
        self._left = length
        file.seek(offset)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._file.read(min(len(buffer), self._left))
        self._left -= len(piece)
        buffer[: len(piece)] = piece
        return len(piece)


def _json_of(manifest: Manifest) -> bytes:
    return json.dumps({"format": FORMAT, **asdict(manifest)}, ensure_ascii=False, indent=1).encode() + b"\n"


def _manifest_of(content: dict[str, Any]) -> Manifest:
    del content["format"]
    tables = tuple(
        TableRows(**{**table, "columns": tuple((name, kind) for name, kind in table["columns"])})
        for table in content["tables"]
    )
    return Manifest(
        **{
            **content,
            "operators": tuple(content["operators"]),
            "logs": {operator: (int(size), str(root)) for operator, (size, root) in content["logs"].items()},
            "partitions": tuple((operator, month) for operator, month in content["partitions"]),
            "sequences": tuple((table, column, int(last)) for table, column, last in content["sequences"]),
            "tables": tables,
        }
    )


def _header(name: str, size: int, mode: int) -> bytes:
    """A member's header, with GNU's blocks before it where the name is long. Nothing in it is of this machine."""
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = mode
    return member.tobuf(tarfile.GNU_FORMAT)


def _tail(digest: bytes) -> bytes:
    content = digest.hex().encode() + b"\n"
    return _header(DIGEST, len(content), 0o600) + content.ljust(_BLOCK, b"\0") + _END


def _digest(file: BinaryIO, size: int) -> bytes:
    """SHA-256 of the next `size` bytes."""
    sha256 = hashlib.sha256()
    while size and (piece := file.read(min(size, _PIECE))):
        sha256.update(piece)
        size -= len(piece)
    return sha256.digest()


def _bad(path: Path, what: str) -> Refusal:
    return Refusal(
        "bad_backup",
        f"this is no whole backup: {what}",
        where=str(path),
        remedy="take another copy of it, or an older backup: what it lacks is brought forward from the archive",
    )


def put_in_place(beside: Path, path: Path) -> None:
    """Gives the finished file its name, for good."""
    beside.replace(path)
    fsync_folder(path.parent)
