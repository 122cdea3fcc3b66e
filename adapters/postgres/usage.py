"""Usage read: columns for rating, grouped totals for `tally usage`.

Both read the view over partial sums and hourly usage in one statement, so a roll-up that runs beside them is seen
before or after, never half. Both name operator and a bounded range, so that only those partitions are opened.

Columns come by binary COPY and are read piece by piece (`adapters.postgres.copied_rows`) in a thread of their own, while
PostgreSQL makes the next. A customer's opaque id is looked up among the operator's, the three words of a row at once
among those seen before; so all chunks of the table share their dictionaries.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from uuid import UUID

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres.copied_rows import Layout, rows_of, texts_of
from adapters.postgres.copying import EPOCH_2000_US, HEADER, TRAILER
from adapters.postgres.database import driver
from adapters.postgres.schema import QUANTITY_COLUMNS, subject

_HOUR = pa.timestamp("us", "UTC")
_WORD = pa.dictionary(pa.int32(), pa.string())
_WORDS = ("node", "model", "outcome")
_READ = (
    ("hour", _HOUR),
    *((name, _WORD) for name in ("customer", *_WORDS)),
    ("band", pa.int64()),
    ("late", pa.bool_()),
)
_SENT = (("customer", "V16"), ("hour", ">i8"), ("band", ">i4"), ("late", "i1"))
# COPY takes no parameters; asyncpg writes the arguments as literals, with which the planner prunes.
_CELLS = "SELECT {columns} FROM usage_cell WHERE operator = $1 AND hour >= $2 AND hour < $3"
_CELLS_OF_CUSTOMERS = f"{_CELLS} AND customer = ANY($4::uuid[])"
_PIECE_BYTES = 1 << 22
_PIECES_WAITING = 4  # beyond these PostgreSQL waits for us


async def usage_table(
    conn: AsyncConnection,
    operator: str,
    start: datetime,
    end: datetime,
    customer: str | None = None,
    quantities: Sequence[str] = QUANTITY_COLUMNS,
) -> pa.Table:
    """Usage of the hours [start, end) as rating reads it (`billing.hourly`), a row a cell or a part of one.

    Columns: hour timestamp[us, UTC]; customer, node, model, outcome dictionaries of text (customer: the id as the
    user wrote it, or the opaque id where that was erased); band int64; late bool; quantities int64. Projects and keys
    are left out, rows that differ only there stay apart. `customer`: only that one's, by an index. `quantities`: only
    these, for each costs a tenth of a row.
    A row takes PostgreSQL 1.1 µs of a core and us 0.8 µs beside it, and 110 bytes; the pieces that wait are 30 MB more
    (`python -m bench reading`).
    """
    names = await slugs(conn, operator, ("customer",))
    cells = _Cells({id_.bytes: slug for id_, slug in names.items()}, quantities)
    ids = [id_ for id_, slug in names.items() if slug == customer]
    asked, which = (_CELLS, ()) if customer is None else (_CELLS_OF_CUSTOMERS, (ids,))
    assert set(quantities) <= set(QUANTITY_COLUMNS), "names of columns become part of the statement"
    asked = asked.format(columns=", ".join(cells.sent))
    raw = await driver(conn)
    with ThreadPoolExecutor(1, "usage") as thread:
        pieces = _Pieces(cells, thread)
        await raw.copy_from_query(asked, operator, start, end, *which, output=pieces.receive, format="binary")
        return cells.table(await pieces.all())


class _Pieces:
    """The stream cut into pieces of whole rows, each read in `thread`; at most `_PIECES_WAITING` of them wait."""

    def __init__(self, cells: _Cells, thread: ThreadPoolExecutor) -> None:
        self._cells = cells
        self._thread = thread
        self._received = bytearray()
        self._skip = len(HEADER)
        self._waiting: deque[Future[pa.RecordBatch]] = deque()
        self._read: list[pa.RecordBatch] = []

    async def receive(self, sent: bytes) -> None:
        """Takes what the driver hands over: whole messages, and so whole rows."""
        if len(self._received) + len(sent) > _PIECE_BYTES and len(self._received) > self._skip:
            await self._begin()
        self._received += sent

    async def all(self) -> list[pa.RecordBatch]:
        """Every piece, in the order in which it came, once the stream has ended."""
        assert self._received.endswith(TRAILER), "a stream ends with its trailer"
        del self._received[-len(TRAILER) :]
        if len(self._received) > self._skip:
            await self._begin()
        while self._waiting:
            await self._next()
        return self._read

    async def _begin(self) -> None:
        piece = bytes(memoryview(self._received)[self._skip :])
        self._received, self._skip = bytearray(), 0
        self._waiting.append(self._thread.submit(self._cells.read, piece))
        if len(self._waiting) > _PIECES_WAITING:
            await self._next()

    async def _next(self) -> None:
        self._read.append(await asyncio.wrap_future(self._waiting.popleft()))


class _Cells:
    """Rows as columns; customers and words under codes that hold for all pieces."""

    def __init__(self, names: dict[bytes, str], quantities: Sequence[str]) -> None:
        self._quantities = quantities
        self._layout = Layout((*_SENT, *((name, ">i8") for name in quantities)), texts=len(_WORDS))
        self._schema = pa.schema([*_READ, *((name, pa.int64()) for name in quantities)])
        self._ids = pa.array(list(names), pa.binary(16))
        self._customers = list(names.values())
        self._tails: dict[bytes, tuple[int, ...]] = {}
        self._words: tuple[dict[str, int], ...] = tuple({} for _ in _WORDS)

    @property
    def sent(self) -> Sequence[str]:
        """The columns as they are asked for."""
        return [*(name for name, _ in self._layout.front), *_WORDS]

    def read(self, piece: bytes) -> pa.RecordBatch:
        """A piece's rows, codes in the place of words."""
        rows = rows_of(piece, self._layout)
        front = rows.front
        columns: list[pa.Array] = [
            pa.array(front["hour"].astype(np.int64) + EPOCH_2000_US).view(_HOUR),
            self._customer(front["customer"]),
            *self._coded(rows.texts),
            pa.array(front["band"].astype(np.int64)),
            pa.array(front["late"].astype(np.bool_)),
            *(pa.array(front[name].astype(np.int64)) for name in self._quantities),
        ]
        return pa.RecordBatch.from_arrays(columns, self._schema.names)

    def table(self, batches: Sequence[pa.RecordBatch]) -> pa.Table:
        """All pieces, words and all."""
        words = {
            "customer": self._customers,
            **{n: list(w) for n, w in zip(_WORDS, self._words, strict=True)},
        }
        read = pa.Table.from_batches(batches) if batches else self._schema.empty_table()
        columns = []
        for name in self._schema.names:
            column = read[name]
            if name in words and batches:
                said = pa.array(words[name], pa.string())
                chunks = [pa.DictionaryArray.from_arrays(chunk, said) for chunk in column.chunks]
                column = pa.chunked_array(chunks, _WORD)
            columns.append(column)
        return pa.table(columns, schema=self._schema)

    def _customer(self, ids: npt.NDArray[np.void]) -> pa.Array:
        sent = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(16), len(ids), [None, pa.py_buffer(np.ascontiguousarray(ids))]
        )
        codes = pc.index_in(sent, self._ids)
        if codes.null_count:  # erased: there is no name any more
            unknown = pc.unique(sent.filter(codes.is_null()))
            self._ids = pa.concat_arrays([self._ids, unknown])
            self._customers += [str(UUID(bytes=id_)) for id_ in unknown.to_pylist()]
            codes = pc.index_in(sent, self._ids)
        return codes

    def _coded(self, texts: pa.BinaryArray) -> list[pa.Array]:
        encoded = texts.dictionary_encode()
        codes = [self._tail(tail) for tail in encoded.dictionary.to_pylist()]
        return [
            pa.array([code[n] for code in codes], pa.int32()).take(encoded.indices)
            for n in range(len(_WORDS))
        ]

    def _tail(self, tail: bytes) -> tuple[int, ...]:
        if tail not in self._tails:
            texts = texts_of(tail, len(_WORDS))
            self._tails[tail] = tuple(
                words.setdefault(text, len(words)) for words, text in zip(self._words, texts, strict=True)
            )
        return self._tails[tail]


async def slugs(conn: AsyncConnection, operator: str, kinds: Sequence[str]) -> dict[UUID, str]:
    """Opaque id -> the id as the user wrote it, of the operator's subjects of these kinds."""
    rows = await conn.execute(
        select(subject.c.id, subject.c.slug).where(subject.c.operator == operator, subject.c.kind.in_(kinds))
    )
    return {row.id: row.slug for row in rows}
