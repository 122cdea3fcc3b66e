"""Opens a file of usage rows as chunks of text columns, whatever its format.

CSV, JSON Lines and CloudEvents (also .gz, .zst) and Parquet all become the same thing: Arrow tables in which every value
is the text that stood there, with the line (or row) that each came from. What the text means is `decode`'s business,
so a number is read by one piece of code and no reader guesses types on the way.

CloudEvents (JSON event format of the CloudEvents specification 1.0.2, one event a line, or one JSON array): the members
of `data` are the columns; `id`, `time` and `subject` are `request_id`, `time` and `customer` where `data` has none.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from metering.refusal import Fault, Refusal

CHUNK_ROWS = 65_536
CHUNK_BYTES = 8 << 20
MAX_LINE_BYTES = 16 << 20

CLOUD_EVENT_COLUMNS = {"id": "request_id", "time": "time", "subject": "customer"}


@dataclass(frozen=True, slots=True)
class TextChunk:
    """Rows as text. `lines[i]` is where row i stood in the file, from 1 (Parquet: the row)."""

    columns: pa.Table
    lines: pa.Array


@dataclass(slots=True)
class SourceFile:
    """A file being read: how much has gone by, and the rows that could not even be cut into columns."""

    path: Path
    format: str
    bytes_total: int
    bytes_read: Callable[[], int] = lambda: 0
    faults: list[Fault] = field(default_factory=list)

    def chunks(self) -> Iterator[TextChunk]:
        """Text chunks in file order. Refusals: unreadable_file (with what the reader said)."""
        try:
            with self.path.open("rb") as raw:
                self.bytes_read = raw.tell
                yield from _READERS[self.format](self, _decompressed(raw, self.path))
        except (OSError, EOFError) as problem:
            raise Refusal(
                "unreadable_file",
                f"the file cannot be read to its end: {problem}",
                where=str(self.path),
                remedy="is it whole?",
            ) from None
        except pa.ArrowInvalid as problem:
            raise Refusal(
                "unreadable_file",
                f"not a readable {self.format} file: {_first_line(problem)}",
                where=str(self.path),
                remedy="is it whole, UTF-8, and are its rows of a sensible length?",
            ) from None

    def where(self, line: int) -> str:
        return f"{self.path.name}:{line}" if self.format != "Parquet" else f"{self.path.name}: row {line}"


def open_source(path: Path) -> SourceFile:
    """Tells the format by the name. Refusals: no_such_file, unknown_format."""
    if not path.is_file():
        raise Refusal("no_such_file", "there is no such file", where=str(path))
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in {".gz", ".zst"}:
        suffixes.pop()
    kind = {
        ".csv": "CSV",
        ".parquet": "Parquet",
        ".jsonl": "JSON Lines",
        ".ndjson": "JSON Lines",
        ".json": "CloudEvents",
    }.get(suffixes[-1] if suffixes else "")
    if kind is None:
        raise Refusal(
            "unknown_format",
            f"cannot tell the format of {path.name}",
            where=str(path),
            remedy="name it .csv, .jsonl, .json (CloudEvents) or .parquet; .gz and .zst may follow",
        )
    return SourceFile(path, kind, path.stat().st_size)


def file_digest(path: Path) -> str:
    """SHA-256 of the raw file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _decompressed(raw: BinaryIO, path: Path) -> Any:
    codec = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix.lower())
    return pa.CompressedInputStream(pa.PythonFile(raw, "r"), codec) if codec else raw


def _first_line(problem: Exception) -> str:
    return str(problem).splitlines()[0][:300]


