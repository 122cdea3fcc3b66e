"""Responses in the background: answered at once, one event when the engine says how they ended."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from scripted_engine import (
    STREAM_HEAD,
    Asked,
    Script,
    World,
    chunk,
    on_uvloop,
    request,
    sized,
    until,
    world,
)

from metering import background
from metering.sidecar_options import Patience

ASK = {"model": "tiny", "input": "a", "background": True}
USAGE = {"input_tokens": 16, "input_tokens_details": {"cached_tokens": 8}, "output_tokens": 4}
NOT_FOUND = sized(b'{"error":{"code":404}}', status="404 Not Found")
POSTED = request(ASK, path="/v1/responses")


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(background, "MAX_PAUSE_S", 0.02)
    monkeypatch.setattr(background, "MISSES", 4)


def said(status: str, **more: object) -> bytes:
    return sized(json.dumps({"model": "tiny", "status": status, "usage": None} | more).encode())


def engine(*later: bytes, first: bytes | None = None) -> Script:
    """Queues a response, then answers each question about it with the next of `later`, the last one for ever; an
    empty one closes the connection."""
    left = list(later)

    async def script(asked: Asked) -> None:
        if asked.head.startswith("POST"):
            await asked.say(said("queued") if first is None else first)
            return
        assert asked.head.startswith("GET /v1/responses/resp_")
        told = left.pop(0) if len(left) > 1 else left[0]
        if not told:
            asked.writer.transport.abort()
        await asked.say(told)

    return script


async def only_event(it: World) -> dict[str, Any]:
    await it.settle()
    (event,) = await it.events()
    return event


@pytest.mark.parametrize(
    ("last", "outcome", "reason", "tokens"),
    [
        (said("completed", usage=USAGE), "finished", None, (16, 8, 4)),
        (said("incomplete", usage=USAGE), "finished", None, (16, 8, 4)),
        (said("completed"), "finished", "usage_unread", (0, 0, 0)),
        (said("cancelled"), "aborted", None, (0, 0, 0)),
        (said("failed"), "failed", "engine_error", (0, 0, 0)),
    ],
)
@on_uvloop
async def test_the_engine_is_asked_until_it_says_how_it_ended(
    tmp_path: Path, last: bytes, outcome: str, reason: str | None, tokens: tuple[int, int, int]
) -> None:
    async with world(tmp_path, engine(said("queued"), said("in_progress"), NOT_FOUND, last)) as it:
        status, _, body = await it.ask(POSTED)
        assert (status, json.loads(body)["status"]) == (200, "queued")
        event = await only_event(it)
        assert (event["outcome"], event["reason"], event["endpoint"]) == (outcome, reason, "responses")
        assert (event["prompt_tokens"], event["cached_tokens"], event["completion_tokens"]) == tokens
        sent = json.loads(it.engine.asked[0].body)["request_id"]
        assert {asked.head.split()[1] for asked in it.engine.asked[1:]} == {f"/v1/responses/{sent}"}


@on_uvloop
async def test_another_process_of_the_engine_may_know_it_so_each_miss_is_asked_anew(tmp_path: Path) -> None:
    misses = [NOT_FOUND, b"", NOT_FOUND]
    async with world(tmp_path, engine(*misses, said("completed", usage=USAGE))) as it:
        await it.ask(POSTED)
        assert (await only_event(it))["outcome"] == "finished"
        connections = [asked.connection for asked in it.engine.asked[1:]]
        assert len(set(connections)) == len(connections)


@pytest.mark.parametrize("last", [NOT_FOUND, b"", sized(b"no", status="500 X")])
@on_uvloop
async def test_a_response_that_its_engine_forgot_is_lost(tmp_path: Path, last: bytes) -> None:
    async with world(tmp_path, engine(said("queued"), last)) as it:
        await it.ask(POSTED)
        event = await only_event(it)
        assert (event["outcome"], event["reason"]) == ("failed", "background_lost")


@on_uvloop
async def test_a_response_that_never_ends_is_lost_after_a_while(tmp_path: Path) -> None:
    async with world(tmp_path, engine(said("queued")), background_s=0.1) as it:
        await it.ask(POSTED)
        event = await only_event(it)
        assert (event["outcome"], event["reason"]) == ("failed", "background_lost")


@on_uvloop
async def test_a_response_that_the_engine_never_took_up_ends_as_it_began(tmp_path: Path) -> None:
    asked_it = asyncio.Event()

    async def script(asked: Asked) -> None:
        if asked.head.startswith("POST"):
            asked_it.set()
            await asked.left()
        else:
            await asked.say(NOT_FOUND)

    async with world(tmp_path, script) as it:
        client = await it.client()
        await client.send(POSTED)
        await asked_it.wait()
        client.leave()
        event = await only_event(it)
        assert (event["outcome"], event["reason"]) == ("aborted", None)


@on_uvloop
async def test_a_client_that_leaves_a_stream_leaves_the_work_behind(tmp_path: Path) -> None:
    delta = b'event: response.output_text.delta\ndata: {"delta":"a"}\n\n'
    first = STREAM_HEAD + chunk(delta)
    async with world(tmp_path, engine(said("completed", usage=USAGE), first=first)) as it:
        client = await it.client()
        await client.send(request(ASK | {"stream": True}, path="/v1/responses"))
        await client.reader.readuntil(delta)
        client.leave()
        event = await only_event(it)
        assert (event["outcome"], event["completion_tokens"]) == ("finished", 4)


@on_uvloop
async def test_a_sidecar_that_stops_waits_for_its_patience_and_writes_what_is_known(tmp_path: Path) -> None:
    async with world(tmp_path, engine(said("queued")), patience=Patience(drain_s=0.2, linger_s=0.1)) as it:
        await it.ask(POSTED)
        await until(lambda: len(it.engine.asked) > 2)
        (event,) = await it.events()
        assert (event["outcome"], event["reason"]) == ("interrupted", "sidecar_stopped")


@on_uvloop
async def test_a_customer_asks_for_its_response_and_nobody_else_does(tmp_path: Path) -> None:
    async with world(tmp_path, engine(said("completed", usage=USAGE))) as it:
        await it.ask(POSTED)
        response = json.loads(it.engine.asked[0].body)["request_id"]
        status, _, _ = await it.ask(request(path=f"/v1/responses/{response}"))
        assert status == 200
        asked = len(it.engine.asked)
        status, _, body = await it.ask(request(path=f"/v1/responses/{response[:-1]}x"))
        assert (status, json.loads(body)["error"]["code"]) == (404, 404)
        assert len(it.engine.asked) == asked
        assert (await only_event(it))["outcome"] == "finished"
