"""The engine behind its endpoints: what is under way in it, what it counts, and how its answers get to clients."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial

from adapters.simulated_engine.asked import Asked, Served
from adapters.simulated_engine.beam_search import BeamSearch
from adapters.simulated_engine.counters import Counters, RequestTokens
from adapters.simulated_engine.dialect import Answering, Dialect, encode
from adapters.simulated_engine.engine_request import Account
from adapters.simulated_engine.generation import Generation, Step
from adapters.simulated_engine.http import EVENT_STREAM_TYPE, Exchange
from adapters.simulated_engine.lines import Lines
from adapters.simulated_engine.options import MISCOUNTED_TOKENS, EngineOptions

Running = Generation | BeamSearch


class Core:
    """Holds the counters, the witness's lines and the generations that are under way."""

    def __init__(self, options: EngineOptions) -> None:
        """OSError where the lines cannot be written."""
        self.options = options
        self.counters = Counters(options.models, options.context_tokens)
        self.lines = Lines(options.lines, options.models[0]) if options.lines else None
        self.started = time.time()
        self.is_timed = bool(options.tokens_per_second or options.first_token_ms)
        self._under_way: set[asyncio.Task[None]] = set()

    def account(self, served: Served, name: str, max_tokens: int | None) -> Account:
        """Where a request that goes by `name` is counted."""
        clock = asyncio.get_running_loop().time
        tokens = self.counters.by_request.setdefault(name, RequestTokens())
        counters = self.counters.of(served.counted)
        return Account(counters, tokens, self.lines, served.counted, served.lora, max_tokens, clock, clock())

    def begin(self, asked: Asked, name: str, externals: Iterable[str]) -> Running:
        """What is to be generated for a request; `externals` are the HTTP server's ids of its prompts."""
        account = self.account(asked.served, name, 1 if asked.beam else asked.max_tokens)
        kind = BeamSearch if asked.beam else Generation
        return kind(asked.sequences, asked.n, account, externals, self.options)

    def answer_whole(self, running: Running, exchange: Exchange, send: Callable[[], None]) -> None:
        """Generate, then `send` what comes of it: at once, or by a task of its own."""
        if not self.is_timed:
            running.at_once()
            send()
            return

        async def wait() -> None:
            if await running.run(nothing, nothing_for):
                send()

        exchange.on_left = running.client_left
        self.spawn(wait())

    def answer(self, answering: Answering, dialect: Dialect, running: Running, exchange: Exchange) -> None:
        """Generate and answer, whole or as a stream."""
        asked = answering.asked
        if asked.stream:
            exchange.on_left = running.client_left
            self.spawn(self._stream(asked, dialect, running, exchange))
        else:
            self.answer_whole(running, exchange, partial(self._send_whole, asked, dialect, exchange))

    async def tell(
        self,
        asked: Asked,
        dialect: Dialect,
        running: Running,
        deliver: Callable[[bytes], Awaitable[None]],
        told: Callable[[Step], None],
    ) -> bool:
        """Generate, and deliver an answer's events as they come, each step of it `told` afterwards.

        Returns whether it came to its end.
        """
        for chunk in dialect.opened():
            await deliver(chunk)

        async def started() -> None:
            for chunk in dialect.started():
                await deliver(chunk)

        async def step_came(step: Step) -> None:
            for chunk in dialect.told(step):
                await deliver(chunk)
            told(step)

        whole = await running.run(started, step_came)
        if whole:
            for chunk in dialect.ended(self.reported_tokens(asked)):
                await deliver(chunk)
        return whole

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    def reported_tokens(self, asked: Asked) -> int:
        """The completion tokens that an answer reports."""
        tokens = sum(each.completion_tokens for each in asked.sequences)
        return tokens + MISCOUNTED_TOKENS if self.options.fault == "miscount" else tokens

    async def close(self) -> None:
        """Stop every generation that is under way, as vLLM does at SIGTERM: aborted, and written down."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        if self.lines is not None:
            self.lines.close()

    def _send_whole(self, asked: Asked, dialect: Dialect, exchange: Exchange) -> None:
        body = encode(dialect.whole(self.reported_tokens(asked)))
        if self.options.fault == "cut":
            exchange.break_off_whole(200, body)
        else:
            exchange.whole(200, body)

    async def _stream(self, asked: Asked, dialect: Dialect, running: Running, exchange: Exchange) -> None:
        cut_after = sum(each.completion_tokens for each in asked.sequences) // 2
        told_tokens = 0

        def told(step: Step) -> None:
            nonlocal told_tokens
            told_tokens += step.tokens
            if self.options.fault == "cut" and told_tokens > cut_after:
                exchange.break_off()

        exchange.begin(200, EVENT_STREAM_TYPE)
        if await self.tell(asked, dialect, running, exchange.chunk, told):
            exchange.end()


async def nothing() -> None:
    """Nobody watches the start of an answer that is not streamed."""


async def nothing_for(_step: Step) -> None:
    """Nobody watches its tokens either."""
