"""A seeded mixed load for a real engine: every endpoint that the tiny model serves, errors among them, a quarter hung up.

    load = generating_load(seed=4, requests=300)        chat, completions, responses, messages, what is free, errors
    load = pooling_load(seed=4, requests=80)            embeddings, pooling, score, rerank, errors
    heard = await put(port, load)
    heard[0].tokens                                     what its client counted itself

A client counts tokens without looking at usage where it can: chat and completions are asked for the ids of their tokens,
and streams of responses and messages have at least one in each delta.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from engine_bodies import get, post
from engine_exchange import Answer, Request, exchange

HOST = "127.0.0.1"
_WORDS = [
    "the",
    "bill",
    "of",
    "a",
    "node",
    "is",
    "what",
    "its",
    "engine",
    "made",
    "and",
    "nobody",
    "can",
    "say",
]
_LONG = " ".join(_WORDS * 12)
_TOKENS = (1, 3, 8, 20, 60)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of the load.

    `endpoint` is what its event calls it, "" where it leaves none. `engine_requests`: how many the engine makes of it
    when nobody hangs up; 0: it is refused or free; None: not to be said beforehand. `hang_up_s`: when its client leaves.
    """

    endpoint: str
    request: Request
    engine_requests: int | None
    hang_up_s: float | None = None


@dataclass(frozen=True, slots=True)
class Heard:
    """What its client got: `answer` is None where it had left; `pieces` are those of the body that came."""

    asked: Asked
    answer: Answer | None
    pieces: tuple[str, ...]

    @property
    def id(self) -> str | None:
        """The 32 hex digits that were minted for the request, where the client got to see them."""
        found = re.search(r'"id":"[a-z]+[-_]([0-9a-f]{32})(?![0-9a-f])', "".join(self.pieces))
        return found[1] if found else None

    @property
    def tokens(self) -> int:
        """Output tokens that the client itself counted; of a whole answer without ids of tokens, what its usage says."""
        told = [*_json_of(self.pieces)]
        counted = sum(_ids(each) for each in told)
        if counted:
            return counted
        if self.answer is not None:
            return max((_output(each) for each in told), default=0)
        return sum(each.get("type") in _DELTAS for each in told)


_DELTAS = ("response.output_text.delta", "content_block_delta")


def generating_load(seed: int, requests: int, *, background: bool = False) -> list[Asked]:
    """For a model that generates. `background`: some responses go on in the background, if the engine keeps them."""
    chance = random.Random(seed)
    kinds = {_chat: 26, _completion: 24, _responses: 16, _messages: 16, _beam: 4, _free: 4, _refused: 10}
    load = []
    for number in range(requests):
        make = chance.choices(list(kinds), list(kinds.values()))[0]
        asked, tokens = make(chance)
        if background and asked.endpoint == "responses" and chance.random() < 0.3:
            asked = _in_background(asked)
        load.append(_hanging_up(chance, number, asked, 0.01 * tokens + 0.05))
    return load


def pooling_load(seed: int, requests: int) -> list[Asked]:
    """For a model that embeds."""
    chance = random.Random(seed)
    load = []
    for number in range(requests):
        leaves = number % 8 in (2, 3, 7)
        texts = [_prose(chance) for _ in range(chance.randint(20, 60) if leaves else chance.randint(1, 4))]
        ways: list[tuple[str, dict[str, Any], int]] = [
            ("/v1/embeddings", {"input": texts}, len(texts)),
            ("/v1/embeddings", {"input": texts[0]}, 1),
            ("/pooling", {"input": texts}, len(texts)),
            ("/score", {"text_1": _prose(chance), "text_2": texts}, 1 + len(texts)),
            ("/v1/score", {"text_1": texts, "text_2": texts[::-1]}, 2 * len(texts)),
            ("/rerank", {"query": _prose(chance), "documents": texts}, 1 + len(texts)),
            ("/v1/embeddings", {"input": [11] * 1100}, 0),
            ("/v1/embeddings", {"input": texts, "model": "none"}, 0),
        ]
        path, body, count = chance.choice(ways)
        endpoint = path.rpartition("/")[2]
        asked = Asked(endpoint, post(path, json.dumps({"model": "tiny", **body})), count)
        load.append(_hanging_up(chance, number, asked, 0.1))
    return load


def _hanging_up(chance: random.Random, number: int, asked: Asked, longest_s: float) -> Asked:
    """Three of eight at a random point: a quarter and more leave before the end."""
    return replace(asked, hang_up_s=chance.uniform(0, longest_s)) if number % 8 in (2, 3, 7) else asked


def _generating(chance: random.Random) -> tuple[dict[str, Any], int]:
    tokens = chance.choice(_TOKENS)
    body: dict[str, Any] = {
        "model": "tiny",
        "max_tokens": tokens,
        "ignore_eos": True,
        "return_token_ids": True,
    }
    if chance.random() < 0.5:
        body["stream"] = True
        if chance.random() < 0.5:
            body["stream_options"] = {"include_usage": True, "continuous_usage_stats": chance.random() < 0.5}
    if chance.random() < 0.15:
        body["stop"] = ["e", " the"]
    return body, tokens


def _chat(chance: random.Random) -> tuple[Asked, int]:
    body, tokens = _generating(chance)
    body["messages"] = [{"role": "user", "content": _prose(chance)}]
    n = body["n"] = chance.choice([1, 1, 2])
    return Asked("chat", post("/v1/chat/completions", json.dumps(body)), n), tokens


