"""A lane is killed with SIGKILL inside each named step, and again while it recovers; the sender's book is the judge."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from lane_examples import KEY, audit, intent, open_lane, outcome, run_to_its_end_or_death, serve

from metering.batch import SealedBatch
from metering.event import events_table
from metering.identity import new_id
from metering.import_lane import ImportLane
from metering.lane import Joined
from metering.spool import Spool

LANE_STEPS = (
    "intent",
    "told",
    "outcome",
    "outcomes",
    "fsync",
    "rotate",
    "interrupted",
    "making",
    "head",
    "sealed",
)


def serve_with_a_book(spool: Path, book: Path, seed: int) -> None:
    """Four requests at a time, written into the book before the intent, after it, and after the outcome.

    Of some HTTP tells, and the engine is joined to them later, two at once.
    """
    random_ = random.Random(seed)
    lane = open_lane(spool, segment_bytes=4_000)
    with book.open("ab", buffering=0) as lines:
        for _ in range(12):
            started = [intent() for _ in range(4)]
            for each in started:
                lines.write(b"sent " + each.request.hex().encode() + b"\n")
                lane.intent(each)
                lines.write(b"open " + each.request.hex().encode() + b"\n")
            random_.shuffle(started)
            for at, each in enumerate(started):
                write_down = lane.outcome if at < 2 else lane.told
                write_down(outcome(each.request))
                lines.write(b"done " + each.request.hex().encode() + b"\n")
            if random_.random() < 0.8:
                lane.joined([Joined(each.request, 5) for each in started[2:]])
            if random_.random() < 0.7:
                lane.sync()
            if random_.random() < 0.6:
                lane.seal()
    lane.close()


def take_some(spool: Path, count: int) -> list[SealedBatch]:
    """What an intake does: read the oldest batches and have them deleted."""
    taken = []
    for spooled in itertools.islice(Spool(spool).pending(), count):
        taken.append(spooled.batch())
        Spool(spool).acknowledge(spooled)
    return taken


def check_against_the_book(spool: Path, book: Path, taken: list[SealedBatch]) -> None:
    said: dict[str, set[bytes]] = {"sent": set(), "open": set(), "done": set()}
    for line in book.read_text().splitlines():
        word, request = line.split()
        said[word].add(bytes.fromhex(request))
    found = audit(spool, taken).outcomes
    assert said["open"] <= found.keys() <= said["sent"]
    assert {request for request in said["done"] if found[request] != "finished"} == set()
    assert set(found.values()) <= {"finished", "interrupted"}


def kill_and_start_again(folder: Path, kills: list[tuple[str, int]], seed: int) -> int:
    """Serve and die once for each kill, serve to the end, compare with the book; returns how often it really died.

    Between the tries an intake takes all, some or none of the batches, so that the head alone knows the chain.
    """
    spool, book = folder / "spool", folder / "book"
    book.touch()
    random_ = random.Random(seed)
    taken: list[SealedBatch] = []
    died = 0
    for again, at in enumerate([*kills, None]):
        died += not run_to_its_end_or_death(partial(serve_with_a_book, spool, book, seed + again), at)
        taken += take_some(spool, random_.choice([0, 2, 1_000]))
    open_lane(spool).close()  # ends what the last life told and did not join
    check_against_the_book(spool, book, taken)
    return died


@pytest.mark.parametrize("step", LANE_STEPS)
@pytest.mark.parametrize("count", [1, 7])
def test_a_killed_lane_loses_and_doubles_nothing(step: str, count: int, tmp_path: Path) -> None:
    kills = [(step, count), ("making", 1), (step, 1), ("interrupted", 1), ("sealed", 1), ("head", 1)]
    assert kill_and_start_again(tmp_path, kills, seed=count) >= 4


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(300))
def test_a_lane_that_is_killed_at_random_loses_and_doubles_nothing(seed: int, tmp_path: Path) -> None:
    random_ = random.Random(seed)
    kills = [(random_.choice(LANE_STEPS), random_.randint(1, 30)) for _ in range(6)]
    kill_and_start_again(tmp_path, kills, seed)


@pytest.mark.parametrize("step", ["making", "head", "sealed"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_killed_import_goes_on_where_it_was(step: str, count: int, tmp_path: Path) -> None:
    rows = events_table([outcome(new_id(), 1_791_187_200_000_000 + at // 2) for at in range(30)], 1)

    def import_all() -> None:
        lane = ImportLane.open(
            tmp_path, operator="vilnius", node="vilnius-1", lane="import-1", epoch="ab" * 16, key=KEY
        )
        while not lane.finished:
            at = lane.next_sequence - 1
            lane.seal_rows(rows.slice(at, 10), 1_791_187_300_000_000, final=at + 10 >= 30)

    assert not run_to_its_end_or_death(import_all, (step, count))
    seen = [spooled.batch().hash for spooled in Spool(tmp_path).pending()]
    assert run_to_its_end_or_death(import_all, None)
    found = audit(tmp_path)
    assert [batch.hash for batch in found.batches][: len(seen)] == seen
    assert [batch.seal.events for batch in found.batches] == [10, 10, 10]
    assert [batch.seal.final for batch in found.batches] == [False, False, True]
    assert len(found.outcomes) == 30


def test_a_reader_killed_while_deleting_leaves_nothing_behind(tmp_path: Path) -> None:
    lane = open_lane(tmp_path)
    serve(lane)
    lane.close()
    spool = Spool(tmp_path)
    (spooled,) = spool.pending()
    assert not run_to_its_end_or_death(lambda: spool.acknowledge(spooled), ("acknowledged", 1))
    assert list(spool.pending()) == []
    assert list(spooled.ref.path.parent.iterdir()) == []


def test_the_environment_names_the_step_at_which_a_process_dies() -> None:
    program = "from metering.steps import step\nfor n in range(5): print(n, flush=True); step('sealed')"
    environment = {**os.environ, "TALLY_KILL_AT": "sealed:3"}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert ended.stdout.split() == [b"0", b"1", b"2"]
