"""A witness's word on a checkpoint (https://c2sp.org/tlog-cosignature, `cosignature/v1`).

A witness signs a checkpoint only if the log's tree begins with every tree of it that the witness signed before, so a
log with a witness can't show two histories. A cosignature is a line of the checkpoint's note:

    — <witness name> <base64 of 4 bytes key hash ‖ 8 bytes time ‖ 64 bytes signature>

Time is the POSIX second of signing, big-endian. The Ed25519 signature is over

    cosignature/v1
    time <the same second, decimal>
    <the checkpoint's whole text>

The key hash is SHA-256(name ‖ 0x0A ‖ 0x04 ‖ public key), first four bytes, and a witness's verifier key is written
with 0x04 where a note's (note.py) has 0x01: no signature of one kind is good as the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from metering import note
from metering.refusal import Refusal

_KIND = b"\x04"
_LATEST_S = 2**63  # a second beyond this is no time of anybody's


@dataclass(frozen=True, slots=True)
class Witness:
    """A cosigner: key name and the 32 bytes of its public key."""

    name: str
    public_key: bytes

    @property
    def key_hash(self) -> bytes:
        return note.key_hash(self.name, self.public_key, _KIND)


@dataclass(frozen=True, slots=True)
class Cosignature:
    """That this witness signed, at this POSIX second."""

    witness: Witness
    time_s: int


def witness_key(name: str, public_key: bytes) -> str:
    """A witness's verifier key as text."""
    return note.verifier_key(name, public_key, _KIND)


def parse_witness(text: str) -> Witness:
    """A witness read from its verifier key. Refusal `bad_key` if it is malformed or not a cosigner's."""
    return Witness(*note.parse_verifier_of(text, _KIND))


def cosign(checkpoint_text: bytes, name: str, key: Ed25519PrivateKey, time_s: int) -> bytes:
    """The signature line of a witness for a checkpoint's text."""
    public_key = key.public_key().public_bytes_raw()
    signature = key.sign(_message(checkpoint_text, time_s))
    blob = note.key_hash(name, public_key, _KIND) + time_s.to_bytes(8, "big") + signature
    return note.signature_line(name, blob)


def cosignatures(
    checkpoint_text: bytes, signatures: Sequence[note.Signature], witnesses: Sequence[Witness]
) -> list[Cosignature]:
    """The cosignatures of known witnesses among a checkpoint's signatures; those of others are passed over.

    Refusal `bad_cosignature` if one under a known key does not hold.
    """
    known = {(witness.name, witness.key_hash): witness for witness in witnesses}
    found: list[Cosignature] = []
    for signature in signatures:
        witness = known.get((signature.name, signature.key_hash))
        if witness is not None:
            found.append(_checked(checkpoint_text, signature, witness))
    return found


def _checked(checkpoint_text: bytes, signature: note.Signature, witness: Witness) -> Cosignature:
    time_s = int.from_bytes(signature.signature[:8], "big")
    try:
        if len(signature.signature) != 72 or not 0 < time_s < _LATEST_S:
            raise InvalidSignature
        public_key = Ed25519PublicKey.from_public_bytes(witness.public_key)
        public_key.verify(signature.signature[8:], _message(checkpoint_text, time_s))
    except (InvalidSignature, ValueError):
        raise Refusal("bad_cosignature", f"the cosignature of {witness.name} does not hold") from None
    return Cosignature(witness, time_s)


def _message(checkpoint_text: bytes, time_s: int) -> bytes:
    return b"cosignature/v1\ntime %d\n" % time_s + checkpoint_text
