"""Columns to PostgreSQL's binary COPY format, without a Python loop over rows.

The format (PostgreSQL manual, COPY, "Binary Format"): a header of 19 bytes, then each row as a 16-bit count of fields
and each field as a 32-bit length (-1: null) and its bytes, big-endian, then a 16-bit -1. A row of (bigint 7, text 'a'):

    0002 | 00000008 0000000000000007 | 00000001 61

Neighbouring columns of fixed width become one numpy array of packed rows; texts are encoded once per dictionary entry;
Arrow joins the pieces row by row into one buffer, which is the payload as it stands.
Measured with cells of 18 columns: encoded at 3 M rows/s on one core; with PostgreSQL beside it 0.6 M rows/s in all,
where asyncpg's `copy_records_to_table` from Python values takes in 0.06 M.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres.database import driver

_HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_TRAILER = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
_EPOCH_2000_US = 946_684_800_000_000
_CHUNK_BYTES = 1 << 19


async def copy_table(conn: AsyncConnection, name: str, rows: pa.Table) -> None:
    """Appends `rows` to the table `name` in the connection's running transaction, column by column of the same name.

    Columns: int64 (bigint), int32 (integer), bool, timestamp[us] (timestamptz), binary(16) (uuid), and text as string
    or dictionary of strings; each may hold nulls.
    """
    if not rows.num_rows:
        return
    raw = await driver(conn)
    assert raw.is_in_transaction(), "rows are only ever written in the transaction that accepts their batch"
    await raw.copy_to_table(
        name, source=_chunks(binary_rows(rows)), columns=rows.column_names, format="binary"
    )


def binary_rows(rows: pa.Table) -> bytes:
    """The whole COPY payload of `rows`, header and trailer included."""
    if not rows.num_rows:
        return _HEADER + _TRAILER
    pieces: list[pa.Array] = []
    packed: list[tuple[str, npt.NDArray[np.generic]]] = [
        (">i2", np.full(rows.num_rows, rows.num_columns, np.int16))
    ]
    for column in rows.columns:
        array = column.combine_chunks()
        fixed = _fixed(array) if array.null_count == 0 else None
        if fixed is not None:
            packed.append((">i4", np.full(len(array), fixed[1].dtype.itemsize, np.int32)))
            packed.append(fixed)
            continue
        if packed:
            pieces.append(_packed(packed))
            packed = []
        pieces.append(_variable(array))
    if packed:
        pieces.append(_packed(packed))
    joined = pc.binary_join_element_wise(*pieces, pa.scalar(b"", pa.large_binary()))
    _, offsets, values = joined.buffers()
    ends = np.frombuffer(offsets, np.int64)
    return b"".join((_HEADER, values.slice(ends[joined.offset], ends[joined.offset + len(joined)]), _TRAILER))


def _fixed(array: pa.Array) -> tuple[str, npt.NDArray[np.generic]] | None:
    """The big-endian type and the values of a column of fixed width, or None for text."""
    kind = array.type
    if pa.types.is_int64(kind):
        return ">i8", array.to_numpy()
    if pa.types.is_int32(kind):
        return ">i4", array.to_numpy()
    if pa.types.is_boolean(kind):
        return "?", array.to_numpy(zero_copy_only=False)
    if pa.types.is_timestamp(kind):
        assert kind.unit == "us"
        return ">i8", array.cast(pa.int64()).to_numpy() - _EPOCH_2000_US
    if pa.types.is_fixed_size_binary(kind):
        start = array.offset * kind.byte_width
        raw = array.buffers()[1].slice(start, len(array) * kind.byte_width)
        return f"V{kind.byte_width}", np.frombuffer(raw, f"V{kind.byte_width}")
    return None


def _packed(columns: list[tuple[str, npt.NDArray[np.generic]]]) -> pa.Array:
    """Columns of fixed width side by side, as one column of byte strings."""
    rows = np.empty(len(columns[0][1]), np.dtype([(f"f{n}", kind) for n, (kind, _) in enumerate(columns)]))
    for n, (_, values) in enumerate(columns):
        rows[f"f{n}"] = values
    kind = pa.binary(rows.dtype.itemsize)
    return pa.FixedSizeBinaryArray.from_buffers(kind, len(rows), [None, pa.py_buffer(rows)]).cast(
        pa.large_binary()
    )


def _variable(array: pa.Array) -> pa.Array:
    """A column of text, or of fixed width with nulls, each value with its length before it."""
    fixed = None if array.null_count == len(array) else _fixed(array.drop_null())
    if fixed is not None:
        lengths = np.full(len(fixed[1]), fixed[1].dtype.itemsize, np.int32)
        present = _packed([(">i4", lengths), fixed])
        places = pc.if_else(
            array.is_valid(), pc.subtract(pc.cumulative_sum(array.is_valid().cast(pa.int64())), 1), None
        )
        return present.take(places).fill_null(_NULL)
    if array.null_count == len(array):
        return pa.nulls(len(array), pa.large_binary()).fill_null(_NULL)
    if not pa.types.is_dictionary(array.type):
        array = array.dictionary_encode()
    entries = [len(text).to_bytes(4, "big") + text for text in map(str.encode, array.dictionary.to_pylist())]
    return pa.array(entries, pa.large_binary()).take(array.indices).fill_null(_NULL)


async def _chunks(payload: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(payload), _CHUNK_BYTES):
        yield payload[start : start + _CHUNK_BYTES]
