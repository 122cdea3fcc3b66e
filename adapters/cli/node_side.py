"""What `tally node` does on a node's own machine: its keys, its requests, its lanes' folders. No database is asked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from adapters.data_folder import DataFolder
from billing.inspection import LaneName
from metering.acknowledgement import intake_name
from metering.batch import GENESIS, SealedBatch
from metering.durable import fsync_folder, make_folder, replace_file
from metering.enrolment import Answer, Request, read_answer, sign_request
from metering.identity import LaneKey
from metering.keybook import parse_snapshot
from metering.lane import Lane
from metering.lane_folder import LaneFolder, check_lane_name, lane_path
from metering.note import parse_verifier, verifier_key
from metering.refusal import Refusal
from metering.reseal import batches_in, reseal
from metering.siblings import FIRST_LANE
from metering.spool import Spool

_SEAL = re.compile(r"(?:[0-9a-f]{32}-[0-9]+-)?([0-9a-f]{64}|genesis)")


@dataclass(frozen=True, slots=True)
class LaneKeys:
    """A node's key and its lanes' public keys, as this machine has them. `fresh`: beside the keys in use, as `.next`."""

    operator: str
    node: str
    key: Ed25519PrivateKey
    lanes: tuple[tuple[str, bytes], ...]
    fresh: bool

    def request(self, at: datetime) -> Request:
        at_us = int(at.timestamp()) * 1_000_000 + at.microsecond
        return Request(self.operator, self.node, LaneKey.public_bytes(self.key), at_us, self.lanes)


def where_am_i(folder: DataFolder, operator: str | None, node: str | None) -> tuple[str, str]:
    """(operator, node) of this machine, by its enrolment or its spool. Refusal `which_node` where neither tells."""
    known = {(answer.operator, answer.node) for answer in enrolments(folder)}
    known |= {
        (ref.operator, ref.node) for ref in Spool(folder.spool).lanes() if not ref.lane.startswith("import-")
    }
    meant = [pair for pair in sorted(known) if operator in (None, pair[0]) and node in (None, pair[1])]
    if len(meant) == 1:
        return meant[0]
    if not meant and operator is not None and node is not None:
        return operator, node
    raise Refusal(
        "which_node",
        f"several nodes are here: {', '.join('/'.join(pair) for pair in meant)}"
        if meant
        else "which node is this?",
        where="--operator, --node",
        remedy="name both, as the site files of the ledger declare them",
    )


def enrolments(folder: DataFolder) -> list[Answer]:
    """The answers that nodes of this machine took in: they have no database at hand."""
    found = sorted((folder.keys / "node").glob("*.enrolled"))
    return [read_answer(path.read_bytes()) for path in found]


def lanes_here(folder: DataFolder, operator: str, node: str) -> list[str]:
    """The sidecar lanes that have a key or a folder here; the first lane where there is none yet."""
    keys = {path.name.removesuffix(".key") for path in (folder.keys / "lanes" / node).glob("*.key")}
    spooled = {
        ref.lane for ref in Spool(folder.spool).lanes() if (ref.operator, ref.node) == (operator, node)
    }
    return sorted(name for name in keys | spooled if not name.startswith("import-")) or [FIRST_LANE]


def new_lane_keys(
    folder: DataFolder, operator: str, node: str, lanes: Sequence[str], *, fresh: bool = False
) -> LaneKeys:
    """The node's key and these lanes' keys, made where there are none; `fresh`: new ones, beside those in use."""
    made: list[tuple[str, bytes]] = []
    for lane in lanes:
        check_lane_name(lane)
        path = folder.lane_key(node, lane)
        key = LaneKey.load_or_create(_next(path) if fresh else path)
        made.append((lane, LaneKey.public_bytes(key)))
    return LaneKeys(operator, node, LaneKey.load_or_create(folder.node_key(node)), tuple(made), fresh)


def take_new_keys(folder: DataFolder, made: LaneKeys) -> None:
    """The new keys take the place of those in use, of which nothing stays here."""
    for lane, _ in made.lanes:
        path = folder.lane_key(made.node, lane)
        _next(path).replace(path)
        fsync_folder(path.parent)


def _next(path: Path) -> Path:
    return path.with_name(f"{path.name}.next")


def write_request(folder: DataFolder, made: LaneKeys, at: datetime) -> bytes:
    """The request to enrol these keys, signed by the node's."""
    make_folder(folder.keys)
    return sign_request(made.request(at), made.key)


