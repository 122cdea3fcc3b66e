"""Responses that go on in the background (`background: true`): who asks the engine how they ended.

The engine answers such a request at once and works on without a client. How much it used is known only to whoever asks
later (`GET /v1/responses/{id}`), and the customer may never ask. So the sidecar asks itself, after a second and then at
growing pauses up to `MAX_PAUSE_S`, and writes the one event when the status is a last one:

    completed, incomplete    finished, with its usage
    cancelled                aborted
    failed                   failed (`engine_error`)

vLLM says no usage of the last two. What had been asked for as a stream can be read there all the same, also afterwards
(`GET /v1/responses/{id}?stream=true`), so the sidecar reads it itself and counts each delta as a token. Deltas that are
streamed again to clients while the response goes on are counted as they pass, once each (`passed_on`).

An end of the sidecar is not the response's. What is known of it is told to the lane at its beginning, and what had been
passed on once more at a stop, with `background_lost`, which is what it comes to if nobody can be asked any more; by
that mark the next start knows it (`is_watched`), makes its id again and asks on (`take_up`).

vLLM keeps responses in the memory of one of its API processes. With several of them a question may come to another,
which knows nothing of it; so a response is given up only after `MISSES` questions in a row, each over a connection of
its own, that were answered by "not found" or not at all. Then, and after `background_s`, its event says
`background_lost`; its tokens are those of the engine's lines, where there are any. A response that the engine never had
(its client had left before the engine took it up) ends as it began.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from metering.dialects import DIALECTS, Reader
from metering.engine_fetch import fetch
from metering.engine_pool import EnginePool
from metering.event import Event
from metering.exchange_step import UNKNOWN_MODEL, Watch
from metering.http_answer import AnswerHead
from metering.response_id import make_response_id, request_of_response
from metering.responses_stream import PassedOn, ResponsesStream
from metering.usage import Usage

FIRST_PAUSE_S = 1.0
MAX_PAUSE_S = 10.0
MISSES = 60
#: A stream of what can be read of a cancelled response does not end; it is over when nothing came for so long.
READ_PAUSE_S = 1.0
READ_TRIES = 20
_GROWTH = 1.5
_TIMEOUT_S = 30.0
_LIMIT_BYTES = 1024 * 1024 * 1024  # of an answer that is not kept
_HEAD = AnswerHead(200, b"OK", [], None, event_stream=False)

#: Writes an event down: the event, the lines to expect of the engine's witness, whether its usage could not be read.
Settle = Callable[[Event, int | None, bool], object]
#: Where a response is: the ordinal of the engine, and its id there.
Place = tuple[int, str]


def is_watched(told: Event) -> bool:
    """Whether what the lane was told of a request is of a response that goes on in the background."""
    return told.reason == "background_lost"


class Background:
    """The responses that are watched. `watch` them, and at the end `stop`."""

    def __init__(
        self,
        pools: Sequence[EnginePool],
        settle: Settle,
        keep: Callable[[Event], object],
        now_us: Callable[[], int],
        *,
        background_s: float,
        secret: bytes = b"",
    ) -> None:
        """`keep` tells the lane of a response what its event is if nobody asks any more; `secret` is the node's."""
        self._pools = pools
        self._settle = settle
        self._keep = keep
        self._now_us = now_us
        self._background_s = background_s
        self._secret = secret
        self._open: dict[bytes, tuple[Watch, PassedOn]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._open)

    def watch(self, watch: Watch) -> None:
        """See to it that the response gets its event."""
        absent = watch.absent
        self._keep(_lost(absent))
        passed = PassedOn(watch.events, absent.completion_tokens, absent.reasoning_tokens)
        self._see_to(watch, passed)

    def take_up(self, told: Event) -> None:
        """The same for one that the last process watched. Which engine has it, only the engines can say."""
        places = tuple(
            (pool.ordinal, make_response_id(self._secret, told.request, told.customer, pool.ordinal).decode())
            for pool in self._pools
        )
        self._see_to(
            Watch(places, told), PassedOn(deltas=told.completion_tokens, reasoning=told.reasoning_tokens)
        )

    def passed_on(self, response: str) -> PassedOn | None:
        """Where the deltas of a response are counted that are streamed again; None if it is not watched."""
        request = request_of_response(response)
        found = None if request is None else self._open.get(request)
        return None if found is None else found[1]

    async def stop(self, patience_s: float) -> None:
        """Ask on for that long, then no more: what still goes on is for the next start."""
        tasks = tuple(self._tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=max(0.0, patience_s))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for watch, passed in self._open.values():
            self._keep(_lost(_told(watch.absent, passed)))

    def _see_to(self, watch: Watch, passed: PassedOn) -> None:
        self._open[watch.absent.request] = watch, passed
        task = asyncio.get_running_loop().create_task(self._see(watch, passed))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _see(self, watch: Watch, passed: PassedOn) -> None:
        event, unread = await self._end_of(watch, passed)
        del self._open[watch.absent.request]
        self._settle(event._replace(time_us=self._now_us()), watch.lines, unread)

    async def _end_of(self, watch: Watch, passed: PassedOn) -> tuple[Event, bool]:
        try:
            async with asyncio.timeout(self._background_s):
                found = await self._ask_until_over(watch)
        except TimeoutError:
            return _lost(_told(watch.absent, passed)), False
        if found is None:
            absent = _told(watch.absent, passed)
            return absent if absent.outcome != "finished" else _lost(absent), False
        place, answer = found
        readable = PassedOn()
        if answer.usage() is None and watch.streamed is not False:
            readable = await self._readable(place, watch)
        return _event(_told(watch.absent, passed, readable), answer)

    async def _ask_until_over(self, watch: Watch) -> tuple[Place, Reader] | None:
        """Where it was found and the answer with a last status; None if no engine has it (any more)."""
        pause_s = FIRST_PAUSE_S
        places, at, misses = watch.places, 0, 0
        while misses < MISSES * len(places):
            await asyncio.sleep(pause_s)
            answer = await self._ask(places[at], fresh=misses > 0)
            if answer is None:
                misses += 1
                at = (at + 1) % len(places)
                pause_s = FIRST_PAUSE_S / len(places)
            elif not answer.pending:
                return places[at], answer
            else:
                misses = 0
                pause_s = min(max(pause_s, FIRST_PAUSE_S) * _GROWTH, MAX_PAUSE_S)
        return None

    async def _ask(self, place: Place, *, fresh: bool) -> Reader | None:
        ordinal, response = place
        reader = DIALECTS["responses"].answer(_HEAD)
        try:
            told = await fetch(
                self._pools[ordinal],
                b"/v1/responses/" + response.encode(),
                timeout_s=_TIMEOUT_S,
                limit_bytes=_LIMIT_BYTES,
                taker=reader.feed,
                fresh=fresh,
            )
        except OSError:
            return None
        reader.flush()
        return reader if told.status == 200 else None

    async def _readable(self, place: Place, watch: Watch) -> PassedOn:
        """The deltas that anybody can read who has the id of a response that is over; of its stream, if it had one."""
        for _ in range(READ_TRIES):
            readable = PassedOn()
            if await self._read_again(place, readable, sure=watch.streamed is True):
                return readable
            await asyncio.sleep(FIRST_PAUSE_S)
        return PassedOn()

    async def _read_again(self, place: Place, readable: PassedOn, *, sure: bool) -> bool:
        """Count what the stream has; false if the engine did not show it. One that is not `sure` to be kept as a
        stream may be broken off by vLLM before its first event."""
        ordinal, response = place
        stream = ResponsesStream(readable)
        reading = asyncio.create_task(
            fetch(
                self._pools[ordinal],
                b"/v1/responses/" + response.encode() + b"?stream=true",
                timeout_s=_TIMEOUT_S,
                limit_bytes=_LIMIT_BYTES,
                taker=stream.feed,
                fresh=True,
            )
        )
        try:
            events = 0
            while not reading.done():
                await asyncio.wait((reading,), timeout=READ_PAUSE_S)
                if events == stream.events > 0:
                    break
                events = stream.events
        finally:
            reading.cancel()
            (ended,) = await asyncio.gather(reading, return_exceptions=True)
        return stream.events > 0 or (isinstance(ended, ConnectionError) and not sure)


def _told(absent: Event, *passed: PassedOn) -> Event:
    """What is known of it, with the deltas that were passed on or can be read: the most of these."""
    most = max(passed, key=lambda each: each.deltas)
    if most.deltas <= absent.completion_tokens:
        return absent
    return absent._replace(completion_tokens=most.deltas, reasoning_tokens=most.reasoning)


def _event(absent: Event, answer: Reader) -> tuple[Event, bool]:
    """The event of a response that is over, and whether its usage could not be read."""
    outcome = answer.verdict or "finished"
    told = answer.usage()
    unread = told is None and outcome == "finished"
    usage = told or Usage(
        absent.prompt_tokens, absent.cached_tokens, absent.completion_tokens, absent.reasoning_tokens
    )
    reason = "usage_unread" if unread else "engine_error" if outcome == "failed" else None
    event = absent._replace(
        model=absent.model if absent.model != UNKNOWN_MODEL else answer.model or UNKNOWN_MODEL,
        outcome=outcome,
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        completion_tokens=usage.completion_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        reason=reason,
    )
    return event, unread


def _lost(absent: Event) -> Event:
    outcome = "failed" if absent.outcome == "finished" else absent.outcome
    return absent._replace(outcome=outcome, reason="background_lost")
