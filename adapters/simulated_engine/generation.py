"""One request's sequences while they are generated: paced by the clock, counted as they go, ended by the
client.

The tokens of a sequence are due one after another, the first after `first_token_ms`, the rest at
`tokens_per_second`; a chunk goes out when the last token in it is due. All sequences of a request run side
by side. When the client leaves, the engine hears of it late: what was due by then and `abort_lag_tokens`
more are sampled and counted, and the sequence never ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import pairwise

from adapters.simulated_engine.asked import Asked, Sequence
from adapters.simulated_engine.counters import ModelCounters, RequestTokens
from adapters.simulated_engine.options import EngineOptions


@dataclass(frozen=True, slots=True)
class Step:
    """A chunk to send: `tokens` tokens of choice `index`, of which `before` were sent already."""

    index: int
    before: int
    tokens: int
    last: bool


Deliver = Callable[[Step], Awaitable[None]]


def plan(sequences: tuple[Sequence, ...], max_chunks: int) -> list[Step]:
    """The chunks of a stream in the order in which they are due: a token each, or more where that would be
    too many.

    A sequence without tokens still has one chunk, which ends it.
    """
    each = max(1, max_chunks // len(sequences))
    steps: list[Step] = []
    for index, sequence in enumerate(sequences):
        total = sequence.completion_tokens
        chunks = max(1, min(total, each))
        edges = [total * number // chunks for number in range(chunks + 1)]
        steps += [Step(index, before, after - before, after == total) for before, after in pairwise(edges)]
    steps.sort(key=lambda step: (step.before + step.tokens, step.index))
    return steps


class Generation:
    """The life of one request in the engine, from its arrival to its last token or its client's leaving."""

    def __init__(
        self,
        asked: Asked,
        counters: ModelCounters,
        options: EngineOptions,
        tokens: RequestTokens | None = None,
    ) -> None:
        self._asked = asked
        self._counters = counters
        self._options = options
        self._tokens = tokens or RequestTokens()
        self._clock = asyncio.get_running_loop().time
        self._arrived = self._clock()
        self._sampled = [0] * len(asked.sequences)
        self._left = asyncio.Event()

    def client_left(self) -> None:
        """The client closed its connection; what is still to come is for nobody."""
        self._left.set()

    def at_once(self) -> None:
        """Generate everything in no time, for nobody to watch."""
        self._prefill()
        for index, sequence in enumerate(self._asked.sequences):
            self._sample(index, sequence.completion_tokens, last=True)

    async def run(self, started: Callable[[], Awaitable[None]], deliver: Deliver) -> bool:
        """Generate in time: `started` is awaited with the first token, `deliver` with each chunk.

        Returns whether everything was generated; false means that the client left before.
        """
        running = len(self._asked.sequences)
        self._counters.running += running
        try:
            return await self._run(started, deliver)
        finally:
            self._counters.running -= running

    async def _run(self, started: Callable[[], Awaitable[None]], deliver: Deliver) -> bool:
        rate = self._options.tokens_per_second
        first_at = self._arrived + self._options.first_token_ms / 1000
        if await self._left_before(first_at):
            return False
        self._prefill()
        await started()
        for step in plan(self._asked.sequences, self._options.max_chunks):
            due = first_at + max(0, step.before + step.tokens - 1) / rate if rate else first_at
            if await self._left_before(due):
                await self._go_on_for_nobody(first_at)
                return False
            self._sample(step.index, step.tokens, last=step.last)
            await deliver(step)
        return True

    async def _left_before(self, due: float) -> bool:
        """Wait until `due`; true, at once, when the client leaves before."""
        if due <= self._clock():
            # Lets the other connections have their turn, and this one notice that it was closed.
            await asyncio.sleep(0)
            return self._left.is_set()
        try:
            async with asyncio.timeout_at(due):
                await self._left.wait()
        except TimeoutError:
            return False
        return True

    async def _go_on_for_nobody(self, first_at: float) -> None:
        rate = self._options.tokens_per_second
        lag = self._options.abort_lag_tokens
        due = int((self._clock() - first_at) * rate) + 1 if rate else 0
        if rate:
            await asyncio.sleep(lag / rate)
        for index, sequence in enumerate(self._asked.sequences):
            sampled = self._sampled[index]
            if sampled < sequence.completion_tokens:
                more = min(sequence.completion_tokens, max(due, sampled) + lag) - sampled
                # Its last token may be among them; the engine's front end had let it go by then.
                self._sample(index, more, last=False)

    def _prefill(self) -> None:
        waited = self._clock() - self._arrived
        for sequence in self._asked.sequences:
            self._counters.prefilled(sequence, waited)
            self._tokens.prompt_tokens += sequence.prompt_tokens

    def _sample(self, index: int, tokens: int, *, last: bool) -> None:
        self._sampled[index] += tokens
        self._counters.generation_tokens += tokens
        self._tokens.generated_tokens += tokens
        if last:
            self._counters.ended(self._asked, self._asked.sequences[index], self._clock() - self._arrived)
            if (index + 1) % self._asked.n == 0:
                self._counters.choices.observe(self._asked.n)
