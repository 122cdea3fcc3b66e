"""Sealing again: after a lane's key was revoked, the genuine batches behind the last accepted seal, under its new key.

Only the node knows which batches are genuine: those of its own chain, from the lane's head back to the seal after which
the ledger accepted nothing more. Each keeps its epoch, its numbers, its events and everything else that its seal says;
only the hash of the seal before it, and the signature, are new. Who had the old key can seal too, but nothing of that
lies on this chain.

    1. `resealing`    the seal to go on after and the head, written down; while it is there no writer takes the lane
    2. each batch     published like any other (lane_folder.py): the head follows
    3. `resealing`    removed, and then the old batches from the spool

Signatures of Ed25519 are deterministic. So a kill before 3 leads to the same place: the same batches are made again, and
those up to the head on disk are there already. After a kill within 3 some old ones are still delivered, and held once more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from metering.batch import SealedBatch
from metering.durable import fsync_folder, replace_file
from metering.lane_folder import BODY_SUFFIX, SEAL_SUFFIX, Head, LaneFolder, disk_failures
from metering.refusal import Refusal
from metering.seal import GENESIS, peek_seal, seal_hash, sign_seal
from metering.steps import step

MARK = "resealing"
_NOT_OURS = (
    "where who stole the key had seals accepted, the lane's last accepted one is not the node's own: `--after` names the"
    " last that is, the keys' `last_good` in `tally node list --json` at the ledger"
)


def batches_in(folder: Path) -> dict[str, SealedBatch]:
    """Every batch below a folder, by hash: a lane's place in a spool, or what was held of it. What is no seal is passed
    over."""
    found: dict[str, SealedBatch] = {}
    for path in sorted(folder.rglob(f"*{SEAL_SUFFIX}")):
        note = path.read_bytes()
        try:
            seal = peek_seal(note)
        except Refusal:
            continue
        body = path.with_name(path.name.removeprefix("_")).with_suffix(BODY_SUFFIX)
        if not seal.events:
            found[seal_hash(note)] = SealedBatch(seal, note, b"")
        elif body.is_file():
            found[seal_hash(note)] = SealedBatch(seal, note, body.read_bytes())
    return found


def chain_behind(after: str, head: str, found: Mapping[str, SealedBatch]) -> list[SealedBatch]:
    """The batches of the chain from behind the seal `after` (a hash, or genesis) to `head`, in their order.

    Refusals `batch_missing`, where one of them is not among `found`; `not_in_chain`.
    """
    chain: list[SealedBatch] = []
    at = head
    while at != after:
        if at == GENESIS:
            raise Refusal(
                "not_in_chain",
                f"the seal {after} is none of this lane's",
                where="--after",
                remedy=f"the lane's last accepted seal, as `tally node list` shows it at the ledger; {_NOT_OURS}",
            )
        if at not in found:
            before = f", which {chain[-1].seal.epoch}-{chain[-1].seal.number} follows," if chain else ""
            raise Refusal(
                "batch_missing",
                f"the batch with the hash {at}{before} is neither in the spool nor in the folders that were named",
                where="--from",
                remedy="if it is held at the ledger: carry held/OPERATOR/NODE/LANE from there, and name it with --from;"
                f" {_NOT_OURS}",
            )
        chain.append(found[at])
        at = found[at].seal.previous
    return chain[::-1]


def sealed_again(chain: Sequence[SealedBatch], after: str, key: Ed25519PrivateKey) -> list[SealedBatch]:
    """The same batches, the first behind the seal `after`, each behind the one before it, under `key`."""
    made: list[SealedBatch] = []
    for batch in chain:
        seal = replace(batch.seal, previous=made[-1].hash if made else after)
        made.append(SealedBatch(seal, sign_seal(seal, key), batch.body))
    return made


def reseal(
    folder: LaneFolder, after: str, found: Mapping[str, SealedBatch], key: Ed25519PrivateKey
) -> list[SealedBatch]:
    """Seals the lane's chain behind `after` again, publishes it, and takes the old batches out of the spool; what was
    published. Refusals as `chain_behind`, and `nothing_sealed`.
    """
    mark = folder.path / MARK
    if mark.is_file():
        after, head = mark.read_text().split()
    elif folder.head is None:
        raise Refusal("nothing_sealed", "the lane has sealed nothing", where=str(folder.path))
    else:
        head = folder.head.hash
    chain = chain_behind(after, head, {**found, **batches_in(folder.sealed)})
    made = sealed_again(chain, after, key)
    if not made or made == chain:
        return []
    with disk_failures(mark):
        replace_file(mark, f"{after} {head}\n".encode())
    step("resealing")
    hashes = [batch.hash for batch in made]
    assert folder.head is not None
    done = hashes.index(folder.head.hash) + 1 if folder.head.hash in hashes else 0
    if not done:
        folder.head = Head(made[0].seal, after)
    for batch in made[done:]:
        folder.publish(batch)
    with disk_failures(folder.path):
        mark.unlink()
        fsync_folder(folder.path)
        _take_out(folder, {batch.hash for batch in chain})
    return made


def check_not_resealing(folder: LaneFolder) -> None:
    """Refusal `reseal_unfinished` where sealing again was begun in the lane's folder and not ended."""
    if (folder.path / MARK).is_file():
        raise Refusal(
            "reseal_unfinished",
            "sealing the lane's batches again was begun and not ended",
            where=str(folder.path),
            remedy=f"`tally node reseal --node {folder.node} --lane {folder.lane}` ends it",
        )


def _take_out(folder: LaneFolder, old: Collection[str]) -> None:
    for path in sorted(folder.sealed.glob(f"*{SEAL_SUFFIX}")):
        if seal_hash(path.read_bytes()) in old:
            path.unlink()
            path.with_suffix(BODY_SUFFIX).unlink(missing_ok=True)
    fsync_folder(folder.sealed)
