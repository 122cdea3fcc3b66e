"""The rows of one import, all of them good, in their final order: sorted by (time, place in the file).

Decoded chunks wait in a scratch file (Arrow IPC) rather than in memory, so that what an import needs does not grow with
its file but for 16 bytes a row (time and place). The digest of the sorted rows is the import's identity: its epoch is
the first 128 bits of SHA-256 over one 160-byte structure a row,

    time, prompt, cached, completion, reasoning, generated, audio seconds    7 × int64, little-endian
    whether generated was given                                              int64, 0 or 1
    customer, model, outcome, request id, project, key                       6 × 16 bytes

where a text stands as the first 16 bytes of its SHA-256 and an absent one as zeros.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from adapters.importing.decode import ROW_SCHEMA

SLICE_ROWS = 10_000
NUMBERS = (
    "time",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "generated_tokens",
    "audio_seconds",
)
TEXTS = ("customer", "model", "outcome", "request_id", "project", "key")
CANONICAL = np.dtype(
    [*((name, "<i8") for name in NUMBERS), ("generated_given", "<i8"), *((name, "V16") for name in TEXTS)]
)


class ScratchRows:
    """Decoded rows on their way into order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, ROW_SCHEMA)
        self._times: list[npt.NDArray[np.int64]] = []

    def append(self, rows: pa.Table) -> None:
        if rows.num_rows:
            self._writer.write_table(rows)
            self._times.append(np.asarray(rows.column("time").combine_chunks()))

    def sorted(self) -> SortedRows:
        """Ends the writing; the rows in order, stable in the place in the file."""
        self._writer.close()
        self._sink.close()
        times = np.concatenate(self._times) if self._times else np.empty(0, np.int64)
        order = None if bool(np.all(times[1:] >= times[:-1])) else np.argsort(times, kind="stable")
        return SortedRows(pa.ipc.open_file(pa.memory_map(str(self._path))).read_all(), order)


class SortedRows:
    """Rows by rank. `order` maps a rank to the place in the scratch file; None where they were in order already."""

    def __init__(self, table: pa.Table, order: npt.NDArray[np.int64] | None) -> None:
        self._table = table
        self._order = order
        self.count: int = table.num_rows if order is None else len(order)

    def slice(self, start: int, count: int) -> pa.Table:
        """Up to `count` rows from rank `start` (0 is the first)."""
        if self._order is None:
            return self._table.slice(start, count)
        return self._table.take(pa.array(self._order[start : start + count]))

    def slices(self, size: int = SLICE_ROWS) -> Iterator[pa.Table]:
        for start in range(0, self.count, size):
            yield self.slice(start, size)

    def keep(self, wanted: npt.NDArray[np.bool_]) -> SortedRows:
        """Only the rows whose rank is wanted, in the same order."""
        order = np.arange(self.count) if self._order is None else self._order
        return SortedRows(self._table, order[wanted])

    def first_us(self) -> int:
        return int(self.slice(0, 1).column("time")[0].as_py())

    def last_us(self) -> int:
        return int(self.slice(self.count - 1, 1).column("time")[0].as_py())

    def distinct(self, column: str) -> list[str]:
        """The distinct texts of a column, sorted; nulls left out."""
        return sorted(text for text in pc.unique(self._table.column(column)).to_pylist() if text is not None)

    def any_of(self, column: str) -> bool:
        """Whether any row has this column."""
        return bool(self._table.column(column).null_count < self._table.num_rows)

    def epoch(self) -> str:
        """The first 128 bits of SHA-256 over the canonical rows, as 32 hex digits."""
        digest = hashlib.sha256()
        for rows in self.slices():
            digest.update(canonical_rows(rows).tobytes())
        return digest.hexdigest()[:32]


def canonical_rows(rows: pa.Table) -> npt.NDArray[np.void]:
    """The rows as their 160-byte structures."""
    made = np.zeros(rows.num_rows, dtype=CANONICAL)
    for name in NUMBERS:
        made[name] = np.asarray(pc.fill_null(rows.column(name), 0))
    made["generated_given"] = np.asarray(pc.cast(pc.is_valid(rows.column("generated_tokens")), pa.int64()))
    for name in TEXTS:
        made[name] = text_digests(rows.column(name))
    return made


def text_digests(column: pa.ChunkedArray) -> npt.NDArray[np.void]:
    """16 bytes for each text: the beginning of its SHA-256; zeros for none. Each distinct text is hashed once."""
    coded = pc.fill_null(column, "").combine_chunks().dictionary_encode()
    each = b"".join(text_digest(text) for text in coded.dictionary.to_pylist()) or bytes(16)
    spread: npt.NDArray[np.void] = np.frombuffer(each, dtype="V16")[coded.indices.to_numpy()]
    return spread


def text_digest(text: str) -> bytes:
    """The first 16 bytes of SHA-256 of a text; zeros for the empty one, which stands for none."""
    return hashlib.sha256(text.encode()).digest()[:16] if text else bytes(16)
