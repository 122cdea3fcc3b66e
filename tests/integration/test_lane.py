from __future__ import annotations

import errno
import os
import random
import threading
from pathlib import Path

import pytest
from lane_examples import START_US, HandClock, audit, intent, open_lane, outcome, serve

from metering.batch import SealedBatch
from metering.lane_folder import LaneFolder
from metering.refusal import Refusal, Unavailable
from metering.spool import Spool

LANE = Path("vilnius/vilnius-1/sidecar-0")


def wal(spool: Path) -> Path:
    (path,) = (spool / LANE).glob("write-ahead-*.wal")
    return path


def test_a_request_is_in_one_sealed_event(tmp_path: Path) -> None:
    lane = open_lane(tmp_path)
    requests = serve(lane, 3)
    batch = lane.seal()
    assert batch is not None
    assert (batch.seal.first, batch.seal.last, batch.seal.opened, batch.seal.closed) == (1, 3, 3, 3)
    lane.close()
    assert list(audit(tmp_path).outcomes) == requests


def test_a_seal_covers_only_what_is_on_disk_and_counts_requests_in_the_air(tmp_path: Path) -> None:
    lane = open_lane(tmp_path)
    lane.intent(intent())
    serve(lane)
    batch = lane.seal()
    assert batch is not None
    assert (batch.seal.opened, batch.seal.closed, lane.unsealed) == (2, 1, 0)
    lane.close()


def test_nothing_happened_is_said_every_ten_seconds(tmp_path: Path) -> None:
    clock = HandClock()
    lane = open_lane(tmp_path, clock)
    assert not lane.seal_due()
    assert lane.seal() is None
    clock.pass_s(10)
    assert lane.seal_due()
    beat = lane.seal()
    assert beat is not None
    assert (beat.body, beat.seal.events, beat.seal.complete_to_us) == (b"", 0, clock.wall)
    lane.close()
    assert len(audit(tmp_path).batches) == 1


def test_ten_thousand_events_are_a_batch(tmp_path: Path) -> None:
    lane = open_lane(tmp_path)
    serve(lane, 10_001)
    assert lane.seal_due()
    batch = lane.seal()
    assert batch is not None
    assert (batch.seal.events, lane.unsealed) == (10_000, 1)
    assert batch.seal.complete_to_us >= batch.seal.events  # below the time of the event that is left
    lane.close()
    assert [each.seal.events for each in audit(tmp_path).batches] == [10_000, 1]


def test_times_rise_even_when_the_clock_steps_back(tmp_path: Path) -> None:
    clock = HandClock()
    lane = open_lane(tmp_path, clock)
    first, second = intent(), intent()
    lane.outcome(outcome(first.request, clock.wall + 900_000))
    lane.outcome(outcome(second.request, clock.wall))
    batch = lane.seal()
    assert batch is not None
    assert batch.seal.complete_to_us == clock.wall + 900_001
    lane.close()
    audit(tmp_path)


def test_clocks_that_came_apart_begin_a_new_epoch_and_say_so(tmp_path: Path) -> None:
    clock = HandClock()
    warnings: list[tuple[str, str]] = []
    lane = open_lane(tmp_path, clock, warn=lambda code, what: warnings.append((code, what)))
    in_the_air = intent()
    lane.intent(in_the_air)
    serve(lane, 2)
    before = lane.epoch
    clock.wall -= 3_600_000_000
    assert lane.seal_due()
    lane.seal()
    assert lane.epoch != before
    assert warnings[0] == ("clock_stepped", "the wall clock was stepped by -3600.0 s: a new epoch begins")
    assert [code for code, _ in warnings] == [
        "clock_stepped",
        "lane_ahead",
    ]  # what is sealed lies ahead of it now
    lane.outcome(outcome(in_the_air.request, clock.wall))
    lane.close()
    found = audit(tmp_path)
    assert found.outcomes[in_the_air.request] == "finished"
    assert [(b.seal.epoch == before, b.seal.number, b.seal.events) for b in found.batches] == [
        (True, 0, 2),
        (False, 0, 1),
    ]


YEAR_US = 365 * 86_400 * 1_000_000


