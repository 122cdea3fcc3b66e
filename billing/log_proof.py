"""A proof that a leaf stands in a log: one JSON file that anybody checks offline, with no database and no archive.

    {"format": "tallygrid/log-proof/v1",
     "index": 7,                       the leaf's place
     "leaf": "tallygrid/leaf/v1\\n…",   its bytes as text
     "nonce": "…", "content": "…",     what it commits to, where it is a change and was not erased; else null
     "seals": ["…", …],                of a heartbeat without a leaf of its own: its signed seal, and those that follow it
                                       up to the leaf's, each of which holds the hash of the one before; else none
     "inclusion": ["…", …],            hashes from the leaf to the root (RFC 9162, section 2.1.3), 64 hex digits each
     "checkpoint": "…",                the signed note that covers it (metering/checkpoint.py)
     "key": "…",                       the verifier key that its signature holds under, as the maker tells
     "seen": "…" or null,              an earlier checkpoint that the tree is proved to begin with: `origin size root`
     "consistency": ["…", …]}          the hashes that prove it (section 2.1.4)

Who checks brings what must not come from the maker: the log's key (`pin`), got by another way, and a checkpoint seen
earlier, on an invoice say. Without a pin a proof shows that everything in it fits together, but not whose log it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from billing.log import NONCE_BYTES, BatchLeaf, ChangeLeaf, Content, parse_leaf
from billing.log_tiles import LogTiles
from metering import note
from metering.checkpoint import (
    Checkpoint,
    checkpoint_text,
    parse_checkpoint,
    read_checkpoint,
    split_checkpoint,
)
from metering.merkle import (
    consistency_holds,
    consistency_ranges,
    inclusion_holds,
    inclusion_ranges,
    leaf_hash,
)
from metering.refusal import Refusal
from metering.seal import peek_seal, seal_hash

PROOF_FORMAT = "tallygrid/log-proof/v1"
_KEYS = {
    "format",
    "index",
    "leaf",
    "nonce",
    "content",
    "seals",
    "inclusion",
    "checkpoint",
    "key",
    "seen",
    "consistency",
}


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check of a proof found: the place and the tree that it speaks of, and everything that does not hold.

    `batch` is the hash of the seal that is proved, where the leaf is a batch's: its own, or, with `seals`, of the first of
    those, whose number that is.
    """

    checkpoint: Checkpoint
    index: int
    leaf: bytes
    content: str | None
    pinned: bool
    failures: tuple[str, ...]
    batch: str | None = None
    seals: int = 0

    @property
    def proves(self) -> bool:
        """Everything holds, under a key that the checker brought."""
        return self.pinned and not self.failures


def checkpoint_line(checkpoint: Checkpoint) -> str:
    """A checkpoint without its signature, in one line: `vilnius.tallygrid/log 1 <root, base64>`."""
    return " ".join(checkpoint_text(checkpoint).decode().split("\n")[:3])


def read_seen(text: str) -> tuple[Checkpoint, bytes | None]:
    """A checkpoint that somebody saw: a signed note, which comes with it, or its one line. Refusal `bad_checkpoint`."""
    if "\n" in text.strip():
        signed = text.encode()
        return split_checkpoint(signed)[0], signed
    return parse_checkpoint(("\n".join(text.split()) + "\n").encode()), None


def make_proof(
    tiles: LogTiles,
    index: int,
    *,
    signed: bytes,
    key: str,
    content: Content | None,
    seals: Sequence[bytes] = (),
    seen: Checkpoint | None = None,
) -> dict[str, Any]:
    """The proof of the leaf at `index` in the tree that `signed` covers, and that it begins with `seen`. `seals`: signed
    ones, from that of a heartbeat which is to be proved up to the leaf's.

    Refusals: bad_seen (another log's, or newer than the checkpoint), damaged_log.
    """
    if seen is not None:
        _check_seen(split_checkpoint(signed)[0], seen)
    [leaf] = tiles.leaves(index, index + 1)
    consistent = [] if seen is None else consistency_ranges(seen.size, tiles.size)
    return {
        "format": PROOF_FORMAT,
        "index": index,
        "leaf": leaf.decode(),
        "nonce": None if content is None else content.nonce.hex(),
        "content": None if content is None else content.content,
        "seals": [each.decode() for each in seals],
        "inclusion": [
            tiles.range_hash(start, end).hex() for start, end in inclusion_ranges(index, tiles.size)
        ],
        "checkpoint": signed.decode(),
        "key": key,
        "seen": None if seen is None else checkpoint_line(seen),
        "consistency": [tiles.range_hash(start, end).hex() for start, end in consistent],
    }


