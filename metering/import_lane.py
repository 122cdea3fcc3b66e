"""An import's lane: rows from elsewhere, sealed in order, without a write-ahead file.

The file that is imported is its own write-ahead file: it does not go away. So a killed import begins again, reads the
head of its lane, and goes on after the last sealed sequence number; nothing that is sealed is made again. That asks
for the same rows in the same order (which the epoch, a digest of them, makes sure) and for the same request ids: the
lane keeps a random key of 256 bits in `request.key`, made once, and the request id of a row is the first 16 bytes of
HMAC-SHA256(key, sequence number as 8 bytes, big-endian). Nobody without the key can guess a neighbour's.

An import is complete by declaration: only its last seal, which is final, carries the declared `complete_to`. Equal
times may lie on both sides of a seam between batches, so the seals before carry one microsecond less than their last
row's time, which is below every later time.

Measured on one core: 1,380,000 request ids in 1.4 s; 1,380,000 rows sealed in 138 batches in 4.4 s,
those ids included.
"""

from __future__ import annotations

import secrets
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from metering.batch import MAX_EVENTS, SealedBatch, make_batch
from metering.canonical import id_array
from metering.columns import integers
from metering.durable import create_once
from metering.event import EVENT_SCHEMA
from metering.lane_folder import LaneFolder
from metering.refusal import Refusal

_BLOCK = 64  # SHA-256's block: what HMAC pads its key to (RFC 2104)


class ImportLane:
    """The one writer of an import's lane."""

    def __init__(
        self,
        folder: LaneFolder,
        secret: bytes,
        epoch: str,
        key: Ed25519PrivateKey,
    ) -> None:
        self._folder = folder
        self._secret = secret
        self._epoch = epoch
        self._key = key

    @classmethod
    def open(
        cls, folder: Path, *, operator: str, node: str, lane: str, epoch: str, key: Ed25519PrivateKey
    ) -> ImportLane:
        """Take the import's lane in the spool folder `folder`, new or left by a killed try.

        Refusals: `lane_in_use`, `lane_state` if the lane belongs to another epoch (other rows).
        """
        taken = LaneFolder.open(folder, operator, node, lane)
        try:
            if taken.head and taken.head.seal.epoch != epoch:
                raise Refusal(
                    "lane_state",
                    f"the lane {lane} holds the import {taken.head.seal.epoch}",
                    where=str(taken.path),
                    remedy="give each import a lane of its own",
                )
            secret_file = taken.path / "request.key"
            if not secret_file.exists():
                create_once(secret_file, secrets.token_bytes(32), mode=0o600)
            secret = secret_file.read_bytes()
        except BaseException:
            taken.close()
            raise
        return cls(taken, secret, epoch, key)

    @property
    def next_sequence(self) -> int:
        """The sequence number of the next row to seal; rows before it are sealed already."""
        return self._folder.head.seal.last + 1 if self._folder.head else 1

    @property
    def batches(self) -> int:
        """Batches sealed so far, in this try and earlier ones."""
        return self._folder.head.seal.number + 1 if self._folder.head else 0

    @property
    def finished(self) -> bool:
        """Whether the final seal is made."""
        return bool(self._folder.head and self._folder.head.seal.final)

    def requests(self, first: int, count: int) -> pa.Array:
        """The request ids of the rows `first` … `first + count − 1`, as a column."""
        return id_array(minted_requests(self._secret, first, count))

    def seal_rows(self, table: pa.Table, complete_to_us: int, *, final: bool) -> SealedBatch:
        """Seal the next rows into the spool: as many of the table's first rows as a batch holds.

        `table` has the columns of EVENT_SCHEMA, with or without `sequence` and `request`, which are written here; its
        first row is row `next_sequence` of the import. `seal.last` of the batch tells how far it went; what is left
        over is the caller's to give again. `final` counts only when nothing is left over: then the seal carries
        `complete_to_us` and the lane ends. Refusals: `bad_event`, `time_order` (rows not in the order of time),
        `lane_ended`.
        """
        if self.finished:
            raise Refusal("lane_ended", f"the import {self._epoch} is sealed to its end")
        count = min(table.num_rows, MAX_EVENTS)
        while True:
            rows = self._numbered(table.slice(0, count))
            try:
                batch = self._make(rows, complete_to_us, final=final and count == table.num_rows)
                break
            except Refusal as refused:
                if refused.code != "batch_too_large" or count < 2:
                    raise
                count //= 2
        self._folder.publish(batch)
        return batch

    def close(self) -> None:
        """Let go of the lane."""
        self._folder.close()

    def _numbered(self, rows: pa.Table) -> pa.Table:
        first, count = self.next_sequence, rows.num_rows
        columns = {name: rows.column(name) for name in rows.column_names}
        columns["sequence"] = pa.array(range(first, first + count), pa.int64())
        columns["request"] = self.requests(first, count)
        return pa.Table.from_arrays([columns[name] for name in EVENT_SCHEMA.names], schema=EVENT_SCHEMA)

    def _make(self, rows: pa.Table, declared_us: int, *, final: bool) -> SealedBatch:
        head = self._folder.head.seal if self._folder.head else None
        times = integers(rows, "time")
        last_us = int(times[-1]) if len(times) else (head.complete_to_us if head else declared_us)
        floor_us = head.complete_to_us if head else last_us - 1
        if len(times) and (
            int(times[0]) <= (head.complete_to_us if head else 0) or (times[1:] < times[:-1]).any()
        ):
            raise Refusal("time_order", "the rows of an import are sealed in the order of their times")
        requests = (head.closed if head else 0) + int(
            pc.sum(pc.equal(rows.column("kind"), "usage")).as_py() or 0
        )
        return make_batch(
            operator=self._folder.operator,
            node=self._folder.node,
            lane=self._folder.lane,
            kind="import",
            epoch=self._epoch,
            number=self.batches,
            first=self.next_sequence,
            complete_to_us=max(declared_us, last_us) if final else max(floor_us, last_us - 1),
            opened=requests,
            closed=requests,
            previous=self._folder.previous,
            key=self._key,
            table=rows,
            final=final,
        )


def minted_requests(secret: bytes, first: int, count: int) -> bytes:
    """The request ids of `count` rows from sequence number `first`, 16 bytes each, end to end.

    HMAC-SHA256 written out (RFC 2104), for a key of at most one block: twice as fast as a call of `hmac` for each.
    """
    assert len(secret) <= _BLOCK
    block = secret.ljust(_BLOCK, b"\0")
    inner = bytes(byte ^ 0x36 for byte in block)
    outer = bytes(byte ^ 0x5C for byte in block)
    return b"".join(
        [
            sha256(outer + sha256(inner + sequence.to_bytes(8, "big")).digest()).digest()[:16]
            for sequence in range(first, first + count)
        ]
    )
