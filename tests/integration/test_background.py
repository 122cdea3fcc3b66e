"""Responses in the background: answered at once, one event when the engine says how they ended."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
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


DELTAS = [
    b'event: response.output_text.delta\ndata: {"delta":"a","sequence_number":%d}\n\n' % number
    for number in range(6)
]


def streaming(status: dict[str, str], passed: int, readable: int) -> Script:
    """Streams so many deltas to whoever asked, all that are `readable` to whoever asks again, and ends neither."""

    async def script(asked: Asked) -> None:
        target = asked.head.split()[1]
        if asked.head.startswith("POST"):
            await asked.say(STREAM_HEAD + chunk(b"".join(DELTAS[:passed])))
            await asked.left()
        elif "?stream=true" in target:
            after = int(target.partition("starting_after=")[2] or -1)
            await asked.say(STREAM_HEAD + chunk(b"".join(DELTAS[after + 1 : readable])))
            await asked.left()
        else:
            await asked.say(said(status["now"]) if status["now"] else NOT_FOUND)

    return script


async def streamed_to_the_end(it: World, asking: bytes, last: bytes) -> None:
    client = await it.client()
    await client.send(asking)
    await client.reader.readuntil(last)
    client.leave()


@pytest.mark.parametrize(("end", "outcome"), [("cancelled", "aborted"), ("failed", "failed")])
@on_uvloop
async def test_of_a_stream_that_is_cancelled_all_counts_that_its_customer_could_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, outcome: str
) -> None:
    monkeypatch.setattr(background, "READ_PAUSE_S", 0.05)
    status = {"now": "queued"}
    async with world(tmp_path, streaming(status, passed=2, readable=5)) as it:
        asking = request(ASK | {"stream": True}, path="/v1/responses")
        await streamed_to_the_end(it, asking, DELTAS[1])
        status["now"] = end
        event = await only_event(it)
        assert (event["outcome"], event["completion_tokens"]) == (outcome, 5)


@on_uvloop
async def test_deltas_that_are_streamed_again_count_once_each(tmp_path: Path) -> None:
    status = {"now": "queued"}
    async with world(tmp_path, streaming(status, passed=2, readable=5)) as it:
        await streamed_to_the_end(it, request(ASK | {"stream": True}, path="/v1/responses"), DELTAS[1])
        response = json.loads(it.engine.asked[0].body)["request_id"]
        for query in ("stream=true", "stream=true&starting_after=2", "stream=true"):
            again = request(path=f"/v1/responses/{response}?{query}")
            await streamed_to_the_end(it, again, DELTAS[4])
        status["now"] = ""  # the engine has forgotten it
        event = await only_event(it)
        assert (event["outcome"], event["reason"]) == ("aborted", None)
        assert event["completion_tokens"] == 5


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("answered", [False, True])
@on_uvloop
async def test_a_response_outlives_its_sidecar_and_is_watched_again(
    tmp_path: Path, *, killed: bool, answered: bool
) -> None:
    left = []

    async def script(asked: Asked) -> None:
        if asked.head.startswith("POST") and not answered:
            left.append(asked)
            await asked.left()
        else:
            await asked.say(said("queued"))

    key, secret = Ed25519PrivateKey.generate(), b"s" * 32
    patience = Patience(drain_s=0.1, linger_s=0.1)
    again: dict[str, Any] = {
        "key": key,
        "node_secret": secret,
        "patience": patience,
        "lane": {"keep_open": True},
    }
    async with world(tmp_path, script, **again) as it:
        client = await it.client()
        await client.send(POSTED)
        await (client.answer() if answered else until(lambda: left))
        if killed:
            it.sidecar._background.stop = _nothing  # type: ignore[method-assign]  # it is dead
            it.sidecar._background.watch = lambda watch: None  # type: ignore[method-assign]
            it.sidecar.capture.write_down = lambda event, lines: False  # type: ignore[method-assign]
        assert await it.events() == []
    async with world(tmp_path, engine(said("queued"), said("completed", usage=USAGE)), **again) as it:
        event = await only_event(it)
        assert (event["outcome"], event["completion_tokens"], event["reason"]) == ("finished", 4, None)


@on_uvloop
async def test_one_that_its_engine_forgot_meanwhile_is_lost_with_what_was_passed_on(tmp_path: Path) -> None:
    key, patience = Ed25519PrivateKey.generate(), Patience(drain_s=0.1, linger_s=0.1)
    async with world(
        tmp_path, streaming({"now": "queued"}, passed=3, readable=3), key=key, patience=patience
    ) as it:
        asking = request(ASK | {"stream": True}, path="/v1/responses")
        await streamed_to_the_end(it, asking, DELTAS[2])
        assert await it.events() == []
    async with world(tmp_path, engine(NOT_FOUND), key=key, lane={"keep_open": True}) as it:
        event = await only_event(it)
        assert (event["outcome"], event["reason"]) == ("aborted", "background_lost")
        assert event["completion_tokens"] == 3


async def _nothing(patience_s: float) -> None:
    """A killed sidecar writes nothing more."""


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
