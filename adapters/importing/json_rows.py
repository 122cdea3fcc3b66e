"""JSON Lines and CloudEvents as text columns, each row with its line, or with its place in an array.

CloudEvents (JSON event format of the CloudEvents specification 1.0.2, one event a line, or one JSON array): the members
of `data` are the columns; `id`, `time` and `subject` are `request_id`, `time` and `customer` where `data` has none.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from adapters.importing.source_file import CHUNK_BYTES, CHUNK_ROWS, MAX_LINE_BYTES, SourceFile, TextChunk
from metering.refusal import Fault, Refusal

_SAVE_AS_UTF_8 = "save the file as UTF-8; a compressed one is named .gz or .zst"
CLOUD_EVENT_COLUMNS = {"id": "request_id", "time": "time", "subject": "customer"}


def read_json_lines(source: SourceFile, stream: Any) -> Iterator[TextChunk]:
    """One object a line; empty lines are none. Refusals: unreadable_file."""
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


def read_cloud_events(source: SourceFile, stream: Any) -> Iterator[TextChunk]:
    """A JSON array of events, one event, or one event a line. Refusals: unreadable_file."""
    buffered = io.BufferedReader(_Readable(stream), CHUNK_BYTES)
    if buffered.peek(64).lstrip()[:1] != b"[":
        yield from read_json_lines(source, buffered)
        return
    events = _array(source, buffered.read())
    rows = [_flat(source, number, event) for number, event in enumerate(events, start=1)]
    good = [(row, number) for number, row in enumerate(rows, start=1) if row is not None]
    for start in range(0, len(good), CHUNK_ROWS):
        part = good[start : start + CHUNK_ROWS]
        yield _chunk([row for row, _ in part], [number for _, number in part])


def _array(source: SourceFile, text: bytes) -> list[Any]:
    try:
        events: list[Any] = json.loads(text, parse_int=str, parse_float=str, object_pairs_hook=_once_each)
    except RecursionError:
        what, remedy = "lists or objects nested too deep", "an event's `data` is one flat object"
    except UnicodeDecodeError:
        what, remedy = "the array is not UTF-8 text", _SAVE_AS_UTF_8
    except ValueError as problem:
        what, remedy = f"not a JSON array: {problem}", "is the file whole? one event a line is read as well"
    else:
        return events
    raise Refusal("unreadable_file", what, where=str(source.path), remedy=remedy)


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
                "unreadable_file",
                "the line is not UTF-8 text",
                where=source.where(number),
                remedy=_SAVE_AS_UTF_8,
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


class _Readable(io.RawIOBase):
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        got = self._stream.read(len(buffer))
        buffer[: len(got)] = got
        return len(got)
