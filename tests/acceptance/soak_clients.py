"""The clients of a soak: a few fixed requests, over and over, as fast as they are answered; every answer looked at.

An answer is the engine's, byte for byte but for ids and instants, or the sidecar's own refusal with a code that
CODES knows, or a connection that breaks off. Anything else is a trouble, and ends the soak.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import httptools

CONNECTIONS = 16
PAUSE_S = 0.05
#: What the sidecar may say by itself while the disk is full, the spool is, or the engine is away.
CODES = (
    *("capture_unavailable", "spool_full"),
    *("engine_unreachable", "engine_closed", "engine_malformed", "stopping"),
    *("overloaded_error", "api_error"),  # Anthropic's words for them, which have no code
)
LEFT, WHOLE, CUT, REFUSED = "left", "whole", "cut", "refused"

_CHANGES = re.compile(rb'resp_[0-9a-f_]+|[0-9a-f]{16,}|("created(?:_at)?":)\d+')
_MESSAGES = [{"role": "user", "content": "Labas!"}]


@dataclass(frozen=True, slots=True)
class Kind:
    """A request. `answer` is the engine's own, without what changes from one to the next."""

    path: str
    body: bytes
    weight: int
    hangs_up: bool = False
    answer: bytes = b""

    def message(self, key: str) -> bytes:
        head = f"POST {self.path} HTTP/1.1\r\nHost: node\r\nContent-Type: application/json\r\n"
        head += f"Authorization: Bearer {key}\r\nContent-Length: {len(self.body)}\r\n\r\n"
        return head.encode() + self.body


def _kind(path: str, weight: int, *, hangs_up: bool = False, **body: Any) -> Kind:
    counts = {"sim_prompt_tokens": 64, "sim_cached_tokens": 16, "sim_completion_tokens": 12}
    content = json.dumps({"model": "tiny", **body, "vllm_xargs": counts})
    return Kind(path, content.encode(), weight, hangs_up)


KINDS = (
    _kind("/v1/chat/completions", 40, messages=_MESSAGES),
    _kind("/v1/chat/completions", 15, messages=_MESSAGES, stream=True),
    _kind(
        "/v1/chat/completions",
        5,
        messages=_MESSAGES,
        stream=True,
        stream_options={"include_usage": True},
    ),
    _kind("/v1/chat/completions", 6, hangs_up=True, messages=_MESSAGES, stream=True),
    _kind("/v1/completions", 10, prompt=["one", "two"]),
    _kind("/v1/completions", 2, prompt="one", n=2, temperature=1, stream=True),
    _kind("/v1/responses", 5, input="Labas!"),
    _kind("/v1/responses", 3, input="Labas!", stream=True),
    _kind("/v1/messages", 5, messages=_MESSAGES, max_tokens=500),
    _kind("/v1/messages", 3, messages=_MESSAGES, max_tokens=500, stream=True),
    _kind("/v1/embeddings", 3, input=["one", "two"]),
)


def unchanging(body: bytes) -> bytes:
    """A body without ids and instants."""
    return _CHANGES.sub(rb"\g<1>0", body)


class _Answer:
    """One answer as httptools reads it."""

    def __init__(self) -> None:
        self.body: list[bytes] = []
        self.is_whole = False

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        self.is_whole = True


@dataclass
class Clients:
    """`address` of the sidecar; `counts` by fate, `refusals` by code, `wanted` whole and left ones in all. They ask
    while `going` is set."""

    address: tuple[str, int]
    key: str
    kinds: tuple[Kind, ...]
    wanted: int
    going: asyncio.Event = field(default_factory=asyncio.Event)
    counts: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)

    @property
    def done(self) -> int:
        return self.counts[WHOLE] + self.counts[LEFT]

    async def reached(self, share: float) -> None:
        """Waits until so much of what is wanted is done."""
        while self.done < share * self.wanted:  # noqa: ASYNC110  (a look now and then costs the clients nothing)
            await asyncio.sleep(0.02)

    async def rest(self, seconds: float) -> None:
        """Lets the engine come to a quiet point, at which its counters can be compared."""
        self.going.clear()
        await asyncio.sleep(seconds)
        self.going.set()

    async def run(self) -> None:
        """Asks until `wanted` is reached. AssertionError for an answer that may not be.

        A stream of one choice comes first: from it the sidecar learns the engine's `system_fingerprint`, which it needs
        where one of several choices ends before the others.
        """
        reader, writer = await asyncio.open_connection(*self.address)
        self.counts[await self._ask(self.kinds[1], reader, writer)] += 1
        await _close(writer)
        self.going.set()
        async with asyncio.TaskGroup() as together:
            for number in range(CONNECTIONS):
                together.create_task(self._client(random.Random(number)))

    async def _client(self, chance: random.Random) -> None:
        weights = [kind.weight for kind in self.kinds]
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while self.done < self.wanted:
            await self.going.wait()
            kind = chance.choices(self.kinds, weights)[0]
            if streams is None:
                try:
                    streams = await asyncio.open_connection(*self.address)
                except OSError:
                    await asyncio.sleep(PAUSE_S)
                    continue
            fate = await self._ask(kind, *streams)
            self.counts[fate] += 1
            if fate != WHOLE:
                await _close(streams[1])
                streams = None
            if fate in (CUT, REFUSED):
                await asyncio.sleep(PAUSE_S)
        if streams is not None:
            await _close(streams[1])

    async def _ask(self, kind: Kind, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        try:
            status, body, whole = await ask(kind, self.key, reader, writer)
        except OSError:
            return CUT
        if status == 200:
            if not whole:
                assert kind.answer.startswith(unchanging(body)[: -len("chatcmpl-")]), (kind, body)
                return LEFT if kind.hangs_up and body else CUT
            assert unchanging(body) == kind.answer, (kind, body)
            return WHOLE
        if not whole:
            return CUT
        error = json.loads(body)["error"]
        code = error.get("code") or error["type"]
        assert code in CODES, body
        self.refusals[code] += 1
        return REFUSED


async def ask(
    kind: Kind, key: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> tuple[int, bytes, bool]:
    """(status, body, whether it is whole) of the answer to one request, or of its first piece where the client hangs
    up. OSError where nothing was answered."""
    answer = _Answer()
    parser = httptools.HttpResponseParser(answer)
    writer.write(kind.message(key))
    while not answer.is_whole and not (kind.hangs_up and answer.body):
        data = await reader.read(65_536)
        if not data:
            break
        parser.feed_data(data)
    status = parser.get_status_code()
    if not status:
        raise ConnectionResetError("nothing was answered")
    return status, b"".join(answer.body), answer.is_whole


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def learned(address: tuple[str, int]) -> tuple[Kind, ...]:
    """The kinds with what the engine itself answers."""
    found = []
    for kind in KINDS:
        reader, writer = await asyncio.open_connection(*address)
        status, body, whole = await ask(replace(kind, hangs_up=False), "-", reader, writer)
        await _close(writer)
        assert (status, whole) == (200, True), body
        found.append(replace(kind, answer=unchanging(body)))
    return tuple(found)
