"""A checkpoint: which tree a log signs for (https://c2sp.org/tlog-checkpoint), a signed note (note.py).

    <origin>
    <size of the tree, decimal>
    <root hash, base64>
    [<extension lines, none of them empty>]

    — <key name> <base64 of key hash and signature>

Example, a log of one leaf:

    vilnius.tallygrid/log
    1
    bjQLnP+zepicpUTmu3gKLHiQHT+zNzh2hRGjBhevoB0=

The origin names the log and is its key's name too: `<operator>.tallygrid/log`, and `_installation.tallygrid/log` for
what belongs to no operator. A log never signs two trees that do not begin with each other. Like a seal, a checkpoint
is parsed, written again and compared, so that it has one spelling, and the log's own file bears one signature: no bit
of it can change unnoticed. Witnesses sign the same text (cosignature.py) in notes of their own.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from metering import note
from metering.merkle import EMPTY_ROOT, HASH_BYTES
from metering.refusal import Refusal

_SIZE = re.compile(rb"0|[1-9][0-9]{0,18}")
_MAX_SIZE = 2**63
MAX_CHECKPOINT_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree of `size` leaves with the tree hash `root` (32 bytes), of the log `origin`."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()


def checkpoint_text(checkpoint: Checkpoint) -> bytes:
    """The text that is signed."""
    root = base64.b64encode(checkpoint.root).decode()
    lines = [checkpoint.origin, str(checkpoint.size), root, *checkpoint.extensions]
    return ("\n".join(lines) + "\n").encode()


def parse_checkpoint(text: bytes) -> Checkpoint:
    """The checkpoint whose text this is, byte for byte; Refusal `bad_checkpoint` otherwise."""
    lines = text.split(b"\n")
    if len(lines) < 4 or lines[-1]:
        raise _bad("a checkpoint has at least three lines: origin, size, root")
    origin, size, root, *extensions = lines[:-1]
    if not _SIZE.fullmatch(size) or int(size) >= _MAX_SIZE:
        raise _bad(f"{size[:40]!r} is no size of a tree")
    try:
        root_hash = base64.b64decode(root, validate=True)
        checkpoint = Checkpoint(
            origin.decode(), int(size), root_hash, tuple(line.decode() for line in extensions)
        )
    except (binascii.Error, UnicodeDecodeError):
        raise _bad("the root is not base64, or a line is not UTF-8") from None
    if not origin or b"" in extensions:
        raise _bad("a line is empty")
    if len(root_hash) != HASH_BYTES or checkpoint_text(checkpoint) != text:
        raise _bad("the root is not the base64 of 32 bytes")
    if checkpoint.size == 0 and root_hash != EMPTY_ROOT:
        raise _bad("the root of no leaves is SHA-256 of nothing")
    return checkpoint


def sign_checkpoint(checkpoint: Checkpoint, key: Ed25519PrivateKey) -> bytes:
    """The checkpoint as a note signed under its origin's name; the same bytes each time."""
    text = checkpoint_text(checkpoint)
    assert parse_checkpoint(text) == checkpoint
    return note.sign(text, checkpoint.origin, key)


def read_checkpoint(signed: bytes, verifier: note.Verifier) -> Checkpoint:
    """The checkpoint of a log's own note: signed by the log, whose name and key are given, and by nobody else.

    Refusals: bad_checkpoint, bad_signature.
    """
    checkpoint, signatures = split_checkpoint(signed)
    if len(signatures) != 1:
        raise _bad(f"a log's checkpoint has one signature, this has {len(signatures)}")
    _check_signed(signed, checkpoint, verifier)
    return checkpoint


def read_cosigned(signed: bytes, verifier: note.Verifier) -> tuple[Checkpoint, list[note.Signature]]:
    """A checkpoint that others may have signed too: the log's signature is checked, the others come unchecked.

    Refusals: bad_checkpoint, bad_signature.
    """
    checkpoint, signatures = split_checkpoint(signed)
    _check_signed(signed, checkpoint, verifier)
    return checkpoint, [each for each in signatures if each.name != verifier.name]


def split_checkpoint(signed: bytes) -> tuple[Checkpoint, list[note.Signature]]:
    """Checkpoint and signatures of a note, none of them checked: to learn which log it is of."""
    if len(signed) > MAX_CHECKPOINT_BYTES:
        raise _bad(f"{len(signed)} bytes are more than the {MAX_CHECKPOINT_BYTES} of a checkpoint")
    try:
        text, signatures = note.split_note(signed)
    except Refusal as refused:
        raise _bad(refused.what) from None
    return parse_checkpoint(text), signatures


def _check_signed(signed: bytes, checkpoint: Checkpoint, verifier: note.Verifier) -> None:
    if checkpoint.origin != verifier.name:
        raise Refusal(
            "bad_signature", f"the checkpoint is of the log {checkpoint.origin}, the key of {verifier.name}"
        )
    note.open_note(signed, [verifier])


def _bad(what: str) -> Refusal:
    return Refusal("bad_checkpoint", what, remedy="a checkpoint is taken as it was signed, or not at all")
