"""Requests that were served without being written down are told in a seal, once, whatever is killed when."""

from __future__ import annotations

import errno
import itertools
import os
import random
from functools import partial
from pathlib import Path

import pytest
from lane_examples import START_US, HandClock, audit, open_lane, run_to_its_end_or_death, serve

from metering.fact import Unmetered, parse_fact
from metering.lane import Lane
from metering.refusal import Refusal, Unavailable

LANE = Path("vilnius/vilnius-1/sidecar-0")


def told(spool: Path) -> list[Unmetered]:
    facts = [parse_fact(line) for batch in audit(spool).batches for line in batch.seal.facts]
    return [fact for fact in facts if isinstance(fact, Unmetered)]


def no_room(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_was_served_unmetered_is_a_fact_of_the_next_seal_that_the_disk_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = HandClock()
    lane = open_lane(tmp_path, clock)
    monkeypatch.setattr("metering.lane_folder.write_file", no_room)
    for _ in range(5):
        clock.pass_s(10)
        lane.count_unmetered(clock.wall)
        with pytest.raises(Unavailable):
            lane.seal()
    assert lane.unmetered == 5
    monkeypatch.undo()
    clock.pass_s(10)
    lane.seal()
    assert lane.unmetered == 0
    lane.close()
    assert told(tmp_path) == [Unmetered(START_US + 10_000_000, START_US + 50_000_000, 5)]


def test_counting_needs_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lane = open_lane(tmp_path)
    (size,) = {(tmp_path / LANE / "unmetered").stat().st_size}
    monkeypatch.setattr(os, "write", no_room)
    for at in range(100):
        lane.count_unmetered(START_US + at)
    monkeypatch.undo()
    assert (tmp_path / LANE / "unmetered").stat().st_size == size == 4_096
    lane.close()
    assert told(tmp_path) == [Unmetered(START_US, START_US + 99, 100)]


def test_what_is_served_while_a_seal_is_made_is_told_in_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = open_lane(tmp_path)
    lane.count_unmetered(START_US)
    real = lane._folder.publish

    def publish(*arguments: object) -> None:
        lane.count_unmetered(START_US + 7)
        real(*arguments)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(lane._folder, "publish", publish)
    serve(lane)
    lane.seal()
    assert lane.unmetered == 1
    monkeypatch.undo()
    lane.close()
    assert told(tmp_path) == [Unmetered(START_US, START_US, 1), Unmetered(START_US + 7, START_US + 7, 1)]


def count_and_seal(spool: Path, book: Path, seed: int) -> None:
    """Count requests and seal, each noted in the book before it is counted and after."""
    random_ = random.Random(seed)
    lane = open_lane(spool)
    with book.open("ab", buffering=0) as lines:
        for _ in range(12):
            lines.write(b"serving\n")
            lane.count_unmetered(START_US + random_.randint(0, 10**6))
            lines.write(b"counted\n")
            if random_.random() < 0.5:
                serve(lane)
                lane.seal()
    lane.close()


@pytest.mark.parametrize(
    ("step", "count"), [*itertools.product(("unmetered", "fsync", "making", "head", "sealed"), (1, 4))]
)
def test_a_kill_neither_forgets_nor_doubles_what_was_served(step: str, count: int, tmp_path: Path) -> None:
    spool, book = tmp_path / "spool", tmp_path / "book"
    for seed, kill in enumerate([(step, count), ("head", 1), (step, 1), None]):
        run_to_its_end_or_death(partial(count_and_seal, spool, book, seed), kill)
    lines = book.read_text().splitlines()
    served = sum(fact.requests for fact in told(spool))
    assert lines.count("counted") <= served <= lines.count("serving")


def test_a_torn_slot_leaves_the_one_before(tmp_path: Path) -> None:
    def crash(lane: Lane) -> None:
        lane._write_ahead.close()
        lane._folder.close()

    lane = open_lane(tmp_path)
    lane.count_unmetered(START_US)
    lane.count_unmetered(START_US + 1)
    crash(lane)
    file = tmp_path / LANE / "unmetered"
    content = bytearray(file.read_bytes())
    content[8] ^= 1  # the second turn is in slot 0
    file.write_bytes(content)
    lane = open_lane(tmp_path)
    assert lane.unmetered == 1
    crash(lane)
    content[2_048 + 8] ^= 1
    file.write_bytes(content)
    with pytest.raises(Refusal) as refused:
        open_lane(tmp_path)
    assert refused.value.code == "unmetered_damaged"


def test_what_not_even_can_be_counted_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lane = open_lane(tmp_path)
    monkeypatch.setattr(os, "pwrite", no_room)
    with pytest.raises(Unavailable) as failed:
        lane.count_unmetered(START_US)
    assert failed.value.code == "unmetered_failed"
    monkeypatch.undo()
    lane.close()
