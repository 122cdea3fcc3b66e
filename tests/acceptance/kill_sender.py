"""The clients of a world in which everything is killed, and the book that they keep for themselves.

Every request names its token counts, and its prompt tokens are a number that no other request of the world has. What
the client saw decides its fate in the book:

    whole     the answer came to its end: it must be on the books, finished, with these tokens
    left      the client hung up in mid-stream
    cut       the connection broke before the answer's end: the sender cannot know how far the request came
    refused   an error was answered

A connection that is not even taken is no request: the client tries again until somebody listens.
"""

from __future__ import annotations

import http.client
import itertools
import json
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

CLIENTS = 8
PATIENCE_S = 30.0
# Large enough that every request is worth some cents, so that no bill of its own rounds to nothing.
FIRST_NUMBER = 1_000_000

WHOLE, LEFT, CUT, REFUSED = "whole", "left", "cut", "refused"


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a request uses."""

    prompt: int
    cached: int
    completion: int
    reasoning: int


@dataclass(frozen=True, slots=True)
class Sent:
    """A request in the book. `answered`: the engine's name for it, where the client saw one."""

    tokens: Tokens
    customer: str
    stream: bool
    asks_usage: bool
    hang_up: bool
    fate: str = CUT
    answered: str | None = None
    status: int | None = None


@dataclass(slots=True)
class Load:
    """So many requests, being sent by several clients at once."""

    threads: list[threading.Thread]
    troubles: list[str]

    @property
    def running(self) -> bool:
        return any(thread.is_alive() for thread in self.threads)

    def join(self) -> None:
        for thread in self.threads:
            thread.join(2 * PATIENCE_S)
            assert not thread.is_alive(), "a client hangs"
        assert not self.troubles, self.troubles


@dataclass
class Sender:
    """All clients of a world. `address`: where they find the sidecar, `keys`: customer → API key."""

    chance: random.Random
    keys: Mapping[str, str]
    address: tuple[str, int] = ("127.0.0.1", 0)
    book: list[Sent] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(FIRST_NUMBER))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, requests: int) -> Load:
        """Begins to send so many requests."""
        waiting = iter([self._request() for _ in range(requests)])
        load = Load([], [])

        def client() -> None:
            try:
                self._serve(waiting)
            except Exception as trouble:  # a thread's own end would be silent
                load.troubles.append(repr(trouble))

        load.threads = [threading.Thread(target=client, daemon=True) for _ in range(CLIENTS)]
        for thread in load.threads:
            thread.start()
        return load

    def count(self, *fates: str) -> int:
        return sum(sent.fate in fates for sent in self.book)

    def _request(self) -> Sent:
        chance = self.chance
        prompt = next(self._numbers)
        completion = chance.randint(10, 60)
        stream = chance.random() < 0.6
        return Sent(
            Tokens(prompt, chance.randint(0, prompt), completion, chance.randint(0, completion)),
            chance.choice(sorted(self.keys)),
            stream,
            asks_usage=stream and chance.random() < 0.5,
            hang_up=stream and chance.random() < 0.15,
        )

    def _serve(self, waiting: Any) -> None:
        connection: http.client.HTTPConnection | None = None
        while True:
            with self._lock:
                request = next(waiting, None)
            if request is None:
                break
            connection = connection or self._connect()
            sent, reusable = _send(connection, request, self.keys[request.customer])
            with self._lock:
                self.book.append(sent)
            if not reusable:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        """A connection to the sidecar, as soon as there is one."""
        give_up = time.monotonic() + PATIENCE_S
        while True:
            connection = http.client.HTTPConnection(*self.address, timeout=PATIENCE_S)
            try:
                connection.connect()
                return connection
            except ConnectionError:
                connection.close()
                assert time.monotonic() < give_up, "nobody listens"
                time.sleep(0.02)


def _send(connection: http.client.HTTPConnection, request: Sent, key: str) -> tuple[Sent, bool]:
    """The request's entry in the book, and whether the connection may carry another."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    try:
        connection.request("POST", "/v1/chat/completions", _body(request), headers)
        response = connection.getresponse()
        if response.status != 200:
            response.read()
            return replace(request, fate=REFUSED, status=response.status), False
        if request.hang_up:
            response.readline()
            response.close()
            return replace(request, fate=LEFT), False
        answer = response.read()
    except (OSError, http.client.HTTPException):
        return request, False
    return _judged(request, answer), True


def _judged(request: Sent, answer: bytes) -> Sent:
    """The request with the fate that its whole answer gives it, after a look at the answer itself."""
    if not request.stream:
        told = json.loads(answer)
        _check_usage(request, told["usage"])
        return replace(request, fate=WHOLE, answered=told["id"])
    lines = [line.removeprefix(b"data: ") for line in answer.split(b"\n\n") if line]
    assert lines[-1] == b"[DONE]", "a stream that ends in the middle must not look whole"
    chunks = [json.loads(line) for line in lines[:-1]]
    usages = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
    if request.asks_usage:
        _check_usage(request, usages[-1])
    else:
        assert not usages, "usage is shown to a client that did not ask"
    return replace(request, fate=WHOLE, answered=chunks[0]["id"])


def _check_usage(request: Sent, told: Mapping[str, int]) -> None:
    asked = (request.tokens.prompt, request.tokens.completion)
    assert (told["prompt_tokens"], told["completion_tokens"]) == asked


def _body(request: Sent) -> bytes:
    tokens = request.tokens
    body: dict[str, Any] = {
        "model": "qwen3-32b",
        "messages": [{"role": "user", "content": "Labas!"}],
        "stream": request.stream,
        "vllm_xargs": {
            "sim_prompt_tokens": tokens.prompt,
            "sim_cached_tokens": tokens.cached,
            "sim_completion_tokens": tokens.completion,
            "sim_reasoning_tokens": tokens.reasoning,
        },
    }
    if request.asks_usage:
        body["stream_options"] = {"include_usage": True}
    return json.dumps(body).encode()
