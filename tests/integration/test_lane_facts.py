"""What is no request's usage travels in a lane's seals."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from lane_examples import HandClock, audit, open_lane, serve

from metering.fact import MAX_FACTS, Serves, fact_line
from metering.lane_folder import LaneFolder
from metering.refusal import Refusal, Unavailable


def lines(count: int, first: int = 0) -> list[str]:
    return [fact_line(Serves("m", f"alias-{at}")) for at in range(first, first + count)]


def sealed_facts(spool: Path) -> list[tuple[str, ...]]:
    return [batch.seal.facts for batch in audit(spool).batches]


def test_a_fact_is_in_the_next_seal(tmp_path: Path) -> None:
    lane = open_lane(tmp_path)
    ticket = lane.add_facts(lines(2))
    assert (lane.facts_waiting, lane.facts_published, ticket) == (2, 0, 2)
    serve(lane)
    lane.seal()
    assert (lane.facts_waiting, lane.facts_published) == (0, 2)
    lane.close()
    assert sealed_facts(tmp_path) == [tuple(lines(2))]


def test_facts_alone_are_sealed_a_second_after_the_last_seal(tmp_path: Path) -> None:
    clock = HandClock()
    lane = open_lane(tmp_path, clock)
    lane.add_facts(lines(1))
    assert not lane.seal_due()
    assert lane.seal() is None
    clock.pass_s(1)
    assert lane.seal_due()
    batch = lane.seal()
    assert batch is not None
    assert (batch.seal.events, batch.seal.facts) == (0, tuple(lines(1)))
    assert not lane.seal_due()
    lane.close()


def test_more_facts_than_a_seal_holds_wait_for_the_next(tmp_path: Path) -> None:
    clock = HandClock()
    lane = open_lane(tmp_path, clock)
    lane.add_facts(lines(MAX_FACTS + 3))
    for _ in range(2):
        clock.pass_s(1)
        lane.seal()
    lane.close()
    assert sealed_facts(tmp_path) == [tuple(lines(MAX_FACTS)), tuple(lines(3, MAX_FACTS))]


def test_what_is_no_fact_is_refused_at_once(tmp_path: Path) -> None:
    lane = open_lane(tmp_path)
    with pytest.raises(Refusal) as refused:
        lane.add_facts([*lines(1), "fact of life"])
    assert refused.value.code == "bad_fact"
    assert lane.facts_waiting == 0
    lane.close()


@pytest.mark.parametrize("refused", ["the head", "the reveal"])
def test_a_fact_is_counted_as_published_once_however_its_seal_came_about(
    refused: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    clock = HandClock()
    lane = open_lane(tmp_path, clock)
    lane.add_facts(lines(2))
    clock.pass_s(1)
    if refused == "the head":
        monkeypatch.setattr("metering.lane_folder.replace_file", no_room)
    else:
        monkeypatch.setattr(LaneFolder, "_reveal", no_room)
    with pytest.raises(Unavailable):
        lane.seal()
    assert (lane.facts_waiting, lane.facts_published) == (2, 0)
    monkeypatch.undo()
    lane.add_facts(lines(1, 2))
    clock.pass_s(10)
    lane.seal()
    assert (lane.facts_waiting, lane.facts_published) == (0, 3)
    lane.close()
    assert [line for facts in sealed_facts(tmp_path) for line in facts] == lines(3)


def test_facts_that_wait_at_a_stop_are_in_its_last_seal(tmp_path: Path) -> None:
    lane = open_lane(tmp_path)
    serve(lane)
    lane.seal()
    lane.add_facts(lines(1))
    lane.close()
    assert sealed_facts(tmp_path) == [(), tuple(lines(1))]
