"""May this batch follow? The pure decision at intake, lane by lane.

A lane's high-water mark (its last accepted seal) is all that is needed to recognise the next batch and the last one
again: no table of ids, no window of time. Only a batch that is neither is looked up in the archive's list, by its
number and by the seal that it names as previous. What comes out is one of:

    accepted it names the lane's last seal and its numbers go on without a hole
    repeat   it was accepted before: the same number with the same hash
    fork     its number, or the seal that it follows, was taken by another batch: held, both are named
    other_branch      it follows an accepted seal, and by a person's decision the lane goes on with another branch: held
    hole     it follows a batch that has not come yet: held, and taken up when that one is accepted
    ahead_of_time     it speaks of what is still to come: held, and taken up when that time has come
    unknown_customer  nobody knows a customer of its events: held, and taken up when the subject is there
    revoked  its key was revoked, and it comes after the last good seal: held, and sealed again under the new key
    old_key  a seal of the lane's newer key was accepted before it: held
    dropped  a person decided that it never counts: it stays held, and is named no more
    …        anything else that is wrong with it: held by the name of the check

A batch that is refused while a whole copy of it is accepted beside it (its body was damaged on one of two ways) is a
repeat: what it stood for is there.

A person may decide that the lane goes on with a batch that follows another seal (`Mark.adopts`): the other branch of a
fork, or what comes behind numbers that will never come. Its place in the numbers and its times are then not asked.

A new epoch's first batch has number 0 and names the last seal of the epoch before (or `genesis`). Its sequence numbers
start at 1 again; time does not: it only goes on, over all epochs of a lane.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from billing.inspection import Inspected, Place
from metering.batch import GENESIS, Seal
from metering.instant import time_text
from metering.refusal import Refusal

#: How far a lane's clock may be ahead of intake's.
AHEAD = timedelta(minutes=5)
#: The holds that end by themselves: as soon as the missing batch is accepted, the time has come, the subject exists.
HOLE = "hole"
AHEAD_OF_TIME = "ahead_of_time"
UNKNOWN_CUSTOMER = "unknown_customer"
FORK = "fork"
OTHER_BRANCH = "other_branch"
REVOKED = "revoked"
OLD_KEY = "old_key"
DROPPED = "dropped"
#: Of a key that counts no more: whoever else has it may sign with it without end.
OF_A_STALE_KEY = frozenset((REVOKED, OLD_KEY))
#: What a batch is held for because of what stands before it: a person's decision to go on with it passes over that.
OF_ITS_PLACE = frozenset((HOLE, FORK, OTHER_BRANCH, "number", "sequence", "requests", "complete_to", "time"))


@dataclass(frozen=True, slots=True)
class Mark:
    """A lane's high-water mark: what its last accepted seal said, and what people decided about the lane since.

    `epoch` is None before the first. `key_rank`: of the key that signed the last accepted seal; `revoked`: ranks of keys
    of which nothing more is accepted; `adopts`: hash of the batch with which the lane goes on, whatever seal it names;
    `dropped`: hashes of batches that never will be accepted.
    """

    kind: str
    epoch: str | None = None
    number: int = -1
    head: str = GENESIS
    last_sequence: int = 0
    complete_to_us: int | None = None
    opened: int = 0
    closed: int = 0
    ended: bool = False
    key_rank: int = 0
    revoked: frozenset[int] = frozenset()
    adopts: str | None = None
    dropped: frozenset[str] = frozenset()

    def after(self, seal: Seal, seal_hash: str, key_rank: int = 0) -> Mark:
        """The mark once `seal` is accepted."""
        return replace(
            self,
            epoch=seal.epoch,
            number=seal.number,
            head=seal_hash,
            last_sequence=seal.last,
            complete_to_us=seal.complete_to_us,
            opened=seal.opened,
            closed=seal.closed,
            ended=seal.final,
            key_rank=key_rank,
            adopts=None,
        )


@dataclass(frozen=True, slots=True)
class Known:
    """What the archive's list says about the batches that were asked for."""

    by_place: Mapping[Place, str]  # -> hash
    by_previous: Mapping[str, tuple[Place, str]]  # hash of a seal -> its accepted successor


@dataclass(slots=True)
class Verdicts:
    """What becomes of one lane's arrivals. `open` are those that only the archive's list can tell about."""

    mark: Mark
    accepted: list[Inspected] = field(default_factory=list)
    repeats: list[Inspected] = field(default_factory=list)
    refused: list[tuple[Inspected, Refusal]] = field(default_factory=list)
    open: list[Inspected] = field(default_factory=list)


def follow(mark: Mark, arrivals: Sequence[Inspected], now: datetime) -> Verdicts:
    """Goes on from the lane's mark as far as the arrivals lead, in whatever order they came."""
    verdicts = Verdicts(mark)
    waiting: dict[str, deque[Inspected]] = defaultdict(deque)
    for batch in _adopting(mark, arrivals):
        waiting[mark.head if batch.adopted else batch.seal.previous].append(batch)
    while successors := waiting[verdicts.mark.head]:
        batch = successors.popleft()
        fault = _stale(verdicts.mark, batch) or batch.fault or _misfit(verdicts.mark, batch, now)
        if fault is not None:
            verdicts.refused.append((batch, fault))
            continue
        verdicts.accepted.append(batch)
        verdicts.mark = verdicts.mark.after(batch.seal, batch.hash, batch.key_rank)
    accepted = {(batch.place, batch.hash) for batch in verdicts.accepted}
    refused, verdicts.refused = verdicts.refused, []
    for batch, fault in refused:
        if (batch.place, batch.hash) in accepted:
            verdicts.repeats.append(batch)
        else:
            verdicts.refused.append((batch, fault))
    taken = {mark.head, *(batch.hash for batch in verdicts.accepted)}
    for batch in (left for successors in waiting.values() for left in successors):
        (verdicts.repeats if batch.hash in taken else verdicts.open).append(batch)
    return verdicts


