"""Where batches lie, in the archive and among the held: pure names, the same whenever they are made.

    archive   OPERATOR/DAY/NODE/LANE/EPOCH-NUMBER-HASH     HASH names the batch: SHA-256 of its signed seal
    held      OPERATOR/NODE/LANE/EPOCH-NUMBER-DIGEST       DIGEST is of all bytes as they came: what is held may be damaged
    set aside set-aside/DIGEST                             who it is of is not known

How the seal and the body are named there is the store's. DAY is that of the seal's `complete_to` in UTC. Every part has been
checked by then: the words come from a seal that its lane's key signed, the digests are hexadecimal.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from billing.inspection import Delivery, Inspected


def archive_path(batch: Inspected) -> str:
    """Where an accepted batch lies in the archive."""
    seal = batch.seal
    day = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=seal.complete_to_us)).date()
    return f"{seal.operator}/{day}/{seal.node}/{seal.lane}/{batch.place}-{batch.hash}"


def held_path(batch: Inspected) -> str:
    """Where a batch waits that its lane's key signed and that can't be accepted."""
    return f"{batch.name}/{batch.place}-{batch.delivery.digest}"


def aside_path(delivery: Delivery) -> str:
    """Where bytes lie that no enrolled key vouches for."""
    return f"set-aside/{delivery.digest}"
