"""CSV as text columns, each row with its line; one of more or fewer columns than the head is a fault."""

from __future__ import annotations

import csv
import functools
import io
import itertools
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from adapters.importing.source_file import CHUNK_BYTES, MAX_LINE_BYTES, SourceFile, TextChunk
from metering.refusal import Fault, Refusal


def read_csv(source: SourceFile, stream: Any) -> Iterator[TextChunk]:
    """Text chunks in file order. Refusals: unreadable_file, empty_file, duplicate_column."""
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
