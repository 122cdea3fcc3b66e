"""A sidecar whose lane cannot be written serves nothing that is not on the books."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from scripted_engine import Asked, World, on_uvloop, request, sealed_events, sized, until, usage, world

from metering.refusal import Unavailable

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
