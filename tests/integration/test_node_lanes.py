"""Several sidecar processes on one node: a lane each, in one spool; the first lane lists the others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from lane_examples import KEY, NAMES, HandClock, intent, outcome, run_to_its_end_or_death

from metering.batch import SealedBatch
from metering.fact import Sibling, parse_fact
from metering.import_lane import ImportLane
from metering.lane import Lane
from metering.spool import Spool


def open_named(spool: Path, name: str, clock: HandClock | None = None) -> Lane:
    return Lane.open(spool, **NAMES | {"lane": name}, key=KEY, clock=clock or HandClock())


def serve_and_seal(lane: Lane) -> SealedBatch:
    started = intent()
    lane.intent(started)
    lane.outcome(outcome(started.request))
    batch = lane.seal()
    assert batch is not None
    return batch


def siblings_in(batch: SealedBatch) -> list[Sibling]:
    return [fact for line in batch.seal.facts if isinstance(fact := parse_fact(line), Sibling)]


def sibling(batch: SealedBatch) -> Sibling:
    return Sibling(batch.seal.lane, batch.seal.epoch, batch.seal.number, batch.hash)


def test_the_first_lane_lists_the_others_and_their_newest_seals(tmp_path: Path) -> None:
    clock = HandClock()
    first, second, third = (open_named(tmp_path, f"sidecar-{at}", clock) for at in range(3))
    heads = [serve_and_seal(lane) for lane in (third, second)]
    assert siblings_in(serve_and_seal(first)) == [sibling(heads[1]), sibling(heads[0])]
    newest = serve_and_seal(second)
    assert siblings_in(newest) == []
    assert siblings_in(serve_and_seal(first)) == []  # not in every seal: 10 s apart
    clock.pass_s(10)
    assert siblings_in(serve_and_seal(first)) == [sibling(newest), sibling(heads[0])]
    for lane in (first, second, third):
        lane.close()
    first = open_named(tmp_path, "sidecar-0")  # each epoch begins with the list
    assert siblings_in(serve_and_seal(first)) == [sibling(newest), sibling(heads[0])]
    first.close()


def test_imports_and_lanes_without_a_seal_are_not_listed(tmp_path: Path) -> None:
    first, second = open_named(tmp_path, "sidecar-0"), open_named(tmp_path, "sidecar-1")
    imported = ImportLane.open(
        tmp_path, operator="vilnius", node="vilnius-1", lane="import-1", epoch="ab" * 16, key=KEY
    )
    other = Lane.open(tmp_path, operator="vilnius", node="vilnius-2", lane="sidecar-1", key=KEY)
    serve_and_seal(other)
    assert siblings_in(serve_and_seal(first)) == []
    for each in (first, second, imported, other):
        each.close()


def test_a_head_that_cannot_be_read_is_warned_of_and_stops_no_seal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    second = open_named(tmp_path, "sidecar-1")
    serve_and_seal(second)
    second.close()
    (tmp_path / "vilnius/vilnius-1/sidecar-1/head").write_text("nonsense")
    first = open_named(tmp_path, "sidecar-0")
    assert siblings_in(serve_and_seal(first)) == []
    assert "the head of the lane sidecar-1 cannot be read" in caplog.text
    first.close()


def test_very_many_lanes_are_listed_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metering.lane_sealer.MAX_LISTED", 2)
    clock = HandClock()
    for at in range(1, 4):
        lane = open_named(tmp_path, f"sidecar-{at}")
        serve_and_seal(lane)
        lane.close()
    first = open_named(tmp_path, "sidecar-0", clock)
    listed = []
    for _ in range(3):
        clock.pass_s(10)
        listed.append([fact.lane[-1] for fact in siblings_in(serve_and_seal(first))])
    assert listed == [["1", "2"], ["3", "1"], ["2", "3"]]
    first.close()


def test_three_processes_serve_one_node_beside_each_other(tmp_path: Path) -> None:
    def serve_in(name: str) -> None:
        lane = open_named(tmp_path, name)
        for _ in range(20):
            serve_and_seal(lane)
        lane.close()

    children = []
    for at in range(3):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                serve_in(f"sidecar-{at}")
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert {os.waitpid(child, 0)[1] for child in children} == {0}
    spool = Spool(tmp_path)
    assert [ref.lane for ref in spool.lanes()] == ["sidecar-0", "sidecar-1", "sidecar-2"]
    for ref in spool.lanes():
        assert [spooled.batch().seal.events for spooled in spool.pending_of(ref)] == [1] * 20


def test_one_killed_process_leaves_the_other_lanes_alone(tmp_path: Path) -> None:
    first = open_named(tmp_path, "sidecar-0")

    def killed() -> None:
        lane = open_named(tmp_path, "sidecar-1")
        for _ in range(5):
            serve_and_seal(lane)

    assert not run_to_its_end_or_death(killed, ("head", 3))
    clock = HandClock()
    clock.pass_s(1)
    listed = siblings_in(serve_and_seal(first))
    assert [(fact.lane, fact.number) for fact in listed] == [("sidecar-1", 2)]
    second = open_named(tmp_path, "sidecar-1")  # whose lock the kill let go of
    assert second.closed == 3
    second.close()
    first.close()