def _adopting(mark: Mark, arrivals: Sequence[Inspected]) -> Sequence[Inspected]:
    """The arrivals, of which the one that the lane is to go on with says so."""
    if mark.adopts is None:
        return arrivals
    return [
        replace(batch, adopted=batch.seal.previous != mark.head) if batch.hash == mark.adopts else batch
        for batch in arrivals
    ]


def settle(verdicts: Verdicts, known: Known) -> None:
    """Decides on what `follow` left open, with what the archive's list says about it."""
    places = dict(known.by_place)
    successors = dict(known.by_previous)
    for batch in verdicts.accepted:
        places[batch.place] = batch.hash
        if not batch.adopted:
            successors[batch.seal.previous] = (batch.place, batch.hash)
    for batch in verdicts.open:
        if places.get(batch.place) == batch.hash:
            verdicts.repeats.append(batch)
        else:
            verdicts.refused.append((batch, _why_not(verdicts.mark, batch, places, successors)))
    verdicts.open = []


def _why_not(
    mark: Mark, batch: Inspected, places: Mapping[Place, str], successors: Mapping[str, tuple[Place, str]]
) -> Refusal:
    """Names what is wrong with a batch that neither goes on from the mark nor repeats anything."""
    here = f"{batch.place} ({batch.hash})"
    where = f"{batch.name} {batch.place}"
    stale = _stale(mark, batch)
    if stale is not None:
        return stale
    taken = places.get(batch.place)
    if taken is not None:
        return Refusal(FORK, f"two batches of one number: {here} and the accepted ({taken})", where=where)
    successor = successors.get(batch.seal.previous)
    if successor is not None:
        place, other = successor
        what = f"two successors of seal {batch.seal.previous}: {here} and the accepted {place} ({other})"
        return Refusal(FORK, what, where=where)
    before = Place(batch.seal.epoch, batch.seal.number - 1)
    if places.get(before) == batch.seal.previous:
        head = Place(mark.epoch or "", mark.number)
        what = f"{here} follows the accepted {before}; by a person's decision the lane goes on with another branch, {head}"
        return Refusal(OTHER_BRANCH, what, where=where)
    last = "nothing" if mark.epoch is None else f"{Place(mark.epoch, mark.number)} ({mark.head})"
    what = f"{here} follows seal {batch.seal.previous}, which is not accepted; the last accepted is {last}"
    return Refusal(HOLE, what, where=where)


def _misfit(mark: Mark, batch: Inspected, now: datetime) -> Refusal | None:
    """What does not hold between a lane's mark and the batch that names its head, by the name of the check."""
    misfit = _ahead(batch, now)
    if misfit is None and batch.hash == mark.adopts:
        misfit = _ending(mark, batch.seal)
    elif misfit is None:
        misfit = _ending(mark, batch.seal) or _numbers(mark, batch.seal) or _times(mark, batch)
    return None if misfit is None else Refusal(*misfit, where=f"{batch.name} {batch.place}")


def _stale(mark: Mark, batch: Inspected) -> Refusal | None:
    """Why nothing of this batch counts, whatever it holds and wherever it stands."""
    if batch.hash in mark.dropped:
        why = DROPPED, "a person decided that it never counts"
    elif batch.key_rank in mark.revoked:
        why = REVOKED, "its key was revoked, and it comes after the last good seal"
    elif batch.key_rank < mark.key_rank:
        why = OLD_KEY, "a seal of the lane's newer key was accepted before it"
    else:
        return None
    return Refusal(*why, where=f"{batch.name} {batch.place}")


def _ending(mark: Mark, seal: Seal) -> tuple[str, str] | None:
    if seal.kind != mark.kind:
        return "lane_kind", f"the seal is of a {seal.kind} lane, enrolled is one of kind {mark.kind}"
    if mark.ended:
        return "after_final", "the lane ended with a final seal, and this one follows it"
    return None


def _numbers(mark: Mark, seal: Seal) -> tuple[str, str] | None:
    same_epoch = seal.epoch == mark.epoch
    number = mark.number + 1 if same_epoch else 0
    first = mark.last_sequence + 1 if same_epoch else 1
    if seal.number != number:
        return "number", f"number {seal.number} follows the last seal, {number} was expected"
    if seal.first != first:
        return "sequence", f"its events begin at {seal.first}, {first} was expected"
    if seal.kind == "sidecar" and (seal.opened < mark.opened or seal.closed < mark.closed):
        return "requests", "it counts fewer requests opened or closed than the seal before"
    return None


def _ahead(batch: Inspected, now: datetime) -> tuple[str, str] | None:
    if batch.latest_us > _microseconds(now + AHEAD):
        return AHEAD_OF_TIME, f"it speaks of {time_text(batch.latest_us)}, which is still to come"
    return None


def _times(mark: Mark, batch: Inspected) -> tuple[str, str] | None:
    seal, times_us = batch.seal, batch.times_us
    if mark.complete_to_us is None:
        return None
    before = time_text(mark.complete_to_us)
    if seal.complete_to_us < mark.complete_to_us:
        return "complete_to", f"complete up to {time_text(seal.complete_to_us)}, after {before} was said"
    if times_us is not None and times_us[0] <= mark.complete_to_us:
        return "time", f"an event of {time_text(times_us[0])}, where the lane was complete up to {before}"
    return None


def due_at(batch: Inspected) -> datetime:
    """From when on a batch that was ahead of time no longer is."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=batch.latest_us) - AHEAD


def _microseconds(instant: datetime) -> int:
    return int(instant.timestamp()) * 1_000_000 + instant.microsecond
