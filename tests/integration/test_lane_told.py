"""What HTTP told of a request is written down, and its event waits for the engine's line."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from lane_examples import START_US, HandClock, audit, intent, open_lane, outcome, serve

from metering.batch import read_body
from metering.lane import Joined
from metering.refusal import Refusal, Unavailable

TOLD = {"prompt_tokens": 7, "completion_tokens": 1, "generated_tokens": None, "outcome": "finished"}


def rows(spool: Path) -> list[dict[str, Any]]:
    """The sealed events, in their order."""
    return [row for batch in audit(spool).batches for row in read_body(batch.seal, batch.body).to_pylist()]


def figures(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in TOLD}


def told(lane: Any, count: int = 1, time_us: int = START_US) -> list[bytes]:
    """Requests that HTTP has told of."""
    requests = []
    for _ in range(count):
        started = intent()
        lane.intent(started)
        lane.told(outcome(started.request, time_us))
        requests.append(started.request)
    return requests


def test_a_told_request_is_open_until_the_engine_is_joined(tmp_path: Path) -> None:
    lane = open_lane(tmp_path)
    (request,) = told(lane)
    assert (lane.opened, lane.closed, lane.unsealed) == (1, 0, 0)
    lane.joined([Joined(request, generated_tokens=9)])
    assert (lane.opened, lane.closed, lane.unsealed) == (1, 1, 1)
    lane.close()
    (row,) = rows(tmp_path)
    assert (row["request"], row["sequence"]) == (request, 1)
    assert figures(row) == TOLD | {"generated_tokens": 9}


def test_the_engine_says_what_http_could_not(tmp_path: Path) -> None:
    lane = open_lane(tmp_path)
    first, second = told(lane, 2)
    lane.joined([Joined(first, 3, prompt_tokens=20, cached_tokens=16), Joined(second)])
    lane.close()
    one, two = rows(tmp_path)
    assert (one["prompt_tokens"], one["cached_tokens"], one["generated_tokens"]) == (20, 16, 3)
    assert figures(two) == TOLD


@pytest.mark.parametrize(("generated", "prompt", "cached"), [(-1, None, None), (None, 3, 4)])
def test_figures_that_no_event_may_have_end_nothing(
    generated: int | None, prompt: int | None, cached: int | None, tmp_path: Path
) -> None:
    lane = open_lane(tmp_path)
    first, second = told(lane, 2)
    with pytest.raises(Refusal) as refused:
        lane.joined([Joined(first, 1), Joined(second, generated, prompt, cached)])
    assert refused.value.code == "bad_event"
    assert (lane.closed, lane.unsealed) == (0, 0)
    lane.close()


def test_many_outcomes_are_one_write_with_rising_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = open_lane(tmp_path)
    requests = told(lane, 50)
    writes: list[int] = []
    real = os.write

    def counted(descriptor: int, content: bytes) -> int:
        writes.append(len(content))
        return real(descriptor, content)

    monkeypatch.setattr(os, "write", counted)
    lane.outcomes([outcome(request) for request in requests[:20]])
    lane.joined([Joined(request, 2) for request in requests[20:]])
    monkeypatch.undo()
    assert len(writes) == 2
    lane.close()
    assert list(audit(tmp_path).outcomes) == requests


def test_a_bulk_that_the_disk_refuses_is_written_whole_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = open_lane(tmp_path)
    requests = told(lane, 4)
    real = os.write

    def half(descriptor: int, content: bytes) -> int:
        return real(descriptor, content[: len(content) // 2])

    def none(descriptor: int, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    for failing in (half, none):
        monkeypatch.setattr(os, "write", failing)
        with pytest.raises(Unavailable):
            lane.outcomes([outcome(request) for request in requests[:2]])
        with pytest.raises(Unavailable):
            lane.joined([Joined(request) for request in requests])
        with pytest.raises(Unavailable):
            lane.told(outcome(requests[0]))
        assert lane.unsealed == 0
    monkeypatch.undo()
    lane.joined([Joined(request) for request in requests])
    lane.close()
    assert list(audit(tmp_path).outcomes) == requests


def test_an_outcome_of_its_own_takes_the_place_of_what_was_told(tmp_path: Path) -> None:
    lane = open_lane(tmp_path)
    (request,) = told(lane)
    lane.outcome(outcome(request, outcome="failed"))
    lane.close()
    assert audit(tmp_path).outcomes == {request: "failed"}
    assert open_lane(tmp_path).left_open() == ([], [])


def test_a_told_request_that_a_kill_left_has_its_event_as_told(tmp_path: Path) -> None:
    lane = open_lane(tmp_path)
    (request,) = told(lane)
    lane.intent(intent())
    lane.close()
    lane = open_lane(tmp_path)
    assert (lane.opened, lane.closed, lane.unsealed) == (2, 2, 2)
    lane.close()
    one, two = rows(tmp_path)
    assert figures(one) == TOLD
    assert (one["request"], one["reason"]) == (request, None)
    assert (two["outcome"], two["reason"]) == ("interrupted", "sidecar_killed")


def test_who_keeps_open_requests_ends_each_itself(tmp_path: Path) -> None:
    lane = open_lane(tmp_path)
    first, second = told(lane, 2)
    orphan = intent()._replace(project=b"\x33" * 16)
    lane.intent(orphan)
    lane.close()
    for _ in range(2):  # a start that ends none of them leaves them to the next
        lane = open_lane(tmp_path, keep_open=True)
        assert lane.left_open() == ([outcome(first), outcome(second)], [orphan])
        assert (lane.opened, lane.closed, lane.unsealed) == (3, 0, 0)
        lane.close()
    lane = open_lane(tmp_path, keep_open=True)
    lane.intent(intent())  # one of its own is not left by anybody
    lane.joined([Joined(first, 4)])
    lane.outcome(outcome(orphan.request, outcome="interrupted"))
    assert lane.left_open() == ([outcome(second)], [])
    lane.joined([Joined(second)])
    lane.close(final=True)
    assert [row["outcome"] for row in rows(tmp_path)] == [
        "finished",
        "interrupted",
        "finished",
        "interrupted",
    ]


def test_a_large_segment_hands_on_what_was_told(tmp_path: Path) -> None:
    lane = open_lane(tmp_path, segment_bytes=2_000)
    waiting = told(lane, 3)
    for _ in range(3):
        serve(lane, 20)
        lane.seal()
    lane.close()
    lane = open_lane(tmp_path)
    lane.close()
    found = [row for row in rows(tmp_path) if row["request"] in waiting]
    assert [figures(row) for row in found] == [TOLD] * 3


def test_a_join_comes_after_what_was_sealed_meanwhile(tmp_path: Path) -> None:
    clock = HandClock()
    lane = open_lane(tmp_path, clock)
    (request,) = told(lane, time_us=clock.wall)
    clock.pass_s(4)
    lane.outcome(outcome(intent().request, clock.wall))
    batch = lane.seal()
    assert batch is not None
    assert batch.seal.complete_to_us == clock.wall
    lane.joined([Joined(request, 1)])
    lane.close()
    assert list(audit(tmp_path).outcomes)[-1] == request  # the auditor checked that its time is above


def test_a_told_time_far_ahead_is_the_present(tmp_path: Path) -> None:
    clock = HandClock()
    lane = open_lane(tmp_path, clock)
    first, second = *told(lane, time_us=clock.wall + 3_600_000_000), *told(lane)
    lane.joined([Joined(first)])
    lane.outcomes([outcome(second, clock.wall + 3_600_000_000)])
    batch = lane.seal()
    assert batch is not None
    assert batch.seal.complete_to_us <= clock.wall + 10
    lane.close()


def counting_fsync(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    synced: list[int] = []
    real = os.fsync

    def counted(descriptor: int) -> None:
        synced.append(descriptor)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    return synced


def test_a_sync_puts_on_disk_what_was_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lane = open_lane(tmp_path)
    told(lane)
    synced = counting_fsync(monkeypatch)
    lane.sync()
    lane.sync()
    assert len(synced) == 1
    monkeypatch.undo()
    lane.close()


def test_with_sync_each_what_is_told_is_on_disk_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = open_lane(tmp_path, sync="each")
    synced = counting_fsync(monkeypatch)
    requests = told(lane, 3)
    lane.joined([Joined(request, 1) for request in requests])
    assert len(synced) == 7  # an intent and a told each, one bulk
    monkeypatch.undo()
    lane.close()