def test_a_clock_that_was_a_year_ahead_for_a_moment_does_the_lane_no_harm(tmp_path: Path) -> None:
    clock = HandClock()
    said: list[str] = []
    lane = open_lane(tmp_path, clock, warn=lambda code, _: said.append(code))
    serve(lane)
    clock.wall += YEAR_US
    clock.pass_s(10)
    assert lane.seal_due()
    lane.seal()  # the event before, in its epoch; a new epoch begins
    assert not lane.seal_due()
    clock.pass_s(10)
    beat = lane.seal()
    assert beat is not None
    assert beat.seal.complete_to_us == clock.wall - YEAR_US == lane.now_us()
    started = intent()
    lane.intent(started)
    lane.outcome(outcome(started.request, clock.wall))
    clock.wall -= YEAR_US
    assert lane.seal_due()
    clock.pass_s(1)
    last = lane.seal()
    assert last is not None
    assert last.seal.complete_to_us == clock.wall == lane.now_us()
    lane.close()
    open_lane(tmp_path, clock, warn=lambda *told: pytest.fail(str(told))).close()
    assert said == ["clock_stepped", "clock_back"]
    assert len(audit(tmp_path).epochs) == 2


def test_a_clock_that_was_set_right_is_believed_after_five_minutes(tmp_path: Path) -> None:
    clock = HandClock()
    said: list[str] = []
    lane = open_lane(tmp_path, clock, warn=lambda code, _: said.append(code))
    clock.wall += 3 * YEAR_US
    epochs = [lane.epoch]
    for _ in range(30):
        lane.seal()
        epochs.append(lane.epoch)
        assert lane.now_us() == clock.wall - 3 * YEAR_US
        clock.pass_s(10)
    lane.seal()
    assert lane.now_us() == clock.wall
    serve(lane)
    lane.close()
    assert audit(tmp_path).batches[-1].seal.complete_to_us == clock.wall
    assert len({*epochs, lane.epoch}) == 3
    assert said == ["clock_stepped", "clock_stepped"]


@pytest.mark.parametrize("wall", [0, START_US + 100 * YEAR_US])
def test_a_clock_that_no_event_may_have_is_never_believed(wall: int, tmp_path: Path) -> None:
    clock = HandClock()
    said: list[str] = []
    lane = open_lane(tmp_path, clock, warn=lambda code, _: said.append(code))
    clock.wall = wall
    for _ in range(40):
        clock.pass_s(10)
        lane.seal()
        assert lane.now_us() == START_US + clock.monotonic
    serve(lane)
    clock.wall = lane.now_us()
    clock.pass_s(1)
    lane.close()
    assert audit(tmp_path).batches[-1].seal.complete_to_us == clock.wall
    assert said == ["clock_stepped"]


def test_a_clock_that_keeps_jumping_ahead_is_not_believed(tmp_path: Path) -> None:
    clock = HandClock()
    lane = open_lane(tmp_path, clock, warn=lambda *_: None)
    for _ in range(40):
        clock.wall += 60_000_000
        clock.pass_s(10)
        lane.seal()
    assert lane.now_us() == START_US + 400_000_000
    lane.close()


def test_a_lane_that_sealed_the_future_says_so_when_it_starts(tmp_path: Path) -> None:
    ahead = HandClock(wall=START_US + YEAR_US)
    lane = open_lane(tmp_path, ahead)
    ahead.pass_s(10)
    lane.seal()
    lane.close()
    said: list[str] = []
    open_lane(tmp_path, warn=lambda code, _: said.append(code)).close()
    assert said == ["lane_ahead"]


