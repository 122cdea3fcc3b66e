"""The power is cut anywhere: what was synced is there, nothing that was sealed is lost or doubled, the lane goes on.

The sender's book says what was written, and what of it a sync had put on disk. The engine's lines are played by the
list of all requests that reached it: what of them has no event is the loss, and it is no more than one group.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from lane_examples import HandClock, audit, intent, open_lane, outcome
from recorded_disk import PowerCut, RecordedDisk

from metering.batch import SealedBatch
from metering.fact import Unmetered, parse_fact
from metering.lane import Joined, Lane
from metering.spool import Spool


@dataclass
class Book:
    """Request ids: `tried` to be written; `sent` to the engine, since the intent is written; `ended`, too. What is in
    `synced` and `ended_synced` was on disk before the power went; `lost`: sent in the last group before a cut."""

    tried: set[bytes] = field(default_factory=set)
    sent: set[bytes] = field(default_factory=set)
    ended: set[bytes] = field(default_factory=set)
    synced: set[bytes] = field(default_factory=set)
    ended_synced: set[bytes] = field(default_factory=set)
    lost: set[bytes] = field(default_factory=set)
    unmetered: int = 0
    unmetered_since: int = 0
    unmetered_synced: int = 0

    def sync(self) -> None:
        self.synced |= self.sent
        self.ended_synced |= self.ended
        self.unmetered_synced += self.unmetered_since
        self.unmetered_since = 0

    def cut(self) -> None:
        self.lost |= self.sent - self.synced
        self.sent &= self.synced
        self.ended &= self.ended_synced
        self.unmetered_since = 0


class Life:
    """One life of a lane on a recorded disk, and of the intake that takes from its spool."""

    def __init__(
        self,
        spool: Path,
        book: Book,
        taken: dict[str, SealedBatch],
        chance: random.Random,
        clock: HandClock,
    ) -> None:
        self.spool, self.book, self.taken, self.chance = spool, book, taken, chance
        self.clock = clock
        self.lane: Lane | None = None

    def run(self, *, each: bool, rounds: int | None) -> None:
        """Serve to the end, or for some rounds, as if killed then."""
        self.clock.pass_s(1)
        lane = self.lane = open_lane(
            self.spool,
            self.clock,
            sync="each" if each else "group",
            segment_bytes=3_000,
            warn=lambda *_: None,
        )
        for _ in range(25 if rounds is None else rounds):
            self.serve(lane)
            if each:
                self.book.sync()
            if self.chance.random() < 0.4:
                lane.sync()
                self.book.sync()
            if self.chance.random() < 0.4:
                self.clock.pass_s(self.chance.choice((0, 10)))
                if lane.seal():
                    self.book.sync()
            self.take()
        if rounds is None:
            lane.close()
            self.book.sync()

    def serve(self, lane: Lane) -> None:
        """Some requests, ended in each of the ways that there are."""
        book, chance = self.book, self.chance
        started = [intent() for _ in range(chance.randint(1, 4))]
        for each in started:
            book.tried.add(each.request)
            lane.intent(each)
            book.sent.add(each.request)
        kept = started[: chance.randint(0, len(started))]
        told = kept[: chance.randint(0, len(kept))]
        for each in kept:
            (lane.told if each in told else lane.outcome)(outcome(each.request))
            book.ended.add(each.request)
        if chance.random() < 0.7:
            lane.joined([Joined(each.request, 3) for each in told])
        if chance.random() < 0.2:
            book.unmetered += 1
            lane.count_unmetered(self.clock.wall)
            book.unmetered_since += 1

    def take(self) -> None:
        """What an intake does: it reads what is visible, and has it deleted once it has it."""
        for spooled in list(Spool(self.spool).pending()):
            if self.chance.random() < 0.3:
                break
            batch = spooled.batch()
            self.taken[batch.hash] = batch
            if self.chance.random() < 0.7:
                Spool(self.spool).acknowledge(spooled)


def crash(lane: Lane | None) -> None:
    """Let go of what a dead machine would no longer hold."""
    if lane is not None:
        lane._write_ahead.close()
        lane._reserve.close()
        lane._folder.close()


def live_and_be_cut(folder: Path, seed: int, *, each: bool) -> tuple[Book, dict[str, SealedBatch], Path]:
    """A machine is cut off three times, in between its lane may be killed; a last life seals all that is left."""
    chance = random.Random(seed)
    book, taken, clock = Book(), dict[str, SealedBatch](), HandClock()
    spool = folder / "0"
    spool.mkdir()
    for number in range(1, 4):
        disk = RecordedDisk(spool, chance.choice((15, 100, 400, 900)) + chance.randint(0, 100))
        life = Life(spool, book, taken, chance, clock)
        with pytest.MonkeyPatch.context() as monkeypatch:
            disk.plug_in(monkeypatch)
            try:
                for rounds in chance.choice(((None,), (2, None), (3, 0, None))):
                    life.run(each=each, rounds=rounds)
                    crash(life.lane)
            except PowerCut:
                disk.is_cut = False
                crash(life.lane)
        spool = folder / str(number)
        spool.mkdir()
        disk.after(chance, spool)
        book.cut()
    for _ in range(2):  # the second ends what nobody joined
        open_lane(spool, clock, warn=lambda *_: None).close()
    return book, taken, spool


def check(folder: Path, seed: int, *, each: bool) -> int:
    """Returns how many requests reached the engine and have no event: a count that reconciliation shows."""
    book, taken, spool = live_and_be_cut(folder, seed, each=each)
    left = {batch.hash: batch for batch in (spooled.batch() for spooled in Spool(spool).pending())}
    chain = in_order([*(taken | left).values()])
    found = audit(folder / "none", chain).outcomes
    assert book.synced <= found.keys() <= book.tried
    assert {request for request in book.ended_synced if found[request] != "finished"} == set()
    reached_engine = book.synced | book.lost
    assert reached_engine - found.keys() <= book.lost  # no more than the group before each cut
    facts = [parse_fact(line) for batch in chain for line in batch.seal.facts]
    served = sum(fact.requests for fact in facts if isinstance(fact, Unmetered))
    assert book.unmetered_synced <= served <= book.unmetered
    return len(reached_engine - found.keys())


def in_order(batches: list[SealedBatch]) -> list[SealedBatch]:
    """The batches along their chain; two successors of one seal would be a fork of the lane's own making."""
    after = {batch.seal.previous: batch for batch in batches}
    assert len(after) == len(batches), "a fork"
    chain, previous = [], "genesis"
    while previous in after:
        chain.append(after[previous])
        previous = chain[-1].hash
    assert len(chain) == len(batches), "a batch that was seen is no longer in the chain"
    return chain


@pytest.mark.parametrize("seed", range(12))
def test_a_power_cut_loses_at_most_a_group_and_nothing_that_was_sealed(seed: int, tmp_path: Path) -> None:
    check(tmp_path, seed, each=False)


@pytest.mark.parametrize("seed", range(1_000, 1_006))
def test_with_sync_each_a_power_cut_loses_nothing(seed: int, tmp_path: Path) -> None:
    assert check(tmp_path, seed, each=True) == 0


def test_the_model_does_lose_what_was_not_synced(tmp_path: Path) -> None:
    for seed in itertools.count():
        folder = tmp_path / str(seed)
        folder.mkdir()
        if check(folder, seed, each=False):
            break
        assert seed < 50


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(2_000, 2_300))
def test_a_power_cut_anywhere(seed: int, tmp_path: Path) -> None:
    check(tmp_path, seed, each=seed % 4 == 0)
