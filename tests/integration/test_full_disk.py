"""The spool's disk is full in every place where the lane or the spool writes, for one call or for some time.

Stated behaviour: what cannot be written is refused by name and served unmetered or not at all; what was written is
sealed once; when room is back the lane goes on by itself.
"""

from __future__ import annotations

import errno
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from lane_examples import HandClock, audit, intent, open_lane, outcome, serve
from refusing_disk import RefusingDisk

from metering.batch import SealedBatch
from metering.fact import Unmetered, parse_fact
from metering.lane import Joined, Lane
from metering.refusal import Unavailable
from metering.spool import Spool


class Sidecar:
    """What a sidecar does with a lane whose disk refuses, without the sockets."""

    def __init__(self, spool: Path, *, each: bool) -> None:
        self.spool, self.each = spool, each
        self.clock = HandClock()
        self.sent: set[bytes] = set()
        self.refused = 0
        self.taken: list[SealedBatch] = []
        self.waiting: list[Callable[[], object]] = []
        self.lane = self.open()

    def open(self) -> Lane:
        for _ in range(200):  # the very first start of a lane needs room
            with suppress(Unavailable):
                return open_lane(
                    self.spool,
                    self.clock,
                    sync="each" if self.each else "group",
                    wait_for_disk=True,
                    segment_bytes=1_500,
                    warn=lambda *_: None,
                )
        raise AssertionError("it never opens")

    def look_after(self) -> None:
        """What goes on beside the requests, some of it once a second."""
        self.clock.pass_s(1)
        with suppress(Unavailable):
            self.lane.sync()
        with suppress(Unavailable):
            self.lane.seal()

    def serve(self, count: int) -> None:
        """Requests; those that cannot be written down are served unmetered, as the operator chose."""
        requests = []
        for _ in range(count):
            started = intent()
            try:
                assert self.write_waiting()
                self.lane.intent(started)
            except (Unavailable, AssertionError):
                self.lane.count_unmetered(self.clock.wall)
                self.refused += 1
            else:
                requests.append(started.request)
                self.sent.add(started.request)
        half = len(requests) // 2
        self.waiting += [partial(self.lane.told, outcome(request)) for request in requests[:half]]
        self.waiting += [partial(self.lane.outcome, outcome(request)) for request in requests[half:]]
        self.waiting.append(partial(self.lane.joined, [Joined(request, 2) for request in requests[:half]]))
        self.write_waiting()

    def write_waiting(self) -> bool:
        """Write the outcomes that wait, in their order; whether none waits any more."""
        with suppress(Unavailable):
            while self.waiting:
                self.waiting[0]()
                del self.waiting[0]
        return not self.waiting

    def stop(self) -> None:
        """A stop once there is room for what waits."""
        for _ in range(200):
            if self.write_waiting():
                break
            self.look_after()
        assert not self.waiting
        with suppress(Unavailable):
            self.lane.close()

    def take(self) -> None:
        spool = Spool(self.spool)
        for spooled in list(spool.pending()):
            batch = spooled.batch()
            if batch not in self.taken:
                self.taken.append(batch)
            with suppress(OSError):
                spool.acknowledge(spooled)

    def run(self) -> None:
        for number in range(8):
            self.serve(3)
            self.clock.pass_s(4)
            self.look_after()
            if number % 3 == 2:
                self.take()
            if number == 4:
                self.stop()
                self.lane = self.open()
        self.stop()


def run_on_a_disk_that_refuses(folder: Path, first: int, count: int, *, each: bool) -> RefusingDisk:
    spool = folder / f"{first}-{count}-{each}"
    spool.mkdir()
    disk = RefusingDisk(spool, first, count)
    with pytest.MonkeyPatch.context() as monkeypatch:
        disk.plug_in(monkeypatch)
        sidecar = Sidecar(spool, each=each)
        sidecar.run()
    open_lane(spool, sidecar.clock, warn=lambda *_: None).close()
    seen = {batch.hash for batch in sidecar.taken}
    left = [
        batch for batch in (spooled.batch() for spooled in Spool(spool).pending()) if batch.hash not in seen
    ]
    found = audit(folder / "none", [*sidecar.taken, *left])
    assert found.outcomes == dict.fromkeys(sidecar.sent, "finished"), (first, count)
    facts = [parse_fact(line) for batch in found.batches for line in batch.seal.facts]
    assert sum(fact.requests for fact in facts if isinstance(fact, Unmetered)) == sidecar.refused
    return disk


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("step", [17, pytest.param(1, marks=pytest.mark.proof)])
def test_any_single_call_that_a_disk_refuses_is_got_over(step: int, each: bool, tmp_path: Path) -> None:
    calls = run_on_a_disk_that_refuses(tmp_path, 0, 0, each=each).calls
    assert calls > 150
    for first in range(0, calls, step):
        assert run_on_a_disk_that_refuses(tmp_path, first, 1, each=each).refusals == 1


@pytest.mark.parametrize("count", [3, 20, 60])
def test_a_disk_that_is_full_for_some_time_is_got_over(count: int, tmp_path: Path) -> None:
    for first in range(0, 150, 23):
        assert run_on_a_disk_that_refuses(tmp_path, first, count, each=False).refusals > 0