def _check_seen(newest: Checkpoint, seen: Checkpoint) -> None:
    if seen.origin != newest.origin:
        raise Refusal("bad_seen", f"the checkpoint seen is of {seen.origin}, the log is {newest.origin}")
    if seen.size > newest.size:
        raise Refusal(
            "bad_seen",
            f"the checkpoint seen covers {seen.size} leaves, the newest one here {newest.size}",
            remedy="a log never shrinks: restore the archive from its backup, or ask where that one came from",
        )


def read_proof(text: bytes) -> Mapping[str, Any]:
    """A proof's file as JSON, with the right keys. Refusal `bad_proof`."""
    try:
        proof = json.loads(text)
        text.decode()
    except (ValueError, RecursionError):
        raise _bad("it is not JSON") from None
    if not isinstance(proof, dict) or proof.get("format") != PROOF_FORMAT:
        raise _bad(f"it does not say that it is {PROOF_FORMAT}")
    if set(proof) != _KEYS:
        raise _bad("keys are missing, or some are too many")
    texts = ("leaf", "checkpoint", "key", *(k for k in ("nonce", "content", "seen") if proof[k] is not None))
    lists = [proof["seals"], proof["inclusion"], proof["consistency"]]
    if (
        not all(isinstance(proof[name], str) for name in texts)
        or not isinstance(proof["index"], int)
        or isinstance(proof["index"], bool)
        or not all(isinstance(each, list) and all(isinstance(one, str) for one in each) for each in lists)
    ):
        raise _bad("a value is of the wrong kind")
    told = [*(proof[name] for name in texts), *(one for each in lists for one in each)]
    if any("\ud800" <= letter <= "\udfff" for each in told for letter in each):
        raise _bad("half a character stands in it, which no UTF-8 has")
    return proof


def check_proof(proof: Mapping[str, Any], *, pin: str | None = None, seen: str | None = None) -> Checked:
    """What holds of a proof that `read_proof` read. `pin`: the log's verifier key; `seen`: as `read_seen` takes it.

    Refusal `bad_proof`, `bad_checkpoint`, `bad_key` where a part can't be read at all; what can, but does not hold, is
    a failure of the answer.
    """
    try:
        leaf = proof["leaf"].encode()
        inclusion = [_hex(each) for each in proof["inclusion"]]
        consistency = [_hex(each) for each in proof["consistency"]]
    except ValueError:
        raise _bad("a hash is not written in hex digits") from None
    signed = proof["checkpoint"].encode()
    checkpoint = split_checkpoint(signed)[0]
    failures: list[str] = []
    verifier = note.parse_verifier(proof["key"] if pin is None else pin)
    try:
        read_checkpoint(signed, verifier)
    except Refusal as refused:
        failures.append(f"the checkpoint: {refused.what}")
    if pin is not None and proof["key"] != pin:
        failures.append("the key that its maker tells is not the pinned one")
    if not inclusion_holds(leaf_hash(leaf), proof["index"], checkpoint.size, inclusion, checkpoint.root):
        failures.append("the leaf does not stand at this place of the tree that was signed")
    failures += _content_failures(leaf, proof["nonce"], proof["content"])
    seals = [each.encode() for each in proof["seals"]]
    failures += _seal_failures(leaf, seals)
    failures += _seen_failures(checkpoint, proof["seen"], consistency)
    if seen is not None:
        failures += _own_seen_failures(checkpoint, proof["seen"], seen, verifier)
    return Checked(
        checkpoint=checkpoint,
        index=proof["index"],
        leaf=leaf,
        content=proof["content"],
        pinned=pin is not None,
        failures=tuple(failures),
        batch=_batch(leaf, seals),
        seals=len(seals),
    )


