"""Many batches of a lane's day in two large objects, with everything that proves them.

    OPERATOR/DAY/NODE/LANE/joined-DIGEST.parquet    the events of all its batches, a batch after the other
    OPERATOR/DAY/NODE/LANE/_joined-DIGEST.seals     their seals, byte for byte, and which rows are whose

The first is Parquet in the columns and encodings of a body (`metering.body`), without columns of its own, so that readers
of the archive meet the same events as before. Row groups hold some 100,000 events, a batch in one of them. Where there
are only heartbeats, it is absent.
The second is Parquet too (zstd), a row a batch in the order of the events:

    epoch text, number int64, hash text     the batch; its path was OPERATOR/DAY/NODE/LANE/EPOCH-NUMBER-HASH
    first_row int64, rows int64             its events: rows first_row … first_row + rows − 1 of the first object
    note binary                             the signed seal, byte for byte; HASH is its SHA-256

with the metadata `tallygrid` = `tallygrid/joined/v1` and `body_sha256` = SHA-256 of the first object ('' without one).
DIGEST is SHA-256 of the second object, so each name holds a digest of what is in both.

What stays provable: signature, chain, numbers and control totals by the seal; every event and its place by the root in
the seal, made again from the canonical bytes of its rows. What doesn't: `body_sha256` and `body_bytes` of the seals, which
speak of Parquet files that are gone; the root says the same of their content.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from metering.body import FORMAT_KEY, as_parquet, event_file, event_writer
from metering.event import EVENT_SCHEMA
from metering.refusal import Refusal
from metering.seal import seal_hash

JOINED_FORMAT = b"tallygrid/joined/v1"
PREFIX = "joined-"
_BODY_SHA256 = b"body_sha256"
_ROW_GROUP = 100_000
_SEALS = pa.schema(
    [
        pa.field("epoch", pa.string(), nullable=False),
        pa.field("number", pa.int64(), nullable=False),
        pa.field("hash", pa.string(), nullable=False),
        pa.field("first_row", pa.int64(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("note", pa.binary(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A batch within a joined file: `epoch-number-hash`, its signed seal, its rows."""

    name: str
    note: bytes
    first_row: int
    rows: int

    @property
    def hash(self) -> str:
        """SHA-256 of the note, as the name says."""
        return self.name.rpartition("-")[2]


@dataclass(frozen=True, slots=True)
class Joined:
    """A joined file by its name (`joined-DIGEST`, without folder): what its seals object holds."""

    name: str
    body_sha256: str | None
    entries: tuple[Entry, ...]


def join(batches: Iterable[tuple[str, bytes, pa.Table | None]]) -> tuple[Joined, bytes, bytes]:
    """Joins batches, (`epoch-number-hash`, note, events or None for a heartbeat), in their order.

    Returns what it is, the seals object and the events object (b"" without events). Events are held for some 100,000 at
    a time; both objects are in memory.
    """
    sink = io.BytesIO()
    entries: list[Entry] = []
    with event_writer(sink, JOINED_FORMAT) as writer:
        waiting: list[pa.Table] = []
        at, written = 0, 0
        for name, note, events in batches:
            rows = 0 if events is None else events.num_rows
            entries.append(Entry(name, note, at, rows))
            at += rows
            if events is not None and rows:
                waiting.append(as_parquet(events))
            if at - written >= _ROW_GROUP:
                _write(writer, waiting)
                written = at
        _write(writer, waiting)
    body = sink.getvalue() if at else b""
    body_sha256 = sha256(body).hexdigest() if at else None
    seals = _encode(entries, body_sha256)
    return Joined(PREFIX + sha256(seals).hexdigest(), body_sha256, tuple(entries)), seals, body


def read_joined(name: str, seals: bytes) -> Joined:
    """What the seals object of `name` holds. Refusal `damaged_object`, unless every digest is right."""
    if name != PREFIX + sha256(seals).hexdigest():
        raise _damaged(name, "its SHA-256 is not the one in its name")
    try:
        table = pq.read_table(pa.BufferReader(seals))
    except (pa.ArrowException, OSError, ValueError) as fault:
        raise _damaged(name, str(fault)) from None
    metadata = table.schema.metadata or {}
    if metadata.get(FORMAT_KEY) != JOINED_FORMAT or not table.schema.remove_metadata().equals(_SEALS):
        raise _damaged(name, f"it does not say that it is {JOINED_FORMAT.decode()}")
    entries = tuple(
        Entry(f"{row['epoch']}-{row['number']}-{row['hash']}", row["note"], row["first_row"], row["rows"])
        for row in table.to_pylist()
    )
    for entry in entries:
        if entry.hash != seal_hash(entry.note):
            raise _damaged(name, f"the seal of {entry.name} is another one")
    return Joined(name, metadata[_BODY_SHA256].decode() or None, entries)


class JoinedEvents:
    """The events of a joined file, batch by batch; keeps the row group that was decoded last. For one thread.

    Refusal `damaged_object` where `body` is not what stood beside the seals.
    """

    def __init__(self, joined: Joined, body: bytes) -> None:
        if sha256(body).hexdigest() != joined.body_sha256:
            raise _damaged(joined.name, "the SHA-256 of its events is not the one beside its seals")
        self._file = event_file(pa.BufferReader(body))
        groups = self._file.metadata
        self._ends = np.cumsum([groups.row_group(index).num_rows for index in range(groups.num_row_groups)])
        self._decoded = -1
        self._held = EVENT_SCHEMA.empty_table()

    def of(self, entry: Entry) -> pa.Table:
        """The batch's events (EVENT_SCHEMA)."""
        if not entry.rows:
            return EVENT_SCHEMA.empty_table()
        group = int(np.searchsorted(self._ends, entry.first_row, "right"))
        if group != self._decoded:
            self._held = self._file.read_row_group(group, use_threads=False).cast(EVENT_SCHEMA)
            self._decoded = group
        begin = int(self._ends[group - 1]) if group else 0
        return self._held.slice(entry.first_row - begin, entry.rows).unify_dictionaries().combine_chunks()


def _write(writer: pq.ParquetWriter, waiting: list[pa.Table]) -> None:
    if waiting:
        together = pa.concat_tables(waiting)
        writer.write_table(together, row_group_size=together.num_rows)
        waiting.clear()


def _encode(entries: Sequence[Entry], body_sha256: str | None) -> bytes:
    names = [entry.name.split("-") for entry in entries]
    table = pa.Table.from_arrays(
        [
            pa.array([name[0] for name in names], pa.string()),
            pa.array([int(name[1]) for name in names], pa.int64()),
            pa.array([name[2] for name in names], pa.string()),
            pa.array([entry.first_row for entry in entries], pa.int64()),
            pa.array([entry.rows for entry in entries], pa.int64()),
            pa.array([entry.note for entry in entries], pa.binary()),
        ],
        schema=_SEALS.with_metadata({FORMAT_KEY: JOINED_FORMAT, _BODY_SHA256: (body_sha256 or "").encode()}),
    )
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", compression_level=9, use_dictionary=["epoch"])
    return sink.getvalue()


def _damaged(name: str, what: str) -> Refusal:
    return Refusal(
        "damaged_object", f"the joined file is damaged: {what}", where=name, remedy="restore it from a backup"
    )
