"""Intake's signed word that a batch is accepted: what lets a shipper delete from its spool.

That a broker has a message says only that somebody holds it for now: in a page cache perhaps, and until retention runs
out. A batch may leave the spool when it is archived, on disk, and committed; intake says so in a text that it signs,
a C2SP note (note.py) with one signature under the key name `operator/intake`:

    tallygrid/acknowledgement/v1
    operator telecentras
    node vilnius-1
    lane sidecar-0
    epoch 000102030405060708090a0b0c0d0e0f      of the seal that is the lane's high-water mark
    number 4                                    its number within the epoch
    hash <64 hex digits>                        its hash: SHA-256 over the whole note of the seal

    — telecentras/intake <base64>

It covers that seal and every one before it in the lane's chain, over all epochs: intake accepts a lane's batches in
the order of their chain only. So one acknowledgement a lane is enough, the newest one, and a compacted Kafka topic with
the lane as its key keeps just that. It says nothing of time; an older one that comes later covers less and does no harm.

An acknowledgement that names a seal whose hash is not that of the batch in the spool with the same epoch and number is
no permission: two different batches bear one number (a cloned machine, a disk restored from its backup), and what is
here may be the only copy. Whoever reads it says so and deletes nothing.

A parser that reads a text, writes it again and compares refuses every unknown, missing, doubled or oddly spelled line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from metering import note
from metering.refusal import Refusal
from metering.seal import NAME

ACKNOWLEDGEMENT_FORMAT = "tallygrid/acknowledgement/v1"
#: A reader takes no longer one; an honest one has some 450 bytes.
MAX_ACKNOWLEDGEMENT_BYTES = 2_048

_PATTERNS = {
    "operator": NAME,
    "node": NAME,
    "lane": NAME,
    "epoch": re.compile(r"[0-9a-f]{32}"),
    "number": re.compile(r"0|[1-9][0-9]{0,18}"),
    "hash": re.compile(r"[0-9a-f]{64}"),
}


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The lane's newest accepted seal: `epoch` and `hash` in hex, `number` from 0 within the epoch."""

    operator: str
    node: str
    lane: str
    epoch: str
    number: int
    hash: str


def intake_name(operator: str) -> str:
    """The key name under which intake signs for an operator. No lane's name looks like it: those have three parts."""
    return f"{operator}/intake"


def acknowledgement_text(acknowledgement: Acknowledgement) -> bytes:
    """The text that is signed."""
    lines = [f"{field.name} {getattr(acknowledgement, field.name)}" for field in fields(Acknowledgement)]
    return "\n".join([ACKNOWLEDGEMENT_FORMAT, *lines, ""]).encode()


def sign_acknowledgement(acknowledgement: Acknowledgement, key: Ed25519PrivateKey) -> bytes:
    """The acknowledgement as a note, signed by the operator's intake key; signs nothing that no reader would take."""
    text = acknowledgement_text(acknowledgement)
    again = parse_acknowledgement(text)
    assert again == acknowledgement
    return note.sign(text, intake_name(acknowledgement.operator), key)


def read_acknowledgement(signed: bytes, public_key: bytes) -> Acknowledgement:
    """The acknowledgement, signed by the intake key whose 32 public bytes are given.

    Refusal `bad_acknowledgement` if it is not exactly one, `bad_signature` if that key did not sign it.
    """
    acknowledgement = peek_acknowledgement(signed)
    note.open_note(signed, [note.Verifier(intake_name(acknowledgement.operator), public_key)])
    return acknowledgement


def peek_acknowledgement(signed: bytes) -> Acknowledgement:
    """As it claims to be, its signature unchecked: to learn whose intake must have signed it.

    Refusal `bad_acknowledgement` if it is not exactly an acknowledgement with one signature line.
    """
    if len(signed) > MAX_ACKNOWLEDGEMENT_BYTES:
        raise _bad(f"{len(signed)} bytes are more than the {MAX_ACKNOWLEDGEMENT_BYTES} of an acknowledgement")
    try:
        text, signatures = note.split_note(signed)
    except Refusal as refused:
        raise _bad(refused.what) from None
    if len(signatures) != 1:
        raise _bad(f"an acknowledgement has one signature, this has {len(signatures)}")
    return parse_acknowledgement(text)


def parse_acknowledgement(text: bytes) -> Acknowledgement:
    """The acknowledgement whose text this is, byte for byte; Refusal `bad_acknowledgement` otherwise."""
    first, *lines = text.decode("utf-8", "replace").split("\n")
    if first != ACKNOWLEDGEMENT_FORMAT:
        raise _bad(f"the first line is not {ACKNOWLEDGEMENT_FORMAT}")
    if len(lines) != len(_PATTERNS) + 1 or lines[-1]:
        raise _bad(f"an acknowledgement has {len(_PATTERNS) + 1} lines, this has {len(lines)}")
    values = {}
    for (name, pattern), line in zip(_PATTERNS.items(), lines, strict=False):
        found, _, value = line.partition(" ")
        if found != name:
            raise _bad(f"{found!r} stands where {name!r} belongs")
        if not pattern.fullmatch(value):
            raise _bad(f"{name} {value!r} is malformed")
        values[name] = value
    number = int(values.pop("number"))
    return Acknowledgement(**values, number=number)


def _bad(what: str) -> Refusal:
    return Refusal(
        "bad_acknowledgement", what, remedy="nothing is deleted for it; see who else writes in the topic"
    )
