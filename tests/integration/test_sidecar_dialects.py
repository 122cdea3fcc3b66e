"""Every endpoint through the sidecar, before the simulated engine: clients see what they see without it, and one event
stands for each request that the engine was given."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from engine_dialects import BACKGROUND, BACKGROUND_STREAM, STORED
from engine_exchange import Answer, Request, exchange
from engine_requests import SETS
from scripted_engine import SECRET, Asked, on_uvloop, until, world

from adapters.simulated_engine.options import EngineOptions
from adapters.simulated_engine.server import RunningEngine, serve
from metering import background
from metering.endpoints import Endpoint, find_endpoint

KEY_HEADER = ("Authorization", f"Bearer {SECRET}")
ENGINES = {
    "dialects": EngineOptions(),
    "stored": EngineOptions(prompt_tokens_details=True, store_responses=True),
    "embed": EngineOptions(tasks=("embed",), context_tokens=1024),
    "classify": EngineOptions(tasks=("classify",)),
    "speech": EngineOptions(tasks=("transcription",)),
}
# Routes whose ids belong to somebody: through the sidecar nobody has made those that the recordings name.
OWNED = (STORED, BACKGROUND, BACKGROUND_STREAM)


@asynccontextmanager
async def simulated(options: EngineOptions) -> AsyncIterator[RunningEngine]:
    running = await serve(options, "127.0.0.1", 0)
    try:
        yield running
    finally:
        await running.close()


async def nobody(_: Asked) -> None:
    raise AssertionError("the scripted engine is not asked here")


def alike(answer: Answer) -> tuple[object, ...]:
    """An answer without what changes from one run to the next, and without the names that ids have."""
    pieces = tuple(
        re.sub(
            r'("created(?:_at)?":)\d+',
            r"\g<1>0",
            re.sub(r"resp_\w+|[0-9a-f]{16,32}|trace-7", "id", piece),
        )
        for piece in answer.pieces
    )
    headers = tuple(
        (name.lower(), re.sub(r"[0-9a-f]{16,32}|\d{10}", "id", value))
        for name, value in answer.headers
        if name.lower() not in ("date", "content-length", "server", "vary")  # not of answers of our own
    )
    return answer.status, answer.reason, headers, pieces, answer.whole


@pytest.mark.parametrize("set_name", ENGINES)
@on_uvloop
async def test_every_answer_is_the_engines_own_and_every_request_has_its_event(
    tmp_path: Path, set_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "FIRST_PAUSE_S", 0.01)
    options = ENGINES[set_name]
    expected: list[tuple[str, str]] = []
    ids: dict[str, str] = {}
    async with (
        simulated(options) as plain,
        simulated(options) as behind,
        world(tmp_path, nobody, engine_url=behind.url) as it,
    ):
        for request in SETS[set_name].values():
            if request.hang_up_after is not None:
                continue
            direct = await exchange(plain.host, plain.port, request)
            through = await exchange("127.0.0.1", it.port, asked(request, ids))
            assert alike(through) == alike(direct), request
            for own in OWNED:
                if own in (request.body or "") and request.path == "/v1/responses" and own not in ids:
                    found = re.search(r"resp_\w+", through.body)
                    assert found is not None
                    ids[own] = found[0]
            endpoint = find_endpoint(request.method.encode(), request.path.encode())
            assert isinstance(endpoint, Endpoint)
            if endpoint.metered and '"resp_none"' not in (request.body or ""):
                expected.append((endpoint.name, "finished" if direct.status == 200 else "failed"))
            await until(lambda: it.lane.opened == it.lane.closed)
        events = await it.events()
    assert [(event["endpoint"], event["outcome"]) for event in events] == expected
    counted = behind.counters.get("tiny")
    told = [event for event in events if event["reason"] is None]
    if set_name in ("stored", "embed", "classify"):
        assert counted is not None
        assert sum(event["prompt_tokens"] for event in told) == counted.prompt_tokens
        assert sum(event["completion_tokens"] for event in told) == counted.generation_tokens
    assert all(event["prompt_tokens"] or event["audio_seconds"] for event in told)


def asked(request: Request, ids: dict[str, str]) -> Request:
    """The same request with a key, for ids that the sidecar gave."""
    path, body = request.path, request.body or ""
    for own, given in ids.items():
        path, body = path.replace(own, given), body.replace(own, given)
    headers = (*request.headers, KEY_HEADER)
    return replace(request, path=path, body=None if request.body is None else body, headers=headers)


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
@on_uvloop
async def test_a_stream_that_its_client_leaves_counts_the_deltas_that_it_read(
    tmp_path: Path, path: str
) -> None:
    options = EngineOptions(tokens_per_second=200, max_chunks=1000)
    ask = {
        "model": "tiny",
        "stream": True,
        "vllm_xargs": {"sim_prompt_tokens": 16, "sim_completion_tokens": 500},
    }
    ask |= {"input": "a"} if path == "/v1/responses" else {"messages": [{"role": "user", "content": "a"}]}
    ask |= {"max_output_tokens": 500, "max_tokens": 500}
    async with simulated(options) as engine, world(tmp_path, nobody, engine_url=engine.url) as it:
        requests = [
            Request("POST", path, (("Content-Type", "application/json"), KEY_HEADER), json.dumps(ask), pieces)
            for pieces in range(6, 12)
        ]
        answers = await asyncio.gather(*(exchange("127.0.0.1", it.port, request) for request in requests))
        await it.settle()
        events = await it.events()
    deltas = re.compile(r"^event: (?:response\.\w+\.delta|content_block_delta)$", re.MULTILINE)
    told = sorted(len(deltas.findall(answer.body)) for answer in answers)
    seen = sorted(event["completion_tokens"] for event in events)
    assert {event["outcome"] for event in events} == {"aborted"}
    assert all(tokens <= passed_on <= tokens + 3 for tokens, passed_on in zip(told, seen, strict=True)), (
        told,
        seen,
    )
    assert {event["prompt_tokens"] for event in events} == {16 if path == "/v1/messages" else 0}
