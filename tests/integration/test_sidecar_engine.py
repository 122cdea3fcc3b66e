"""The sidecar before the simulated engine: clients see the engine's bytes, events say what the engine counted."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from engine_bodies import chat, completion, hang_up, wants
from engine_exchange import Answer, Request, exchange
from engine_recordings import read_set
from engine_requests import GENERATING
from scripted_engine import SECRET, Asked, on_uvloop, world

from adapters.simulated_engine.options import EngineOptions
from adapters.simulated_engine.server import RunningEngine, serve
from metering.sse import StreamReader
from metering.usage import Usage, openai_usage

KEY_HEADER = ("Authorization", f"Bearer {SECRET}")


@asynccontextmanager
async def simulated(options: EngineOptions) -> AsyncIterator[RunningEngine]:
    running = await serve(options, "127.0.0.1", 0)
    try:
        yield running
    finally:
        await running.close()


async def nobody(_: Asked) -> None:
    raise AssertionError("the scripted engine is not asked here")


def with_key(request: Request) -> Request:
    return Request(
        request.method, request.path, (*request.headers, KEY_HEADER), request.body, request.hang_up_after
    )


def alike(answer: Answer) -> tuple[int, str, tuple[tuple[str, str], ...], str, bool]:
    """An answer without what changes from one run to the next: random ids, times, the date."""
    body = re.sub(r'"id":"(chat)?cmpl-[^"]*"', '"id":"…"', answer.body)
    body = re.sub(r'"created":\d+', '"created":0', body)
    headers = tuple(
        (name, value) for name, value in answer.headers if name.lower() not in ("date", "content-length")
    )
    return answer.status, answer.reason, headers, body, answer.whole


@pytest.mark.parametrize("forced", [False, True])
@on_uvloop
async def test_every_answer_is_the_engines_own_and_the_events_are_its_counters(
    tmp_path: Path, forced: bool
) -> None:
    options = EngineOptions(prompt_tokens_details=True)
    forcing = EngineOptions(prompt_tokens_details=True, force_include_usage=forced)
    bad = {"no model": chat(model="nope"), "bad body": Request("POST", "/v1/completions", (), "{")}
    several = {
        "two": chat(stream=True, n=2, **wants(3)),
        "batch": completion(prompt=["a", "b"], stream=True, **wants(2)),
    }
    outcomes: list[str] = []
    async with (
        simulated(options) as plain,
        simulated(forcing) as behind,
        world(tmp_path, nobody, engine_url=behind.url) as it,
    ):
        # A first stream shows the engine's fingerprint, for those in which one choice ends before another.
        for request in [GENERATING["chat_stream"], *GENERATING.values(), *several.values(), *bad.values()]:
            direct = await exchange(plain.host, plain.port, request)
            through = await exchange("127.0.0.1", it.port, with_key(request))
            assert alike(through) == alike(direct), request
            outcomes.append("finished" if direct.status == 200 else "failed")
        events = await it.events()
    counted = behind.counters["tiny"]
    # The engine's counter takes a prompt once for each choice, its usage once: only the latter is what clients see.
    assert 0 < sum(event["prompt_tokens"] for event in events) < counted.prompt_tokens
    assert sum(event["completion_tokens"] for event in events) == counted.generation_tokens
    assert [event["outcome"] for event in events] == outcomes


@on_uvloop
async def test_aborted_streams_carry_what_their_clients_had_read(tmp_path: Path) -> None:
    options = EngineOptions(tokens_per_second=200, max_chunks=1000)
    async with simulated(options) as engine, world(tmp_path, nobody, engine_url=engine.url) as it:
        requests = [hang_up(with_key(chat(stream=True, **wants(500))), pieces) for pieces in range(2, 8)]
        answers = await asyncio.gather(*(exchange("127.0.0.1", it.port, request) for request in requests))
        await it.settle()
        events = await it.events()
    # The first piece has the role and no token. A token may be on its way while the client hangs up.
    told = sorted(len(answer.pieces) - 1 for answer in answers)
    seen = sorted(event["completion_tokens"] for event in events)
    assert {event["outcome"] for event in events} == {"aborted"}
    assert all(tokens <= passed_on <= tokens + 3 for tokens, passed_on in zip(told, seen, strict=True))
    assert {event["prompt_tokens"] for event in events} == {
        engine.counters["tiny"].prompt_tokens // len(events)
    }


@pytest.mark.parametrize(
    ("asked", "plain"),
    [("chat_stream_usage", "chat_stream"), ("completion_stream_usage", "completion_stream")],
)
def test_real_streams_with_usage_become_the_real_streams_without(asked: str, plain: str) -> None:
    by_name = {recording.name: recording.answer for recording in read_set("plain").values()}
    reader = StreamReader(hide_final=True, hide_each=True, fingerprint=None)
    shown = b"".join(reader.feed(piece.encode()) for piece in by_name[asked].pieces)
    assert shown.decode() == by_name[plain].body


@pytest.mark.parametrize("name", ["chat_stream", "completion_stream"])
def test_a_real_stream_with_usage_on_every_chunk_becomes_the_plain_one(name: str) -> None:
    (forced,) = (recording.answer for recording in read_set("forced").values() if recording.name == name)
    (plain,) = (recording.answer for recording in read_set("plain").values() if recording.name == name)
    reader = StreamReader(hide_final=True, hide_each=True, fingerprint=None)
    shown = b"".join(reader.feed(piece.encode()) for piece in forced.pieces).decode()
    # The two servers were started with other options, and the fingerprint says so.
    fingerprint = re.compile(r"vllm-[\d.]+-[0-9a-f]{8}")
    assert fingerprint.sub("…", shown) == fingerprint.sub("…", plain.body)


@pytest.mark.parametrize("server", ["plain", "details", "forced"])
def test_usage_of_every_recorded_stream_is_what_its_last_chunk_says(server: str) -> None:
    read = 0
    for recording in read_set(server).values():
        answer = recording.answer
        if '"choices":[]' not in answer.body:
            continue
        last = next(piece for piece in answer.pieces if '"choices":[]' in piece)
        said = json.loads(last.removeprefix("data: "))["usage"]
        cached = (said.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
        reader = StreamReader(hide_final=False, hide_each=False, fingerprint=None)
        for piece in answer.pieces:
            reader.feed(piece.encode())
        assert openai_usage(reader.final) == Usage(said["prompt_tokens"], cached, said["completion_tokens"])
        read += 1
    assert read
