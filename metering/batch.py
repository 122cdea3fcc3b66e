"""A sealed batch: what a lane hands over, and what is kept for ever.

A batch is a seal (seal.py: what it holds, signed) and a body (body.py: the events as Parquet). The same bytes lie in
the spool, travel over Kafka, pass intake and stay in the archive. Making one is a pure function of its events, its
place in the lane and the lane's key, so a batch that was cut off while being made is simply made again.

Measured on one core with 10,000 events a batch: made 0.57 M events/s (most of it the Merkle tree's hashes), read with
all checks but the root 2.7 M events/s, root recomputed 0.8 M events/s (canonical bytes 2.5, tree alone 1.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import pyarrow as pa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from metering import canonical, merkle
from metering.body import check_root, encode_body, events_fault, read_body, read_events
from metering.event import Totals, totals
from metering.refusal import Refusal
from metering.seal import (
    GENESIS,
    MAX_BODY_BYTES,
    MAX_EVENTS,
    SEAL_FORMAT,
    Seal,
    peek_seal,
    read_seal,
    seal_hash,
    sign_seal,
    signer_hash,
)

__all__ = [
    "GENESIS",
    "MAX_BODY_BYTES",
    "MAX_EVENTS",
    "SEAL_FORMAT",
    "Seal",
    "SealedBatch",
    "check_root",
    "make_batch",
    "peek_seal",
    "read_body",
    "read_events",
    "read_seal",
    "seal_hash",
    "signer_hash",
]


@dataclass(frozen=True, slots=True)
class SealedBatch:
    """A seal as read, the seal as signed (`note`), and the body (`b""` for a heartbeat)."""

    seal: Seal
    note: bytes
    body: bytes

    @property
    def hash(self) -> str:
        """SHA-256 of the note in hex: the name of the batch, and `previous` of the next."""
        return seal_hash(self.note)


def make_batch(
    *,
    operator: str,
    node: str,
    lane: str,
    kind: str,
    epoch: str,
    number: int,
    first: int,
    complete_to_us: int,
    opened: int,
    closed: int,
    previous: str,
    key: Ed25519PrivateKey,
    table: pa.Table | None = None,
    leaves: Sequence[bytes] | None = None,
    final: bool = False,
    facts: Sequence[str] = (),
) -> SealedBatch:
    """Seal the events of `table` (EVENT_SCHEMA, numbered from `first`); a heartbeat without one or with no rows.

    `leaves` are the canonical bytes of the rows where the caller has them already; `facts` are lines of fact.py, no
    more than `how_many_fit`. Refusal `bad_event` for an event
    that no reader would accept, `batch_too_large` for a body over MAX_BODY_BYTES: seal fewer rows then.
    """
    events = 0 if table is None else table.num_rows
    body, rows_bytes, sums, root = b"", 0, Totals(), merkle.EMPTY_ROOT
    if table is not None and events:
        fault = events_fault(table)
        if fault:
            raise Refusal(*fault, where=f"{operator}/{node}/{lane} {epoch}")
        body, rows_bytes = encode_body(table)
        if len(body) > MAX_BODY_BYTES:
            raise Refusal("batch_too_large", f"{events} events make a body of {len(body)} bytes")
        sums = totals(table)
        root = merkle.root(canonical.leaves(table) if leaves is None else leaves)
    seal = Seal(
        operator=operator,
        node=node,
        lane=lane,
        kind=kind,
        epoch=epoch,
        number=number,
        first=first,
        last=first + events - 1,
        complete_to_us=complete_to_us,
        opened=opened,
        closed=closed,
        events=events,
        totals=sums,
        body_sha256=sha256(body).hexdigest() if events else None,
        body_bytes=len(body),
        rows_bytes=rows_bytes,
        root=root.hex(),
        previous=previous,
        final=final,
        facts=tuple(facts),
    )
    return SealedBatch(seal, sign_seal(seal, key), body)
