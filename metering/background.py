"""Responses that go on in the background (`background: true`): who asks the engine how they ended.

The engine answers such a request at once and works on without a client. How much it used is known only to whoever asks
later (`GET /v1/responses/{id}`), and the customer may never ask. So the sidecar asks itself, after a second and then at
growing pauses up to `MAX_PAUSE_S`, and writes the one event when the status is a last one:

    completed, incomplete    finished, with its usage
    cancelled                aborted (vLLM says no usage)
    failed                   failed (`engine_error`)

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
from metering.usage import NOTHING

FIRST_PAUSE_S = 1.0
MAX_PAUSE_S = 10.0
MISSES = 60
_GROWTH = 1.5
_TIMEOUT_S = 30.0
_LIMIT_BYTES = 1024 * 1024 * 1024  # of an answer that is not kept
_HEAD = AnswerHead(200, b"OK", [], None, event_stream=False)

#: Writes an event down: the event, the lines to expect of the engine's witness, whether its usage could not be read.
Settle = Callable[[Event, int | None, bool], object]


class Background:
    """The responses that are watched. `watch` them, and at the end `stop`."""

    def __init__(
        self, pools: Sequence[EnginePool], settle: Settle, now_us: Callable[[], int], *, background_s: float
    ) -> None:
        self._pools = pools
        self._settle = settle
        self._now_us = now_us
        self._background_s = background_s
        self._open: dict[str, Watch] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._open)

    def watch(self, watch: Watch) -> None:
        """See to it that the response gets its event."""
        self._open[watch.response] = watch
        task = asyncio.get_running_loop().create_task(self._see(watch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self, patience_s: float) -> None:
        """Ask on for that long, then no more: what still goes on is `interrupted`."""
        tasks = tuple(self._tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=max(0.0, patience_s))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for watch in tuple(self._open.values()):
            self._end(watch, watch.absent._replace(outcome="interrupted", reason="sidecar_stopped"))

    async def _see(self, watch: Watch) -> None:
        self._end(watch, *await self._end_of(watch))

    def _end(self, watch: Watch, event: Event, unread: bool = False) -> None:
        del self._open[watch.response]
        self._settle(event._replace(time_us=self._now_us()), watch.lines, unread)

    async def _end_of(self, watch: Watch) -> tuple[Event, bool]:
        try:
            async with asyncio.timeout(self._background_s):
                answer = await self._ask_until_over(watch)
        except TimeoutError:
            return _lost(watch.absent), False
        if answer is None:
            return watch.absent if watch.absent.outcome != "finished" else _lost(watch.absent), False
        return _event(watch.absent, answer)

    async def _ask_until_over(self, watch: Watch) -> Reader | None:
        """The answer with a last status; None if the engine does not have it (any more)."""
        pause_s = FIRST_PAUSE_S
        misses = 0
        while misses < MISSES:
            await asyncio.sleep(pause_s)
            answer = await self._ask(watch, fresh=misses > 0)
            if answer is None:
                misses += 1
                pause_s = FIRST_PAUSE_S
            elif not answer.pending:
                return answer
            else:
                misses = 0
                pause_s = min(pause_s * _GROWTH, MAX_PAUSE_S)
        return None

    async def _ask(self, watch: Watch, *, fresh: bool) -> Reader | None:
        reader = DIALECTS["responses"].answer(_HEAD)
        try:
            told = await fetch(
                self._pools[watch.ordinal],
                b"/v1/responses/" + watch.response.encode(),
                timeout_s=_TIMEOUT_S,
                limit_bytes=_LIMIT_BYTES,
                taker=reader.feed,
                fresh=fresh,
            )
        except OSError:
            return None
        reader.flush()
        return reader if told.status == 200 else None


def _event(absent: Event, answer: Reader) -> tuple[Event, bool]:
    """The event of a response that is over, and whether its usage could not be read."""
    outcome = answer.verdict or "finished"
    told = answer.usage()
    unread = told is None and outcome == "finished"
    usage = told or NOTHING
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