def accept_answer(folder: DataFolder, content: bytes) -> tuple[Answer, int]:
    """Takes an answer in: whose acknowledgements count, which API keys are served; the answer, and how many keys.

    Refusals `bad_enrolment`, `bad_signature`, `not_this_node`, `another_intake_key`, `older_answer`.
    """
    answer = read_answer(content)
    own = folder.node_key(answer.node)
    if not own.is_file() or LaneKey.public_bytes(LaneKey.load_or_create(own)) != answer.key:
        raise Refusal(
            "not_this_node",
            f"the answer is for another machine's key of {answer.node}",
            where="ANSWER",
            remedy="take it in where its request was made",
        )
    public = folder.intake_keys / f"{answer.operator}.pub"
    told = verifier_key(intake_name(answer.operator), answer.intake)
    if public.is_file() and parse_verifier(public.read_text().strip()).public_key != answer.intake:
        raise Refusal(
            "another_intake_key",
            f"this machine knows another intake key of {answer.operator}",
            where=str(public),
            remedy=f"if the ledger's key {told} is really its new one, remove the file and take the answer in again",
        )
    kept = folder.node_answer(answer.node)
    if kept.is_file() and read_answer(kept.read_bytes()).made_at_us > answer.made_at_us:
        raise Refusal(
            "older_answer",
            "a newer answer was taken in before",
            where="ANSWER",
            remedy="take the newest answer",
        )
    served = parse_snapshot(answer.api_keys)
    for path in (public, kept, folder.key_snapshot(answer.operator)):
        make_folder(path.parent)
    replace_file(folder.key_snapshot(answer.operator), answer.api_keys.encode(), mode=0o600)
    replace_file(public, f"{told}\n".encode())
    replace_file(kept, content, mode=0o600)
    return answer, len(served)


def reseal_lane(
    folder: DataFolder, name: LaneName, after: str | None, sources: Sequence[Path]
) -> list[SealedBatch]:
    """Seals the lane's chain behind the seal `after` again, under the key that its file holds now. Refusals as
    `metering.reseal.reseal`, and `lane_in_use`, `not_here`."""
    here = _folder_of(folder, name)
    found: dict[str, SealedBatch] = {}
    for source in (lane_path(folder.held, *name), *sources):
        found |= batches_in(source)
    key = LaneKey.load_or_create(folder.lane_key(name.node, name.lane))
    try:
        return reseal(here, after or GENESIS, found, key)
    finally:
        here.close()


def _folder_of(folder: DataFolder, name: LaneName) -> LaneFolder:
    if not (lane_path(folder.spool, *name) / "head").is_file():
        raise Refusal(
            "not_here",
            "the lane's folder is not on this machine",
            where=str(name),
            remedy="do this at its node",
        )
    return LaneFolder.open(folder.spool, *name)


def final_seal(folder: DataFolder, name: LaneName) -> bool:
    """Ends the lane by a final seal where its folder is here; else False. Refusal `lane_in_use` while a sidecar has it."""
    key = folder.lane_key(name.node, name.lane)
    if not (lane_path(folder.spool, *name) / "head").is_file() or not key.is_file():
        return False
    lane = Lane.open(
        folder.spool,
        operator=name.operator,
        node=name.node,
        lane=name.lane,
        key=LaneKey.load_or_create(key),
    )
    lane.close(final=True)
    return True


def hash_of_seal(text: str) -> str:
    """The hash in EPOCH-NUMBER-HASH, as `node list` shows a seal, or the hash itself. Refusal `bad_seal_name`."""
    found = _SEAL.fullmatch(text)
    if found is None:
        raise Refusal(
            "bad_seal_name",
            f"not a seal: {text[:120]}",
            where="--after",
            remedy="EPOCH-NUMBER-HASH as `tally node list --json` shows it at the ledger, the hash alone, or genesis",
        )
    return found[1]