def test_a_lane_opens_on_a_full_disk_and_begins_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = HandClock()
    said: list[str] = []
    lane = open_lane(tmp_path, clock)
    requests = serve(lane, 2)
    in_the_air = intent()
    lane.intent(in_the_air)
    lane._write_ahead.close()  # killed
    lane._folder.close()
    disk = RefusingDisk(tmp_path, 0, 1_000)
    disk.plug_in(monkeypatch)
    with pytest.raises(Unavailable):
        open_lane(tmp_path, clock)
    lane = open_lane(
        tmp_path, clock, keep_open=True, wait_for_disk=True, warn=lambda code, _: said.append(code)
    )
    assert said == ["lane_waits"]
    assert lane.left_open() == ([], [in_the_air])
    for refused in (lambda: lane.intent(intent()), lane.sync, lane.seal):
        with pytest.raises(Unavailable):
            refused()
    lane.count_unmetered(clock.wall)
    monkeypatch.undo()
    clock.pass_s(1)
    lane.sync()
    lane.outcome(outcome(in_the_air.request, outcome="interrupted"))
    requests += serve(lane)
    lane.close()
    found = audit(tmp_path)
    assert list(found.outcomes) == [*requests[:2], in_the_air.request, requests[2]]
    assert [line.split()[1] for batch in found.batches for line in batch.seal.facts] == ["unmetered"]


@pytest.mark.parametrize("killed", [False, True])
def test_writers_go_on_beside_a_disk_that_fails_now_and_then(
    killed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metering.lane_writer.MEND_EVERY_US", 0)
    lane = open_lane(tmp_path, segment_bytes=20_000, warn=lambda *_: None)
    chance, real, stop, fails = random.Random(7), os.fsync, threading.Event(), threading.Event()

    def fsync(descriptor: int) -> None:
        if fails.is_set() and chance.random() < 0.2:
            raise OSError(errno.EIO, "Input/output error")
        real(descriptor)

    def until_it_does(work: Callable[[], object]) -> None:
        while True:
            try:
                work()
            except Unavailable:
                time.sleep(0.001)
            else:
                return

    def repeat(work: Callable[[], object]) -> None:
        while not stop.is_set():
            with suppress(Unavailable):
                work()

    def write() -> None:
        for number in range(400):
            started = intent()
            ended = outcome(started.request)
            until_it_does(partial(lane.intent, started))
            until_it_does(partial(lane.told if number % 2 else lane.outcome, ended))
            if number % 2:
                until_it_does(partial(lane.joined, [Joined(started.request, 1)]))
            written.add(started.request)

    written: set[bytes] = set()
    monkeypatch.setattr(os, "fsync", fsync)
    fails.set()
    beside = [threading.Thread(target=repeat, args=(work,)) for work in (lane.sync, lane.seal)]
    writers = [threading.Thread(target=write) for _ in range(2)]
    for thread in [*beside, *writers]:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in beside:
        thread.join()
    fails.clear()
    if killed:
        lane._write_ahead.close()
        lane._folder.close()
    else:
        lane.close()
    open_lane(tmp_path).close()
    assert audit(tmp_path).outcomes == dict.fromkeys(written, "finished")
    assert len(written) == 800


def test_a_stop_on_a_full_disk_before_the_lane_has_begun_leaves_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = open_lane(tmp_path)
    requests = serve(lane, 2)
    lane._write_ahead.close()
    lane._folder.close()
    RefusingDisk(tmp_path, 0, 1_000).plug_in(monkeypatch)
    lane = open_lane(tmp_path, wait_for_disk=True, warn=lambda *_: None)
    with pytest.raises(Unavailable):
        lane.close()
    monkeypatch.undo()
    open_lane(tmp_path).close()
    assert list(audit(tmp_path).outcomes) == requests


def test_a_batch_that_cannot_be_deleted_stops_no_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = open_lane(tmp_path)
    for _ in range(2):
        serve(lane)
        lane.seal()
    lane.close()
    spool = Spool(tmp_path)
    first, _ = spool.pending()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(OSError, match="Read-only"):
        spool.acknowledge(first)
    assert len(list(spool.pending())) == 1  # the first is marked as done, and is not seen again
    monkeypatch.undo()
    assert len(list(spool.pending())) == 1
    assert not list(tmp_path.rglob("*.done"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 384 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=384k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_real_disk_fills_up_and_is_emptied(small_disk: Path) -> None:
    filler = small_disk / "filler"
    sidecar = Sidecar(small_disk / "spool", each=False)
    refused = []
    for number in range(12):
        if number in (3, 8):
            with filler.open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(4_096))
        if number in (6, 10):
            filler.unlink()
        sidecar.serve(150)
        sidecar.clock.pass_s(4)
        sidecar.look_after()
        sidecar.take()
        refused.append(sidecar.refused)
    sidecar.stop()
    sidecar.take()
    assert refused[2] == 0 < refused[5]  # it did fill up, and was got over
    assert refused[7] == refused[6]
    found = audit(small_disk / "none", sidecar.taken)
    assert found.outcomes == dict.fromkeys(sidecar.sent, "finished")
    facts = [parse_fact(line) for batch in found.batches for line in batch.seal.facts]
    assert sum(fact.requests for fact in facts if isinstance(fact, Unmetered)) == sidecar.refused
