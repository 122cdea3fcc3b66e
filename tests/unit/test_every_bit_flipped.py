"""Every single bit of a small batch, its seal and a checkpoint, flipped in turn: each is detected, by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from intake_world import Writer

from billing.inspection import Delivery, Enrolment, LaneName, inspect
from metering import note
from metering.batch import SealedBatch, read_body
from metering.checkpoint import Checkpoint, read_checkpoint, sign_checkpoint
from metering.refusal import Refusal

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
ENROLLED = {LaneName("telecentras", "vilnius-1", "sidecar-0"): Enrolment("sidecar", (PUBLIC,))}


def flipped(content: bytes) -> Iterator[bytes]:
    """The content with one bit flipped, for every bit."""
    for at in range(8 * len(content)):
        copy = bytearray(content)
        copy[at // 8] ^= 1 << at % 8
        yield bytes(copy)


def small_batch() -> SealedBatch:
    return Writer(key=KEY).seal(2)


def test_every_bit_of_a_seal() -> None:
    batch = small_batch()
    assert inspect(Delivery(batch.note, batch.body), ENROLLED, with_root=True).fault is None
    found: Counter[str] = Counter()
    for damaged in flipped(batch.note):
        with pytest.raises(Refusal) as refused:
            inspect(Delivery(damaged, batch.body), ENROLLED, with_root=True)
        found[refused.value.code] += 1
    assert found.total() == 8 * len(batch.note)
    assert found.keys() <= {"bad_seal", "bad_signature", "unknown_key"}


def test_every_bit_of_a_body() -> None:
    batch = small_batch()
    found: Counter[str] = Counter()
    for damaged in flipped(batch.body):
        with pytest.raises(Refusal) as refused:
            read_body(batch.seal, damaged)
        found[refused.value.code] += 1
    assert found == {"body_digest": 8 * len(batch.body)}
    fault = inspect(Delivery(batch.note, next(flipped(batch.body))), ENROLLED, with_root=True).fault
    assert fault is not None
    assert fault.code == "body_digest", "its lane's, and held by that name"


def test_every_bit_of_a_checkpoint() -> None:
    origin = "telecentras.tallygrid/log"
    signed = sign_checkpoint(Checkpoint(origin, 1234567, bytes(range(32))), KEY)
    verifier = note.Verifier(origin, PUBLIC)
    assert read_checkpoint(signed, verifier).size == 1234567
    found: Counter[str] = Counter()
    for damaged in flipped(signed):
        with pytest.raises(Refusal) as refused:
            read_checkpoint(damaged, verifier)
        found[refused.value.code] += 1
    assert found.total() == 8 * len(signed)
    assert found.keys() <= {"bad_checkpoint", "bad_signature", "bad_note"}
