"""What a person decides about a lane that cannot go on by itself, and what becomes of its usage. Pure.

    keep HASH         of a fork: the lane goes on with this branch behind its last accepted seal, and bills both
    drop HASH         this batch and what is held behind it never count; their files stay in held/
    drop revoked      so does all that is held under keys that were revoked, or have a newer one
    accept-hole HASH  what is missing before this batch will never come: the lane goes on with it
    retire            the lane will never seal again: no close waits for it
    unproven HASH     of an accepted batch: nothing will ever prove its events; they are billed as its seal counts them

With a batch that a lane goes on with, what is held between it and the last accepted seal is dropped: a number that is
taken stays taken. Usage that is lost by a decision is told by it (from when to when, how many requests), and every close
of a period that it touches prints it. What a restored disk sealed again of the same requests is not lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from billing.acceptance import FORK, OF_ITS_PLACE, OTHER_BRANCH, REVOKED
from billing.held_cases import HeldBatch, branch_from, branch_up_to
from billing.inspection import LaneName, Place
from metering.batch import GENESIS, Seal
from metering.columns import integers
from metering.refusal import Refusal

KEEP, DROP, ACCEPT_HOLE, REVOKE, RETIRE = "keep", "drop", "accept_hole", "revoke", "retire"
UNPROVEN = "unproven"
#: So many digits of a hash name a batch.
SHORTEST_HASH = 8


@dataclass(frozen=True, slots=True)
class Lost:
    """Usage that is not billed, or not proven: µs since 1970, UTC; `requests` None where nobody knows how many."""

    begins_us: int
    ends_us: int
    requests: int | None


@dataclass(frozen=True, slots=True)
class Decision:
    """One row of what was decided: about which batch of which lane, where the lane goes on, what is lost."""

    kind: str
    name: LaneName
    place: Place | None
    hash: str | None
    reason: str
    after: str | None = None
    lost: Lost | None = None


@dataclass(frozen=True, slots=True)
class LaneNow:
    """A lane as a person finds it. `head` is None before its first accepted seal; `held` is what nobody decided on yet;
    `taken` are those of the held batches' places that an accepted batch has.
    """

    name: LaneName
    kind: str
    place: Place | None
    head: str | None
    complete_to_us: int | None
    last_sequence: int
    ended: bool
    held: tuple[HeldBatch, ...]
    taken: frozenset[Place] = frozenset()


def named_batch(lane: LaneNow, hash: str) -> HeldBatch:
    """The held batch whose hash begins so; Refusal `unknown_batch` if none or several do."""
    long_enough = len(hash) >= SHORTEST_HASH
    found = [batch for batch in lane.held if batch.hash.startswith(hash)] if long_enough else []
    if len(found) != 1:
        raise Refusal(
            "unknown_batch",
            f"{'several batches' if found else 'no batch'} held of {lane.name} with the hash {hash[:64]}",
            where=str(lane.name),
            remedy="`tally streams` names them; at least the first 8 digits, as many as tell them apart",
        )
    return found[0]


def drop(lane: LaneNow, hash: str, reason: str) -> list[Decision]:
    """Drops a held batch and all that is held behind it; `revoked`: all that stale keys signed. Refusal `unknown_batch`."""
    if hash == REVOKED:
        stale = [_dropped(lane, each, reason) for each in lane.held if each.is_stale]
        if stale:
            return stale
    batch = named_batch(lane, hash)
    return [_dropped(lane, each, reason) for each in branch_from(lane.held, batch.hash)]


def go_on_with(lane: LaneNow, hash: str, kind: str, reason: str) -> list[Decision]:
    """The lane goes on with a held batch: `keep`, of a fork, or `accept_hole`; what is held before it is dropped.

    Refusals `unknown_batch`, `not_a_fork`, `is_a_fork`, `not_acceptable`, `number_taken`, `lane_ended`.
    """
    batch = named_batch(lane, hash)
    chain = branch_up_to(lane.held, batch.hash)
    is_fork = chain[0].code in (FORK, OTHER_BRANCH)
    if is_fork != (kind == KEEP):
        other = "--keep" if is_fork else "--accept-hole"
        raise Refusal(
            "is_a_fork" if is_fork else "not_a_fork",
            f"{batch.place} is held because of: {chain[0].what}",
            where=str(lane.name),
            remedy=f"{other} {hash}, or --drop it",
        )
    if batch.code not in OF_ITS_PLACE:
        raise Refusal(
            "not_acceptable",
            f"{batch.place} itself cannot be accepted: {batch.what}",
            where=str(lane.name),
            remedy="--accept-hole with the batch behind it, or --drop it",
        )
    if batch.place in lane.taken:
        raise Refusal(
            "number_taken",
            f"an accepted batch has the number {batch.place}, and is never taken back",
            where=str(lane.name),
            remedy="--keep a batch of the branch's next epoch, which drops what is before it; or --drop the branch",
        )
    if lane.ended:
        raise Refusal(
            "lane_ended",
            "the lane ended with a final seal: nothing can follow that",
            where=str(lane.name),
            remedy="--drop it",
        )
    going_on = Decision(kind, lane.name, batch.place, batch.hash, reason, after=lane.head or GENESIS)
    return [*(_dropped(lane, each, reason) for each in chain[:-1]), going_on]


def retire(lane: LaneNow, reason: str) -> list[Decision]:
    """No close waits for the lane any more, unless it seals again. Refusal `not_due`."""
    if lane.kind != "sidecar" or lane.ended:
        raise Refusal(
            "not_due",
            "no close waits for an import" if lane.kind != "sidecar" else "its last seal was final",
            where=str(lane.name),
            remedy="there is nothing to do",
        )
    return [Decision(RETIRE, lane.name, lane.place, lane.head, reason)]


def with_losses(
    lane: LaneNow,
    decisions: Sequence[Decision],
    seals: Mapping[str, Seal],
    losses: Mapping[str, Lost | None],
) -> list[Decision]:
    """The decisions with the usage that is lost by them; `losses` of the dropped batches, `seals` of held ones, by hash."""
    roots = {batch.hash: batch.previous for batch in lane.held}
    told: list[Decision] = []
    for decision in decisions:
        lost = None
        assert decision.hash is not None
        if decision.kind == DROP:
            lost = losses[decision.hash]
        elif decision.kind == ACCEPT_HOLE:
            first = branch_up_to(lane.held, decision.hash)[0]
            if roots[first.hash] != (lane.head or GENESIS):  # else nothing is missing but what is dropped
                lost = _missing(lane, seals.get(first.hash))
        told.append(replace(decision, lost=lost))
    return told


def lost_of(seal: Seal, events: pa.Table | None, accepted: Sequence[pa.Table]) -> Lost | None:
    """What is lost with a dropped batch: of its requests those that no accepted batch holds; None where there are none.

    `events` is None where the body cannot be read: all that its seal counts is lost then, at the time of the seal.
    """
    if not seal.events:
        return None
    if events is None:
        return Lost(seal.complete_to_us, seal.complete_to_us, max(0, seal.totals.requests))
    fresh = events
    for table in accepted:
        fresh = fresh.filter(
            pc.invert(pc.is_in(fresh["request"], value_set=table["request"].combine_chunks()))
        )
    if not fresh.num_rows:
        return None
    times = integers(fresh, "time")
    requests = pc.sum(pc.equal(fresh["kind"], "usage").cast(pa.int64())).as_py() or 0
    return Lost(int(times.min()), int(times.max()), requests)


def _dropped(lane: LaneNow, batch: HeldBatch, reason: str) -> Decision:
    return Decision(DROP, lane.name, batch.place, batch.hash, reason)


def _missing(lane: LaneNow, seal: Seal | None) -> Lost | None:
    """What never came between the lane's last accepted seal and this one; how many, where the epoch went on."""
    if seal is None:
        at_us = lane.complete_to_us
        return None if at_us is None else Lost(at_us, at_us, None)
    begins_us = seal.complete_to_us if lane.complete_to_us is None else lane.complete_to_us
    same_epoch = lane.place is not None and lane.place.epoch == seal.epoch
    missing = seal.first - lane.last_sequence - 1 if same_epoch else None
    return Lost(min(begins_us, seal.complete_to_us), seal.complete_to_us, missing)
