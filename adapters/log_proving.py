"""What people ask of a log: its newest checkpoint, and proofs of what stands in it, out of the archive.

The database only tells where a leaf stands; the proof itself is made of what is archived, and checked before it leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.archive_reading import BatchReader, gone
from adapters.log_archive import archived_log, archived_note
from adapters.log_sequencer import log_key_path, log_verifier
from adapters.postgres import log
from adapters.postgres.database import Database
from adapters.postgres.schema import document
from billing.log import BatchLeaf, archive_name, leaf_data
from billing.log_proof import check_proof, make_proof
from billing.objects import Objects
from metering.checkpoint import Checkpoint, split_checkpoint
from metering.identity import LaneKey
from metering.note import verifier_key
from metering.refusal import Refusal


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which leaf: of an accepted batch (its seal's hash), of an issued document (number or id), or at a place."""

    batch: str | None = None
    document: str | None = None
    leaf: int | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    """Where the leaf stands; `paths`: in the archive, of the batches whose seals lead to it."""

    index: int
    paths: tuple[str, ...] = ()


def log_key(keys: Path, operator: str) -> str:
    """The verifier key of an operator's log as text. Refusal `no_log_key` where the key is not here."""
    path = log_key_path(keys, operator)
    if not path.exists():
        raise Refusal(
            "no_log_key",
            f"the key of the log of {operator} is not here",
            where=str(path),
            remedy="ask where `tally intake` runs; a log gets its key with its first leaf",
        )
    verifier = log_verifier(LaneKey.load_or_create(path), operator)
    return verifier_key(verifier.name, verifier.public_key)


async def newest(database: Database, operator: str) -> dict[str, Any] | None:
    """How a log stands, as JSON; None where nothing was ever signed."""
    async with database.app(operator) as connection:
        standing = await log.standing(connection, operator)
    if standing.head is None:
        return None
    checkpoint, _ = split_checkpoint(standing.head.checkpoint)
    return {
        "operator": archive_name(operator),
        "origin": checkpoint.origin,
        "size": checkpoint.size,
        "root": checkpoint.root.hex(),
        "signed_at": standing.head.signed_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "waiting": standing.waits or standing.numbered > checkpoint.size,
        "checkpoint": standing.head.checkpoint.decode(),
    }


async def prove(
    database: Database,
    objects: Objects,
    operator: str,
    wanted: Wanted,
    *,
    key: str,
    seen: Checkpoint | None,
) -> Mapping[str, Any]:
    """The proof of a leaf under the newest archived checkpoint, as billing/log_proof.py writes it.

    Refusals: unknown_batch, unknown_document, content_erased, unknown_leaf, no_leaf_yet, no_leaf, not_signed_yet,
    archive_incomplete, bad_seen, damaged_log, bad_signature.
    """
    signed = await asyncio.to_thread(archived_note, objects, operator)
    if signed is None:
        raise _not_signed(operator)
    checkpoint, _ = split_checkpoint(signed)
    async with database.app(operator) as connection:
        found = await _find(connection, operator, wanted)
        index = found.index
        content = await log.content_at(connection, operator, index)
    if index >= checkpoint.size:
        if wanted.leaf is None:
            raise _not_signed(operator)
        raise Refusal("unknown_leaf", f"the log of {operator} has {checkpoint.size} leaves", where="--leaf")
    tiles = archived_log(objects, operator, checkpoint.size)
    seals = await asyncio.to_thread(_seals, objects, found.paths)
    proof = await asyncio.to_thread(
        make_proof, tiles, index, signed=signed, key=key, content=content, seals=seals, seen=seen
    )
    checked = check_proof(proof, pin=key)
    if checked.failures:
        raise Refusal(
            "damaged_log",
            f"what is archived of the log of {operator} does not prove it: {'; '.join(checked.failures)}",
            remedy="restore the archive from its backup",
        )
    return proof


def _seals(objects: Objects, paths: Sequence[str]) -> list[bytes]:
    """The signed seals of these batches. Refusal `archive_incomplete`."""
    reader = BatchReader(objects)
    notes = []
    for path in paths:
        note = reader.note(path)
        if note is None:
            raise gone(path)
        notes.append(note)
    return notes


async def _find(connection: AsyncConnection, operator: str, wanted: Wanted) -> _Found:
    if wanted.leaf is not None:
        return _Found(wanted.leaf)
    if wanted.batch is not None:
        return await _batch(connection, operator, wanted.batch)
    assert wanted.document is not None
    row = (
        await connection.execute(
            select(document.c.id, document.c.issued_at).where(
                document.c.operator == operator,
                (document.c.number == wanted.document) | (document.c.id == wanted.document),
                document.c.state == "issued",
            )
        )
    ).one_or_none()
    if row is None:
        raise Refusal(
            "unknown_document",
            f"{operator} has issued no document {wanted.document}",
            where="--document",
            remedy="`tally invoice list --state issued` shows numbers",
        )
    index = await log.index_of_document(connection, operator, row.id, row.issued_at)
    if index is None:
        if await log.document_without_content(connection, operator):
            raise Refusal(
                "content_erased",
                f"no leaf of a document that has its content is that of {wanted.document}: its own was erased",
                where="--document",
                remedy="the leaf itself can be proved by its place: `tally log prove --leaf`",
            )
        raise _not_signed(operator)
    return _Found(index)


async def _batch(connection: AsyncConnection, operator: str, seal_hash: str) -> _Found:
    """The leaf of a batch; of a heartbeat without one, the next leaf of its lane, and the seals that lead to it."""
    chain = await log.up_to_leaf(connection, operator, seal_hash)
    if not chain:
        raise Refusal(
            "unknown_batch",
            f"{operator} has accepted no batch {seal_hash}",
            where="--batch",
            remedy="a batch is named by the hash of its seal, 64 hex digits; its name in the archive ends with it",
        )
    last = chain[-1]
    if not last.has_leaf:
        raise _no_leaf_yet(last)
    accepted_at: datetime = last.accepted_at
    accepted = accepted_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    data = leaf_data(BatchLeaf(last.node, last.lane, last.epoch, last.number, last.hash, accepted))
    index = await log.index_of_batch(connection, operator, data, accepted_at)
    if index is None:
        raise _not_signed(operator)
    return _Found(index, tuple(each.path for each in chain) if len(chain) > 1 else ())


def _no_leaf_yet(last: Row[Any]) -> Refusal:
    if last.left_behind:
        return Refusal(
            "no_leaf",
            "a person had the lane go on with another batch than one that follows this heartbeat",
            where="--batch",
            remedy=f"prove the leaf of that decision, which names {last.hash}",
        )
    hour = last.complete_to.astimezone(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    return Refusal(
        "no_leaf_yet",
        f"a heartbeat is under the next leaf of its lane, and {last.node}/{last.lane} has made none since: its next batch"
        f" with events makes one, and its first one that is complete to {hour:%Y-%m-%dT%H:%M:%SZ} or later",
        where="--batch",
        remedy="ask again when that is accepted; `tally streams` shows how far the lane is",
    )


def _not_signed(operator: str) -> Refusal:
    return Refusal(
        "not_signed_yet",
        f"the log of {operator} does not cover this yet",
        remedy="`tally intake` signs every second, and a command when it ends, where the log's key is",
    )