def _read_csv(source: SourceFile, stream: Any) -> Iterator[TextChunk]:
    skipped: set[int] = set()

    def invalid(row: Any) -> str:
        line = row.number or 0
        skipped.add(line)
        what = f"the row has {row.actual_columns} columns where the head has {row.expected_columns}"
        source.faults.append(Fault(what, source.where(line), "is it cut in half, or a comma not quoted?"))
        return "skip"

    head = _CsvHead(stream)
    names = head.names(source)
    reader = pa_csv.open_csv(
        head,
        read_options=pa_csv.ReadOptions(block_size=CHUNK_BYTES, use_threads=False, column_names=names),
        parse_options=pa_csv.ParseOptions(invalid_row_handler=invalid, ignore_empty_lines=False),
        convert_options=pa_csv.ConvertOptions(
            column_types={name: pa.string() for name in names},
            strings_can_be_null=False,
            quoted_strings_can_be_null=False,
        ),
    )
    line = 1
    for batch in reader:
        lines = _lines_around(line, batch.num_rows, skipped)
        line = lines[-1] + 1 if lines else line
        rows, numbers = pa.Table.from_batches([batch]), pa.array(lines, pa.int64())
        written = _any_text(rows)
        yield TextChunk(rows.filter(written), numbers.filter(written))


def _any_text(rows: pa.Table) -> pa.Array:
    """Which rows hold any text: an empty line is no row, nor is the place where the head stood."""
    empty = [pc.equal(column, "").combine_chunks() for column in rows.columns]
    return pc.invert(functools.reduce(pc.and_, empty))


def _lines_around(line: int, count: int, skipped: set[int]) -> list[int]:
    """The lines of `count` good rows from `line` on, where the lines in `skipped` held none."""
    return list(islice((at for at in itertools.count(line) if at not in skipped), count))


class _CsvHead(io.RawIOBase):
    """Takes the first line off a stream, as column names, and hands on the rest."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._rest = b""

    def names(self, source: SourceFile) -> list[str]:
        text = b""
        while b"\n" not in text and len(text) < MAX_LINE_BYTES:
            more = self._stream.read(65_536)
            if not more:
                break
            text += more
        first, _, self._rest = text.partition(b"\n")
        # The line is put back as an empty one, so that the reader's row numbers are the file's lines.
        self._rest = b"\n" + self._rest
        try:
            head = first.decode("utf-8-sig").rstrip("\r")
        except UnicodeDecodeError:
            raise Refusal(
                "unreadable_file",
                "the first line is not UTF-8 text",
                where=source.where(1),
                remedy="save it as UTF-8; a compressed file is named .gz or .zst",
            ) from None
        if "\r" in head:
            raise Refusal(
                "unreadable_file",
                "lines end with CR alone, as old Macs wrote them",
                where=source.where(1),
                remedy="save it with LF or CRLF line ends",
            )
        names = [] if not head.strip() else next(csv.reader([head]))
        if not names:
            raise Refusal("empty_file", "the file has no head with column names", where=source.where(1))
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise Refusal(
                "duplicate_column",
                f"columns that stand twice in the head: {', '.join(twice)}",
                where=source.where(1),
            )
        return names

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self._rest:
            taken, self._rest = (self._rest, b"") if size < 0 else (self._rest[:size], self._rest[size:])
            return taken
        return bytes(self._stream.read(size) if size >= 0 else self._stream.read())


def _read_json_lines(source: SourceFile, stream: Any) -> Iterator[TextChunk]:
    rows: list[dict[str, str | None]] = []
    lines: list[int] = []
    for number, text in enumerate(_text_lines(stream, source), start=1):
        if not text.strip():
            continue
        row = _json_row(source, number, text)
        if row is not None:
            rows.append(row)
            lines.append(number)
        if len(rows) == CHUNK_ROWS:
            yield _chunk(rows, lines)
            rows, lines = [], []
    if rows:
        yield _chunk(rows, lines)


def _read_cloud_events(source: SourceFile, stream: Any) -> Iterator[TextChunk]:
    """A JSON array of events, one event, or one event a line."""
    buffered = io.BufferedReader(_Readable(stream), CHUNK_BYTES)
    if buffered.peek(64).lstrip()[:1] != b"[":
        yield from _read_json_lines(source, buffered)
        return
    try:
        events = json.loads(buffered.read(), parse_int=str, parse_float=str, object_pairs_hook=_once_each)
    except (ValueError, RecursionError) as problem:
        raise Refusal("unreadable_file", f"not a JSON array: {problem}", where=str(source.path)) from None
    rows = [_flat(source, number, event) for number, event in enumerate(events, start=1)]
    good = [(row, number) for number, row in enumerate(rows, start=1) if row is not None]
    for start in range(0, len(good), CHUNK_ROWS):
        part = good[start : start + CHUNK_ROWS]
        yield _chunk([row for row, _ in part], [number for _, number in part])


class _Readable(io.RawIOBase):
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        got = self._stream.read(len(buffer))
        buffer[: len(got)] = got
        return len(got)


def _text_lines(stream: Any, source: SourceFile) -> Iterator[str]:
    reader = (
        stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(_Readable(stream), CHUNK_BYTES)
    )
    number = 0
    while line := reader.readline(MAX_LINE_BYTES):
        number += 1
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise Refusal(
                "unreadable_file", "the line is not UTF-8 text", where=source.where(number)
            ) from None


def _json_row(source: SourceFile, number: int, text: str) -> dict[str, str | None] | None:
    try:
        value = json.loads(text, parse_int=str, parse_float=str, object_pairs_hook=_once_each)
    except RecursionError:
        source.faults.append(Fault("nested too deep", source.where(number), "a row is one flat object"))
        return None
    except ValueError as problem:
        source.faults.append(Fault(f"not JSON: {problem}", source.where(number), "is the line cut in half?"))
        return None
    return _flat(source, number, value)


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The members of an object, of which none may stand twice: nobody could say which of the two counts."""
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"the key {twice[0]!r} stands twice")
    return members