def test_a_new_epoch_that_the_disk_refuses_is_begun_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = HandClock()
    lane = open_lane(tmp_path, clock, warn=lambda *_: None)
    before = lane.epoch
    requests = serve(lane)
    clock.wall -= 3_000_000

    def full(descriptor: int, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("metering.write_ahead_file.write_whole", full)
    with pytest.raises(Unavailable) as failed:
        lane.seal()
    assert failed.value.code == "write_ahead_failed"
    assert lane.epoch == before
    monkeypatch.undo()
    requests += serve(lane)
    lane.seal()
    assert lane.epoch != before
    lane.close()
    found = audit(tmp_path)
    assert list(found.outcomes) == requests
    assert found.epochs == [before]


def test_two_writers_do_not_share_a_lane(tmp_path: Path) -> None:
    lane = open_lane(tmp_path)
    with pytest.raises(Refusal) as refused:
        open_lane(tmp_path)
    assert refused.value.code == "lane_in_use"
    lane.close()
    open_lane(tmp_path).close()


def test_each_start_is_a_new_epoch_that_names_the_last_seal(tmp_path: Path) -> None:
    for _ in range(3):
        lane = open_lane(tmp_path)
        serve(lane, 2)
        lane.close()
    found = audit(tmp_path)
    assert len(found.epochs) == 3
    assert [batch.seal.closed for batch in found.batches] == [2, 4, 6]


def test_intents_still_open_at_a_stop_are_interrupted_at_the_next_start(tmp_path: Path) -> None:
    lane = open_lane(tmp_path)
    in_the_air = intent()
    lane.intent(in_the_air)
    done = serve(lane)
    lane.close()
    lane = open_lane(tmp_path)
    assert (lane.opened, lane.closed, lane.unsealed) == (2, 2, 1)
    lane.close()
    assert audit(tmp_path).outcomes == {done[0]: "finished", in_the_air.request: "interrupted"}


def test_a_torn_last_frame_is_dropped_named_and_kept(tmp_path: Path) -> None:
    lane = open_lane(tmp_path)
    serve(lane, 2)
    lane.sync()
    torn = wal(tmp_path)
    crash(lane)
    torn.write_bytes(torn.read_bytes()[:-5])
    warnings: list[str] = []
    lane = open_lane(tmp_path, warn=lambda code, what: warnings.append(f"{code} {what}"))
    lane.close()
    assert len(warnings) == 1
    assert warnings[0].startswith("torn_tail the last ")
    assert sorted(audit(tmp_path).outcomes.values()) == ["finished", "interrupted"]
    assert (tmp_path / LANE / f"torn-{torn.stem[-8:]}").stat().st_size > 100


def test_a_lane_ends_with_a_final_seal(tmp_path: Path) -> None:
    lane = open_lane(tmp_path)
    lane.intent(intent())
    lane.close(final=True)
    found = audit(tmp_path)
    assert list(found.outcomes.values()) == ["interrupted"]
    assert found.batches[-1].seal.final
    with pytest.raises(Refusal) as refused:
        open_lane(tmp_path)
    assert refused.value.code == "lane_ended"


def test_a_segment_that_has_grown_large_is_left_for_a_new_one(tmp_path: Path) -> None:
    lane = open_lane(tmp_path, segment_bytes=10_000)
    in_the_air = intent()
    lane.intent(in_the_air)
    for _ in range(5):
        serve(lane, 40)
        lane.seal()
        assert wal(tmp_path).stat().st_size < 1_000
    assert int(wal(tmp_path).stem[-8:]) == 6
    crash(lane)
    lane = open_lane(tmp_path)
    assert (lane.opened, lane.closed) == (201, 201)
    lane.close()
    assert audit(tmp_path).outcomes[in_the_air.request] == "interrupted"


def test_a_new_segment_that_a_power_cut_tore_yields_to_the_old_one(tmp_path: Path) -> None:
    lane = open_lane(tmp_path)
    requests = serve(lane, 2)
    lane.sync()
    old = wal(tmp_path)
    crash(lane)
    old.with_name("write-ahead-00000009.wal").write_bytes(old.read_bytes()[:50])
    lane = open_lane(tmp_path)
    lane.close()
    assert list(audit(tmp_path).outcomes) == requests
    assert wal(tmp_path).stem.endswith("10")


@pytest.mark.parametrize("seed", range(12))
def test_a_power_cut_loses_nothing_that_was_synced(seed: int, tmp_path: Path) -> None:
    lane = open_lane(tmp_path)
    synced = serve(lane, 3)
    lane.sync()
    file = wal(tmp_path)
    safe = file.stat().st_size
    later = serve(lane, 3)
    crash(lane)
    content = file.read_bytes()
    cut = random.Random(seed).randint(safe, len(content))
    file.write_bytes(content[:cut] + bytes(random.Random(seed).choice([0, 700])))
    open_lane(tmp_path, warn=lambda *_: None).close()
    found = audit(tmp_path).outcomes
    assert dict.fromkeys(synced, "finished").items() <= found.items()
    assert found.keys() <= {*synced, *later}


def test_a_write_ahead_file_from_another_copy_is_refused(tmp_path: Path) -> None:
    lane = open_lane(tmp_path)
    serve(lane)
    old = wal(tmp_path).read_bytes()
    lane.close()
    open_lane(tmp_path).close()
    lane = open_lane(tmp_path)
    serve(lane)
    lane.close()
    wal(tmp_path).write_bytes(old)
    with pytest.raises(Refusal) as refused:
        open_lane(tmp_path)
    assert refused.value.code == "lane_state"


def test_damaged_segments_stop_the_lane(tmp_path: Path) -> None:
    lane = open_lane(tmp_path)
    lane.close()
    wal(tmp_path).write_bytes(b"nonsense")
    with pytest.raises(Refusal) as refused:
        open_lane(tmp_path)
    assert refused.value.code == "write_ahead_damaged"


def test_an_event_that_could_not_be_sealed_is_not_written(tmp_path: Path) -> None:
    lane = open_lane(tmp_path)
    bad = outcome(intent().request)._replace(cached_tokens=8)
    for event in (
        bad,
        bad._replace(cached_tokens=0, outcome="lost"),
        bad._replace(cached_tokens=0, model=""),
    ):
        with pytest.raises(Refusal) as refused:
            lane.outcome(event)
        assert refused.value.code == "bad_event"
    assert (lane.opened, lane.unsealed) == (0, 0)
    lane.close()


def test_a_full_disk_refuses_the_intent_and_leaves_the_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = open_lane(tmp_path)
    serve(lane)
    real = os.write

    def half(descriptor: int, content: bytes) -> int:
        return real(descriptor, content[: len(content) // 2])

    def none(descriptor: int, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    for failing in (half, none):
        monkeypatch.setattr(os, "write", failing)
        with pytest.raises(Unavailable) as failed:
            lane.intent(intent())
        assert failed.value.code == "write_ahead_failed"
        monkeypatch.setattr(os, "write", real)
    serve(lane)
    crash(lane)
    lane = open_lane(tmp_path, warn=lambda *said: pytest.fail(str(said)))
    lane.close()
    assert list(audit(tmp_path).outcomes.values()) == ["finished", "finished"]


def test_a_seal_that_the_disk_refuses_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lane = open_lane(tmp_path)
    serve(lane)

    def full(path: Path, content: bytes, *, mode: int = 0o644) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("metering.lane_folder.write_file", full)
    with pytest.raises(Unavailable) as failed:
        lane.seal()
    assert failed.value.code == "spool_failed"
    monkeypatch.undo()
    serve(lane)
    batch = lane.seal()
    assert batch is not None
    assert batch.seal.events == 2
    lane.close()
    audit(tmp_path)


def no_room(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("refused", ["the head", "the reveal"])
def test_a_batch_that_is_left_half_published_is_ended_at_the_next_seal(
    refused: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = HandClock()
    lane = open_lane(tmp_path, clock)
    requests = serve(lane)
    lane.seal()
    requests += serve(lane, 2)
    if refused == "the head":  # no room for the new head
        monkeypatch.setattr("metering.lane_folder.replace_file", no_room)
    else:  # the head is new, its batch cannot be revealed
        monkeypatch.setattr(LaneFolder, "_reveal", no_room)
    for _ in range(2):
        with pytest.raises(Unavailable):
            lane.seal()
        requests += serve(lane)
    monkeypatch.undo()
    clock.pass_s(10)
    assert lane.seal() is not None
    assert lane.unsealed == 0
    serve(lane)
    lane.seal()
    lane.close()
    found = audit(tmp_path)
    assert list(found.outcomes)[: len(requests)] == requests
    assert len(found.outcomes) == len(requests) + 1


def test_a_head_that_is_perhaps_not_on_disk_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = open_lane(tmp_path)
    requests = serve(lane)
    monkeypatch.setattr("metering.durable.fsync_folder", no_room)
    for _ in range(2):
        with pytest.raises(Unavailable):
            lane.seal()
    monkeypatch.undo()
    requests += serve(lane)
    lane.seal()
    lane.close()
    found = audit(tmp_path)
    assert list(found.outcomes) == requests
    assert [batch.seal.events for batch in found.batches] == [1, 1]


def test_a_file_whose_fsync_failed_is_never_trusted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = HandClock()
    lane = open_lane(tmp_path, clock)
    in_the_air = intent()
    lane.intent(in_the_air)
    requests = serve(lane)
    monkeypatch.setattr(os, "fsync", no_room)
    for _ in range(2):
        clock.pass_s(1)
        with pytest.raises(Unavailable):
            lane.sync()
    monkeypatch.undo()
    with pytest.raises(Unavailable):
        lane.intent(intent())
    with pytest.raises(Unavailable):
        lane.sync()  # asked once a second
    clock.pass_s(1)
    before = wal(tmp_path).read_bytes()
    lane.sync()  # all that is known goes into a new file
    assert wal(tmp_path).read_bytes() != before
    requests += serve(lane)
    crash(lane)
    open_lane(tmp_path).close()
    assert audit(tmp_path).outcomes == {
        **dict.fromkeys(requests, "finished"),
        in_the_air.request: "interrupted",
    }


def test_a_stop_while_the_disk_fails_leaves_its_events_to_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = open_lane(tmp_path)
    requests = serve(lane)
    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(Unavailable):
        lane.close()
    monkeypatch.undo()
    open_lane(tmp_path).close()
    assert list(audit(tmp_path).outcomes) == requests


def test_with_sync_each_everything_is_on_disk_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = open_lane(tmp_path, sync="each")
    calls: list[int] = []
    real = os.fsync

    def counted(descriptor: int) -> None:
        calls.append(descriptor)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    serve(lane)
    assert len(calls) == 2
    lane.sync()
    assert len(calls) == 2
    lane.close()


def test_a_sync_does_not_wait_for_a_seal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lane = open_lane(tmp_path)
    serve(lane)
    synced = threading.Event()

    def sync() -> None:
        lane.sync()
        synced.set()

    def publish(_folder: LaneFolder, _batch: SealedBatch) -> None:
        serve(lane)
        threading.Thread(target=sync).start()
        assert synced.wait(10)
        raise Unavailable("spool_failed", "enough")

    monkeypatch.setattr(LaneFolder, "publish", publish)
    with pytest.raises(Unavailable, match="enough"):
        lane.seal()
    monkeypatch.undo()
    lane.close()
    assert len(audit(tmp_path).outcomes) == 2


def test_writers_sealer_and_syncer_run_beside_each_other(tmp_path: Path) -> None:
    lane = open_lane(tmp_path, segment_bytes=50_000)
    stop = threading.Event()

    def seal_all_the_time() -> None:
        while not stop.is_set():
            lane.sync()
            lane.seal()

    sealer = threading.Thread(target=seal_all_the_time)
    sealer.start()
    written: list[list[bytes]] = [[], []]
    writers = [threading.Thread(target=lambda at=at: written[at].extend(serve(lane, 2_000))) for at in (0, 1)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    stop.set()
    sealer.join()
    lane.close()
    found = audit(tmp_path)
    assert set(found.outcomes) == {*written[0], *written[1]}
    assert len(found.batches) > 1


def test_acknowledged_batches_leave_and_the_chain_goes_on(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    lane = open_lane(tmp_path)
    serve(lane)
    first = lane.seal()
    assert first is not None
    (spooled,) = spool.pending()
    assert spooled.ref.number == 0
    spool.acknowledge(spooled)
    spool.acknowledge(spooled)
    assert list(spool.pending()) == []
    serve(lane)
    second = lane.seal()
    lane.close()
    assert second is not None
    assert second.seal.previous == first.hash
    with pytest.raises(Unavailable):
        spooled.batch()


def test_a_batch_whose_deletion_was_cut_off_is_gone_all_the_same(tmp_path: Path) -> None:
    lane = open_lane(tmp_path)
    serve(lane)
    lane.seal()
    lane.close()
    spool = Spool(tmp_path)
    (spooled,) = spool.pending()
    spooled.ref.path.rename(spooled.ref.path.with_suffix(".done"))
    assert list(spool.pending()) == []
    assert list(spooled.ref.path.parent.iterdir()) == []


def crash(lane: object) -> None:
    """Let go of a lane as a kill does: descriptors are closed, nothing else happens."""
    lane._write_ahead.close()  # type: ignore[attr-defined]  # a kill asks nobody either
    lane._folder.close()  # type: ignore[attr-defined]  # as above
