"""Opens a file of usage rows as chunks of text columns, whatever its format.

CSV, JSON Lines and CloudEvents (also .gz, .zst) and Parquet all become the same thing: Arrow tables in which every value
is the text that stood there, with the line (or row) that each came from. What the text means is `decode`'s business,
so a number is read by one piece of code and no reader guesses types on the way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from adapters.importing.csv_rows import read_csv
from adapters.importing.json_rows import read_cloud_events, read_json_lines
from adapters.importing.source_file import CHUNK_ROWS, SourceFile, TextChunk
from metering.refusal import Refusal


def open_source(path: Path) -> SourceFile:
    """Tells the format by the name. Refusals: no_such_file, not_a_file, unknown_format."""
    if not path.exists():
        remedy = "look at its name; a path is taken from the folder in which the command is given"
        raise Refusal("no_such_file", "there is no such file", where=str(path), remedy=remedy)
    if not path.is_file():
        what = (
            "this is a folder" if path.is_dir() else "this is no regular file, and an import reads it twice"
        )
        remedy = "name one file of usage rows; what a pipe carries is to be kept in a file first"
        raise Refusal("not_a_file", what, where=str(path), remedy=remedy)
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


def text_chunks(source: SourceFile) -> Iterator[TextChunk]:
    """Text chunks in file order. Refusals: unreadable_file (with what the reader said)."""
    try:
        with source.path.open("rb") as raw:
            source.bytes_read = raw.tell
            # All is read on this thread: one of Arrow's that called Python would outlive a refusal, and Python's end.
            yield from _READERS[source.format](source, _decompressed(raw, source.path))
    except (OSError, EOFError) as problem:
        raise Refusal(
            "unreadable_file",
            f"the file cannot be read to its end: {problem}",
            where=str(source.path),
            remedy="is it whole?",
        ) from None
    except pa.ArrowInvalid as problem:
        raise Refusal(
            "unreadable_file",
            f"not a readable {source.format} file: {_first_line(problem)}",
            where=str(source.path),
            remedy="is it whole, and what its name says?",
        ) from None


def file_digest(path: Path) -> str:
    """SHA-256 of the raw file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _decompressed(raw: BinaryIO, path: Path) -> Any:
    codec = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix.lower())
    return pa.CompressedInputStream(pa.PythonFile(raw, "r"), codec) if codec else raw


def _first_line(problem: Exception) -> str:
    return str(problem).splitlines()[0][:300]


def _read_parquet(_source: SourceFile, stream: Any) -> Iterator[TextChunk]:
    row = 1
    for batch in pq.ParquetFile(stream).iter_batches(batch_size=CHUNK_ROWS, use_threads=False):
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
    "CSV": read_csv,
    "JSON Lines": read_json_lines,
    "CloudEvents": read_cloud_events,
    "Parquet": _read_parquet,
}
