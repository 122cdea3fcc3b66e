"""Responses that are kept: what `GET /v1/responses/{id}` shows, and what goes on in the background.

As vLLM's, the store is this process's own and forgets nothing until it ends. A background response stays `queued`
until it is whole. Nobody's leaving ends it, only `cancel`. One that was asked for as a stream can be streamed again,
from any event on; one that was not breaks off the connection of whoever tries.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from urllib.parse import parse_qs

from adapters.simulated_engine.core import Core, Running, nothing, nothing_for
from adapters.simulated_engine.dialect import Answering, Body, encode
from adapters.simulated_engine.errors import bad_response
from adapters.simulated_engine.http import EVENT_STREAM_TYPE, Exchange
from adapters.simulated_engine.responses import OpenAiResponses
from adapters.simulated_engine.responses_asked import AskedResponse, not_found, read_response

_GOING_ON = ("queued", "in_progress")


class _Kept:
    """A stored response: its body, and where it was streamed in the background, its events."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self.events: list[bytes] | None = None
        self.is_over = False
        self.grew = asyncio.Event()
        self.stop: Callable[[], object] | None = None

    def end_with(self, body: Body) -> None:
        self.body = body

    async def add(self, event: bytes) -> None:
        assert self.events is not None, "only what was asked for as a stream has events"
        self.events.append(event)
        self.grew.set()


class Responses:
    """Answers `/v1/responses` and what lies below it."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._kept: dict[str, _Kept] = {}

    def create(self, body: bytes, exchange: Exchange) -> None:
        response = read_response(body, self._core.options, self._tokens_of)
        answering = Answering(response.asked, response.id, int(time.time()), self._core.options)
        running = self._core.begin(response.asked, response.id, [f"{response.id}_0"])
        if response.background:
            self._in_background(response, answering, running, exchange)
        else:
            keep = partial(self._keep, response.id) if response.stored else None
            self._core.answer(answering, OpenAiResponses(answering, response, keep), running, exchange)

    def retrieve(self, response_id: str, query: str, exchange: Exchange) -> None:
        kept = self._find(response_id)
        asked = parse_qs(query)
        if asked.get("stream", [""])[0].lower() not in ("true", "1"):
            exchange.whole(200, encode(kept.body))
        elif kept.events is None:
            exchange.begin(200, EVENT_STREAM_TYPE)
            exchange.break_off()
        else:
            first = int(asked.get("starting_after", ["-1"])[0]) + 1
            self._follow(kept, first, exchange)

    def cancel(self, response_id: str, exchange: Exchange) -> None:
        kept = self._find(response_id)
        if kept.body["status"] not in _GOING_ON:
            raise bad_response(400, "Cannot cancel a synchronous response.", "response_id")
        kept.body["status"] = "cancelled"
        if kept.stop is not None:
            kept.stop()
        exchange.whole(200, encode(kept.body))

    def _follow(self, kept: _Kept, place: int, exchange: Exchange) -> None:
        exchange.on_left = self._core.spawn(_stream(kept, place, exchange)).cancel

    def _find(self, response_id: str) -> _Kept:
        kept = self._kept.get(response_id)
        if kept is None:
            raise not_found(response_id)
        return kept

    def _keep(self, response_id: str, body: Body) -> None:
        self._kept[response_id] = _Kept(body)

    def _tokens_of(self, response_id: str) -> int | None:
        kept = self._kept.get(response_id)
        if kept is None:
            return None
        usage = kept.body["usage"]
        return usage["total_tokens"] if usage else 0

    def _in_background(
        self, response: AskedResponse, answering: Answering, running: Running, exchange: Exchange
    ) -> None:
        kept = _Kept({})
        dialect = OpenAiResponses(answering, response, kept.end_with)
        kept.body = dialect.body("queued")
        kept.stop = running.client_left
        self._kept[response.id] = kept
        if response.asked.stream:
            kept.events = []
            self._core.spawn(self._stream_to(kept, response, dialect, running))
            self._follow(kept, 0, exchange)
        else:
            self._core.spawn(self._finish(response, dialect, running))
            exchange.whole(200, encode(kept.body))

    async def _finish(self, response: AskedResponse, dialect: OpenAiResponses, running: Running) -> None:
        if await running.run(nothing, nothing_for):
            dialect.whole(self._core.reported_tokens(response.asked))

    async def _stream_to(
        self, kept: _Kept, response: AskedResponse, dialect: OpenAiResponses, running: Running
    ) -> None:
        try:
            await self._core.tell(response.asked, dialect, running, kept.add, lambda _step: None)
        finally:
            kept.is_over = True
            kept.grew.set()


async def _stream(kept: _Kept, place: int, exchange: Exchange) -> None:
    """Stream the events of a response, from a place on, until it is over."""
    assert kept.events is not None, "only what was asked for as a stream has events"
    exchange.begin(200, EVENT_STREAM_TYPE)
    while True:
        kept.grew.clear()
        while place < len(kept.events):
            await exchange.chunk(kept.events[place])
            place += 1
        if kept.is_over:
            exchange.end()
            return
        await kept.grew.wait()
