"""A sidecar whose lane cannot be written serves nothing that is not on the books."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from scripted_engine import Asked, World, on_uvloop, request, sealed_events, sized, until, usage, world

from metering.refusal import Refusal, Unavailable
from metering.sidecar_figures import figures_of

ASK = {"model": "tiny", "messages": []}
BODY = b'{"choices":[]' + usage(16, 5) + b"}"


async def answers(asked: Asked) -> None:
    await asked.say(sized(BODY))


def fail(it: World, monkeypatch: pytest.MonkeyPatch, *methods: str) -> None:
    """Let the lane's disk be full from now on."""

    def full(*_: Any) -> None:
        raise Unavailable("write_ahead_failed", "No space left on device")

    for method in methods:
        monkeypatch.setattr(it.lane, method, full)


@on_uvloop
async def test_no_request_passes_whose_intent_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, answers) as it:
        fail(it, monkeypatch, "intent")
        status, headers, body = await it.ask(request(ASK))
        assert status == 503
        assert headers["retry-after"] == "1"
        assert b"capture_unavailable" in body
        assert it.engine.asked == []
        assert (await it.ask(request(path="/v1/models")))[0] == 200
        monkeypatch.undo()
        await until(lambda: not it.sidecar.refusing)
        assert (await it.ask(request(ASK)))[0] == 200
        assert len(await it.events()) == 1


@on_uvloop
async def test_a_write_that_failed_is_no_fault_any_more_once_a_sync_succeeded_without_any_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, answers, sync_s=0.005) as it:
        fail(it, monkeypatch, "intent", "sync")
        assert (await it.ask(request(ASK)))[0] == 503
        await until(lambda: it.sidecar.capture.faults == ("sync", "write"))
        assert figures_of(it.sidecar).faults == ("sync", "write")
        monkeypatch.undo()
        await until(lambda: figures_of(it.sidecar).faults == ())
        assert not it.sidecar.refusing


@on_uvloop
async def test_an_answer_is_not_completed_before_its_outcome_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, answers) as it:
        fail(it, monkeypatch, "outcome")
        client = await it.client()
        await client.send(request(ASK))
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await client.answer()
        assert (await it.ask(request(ASK)))[0] == 503
        monkeypatch.undo()
        await until(lambda: not it.sidecar.refusing)
        assert (await it.ask(request(ASK)))[0] == 200
        events = await it.events()
        assert [(event["outcome"], event["completion_tokens"]) for event in events] == [("finished", 5)] * 2


@on_uvloop
async def test_a_disk_that_cannot_sync_stops_the_serving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, answers) as it:
        assert (await it.ask(request(ASK)))[0] == 200
        fail(it, monkeypatch, "sync")
        await until(lambda: it.sidecar.refusing)
        assert (await it.ask(request(ASK)))[0] == 503
        monkeypatch.undo()
    assert len(sealed_events(tmp_path)) == 1


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [
        (entry.levelname, entry.getMessage()) for entry in caplog.records if entry.name.startswith("metering")
    ]


@on_uvloop
async def test_a_failing_seal_is_told_once_and_over_when_a_seal_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("metering.capture._SEAL_LOOK_S", 0.01)
    caplog.set_level(logging.WARNING)
    async with world(tmp_path, answers, sync_s=0.005) as it:
        assert (await it.ask(request(ASK)))[0] == 200
        fail(it, monkeypatch, "seal")
        monkeypatch.setattr(it.lane, "seal_due", lambda: True)
        await until(lambda: it.sidecar.refusing)
        for _ in range(20):  # syncs succeed meanwhile
            await asyncio.sleep(0.01)
            assert it.sidecar.refusing
        assert (await it.ask(request(ASK)))[0] == 503
        monkeypatch.undo()
        await until(lambda: not it.sidecar.refusing)
        assert (await it.ask(request(ASK)))[0] == 200
        assert len(await it.events()) == 2
    assert lines(caplog) == [
        ("ERROR", "the lane cannot seal, requests are refused: No space left on device"),
        ("WARNING", "the lane can seal again"),
    ]


@on_uvloop
async def test_too_many_events_that_wait_for_a_seal_refuse_requests_by_name(tmp_path: Path) -> None:
    async with world(tmp_path, answers, unsealed_events=2, sync_s=0.005) as it:
        for _ in range(2):
            assert (await it.ask(request(ASK)))[0] == 200
        await until(lambda: it.sidecar.refusing)
        status, _, body = await it.ask(request(ASK))
        assert status == 503
        assert b"capture_behind" in body
        it.lane.seal()
        await until(lambda: not it.sidecar.refusing)
        assert (await it.ask(request(ASK)))[0] == 200


@pytest.mark.parametrize("broken", ["sync", "seal_due"])
@on_uvloop
async def test_a_bug_in_a_loop_is_an_alarm_and_the_sidecar_asks_to_be_ended(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with world(tmp_path, answers) as it:
        assert (await it.ask(request(ASK)))[0] == 200

        def refuse() -> None:
            raise Refusal("bad_event", "words of an event")

        monkeypatch.setattr(it.lane, broken, refuse)
        await asyncio.wait_for(it.sidecar.failed.wait(), 10)
        monkeypatch.undo()
        await asyncio.sleep(0.1)
        assert (await it.ask(request(ASK)))[0] == 503  # for good
        assert len(await it.events()) == 1  # drained in order
    said = {"sync": "sync", "seal_due": "seal"}[broken]
    assert lines(caplog) == [("CRITICAL", f"capture failed to {said} (Refusal): the sidecar stops")]


@on_uvloop
async def test_an_outcome_that_never_can_be_written_holds_up_none_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, answers) as it:
        fail(it, monkeypatch, "outcome")
        client = await it.client()
        await client.send(request(ASK))
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await client.answer()
        monkeypatch.undo()
        write, met = it.lane.outcome, []

        def refuse_first(event: Any) -> int:
            met.append(event)
            if len(met) == 1:
                raise Refusal("bad_event", "the first")
            return write(event)

        monkeypatch.setattr(it.lane, "outcome", refuse_first)
        await asyncio.wait_for(it.sidecar.failed.wait(), 10)
        assert not it.sidecar.capture._unwritten
