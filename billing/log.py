"""The log of an operator: what its leaves say, and what names it goes by.

One append-only Merkle log an operator (metering/merkle.py) holds a leaf for each accepted batch with events, for one of a
quiet lane's heartbeats an hour, whose seal leads back to the others, and for each change of what matters: keys, site
documents, documents, entries, closes, people's decisions. The database makes the leaves in the transaction of the change
itself (migrations/versions/0001_first.log.sql, which says which heartbeats); this is how their bytes are written:

    tallygrid/leaf/v1
    batch <node> <lane> <epoch> <number> <hash of the seal> <when it was accepted, as 2026-10-05T08:00:10.000000Z>

    tallygrid/leaf/v1
    change <table> <SHA-256(nonce ‖ content), 64 hex digits>

Each ends with a newline. A change's content is JSON text, the transaction's instant and the row as it stood after the
change (before a delete), with the columns in the table's order:

    {"table":"subject","op":"insert","at":"2026-10-05T08:00:10+00:00","row":{"operator":"vilnius",…}}

`op` is insert, update or delete. Contents are archived beside the log, those of one transaction together, a line of
JSON each in the order in which they were made:

    _log/content/2026-10-05/<SHA-256 of the object, 64 hex digits>.jsonl
    {"commitment": "<64 hex digits>", "nonce": "<64 hex digits>", "content": "<the text, as a JSON string>"}

The day is that of the transaction's beginning, in UTC. Without a content the log still proves everything else, and from
the commitment alone nothing can be guessed, for the nonce is random; so one could be erased. No command does that yet,
and a restore from the archive misses it (docs/log.md).

A log is archived below `<operator>/_log/` in the layout of C2SP tlog-tiles (log_tiles.py): `checkpoint`, `tile/…`,
`tile/entries/…`. What belongs to the installation (operator `*`) is archived under `_installation`, a name that no
operator can have.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
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


def contents_object(operator: str, day: date, contents: Sequence[Content]) -> tuple[str, bytes]:
    """Name and bytes of the object that archives these contents of one day; the same each time."""
    written = b"".join(_content_line(content) for content in contents)
    return f"{contents_folder(operator)}{day.isoformat()}/{sha256(written).hexdigest()}.jsonl", written


def read_contents(path: str, stored: bytes) -> Mapping[str, Content]:
    """The contents of an archived object, by commitment. Refusal `bad_content` if it is not what its name and its own
    commitments say."""
    found: dict[str, Content] = {}
    try:
        for line in stored.decode().split("\n")[:-1]:
            read = json.loads(line)
            found[read["commitment"]] = Content(bytes.fromhex(read["nonce"]), read["content"])
    except (ValueError, KeyError, TypeError):
        raise _bad_content("an object of contents is malformed", path) from None
    if sha256(stored).hexdigest() != path.rpartition("/")[2].removesuffix(".jsonl"):
        raise _bad_content("an object of contents does not hold what its name says", path)
    for commitment, content in found.items():
        if content.commitment != commitment or len(content.nonce) != NONCE_BYTES:
            raise _bad_content(f"a content is not what {commitment} commits to", path)
    return found


def _content_line(content: Content) -> bytes:
    line = {"commitment": content.commitment, "nonce": content.nonce.hex(), "content": content.content}
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


def _bad_content(what: str, path: str) -> Refusal:
    return Refusal("bad_content", what, where=path, remedy="restore the archive from its backup")


def archive_name(operator: str) -> str:
    """The operator's folder in the archive."""
    return _INSTALLATION_NAME if operator == INSTALLATION else operator


def log_folder(operator: str) -> str:
    """Where the operator's log is archived; a prefix of names, ending with `/`."""
    return f"{archive_name(operator)}/_log/"


def checkpoint_path(operator: str) -> str:
    """The one name in the archive whose bytes change: the log's newest checkpoint."""
    return f"{log_folder(operator)}checkpoint"


def contents_folder(operator: str) -> str:
    """Where contents are archived, in a folder a day; a prefix of names, ending with `/`."""
    return f"{log_folder(operator)}content/"


def origin(operator: str) -> str:
    """The log's name in checkpoints, and its key's."""
    return f"{archive_name(operator)}.tallygrid/log"


def operator_of(log_origin: str) -> str:
    """The operator whose log this origin names. Refusal `bad_checkpoint` if it is none of ours."""
    name, dot, _ = log_origin.rpartition(".tallygrid/log")
    if not dot or not name or origin(name) != log_origin:
        raise Refusal("bad_checkpoint", f"{log_origin!r} names no log of an operator")
    return INSTALLATION if name == _INSTALLATION_NAME else name