def _completion(chance: random.Random) -> tuple[Asked, int]:
    body, tokens = _generating(chance)
    prompts = [_prose(chance) for _ in range(chance.choice([1, 1, 2, 4]))]
    body["prompt"] = prompts if len(prompts) > 1 else prompts[0]
    n = body["n"] = chance.choice([1, 1, 1, 2])
    return Asked("completions", post("/v1/completions", json.dumps(body)), n * len(prompts)), tokens


def _responses(chance: random.Random) -> tuple[Asked, int]:
    tokens = chance.choice(_TOKENS)
    body = {"model": "tiny", "input": _prose(chance), "max_output_tokens": tokens, "ignore_eos": True}
    return Asked("responses", _perhaps_streamed(chance, "/v1/responses", body), 1), tokens


def _messages(chance: random.Random) -> tuple[Asked, int]:
    tokens = chance.choice(_TOKENS)
    body = {"model": "tiny", "max_tokens": tokens, "messages": [{"role": "user", "content": _prose(chance)}]}
    return Asked("messages", _perhaps_streamed(chance, "/v1/messages", body), 1), tokens


def _perhaps_streamed(chance: random.Random, path: str, body: dict[str, Any]) -> Request:
    return post(path, json.dumps(body | ({"stream": True} if chance.random() < 0.5 else {})))


def _beam(chance: random.Random) -> tuple[Asked, int]:
    tokens, prompts = chance.choice(_TOKENS[:3]), chance.choice([1, 1, 2])
    body: dict[str, Any] = {"model": "tiny", "max_tokens": tokens, "ignore_eos": True}
    body |= {"use_beam_search": True, "n": 2, "prompt": [_prose(chance) for _ in range(prompts)]}
    return Asked("completions", post("/v1/completions", json.dumps(body)), None), tokens


def _free(chance: random.Random) -> tuple[Asked, int]:
    message = [{"role": "user", "content": _prose(chance)}]
    made = [
        get("/v1/models"),
        post("/tokenize", json.dumps({"model": "tiny", "prompt": _prose(chance)})),
        post("/v1/messages/count_tokens", json.dumps({"model": "tiny", "messages": message})),
    ]
    return Asked("", chance.choice(made), 0), 1


def _refused(chance: random.Random) -> tuple[Asked, int]:
    """The engine says no, and makes nothing of it."""
    asked, tokens = chance.choice([_chat, _completion, _responses, _messages])(chance)
    body = json.loads(asked.request.body or "")
    key = "max_output_tokens" if asked.endpoint == "responses" else "max_tokens"
    wrong = chance.choice([{"model": "none"}, {key: -1}, {key: "many"}])
    return Asked(asked.endpoint, post(asked.request.path, json.dumps(body | wrong)), 0), tokens


def _in_background(asked: Asked) -> Asked:
    """Its answer says only that it is under way; what it makes is counted when it is done."""
    body = json.loads(asked.request.body or "")
    body.pop("stream", None)
    return Asked("background", post(asked.request.path, json.dumps(body | {"background": True})), 1)


def _prose(chance: random.Random) -> str:
    """A few words, or a few hundred that begin alike: some prompts are found in the cache."""
    if chance.random() < 0.2:
        return f"{_LONG} {chance.choice(_WORDS)}"
    return " ".join(chance.choices(_WORDS, k=chance.randint(1, 40)))


async def put(
    port: int,
    load: Iterable[Asked],
    *,
    at_once: int = 24,
    headers: tuple[tuple[str, str], ...] = (),
    may_break: bool = False,
) -> list[Heard]:
    """Sends the load, `at_once` requests at any time, each on a connection of its own and with these headers too.

    `may_break`: a connection that is refused or broken is as if the client had left then; otherwise it is an error.
    """
    gate = asyncio.Semaphore(at_once)

    async def one(asked: Asked) -> Heard:
        request = replace(asked.request, headers=(*asked.request.headers, *headers))
        pieces: list[str] = []
        async with gate:
            try:
                async with asyncio.timeout(asked.hang_up_s):
                    answer = await exchange(HOST, port, request, heard=pieces)
                    return Heard(asked, answer, answer.pieces)
            except TimeoutError:
                if asked.hang_up_s is None:
                    raise
                return Heard(asked, None, tuple(pieces))
            except (OSError, EOFError):
                if not may_break:
                    raise
                return Heard(asked, None, tuple(pieces))

    return list(await asyncio.gather(*(one(asked) for asked in load)))


def with_id(asked: Asked, minted: str) -> Asked:
    """The request as the sidecar sends it to the engine: by a header, and for responses in the body."""
    request = asked.request
    if asked.endpoint in ("responses", "background") and asked.engine_requests:
        body = json.loads(request.body or "") | {"request_id": f"resp_{minted}_0{'0' * 16}"}
        return replace(asked, request=post(request.path, json.dumps(body)))
    return replace(asked, request=replace(request, headers=(*request.headers, ("X-Request-Id", minted))))


def _json_of(pieces: Iterable[str]) -> Iterable[dict[str, Any]]:
    """The JSON objects of a body, or of a stream's events."""
    for event in "".join(pieces).split("\n\n"):
        text = event[event.index("data: ") + 6 :] if "data: " in event else event
        if text.startswith("{"):
            yield json.loads(text)


def _ids(told: dict[str, Any]) -> int:
    return sum(len(choice.get("token_ids") or ()) for choice in told.get("choices", ()))


def _output(told: dict[str, Any]) -> int:
    """What a body, or an event of a stream, says of output tokens; 0 where it says nothing."""
    usage = (told.get("response") or told).get("usage") or {}
    return int(usage.get("completion_tokens") or usage.get("output_tokens") or 0)