def _flat(source: SourceFile, number: int, value: Any) -> dict[str, str | None] | None:
    """One JSON object as columns of text; a CloudEvent is opened."""
    if isinstance(value, dict) and "specversion" in value:
        inner = value.get("data")
        if not isinstance(inner, dict):
            source.faults.append(Fault("the CloudEvent has no object `data`", source.where(number)))
            return None
        value = {
            CLOUD_EVENT_COLUMNS[name]: value[name] for name in CLOUD_EVENT_COLUMNS if name in value
        } | inner
    if not isinstance(value, dict):
        source.faults.append(Fault("a row must be a JSON object", source.where(number)))
        return None
    row: dict[str, str | None] = {}
    for name, item in value.items():
        if isinstance(item, dict | list):
            continue  # such a member cannot be one of our columns; mapping it is refused as an unknown column
        row[name] = item if item is None or isinstance(item, str) else str(item).lower()
    return row


def _chunk(rows: list[dict[str, str | None]], lines: list[int]) -> TextChunk:
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: pa.array([row.get(name) for row in rows], pa.string()) for name in names}
    return TextChunk(pa.table(columns), pa.array(lines, pa.int64()))


def _read_parquet(_source: SourceFile, stream: Any) -> Iterator[TextChunk]:
    row = 1
    for batch in pq.ParquetFile(stream).iter_batches(batch_size=CHUNK_ROWS):
        columns = {
            name: _as_text(batch.column(name))
            for name in batch.schema.names
            if not pa.types.is_nested(batch.schema.field(name).type)
        }
        yield TextChunk(pa.table(columns), pa.array(range(row, row + batch.num_rows), pa.int64()))
        row += batch.num_rows


def _as_text(column: pa.Array) -> pa.Array:
    kind = column.type
    if pa.types.is_timestamp(kind):
        text = pc.strftime(column.cast(pa.timestamp("us", kind.tz), safe=False), "%Y-%m-%dT%H:%M:%S")
        if kind.tz is not None:
            # strftime prints local time of the column's zone; the instant itself is what counts.
            utc = column.cast(pa.timestamp("us", "UTC"), safe=False)
            text = pc.binary_join_element_wise(pc.strftime(utc, "%Y-%m-%dT%H:%M:%S"), "Z", "")
        return text.cast(pa.string())
    return column.cast(pa.string())


_READERS: dict[str, Callable[[SourceFile, Any], Iterator[TextChunk]]] = {
    "CSV": _read_csv,
    "JSON Lines": _read_json_lines,
    "CloudEvents": _read_cloud_events,
    "Parquet": _read_parquet,
}
