"""What is held, case by case: a branch of a lane's chain that cannot go on, and what ends it. Pure.

A branch begins with a held batch that follows nothing held, and holds all that follows it. Some cases end by themselves;
for the rest a person decides, and the exact command is named here, so that `tally streams` can say it at 3 a.m.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from billing import acceptance
from billing.inspection import LaneName, Place


@dataclass(frozen=True, slots=True)
class HeldBatch:
    """A batch that waits, and why."""

    place: Place
    hash: str
    previous: str
    code: str
    what: str
    path: str = ""
    #: Its key was revoked, or a seal of a newer one was accepted.
    is_stale: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """A branch of what is held: its batches, each behind its previous one; what ends it, and by which commands."""

    name: LaneName
    batches: tuple[HeldBatch, ...]
    ends: str
    commands: tuple[str, ...] = ()

    @property
    def root(self) -> HeldBatch:
        return self.batches[0]


def branches(held: Iterable[HeldBatch]) -> list[tuple[HeldBatch, ...]]:
    """The held batches as chains, roots in the order given; of two that follow one batch each is a branch of its own."""
    there = list(held)
    hashes = {batch.hash for batch in there}
    followers: dict[str, list[HeldBatch]] = {}
    for batch in there:
        followers.setdefault(batch.previous, []).append(batch)
    roots = [batch for batch in there if batch.previous not in hashes]
    found: list[tuple[HeldBatch, ...]] = []
    while roots:
        chain = [roots.pop(0)]
        while behind := followers.get(chain[-1].hash):
            chain.append(behind[0])
            roots += behind[1:]
        found.append(tuple(chain))
    return found


def cases(name: LaneName, held: Iterable[HeldBatch], dropped: Collection[str] = ()) -> list[Case]:
    """What is held of a lane, case by case; `dropped` are hashes of batches that people decided against."""
    return [Case(name, chain, *_ending(name, chain, dropped)) for chain in branches(held)]


def branch_up_to(held: Iterable[HeldBatch], hash: str) -> tuple[HeldBatch, ...]:
    """The held batches from the root of its branch up to and with the one of this hash."""
    by_hash = {batch.hash: batch for batch in held}
    chain: list[HeldBatch] = []
    at = by_hash.get(hash)
    while at is not None:
        chain.append(at)
        at = by_hash.get(at.previous)
    return tuple(reversed(chain))


def branch_from(held: Sequence[HeldBatch], hash: str) -> tuple[HeldBatch, ...]:
    """The held batch of this hash and all that follow it, on every branch."""
    found = [batch for batch in held if batch.hash == hash]
    reached = {hash}
    while more := [batch for batch in held if batch.previous in reached and batch.hash not in reached]:
        found += more
        reached |= {batch.hash for batch in more}
    return tuple(found)


def _ending(
    name: LaneName, chain: tuple[HeldBatch, ...], dropped: Collection[str]
) -> tuple[str, tuple[str, ...]]:
    root = chain[0]
    lane = f"--operator {name.operator} --node {name.node} --lane {name.lane}"

    def repair(option: str, batch: HeldBatch) -> str:
        return f"tally intake repair {lane} {option} {batch.hash[:16]} --reason WHY"

    drop = repair("--drop", root)
    all_stale = f"tally intake repair {lane} --drop revoked --reason WHY"
    if root.previous in dropped:
        return "it follows a batch that was dropped: its writer (a clone, a restored disk) still runs", (
            drop,
        )
    match root.code:
        case acceptance.HOLE:
            return (
                "it is taken up by itself when the missing batch comes; if that never will",
                (repair("--accept-hole", root), drop),
            )
        case acceptance.AHEAD_OF_TIME | acceptance.UNKNOWN_CUSTOMER:
            ends = "its time" if root.code == acceptance.AHEAD_OF_TIME else "the subject restored"
            return f"it is taken up by itself with {ends}; if it never should be", (drop,)
        case acceptance.FORK:
            # A number that is taken stays taken: the branch can go on from its next epoch only.
            fresh = next((batch for batch in chain if batch.place.number == 0), None)
            keep = () if fresh is None else (repair("--keep", fresh),)
            return (
                "another writer sealed in this lane: stop it, or give it a lane of its own (--lane), for the lane can go on"
                " with one only; then bill this branch too, or leave it out",
                (*keep, drop),
            )
        case acceptance.OTHER_BRANCH:
            return (
                "both writers of a fork still seal in this lane: stop one, or give it a lane of its own (--lane); then go"
                " on with this one, or leave it out",
                (repair("--keep", root), drop),
            )
        case acceptance.REVOKED:
            return (
                "what is genuine is sealed again at the node, the rest is dropped",
                (f"tally node reseal --node {name.node} --lane {name.lane}", all_stale),
            )
        case acceptance.OLD_KEY:
            return "a seal of the newer key was accepted before it; it is a stale writer's", (all_stale,)
    if root.code in acceptance.OF_ITS_PLACE:
        return "it contradicts what stands before it: go on with it as it is, or leave it out", (
            repair("--accept-hole", root),
            drop,
        )
    behind = (repair("--accept-hole", chain[1]),) if len(chain) > 1 else ()
    return "a whole copy of the same batch; if there is none", (*behind, drop)
