"""Bodies that nobody in their right mind sends, to the engine and to a sidecar before its twin: the same answers byte for
byte, and at the end the events come to what the engine counted.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from scripted_engine import SECRET, Asked, Client, on_uvloop, world

from adapters.simulated_engine.options import EngineOptions
from adapters.simulated_engine.server import RunningEngine, serve

MESSAGES = [{"role": "user", "content": "Labas rytas, pasauli!"}]
BASES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "tiny", "messages": MESSAGES, "max_tokens": 7},
    "/v1/completions": {"model": "tiny", "prompt": "Labas", "max_tokens": 5},
    "/v1/responses": {"model": "tiny", "input": "Labas", "max_output_tokens": 6},
    "/v1/messages": {"model": "tiny", "messages": MESSAGES, "max_tokens": 8},
    "/v1/embeddings": {"model": "tiny", "input": ["Labas", "rytas"]},
    "/tokenize": {"model": "tiny", "prompt": "Labas"},
}
VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        3,
        10**19,
        -(10**30),
        1.5,
        "",
        "1",
        "yes",
        "on",
        "true",
        "NaN",
        "ą\u2028\x00",
    ),
    *(
        [],
        {},
        [None],
        [[]],
        [1, 2, 3],
        {"include_usage": True},
        {"include_usage": "maybe"},
        {"a": {"usage": {}}},
    ),
    *(
        {"include_usage": True, "continuous_usage_stats": True},
        {"prompt_tokens": 5},
        '"usage": {"prompt_tokens": 9}',
    ),
)
MEMBERS = (
    *(
        "model",
        "stream",
        "stream_options",
        "n",
        "max_tokens",
        "messages",
        "prompt",
        "input",
        "usage",
        "echo",
        "stop",
    ),
    *(
        "best_of",
        "background",
        "user",
        "temperature",
        "system",
        "encoding_format",
        "dimensions",
    ),
)
# The simulated engine's own number of tokens would depend on every byte of the body.
_NINE = {"vllm_xargs": {"sim_completion_tokens": 9}}
#: What the sidecar refuses because it will not guess how the engine would read it, or that it keeps to itself.
OWN = (b"UTF-8", b"nested too deep", b"unknown_response")
_CHANGING = re.compile(
    rb'(?:chatcmpl|cmpl|embd|resp|msg|message)[-_][0-9a-zA-Z_-]{8,}|(?<="created":)\d+|(?<="created_at":)\d+'
)


def body_of(base: dict[str, Any], draw: random.Random) -> bytes:
    """A body with a few members changed, and sometimes its bytes too."""
    value = {**_NINE, **base}
    if draw.random() < 0.4:
        value["stream"] = True
    for _ in range(draw.choice([0, 1, 1, 2, 3])):
        value[draw.choice(MEMBERS)] = draw.choice(VALUES)
    body = bytearray(json.dumps(value, ensure_ascii=draw.random() < 0.5).encode("utf-8", "surrogatepass"))
    if draw.random() < 0.25:
        name = draw.choice(MEMBERS)
        twice = f'"{name}": {json.dumps(draw.choice(VALUES))}, '.encode()
        body[1:1] = twice.replace(b'"s', b'"\\u0073') if draw.random() < 0.3 else twice
    for _ in range(draw.choice([0, 0, 0, 1, 2])):
        at = draw.randrange(len(json.dumps(_NINE)), len(body) + 1)
        body[at : at + draw.randrange(3)] = draw.choice(
            [
                b"",
                b"\xff",
                b"\x00",
                b'"',
                b"}",
                b"1" * 40,
                b"1e999",
                b"NaN",
                b"[" * 50,
                b"\xed\xa0\x80",
                b"\n",
            ]
        )
    if draw.random() < 0.05:
        body = bytearray(
            draw.choice([b"", b"\xef\xbb\xbf" + body, body.decode("latin-1").encode("utf-16"), b"[" * 5000])
        )
    return bytes(body)


@asynccontextmanager
async def both_engines(options: EngineOptions) -> AsyncIterator[tuple[RunningEngine, RunningEngine]]:
    """Two that answer alike."""
    one, two = await serve(options, "127.0.0.1", 0), await serve(options, "127.0.0.1", 0)
    try:
        yield one, two
    finally:
        await one.close()
        await two.close()


async def told(client: Client, path: str, body: bytes, draw: random.Random) -> tuple[int, bytes]:
    """What one is told, less what changes from call to call; the request goes out in a few pieces."""
    head = f"POST {path} HTTP/1.1\r\nHost: s\r\nContent-Type: application/json\r\nAuthorization: Bearer {SECRET}\r\n"
    data = head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body
    for _ in range(draw.randrange(3)):
        cut = draw.randrange(len(data))
        await client.send(data[:cut])
        data = data[cut:]
        await asyncio.sleep(0)
    await client.send(data)
    status, _, answer = await client.answer()
    return status, _CHANGING.sub(b"id", answer)


@pytest.mark.parametrize("seed", range(4))
@on_uvloop
async def test_bodies_at_random_are_answered_as_by_the_engine_and_counted_as_it_counts(
    tmp_path: Path, seed: int
) -> None:
    async def nobody(_: Asked) -> None:
        raise AssertionError("the simulated engine is asked")

    draw = random.Random(seed)
    options = EngineOptions(tasks=("generate", "embed"), prompt_tokens_details=True)
    async with both_engines(options) as (plain, behind), world(tmp_path, nobody, engine_url=behind.url) as it:
        direct = Client(*await asyncio.open_connection("127.0.0.1", plain.port, limit=2**24))
        it.clients.append(direct)
        through = await it.client()
        # The first stream shows the sidecar the engine's fingerprint.
        asks = [("/v1/completions", json.dumps({"model": "tiny", "prompt": "a", "stream": True}).encode())]
        asks += [(path, body_of(base, draw)) for path, base in list(BASES.items()) * 10]
        for path, body in asks:
            expected = await told(direct, path, body, draw)
            got = await told(through, path, body, draw)
            own = got[0] in (400, 404) and any(code in got[1] for code in OWN)
            assert own or got == expected, (path, body)
        await it.settle()
        events = await it.events()
        counted = behind.counters["tiny"]
        assert sum(event["completion_tokens"] for event in events) == counted.generation_tokens
        assert it.sidecar.counters.unread_usage == 0
