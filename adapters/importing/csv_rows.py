"""CSV as text columns, each row with its line; one of more or fewer columns than the head is a fault.

The file is read here, on the import's own thread, and cut into blocks of whole rows, each of which Arrow then takes from
memory. Arrow's own streaming reader asks for the next bytes on a thread of its own, which outlives a refusal: Python ends
beneath it, and the process with it (SIGABRT). Whole rows also keep each fault's line exact, and a quote that is never
closed is named instead of taking all rows behind it for text.
"""

from __future__ import annotations

import csv
import functools
import itertools
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from adapters.importing.source_file import CHUNK_BYTES, MAX_LINE_BYTES, SourceFile, TextChunk
from metering.refusal import Fault, Refusal

# Ctrl-C is the command's to answer: Arrow's own handler of the signal would end it with an exception of Arrow's.
pa.enable_signal_handlers(False)

# A field is quoted from its first byte on, or not at all; what stands behind the closing quote belongs to it.
# Each has one way to match, so nothing is tried twice. (Possessive repeats would say so, and match too little before
# Python 3.11.5: github.com/python/cpython/issues/106052.)
_FIELD = rb'(?:"[^"]*(?:""[^"]*)*"(?!")[^,\n]*|(?!")[^,\n]*)'
_ROWS = re.compile(rb"(?:" + _FIELD + rb"(?:," + _FIELD + rb")*\n){1,256}")
_NO_LINE = "is a line end missing, or a quote not closed? a compressed file is named .gz or .zst"


def read_csv(source: SourceFile, stream: Any) -> Iterator[TextChunk]:
    """Text chunks in file order. Refusals: unreadable_file, empty_file, duplicate_column."""
    first, rest = _first_line(source, stream)
    names = _column_names(source, first)
    # The head says which columns there are, also where no row follows.
    yield TextChunk(pa.table({name: pa.array([], pa.string()) for name in names}), pa.array([], pa.int64()))
    line = 2
    for block in _blocks(source, stream, rest):
        yield _chunk(source, names, block, line)
        line += block.count(b"\n")


def _first_line(source: SourceFile, stream: Any) -> tuple[bytes, bytes]:
    """The first line without its end, and what was read behind it."""
    text = b""
    while b"\n" not in text and (more := stream.read(min(CHUNK_BYTES, 65_536))):
        if len(text) > MAX_LINE_BYTES:
            raise _too_long(source, 1)
        text += more
    first, _, rest = text.partition(b"\n")
    return first, rest


def _column_names(source: SourceFile, first: bytes) -> list[str]:
    where = source.where(1)
    try:
        head = first.decode("utf-8-sig").rstrip("\r")
    except UnicodeDecodeError:
        raise Refusal(
            "unreadable_file",
            "the first line is not UTF-8 text",
            where=where,
            remedy="save it as UTF-8; a compressed file is named .gz or .zst",
        ) from None
    if "\r" in head:
        raise Refusal(
            "unreadable_file",
            "lines end with CR alone, as old Macs wrote them",
            where=where,
            remedy="save it with LF or CRLF line ends",
        )
    try:
        names = [] if not head.strip() else next(csv.reader([head]))
    except csv.Error:  # a name of more than 128 KiB
        raise _too_long(source, 1) from None
    if not names:
        raise Refusal(
            "empty_file",
            "the file has no head with column names",
            where=where,
            remedy="its first line names the columns: time,customer,model,prompt_tokens,completion_tokens",
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Refusal(
            "duplicate_column",
            f"columns that stand twice in the head: {', '.join(twice)}",
            where=where,
            remedy="leave each name to one column: rename or remove the other",
        )
    return names


def _blocks(source: SourceFile, stream: Any, rest: bytes) -> Iterator[bytes]:
    """What follows the head, in pieces of whole rows; `rest` was read already."""
    line = 2
    while more := stream.read(CHUNK_BYTES):
        rest += more
        end = _end_of_rows(rest)
        if end:
            yield rest[:end]
            line += rest.count(b"\n", 0, end)
            rest = rest[end:]
        elif len(rest) > MAX_LINE_BYTES:
            raise _too_long(source, line)
    if not rest:
        return
    whole = rest if rest.endswith(b"\n") else rest + b"\n"
    end = _end_of_rows(whole)
    if end < len(whole):
        raise Refusal(
            "unreadable_file",
            "the row has a quote that is never closed",
            where=source.where(line + whole.count(b"\n", 0, end)),
            remedy="close it, or double a quote that is meant as one; is the file cut short?",
        )
    yield rest


def _end_of_rows(text: bytes) -> int:
    """Where the last whole row ends in `text`, which begins with one. A line end within quotes ends no row."""
    if b'"' not in text:
        return text.rfind(b"\n") + 1
    end = 0
    while found := _ROWS.match(text, end):
        end = found.end()
    return end


def _chunk(source: SourceFile, names: list[str], block: bytes, line: int) -> TextChunk:
    """The rows of a block, whose first one stands at `line`."""
    skipped: set[int] = set()

    def invalid(row: Any) -> str:
        at = line + row.number - 1
        skipped.add(at)
        what = f"the row has {row.actual_columns} columns where the head has {row.expected_columns}"
        source.faults.append(Fault(what, source.where(at), "is it cut in half, or a comma not quoted?"))
        return "skip"

    try:
        rows = pa_csv.read_csv(
            pa.BufferReader(block),
            read_options=pa_csv.ReadOptions(block_size=len(block) + 1, use_threads=False, column_names=names),
            parse_options=pa_csv.ParseOptions(invalid_row_handler=invalid, ignore_empty_lines=False),
            convert_options=pa_csv.ConvertOptions(
                column_types={name: pa.string() for name in names},
                strings_can_be_null=False,
                quoted_strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid:
        _refuse_other_text(source, block, line)
        raise
    numbers = pa.array(_lines_around(line, rows.num_rows, skipped), pa.int64())
    written = _any_text(rows)
    return TextChunk(rows.filter(written), numbers.filter(written))


def _refuse_other_text(source: SourceFile, block: bytes, line: int) -> None:
    """Refuses a block that is not UTF-8 throughout, by its first such line."""
    try:
        block.decode()
    except UnicodeDecodeError as problem:
        raise Refusal(
            "unreadable_file",
            "the line is not UTF-8 text",
            where=source.where(line + block.count(b"\n", 0, problem.start)),
            remedy="save the file as UTF-8 (another program may have written Latin-1 or Windows-1252)",
        ) from None


def _too_long(source: SourceFile, line: int) -> Refusal:
    return Refusal(
        "unreadable_file",
        f"the row that begins here does not end within {MAX_LINE_BYTES >> 20} MiB",
        where=source.where(line),
        remedy=_NO_LINE,
    )


def _any_text(rows: pa.Table) -> pa.Array:
    """Which rows hold any text: an empty line is no row."""
    empty = [pc.equal(column, "").combine_chunks() for column in rows.columns]
    return pc.invert(functools.reduce(pc.and_, empty))


def _lines_around(line: int, count: int, skipped: set[int]) -> list[int]:
    """The lines of `count` good rows from `line` on, where the lines in `skipped` held none."""
    return list(islice((at for at in itertools.count(line) if at not in skipped), count))
