"""What one transaction of intake writes of a batch: how it is listed, held and stored."""

from __future__ import annotations

from billing.acceptance import AHEAD_OF_TIME, UNKNOWN_CUSTOMER, due_at
from billing.batch_paths import archive_path, held_path
from billing.inspection import Delivery, Inspected
from billing.intake_ports import Accepted, Held, StoredBatch
from metering.refusal import Refusal


def accepted(batch: Inspected) -> Accepted:
    by_model = batch.usage.by_model if batch.usage and batch.seal.kind == "sidecar" else ()
    return Accepted(batch, archive_path(batch), by_model)


def held(batch: Inspected, refusal: Refusal) -> Held:
    """The hold, with what it waits for where it ends by itself."""
    return Held(
        batch,
        refusal,
        held_path(batch),
        due_at=due_at(batch) if refusal.code == AHEAD_OF_TIME else None,
        missing=batch.missing if refusal.code == UNKNOWN_CUSTOMER else frozenset(),
    )


def stored(path: str, delivery: Delivery) -> StoredBatch:
    return StoredBatch(path, delivery.note, delivery.body)