def _hex(text: str) -> bytes:
    """Hex digits as they are written here, and in no other way; ValueError."""
    found = bytes.fromhex(text)
    if found.hex() != text:
        raise ValueError(text)
    return found


def _batch(leaf: bytes, seals: Sequence[bytes]) -> str | None:
    if seals:
        return seal_hash(seals[0])
    try:
        said = parse_leaf(leaf)
    except Refusal:
        return None
    return said.hash if isinstance(said, BatchLeaf) else None


def _seal_failures(leaf: bytes, seals: Sequence[bytes]) -> list[str]:
    """Their signatures need no look: the leaf names the last one's hash, which is over all of it, and so back."""
    if not seals:
        return []
    try:
        said = parse_leaf(leaf)
        named = [peek_seal(each).previous for each in seals[1:]]
        peek_seal(seals[0])
    except Refusal:
        return ["the leaf or a seal is malformed"]
    named.append(said.hash if isinstance(said, BatchLeaf) else "")
    if named != [seal_hash(each) for each in seals]:
        return ["the seals do not lead from the first one to the leaf"]
    return []


def _content_failures(leaf: bytes, nonce: str | None, content: str | None) -> list[str]:
    try:
        said = parse_leaf(leaf)
        committed = None if content is None else Content(_hex(nonce or ""), content)
    except (Refusal, ValueError):
        return ["the leaf or its nonce is malformed"]
    if committed is None:
        return [] if nonce is None else ["a nonce without a content"]
    if not isinstance(said, ChangeLeaf) or committed.commitment != said.commitment:
        return ["the content is not what the leaf commits to"]
    # A hash of two parts in a row says nothing of where one ends and the other begins: their lengths do.
    if len(committed.nonce) != NONCE_BYTES:
        return [f"the nonce has {len(committed.nonce)} bytes, not {NONCE_BYTES}"]
    if _table(committed.content) != said.table:
        return [f"the content is not of the table {said.table}, as its leaf says"]
    return []


def _table(content: str) -> str | None:
    try:
        told = json.loads(content)
    except (ValueError, RecursionError):
        return None
    table = told.get("table") if isinstance(told, dict) else None
    return table if isinstance(table, str) else None


def _seen_failures(checkpoint: Checkpoint, line: str | None, consistency: list[bytes]) -> list[str]:
    """Of the maker's own claim that the tree begins with an earlier one."""
    if line is None:
        return ["hashes of a consistency proof, without an earlier checkpoint"] if consistency else []
    earlier, _ = read_seen(line)
    if earlier.origin != checkpoint.origin:
        return ["the earlier checkpoint is of another log"]
    if not consistency_holds(earlier.size, checkpoint.size, earlier.root, checkpoint.root, consistency):
        return ["the tree does not begin with that of the earlier checkpoint"]
    return []


def _own_seen_failures(
    checkpoint: Checkpoint, line: str | None, seen: str, verifier: note.Verifier
) -> list[str]:
    """Of what the checker saw: the proof has to speak of exactly that, and its signature, if it has one, to hold."""
    own, signed = read_seen(seen)
    if signed is not None:
        try:
            read_checkpoint(signed, verifier)
        except Refusal as refused:
            return [f"the checkpoint seen: {refused.what}"]
    same = Checkpoint(checkpoint.origin, checkpoint.size, checkpoint.root)
    if checkpoint_line(own) in (checkpoint_line(same), line):
        return []
    if own.origin == checkpoint.origin and own.size == checkpoint.size:
        return ["the log has signed two trees of one size: the one seen, and this one"]
    told = None if line is None else read_seen(line)[0]
    if told is not None and (told.origin, told.size) == (own.origin, own.size):
        return [f"the log has two histories: of {own.size} leaves it tells another tree than the one seen"]
    return ["the proof does not tell of the checkpoint seen; have it made with --seen"]


def _bad(what: str) -> Refusal:
    return Refusal(
        "bad_proof", f"this is no proof of a log: {what}", remedy="have it made by `tally log prove`"
    )
