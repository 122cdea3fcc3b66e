"""The log of an operator: what its leaves say, and what names it goes by.

One append-only Merkle log an operator (metering/merkle.py) holds a leaf for each accepted batch and for each change of
what matters: keys, site documents, documents, entries, closes, people's decisions. The database makes the leaves in the
transaction of the change itself (migrations/versions/0001_first.log.sql); this is how their bytes are written:

    tallygrid/leaf/v1
    batch <node> <lane> <epoch> <number> <hash of the seal> <when it was accepted, as 2026-10-05T08:00:10.000000Z>

    tallygrid/leaf/v1
    change <table> <SHA-256(nonce ‖ content), 64 hex digits>

Each ends with a newline. A change's content is the JSON text `{"table":…,"op":"insert"|"update"|"delete","at":"…","row":{…}}`,
the transaction's instant and the row as it stood after the change (before a delete). It is kept beside the log under the name of its commitment:

    _log/content/<commitment>.json      {"nonce": "<64 hex digits>", "content": "<the text, as a JSON string>"}

so that a content can be erased when the law asks for it, and the log still proves everything else: from the commitment
alone nothing can be guessed, for the nonce is random.

A log is archived below `<operator>/_log/` in the layout of C2SP tlog-tiles (log_tiles.py): `checkpoint`, `tile/…`,
`tile/entries/…`. What belongs to the installation (operator `*`) is archived under `_installation`, a name that no
operator can have.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from hashlib import sha256

from metering.refusal import Refusal

LEAF_FORMAT = "tallygrid/leaf/v1"
INSTALLATION = "*"
_INSTALLATION_NAME = "_installation"
NONCE_BYTES = 32

_BATCH = re.compile(
    rb"tallygrid/leaf/v1\nbatch ([a-z0-9._-]+) ([a-z0-9._-]+) ([0-9a-f]{32}) (0|[1-9][0-9]*) ([0-9a-f]{64})"
    rb" ([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z)\n"
)
_CHANGE = re.compile(rb"tallygrid/leaf/v1\nchange ([a-z_]+) ([0-9a-f]{64})\n")


@dataclass(frozen=True, slots=True)
class BatchLeaf:
    """That a batch was accepted, and when: `late` follows from it. `hash` is its seal's, in hex."""

    node: str
    lane: str
    epoch: str
    number: int
    hash: str
    accepted_at: str  # metering.instant.time_text


@dataclass(frozen=True, slots=True)
class ChangeLeaf:
    """That a row of `table` changed, to what `commitment` (SHA-256 in hex) commits to."""

    table: str
    commitment: str


@dataclass(frozen=True, slots=True)
class Content:
    """What a change leaf commits to: the random nonce and the JSON text."""

    nonce: bytes
    content: str

    @property
    def commitment(self) -> str:
        return sha256(self.nonce + self.content.encode()).hexdigest()


def leaf_data(leaf: BatchLeaf | ChangeLeaf) -> bytes:
    """The bytes that the log holds for this leaf."""
    match leaf:
        case BatchLeaf():
            said = f"batch {leaf.node} {leaf.lane} {leaf.epoch} {leaf.number} {leaf.hash} {leaf.accepted_at}"
        case ChangeLeaf():
            said = f"change {leaf.table} {leaf.commitment}"
    return f"{LEAF_FORMAT}\n{said}\n".encode()


def parse_leaf(data: bytes) -> BatchLeaf | ChangeLeaf:
    """What a leaf of the log says. Refusal `bad_leaf` for bytes that are none."""
    if found := _BATCH.fullmatch(data):
        node, lane, epoch, number, seal_hash, accepted_at = (part.decode() for part in found.groups())
        return BatchLeaf(node, lane, epoch, int(number), seal_hash, accepted_at)
    if found := _CHANGE.fullmatch(data):
        return ChangeLeaf(found[1].decode(), found[2].decode())
    raise Refusal("bad_leaf", f"{data[:80]!r} is no leaf of a log")


def content_json(content: Content) -> bytes:
    """How a content is archived."""
    written = {"nonce": content.nonce.hex(), "content": content.content}
    return json.dumps(written, ensure_ascii=False).encode()


def parse_content(stored: bytes, commitment: str) -> Content:
    """The archived content that a leaf commits to. Refusal `bad_content` if it is another, or malformed."""
    try:
        read = json.loads(stored)
        content = Content(bytes.fromhex(read["nonce"]), str(read["content"]))
    except (ValueError, KeyError, TypeError):
        raise Refusal(
            "bad_content", "the archived content of a leaf is malformed", where=commitment
        ) from None
    if len(content.nonce) != NONCE_BYTES or content.commitment != commitment:
        raise Refusal("bad_content", "the archived content is not what its leaf commits to", where=commitment)
    return content


def archive_name(operator: str) -> str:
    """The operator's folder in the archive."""
    return _INSTALLATION_NAME if operator == INSTALLATION else operator


def log_folder(operator: str) -> str:
    """Where the operator's log is archived; a prefix of names, ending with `/`."""
    return f"{archive_name(operator)}/_log/"


def checkpoint_path(operator: str) -> str:
    """The one name in the archive whose bytes change: the log's newest checkpoint."""
    return f"{log_folder(operator)}checkpoint"


def content_path(operator: str, commitment: str) -> str:
    return f"{log_folder(operator)}content/{commitment}.json"


def origin(operator: str) -> str:
    """The log's name in checkpoints, and its key's."""
    return f"{archive_name(operator)}.tallygrid/log"


def operator_of(log_origin: str) -> str:
    """The operator whose log this origin names. Refusal `bad_checkpoint` if it is none of ours."""
    name, dot, _ = log_origin.rpartition(".tallygrid/log")
    if not dot or not name or origin(name) != log_origin:
        raise Refusal("bad_checkpoint", f"{log_origin!r} names no log of an operator")
    return INSTALLATION if name == _INSTALLATION_NAME else name
