"""The canonical bytes of a usage event: the leaf of the Merkle tree, and the frame of the write-ahead file.

Parquet has many ways to write one event; a proof needs exactly one. Canonical form 1 is a fixed part of 177 bytes and
two texts. Integers are big-endian, signed ones two's complement. An absent id or figure is zeroes and has its bit in
`present` clear, so that every event has one canonical form and every form is one event.

    offset  bytes  what
         0      1  form, 1
         1      1  kind: 0 usage, 1 amendment, 2 void
         2      1  outcome: 0 finished, 1 aborted, 2 failed, 3 interrupted
         3      1  present: 1 names, 2 project, 4 key, 8 generated_tokens, 16 request_digest,
                   32 whole_prompt (sum)
         4      2  length of endpoint in bytes
         6      2  length of model in bytes
         8      8  sequence
        16      8  time, µs since 1970-01-01T00:00Z
        24     16  request
        40     16  names
        56     16  customer
        72     16  project
        88     16  key
       104      8  prompt_tokens
       112      8  cached_tokens
       120      8  completion_tokens
       128      8  reasoning_tokens
       136      8  generated_tokens
       144      8  audio_seconds
       152      8  whole_prompt
       160     16  request_digest
       176      1  reason: 0 none, else its place in metering.event.REASONS, from 1
       177      …  endpoint, then model, in UTF-8

Example: sequence 1, a usage event of 2026-10-05T08:00:00Z (1791187200000000 µs), finished, request `11`×16, customer
`22`×16, no project, key `33`×16, endpoint `chat`, model `m`, 1000 prompt tokens of which 200 cached, 50 completion
tokens, no engine's figure. In hex:

    01 00 00 04 0004 0001 0000000000000001 00065d1344c84000 11111111111111111111111111111111
    00000000000000000000000000000000 22222222222222222222222222222222 00000000000000000000000000000000
    33333333333333333333333333333333 00000000000003e8 00000000000000c8 0000000000000032
    0000000000000000 0000000000000000 0000000000000000 0000000000000000 00000000000000000000000000000000 00
    63686174 6d

The leaf does not name its lane: the seal that holds the tree's root does.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from metering.columns import Mask, figures, integers, valid, whole, word_codes
from metering.event import EVENT_SCHEMA, ID, KINDS, OUTCOMES, REASONS, Event

FORM = 1
NAMES, PROJECT, KEY, GENERATED, REQUEST_DIGEST, WHOLE_PROMPT = 1, 2, 4, 8, 16, 32
FIXED = struct.Struct(">BBBBHHqq16s16s16s16s16sqqqqqqq16sB")
SEQUENCE_OFFSET = 8
TIME_OFFSET = 16

_COLUMNS = np.dtype(
    [
        ("form", "u1"),
        ("kind", "u1"),
        ("outcome", "u1"),
        ("present", "u1"),
        ("endpoint_bytes", ">u2"),
        ("model_bytes", ">u2"),
        ("sequence", ">i8"),
        ("time", ">i8"),
        ("request", "V16"),
        ("names", "V16"),
        ("customer", "V16"),
        ("project", "V16"),
        ("key", "V16"),
        ("prompt_tokens", ">i8"),
        ("cached_tokens", ">i8"),
        ("completion_tokens", ">i8"),
        ("reasoning_tokens", ">i8"),
        ("generated_tokens", ">i8"),
        ("audio_seconds", ">i8"),
        ("whole_prompt", ">i8"),
        ("request_digest", "V16"),
        ("reason", "u1"),
    ]
)
assert _COLUMNS.itemsize == FIXED.size == 177

_INT64 = struct.Struct(">q")
_pack = FIXED.pack
_USAGE = KINDS.index("usage")
_KIND_CODES = {word: code for code, word in enumerate(KINDS)}
_OUTCOME_CODES = {word: code for code, word in enumerate(OUTCOMES)}
_REASON_CODES: dict[str | None, int] = {None: 0} | {word: code for code, word in enumerate(REASONS, 1)}
_ID_BITS = {"names": NAMES, "project": PROJECT, "key": KEY, "request_digest": REQUEST_DIGEST}
_FIGURE_BITS = {"generated_tokens": GENERATED, "whole_prompt": WHOLE_PROMPT}
_NO_ID = bytes(16)
_INTEGER_COLUMNS = (
    "sequence",
    "time",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "audio_seconds",
)


def pack(event: Event, sequence: int, time_us: int) -> bytes:
    """The canonical bytes of one event under its sequence number and (perhaps raised) time; for the hot path."""
    endpoint = event.endpoint.encode()
    model = event.model.encode()
    names, project, key, digest = event.names, event.project, event.key, event.request_digest
    generated, whole_prompt = event.generated_tokens, event.whole_prompt
    present = 0
    if names is not None:
        present = NAMES
    if project is not None:
        present |= PROJECT
    if key is not None:
        present |= KEY
    if generated is not None:
        present |= GENERATED
    if digest is not None:
        present |= REQUEST_DIGEST
    if whole_prompt is not None:
        present |= WHOLE_PROMPT
    fixed = _pack(
        FORM,
        _KIND_CODES[event.kind],
        _OUTCOME_CODES[event.outcome],
        present,
        len(endpoint),
        len(model),
        sequence,
        time_us,
        event.request,
        names or _NO_ID,
        event.customer,
        project or _NO_ID,
        key or _NO_ID,
        event.prompt_tokens,
        event.cached_tokens,
        event.completion_tokens,
        event.reasoning_tokens,
        generated or 0,
        event.audio_seconds,
        whole_prompt or 0,
        digest or _NO_ID,
        _REASON_CODES[event.reason],
    )
    return fixed + endpoint + model


def leaves(table: pa.Table) -> list[bytes]:
    """The canonical bytes of each row of a table of EVENT_SCHEMA."""
    rows = np.zeros(table.num_rows, dtype=_COLUMNS)
    rows["form"] = FORM
    rows["kind"] = _codes(table, "kind", _KIND_CODES)
    rows["outcome"] = _codes(table, "outcome", _OUTCOME_CODES)
    rows["reason"] = _codes(table, "reason", _REASON_CODES)
    for name in _INTEGER_COLUMNS:
        rows[name] = integers(table, name)
    present = np.zeros(table.num_rows, dtype=np.uint8)
    for name in ("request", "customer", *_ID_BITS):
        ids, known = _ids(table, name)
        rows[name][known] = ids[known]
        present |= known.astype(np.uint8) * np.uint8(_ID_BITS.get(name, 0))
    for name, bit in _FIGURE_BITS.items():
        rows[name], told = figures(table, name)
        present |= np.uint8(bit) if told is None else told.astype(np.uint8) * np.uint8(bit)
    rows["present"] = present

    endpoint_codes, endpoints = _texts(table, "endpoint")
    model_codes, models = _texts(table, "model")
    rows["endpoint_bytes"] = np.array([len(t) for t in endpoints] or [0])[endpoint_codes]
    rows["model_bytes"] = np.array([len(t) for t in models] or [0])[model_codes]
    tails = [endpoint + model for endpoint in endpoints for model in models]
    tail_codes = (endpoint_codes * max(len(models), 1) + model_codes).tolist()
    fixed, size = rows.tobytes(), FIXED.size
    return [
        fixed[at : at + size] + tails[code]
        for at, code in zip(range(0, len(fixed), size), tail_codes, strict=True)
    ]


def table_of(packed: Sequence[bytes]) -> pa.Table:
    """The table of EVENT_SCHEMA whose `leaves` are these (they come from `pack`: this is no check of strangers)."""
    size = FIXED.size
    rows = np.frombuffer(b"".join([leaf[:size] for leaf in packed]), dtype=_COLUMNS)
    endpoint_ends = (rows["endpoint_bytes"].astype(np.int64) + size).tolist()
    columns: dict[str, pa.Array] = {
        "kind": _words(rows["kind"], KINDS),
        "outcome": _words(rows["outcome"], OUTCOMES),
        "reason": _reasons(rows["reason"]),
        "endpoint": _texts_array(
            [leaf[size:end] for leaf, end in zip(packed, endpoint_ends, strict=True)],
        ),
        "model": _texts_array([leaf[end:] for leaf, end in zip(packed, endpoint_ends, strict=True)]),
    }
    for field in EVENT_SCHEMA:
        if field.name in columns:
            continue
        if field.type == ID:
            absent = (rows["present"] & _ID_BITS[field.name]) == 0 if field.nullable else None
            columns[field.name] = id_array(rows[field.name].tobytes(), absent)
        else:
            absent = (rows["present"] & _FIGURE_BITS[field.name]) == 0 if field.nullable else None
            values = pa.array(rows[field.name].astype(np.int64), pa.int64(), mask=absent)
            columns[field.name] = values.view(field.type)
    return pa.Table.from_arrays([columns[name] for name in EVENT_SCHEMA.names], schema=EVENT_SCHEMA)


def sequence_of(leaf: bytes) -> int:
    """The sequence number in the canonical bytes of an event."""
    return int(_INT64.unpack_from(leaf, SEQUENCE_OFFSET)[0])


def time_us_of(leaf: bytes) -> int:
    """The time in the canonical bytes of an event, µs."""
    return int(_INT64.unpack_from(leaf, TIME_OFFSET)[0])


def request_of(leaf: bytes) -> bytes:
    """The request id in the canonical bytes of an event."""
    return leaf[24:40]


def names_of(leaf: bytes) -> bytes:
    """The request that the canonical bytes of an amendment or void name."""
    return leaf[40:56]


def is_witnessed(leaf: bytes) -> bool:
    """Whether the canonical bytes say what the engine generated."""
    return bool(leaf[3] & GENERATED)


def is_usage(leaf: bytes) -> bool:
    """Whether the canonical bytes are those of a usage event."""
    return leaf[1] == _USAGE


def id_array(ids: bytes, absent: Mask | None = None) -> pa.Array:
    """A column of ids from 16 bytes a row; null where `absent` is true."""
    count = len(ids) // 16
    validity = None
    if absent is not None and absent.any():
        validity = pa.py_buffer(np.packbits(~absent, bitorder="little").tobytes())
    return pa.Array.from_buffers(ID, count, [validity, pa.py_buffer(ids)])


def _ids(table: pa.Table, column: str) -> tuple[npt.NDArray[np.void], Mask]:
    array = whole(table, column)
    values = array.buffers()[1] if len(array) else None
    if values is None:
        return np.zeros(len(array), dtype="V16"), np.zeros(len(array), dtype=bool)
    return np.frombuffer(values, dtype="V16", count=len(array), offset=16 * array.offset), valid(array)


def _codes(table: pa.Table, column: str, code_of: Mapping[Any, int]) -> npt.NDArray[np.int64]:
    codes, words = word_codes(table, column)
    # Null has the code −1, so it takes the last of these, which is what null stands for.
    return np.array([*(code_of[word] for word in words), code_of.get(None, 0)])[codes]


def _texts(table: pa.Table, column: str) -> tuple[npt.NDArray[np.int64], list[bytes]]:
    codes, words = word_codes(table, column)
    return codes, [word.encode() for word in words]


def _words(codes: npt.NDArray[np.uint8], words: tuple[str, ...]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(words, pa.string()))


def _reasons(codes: npt.NDArray[np.uint8]) -> pa.Array:
    indices = pa.array(codes.astype(np.int32) - 1, mask=codes == 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(REASONS, pa.string()))


def _texts_array(texts: list[bytes]) -> pa.Array:
    return pa.array(texts, pa.binary()).dictionary_encode().cast(pa.dictionary(pa.int32(), pa.string()))
