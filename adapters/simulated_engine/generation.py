"""One request's sequences while they are generated: paced by the clock, counted as they go, ended by the
client.

The tokens of a sequence are due one after another, the first after `first_token_ms`, the rest at
`tokens_per_second`; a chunk goes out when the last token in it is due. All sequences of a request run side
by side. When the client leaves, the engine hears of it late: what was due by then and `abort_lag_tokens`
more are sampled and counted, and the sequence never ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

from adapters.simulated_engine.asked import Sequence
from adapters.simulated_engine.engine_request import Account, EngineRequest, engine_names
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
        sequences: tuple[Sequence, ...],
        n: int,
        account: Account,
        externals: Iterable[str],
        options: EngineOptions,
    ) -> None:
        """`sequences` are prompts × `n`; `externals` the HTTP server's id for each prompt."""
        self._sequences = sequences
        self._n = n
        self._account = account
        self._options = options
        names = [name for external in externals for name in engine_names(external, n)]
        self._requests = [
            EngineRequest(name, sequence, account) for name, sequence in zip(names, sequences, strict=True)
        ]
        self._left = asyncio.Event()

    def client_left(self) -> None:
        """The client closed its connection; what is still to come is for nobody."""
        self._left.set()

    def at_once(self) -> None:
        """Generate everything in no time, for nobody to watch."""
        self._prefill()
        for index, request in enumerate(self._requests):
            request.sample(request.sequence.completion_tokens)
            self._end(index)

    async def run(self, started: Callable[[], Awaitable[None]], deliver: Deliver) -> bool:
        """Generate in time: `started` is awaited with the first token, `deliver` with each chunk.

        Returns whether everything was generated; false means that the client left before.
        """
        counters = self._account.counters
        counters.running += len(self._requests)
        try:
            return await self._run(started, deliver)
        finally:
            counters.running -= len(self._requests)
            for request in self._requests:
                request.abort()

    async def _run(self, started: Callable[[], Awaitable[None]], deliver: Deliver) -> bool:
        rate = self._options.tokens_per_second
        first_at = self._account.arrived + self._options.first_token_ms / 1000
        if await left_before(self._left, first_at):
            return False
        self._prefill()
        await started()
        for step in plan(self._sequences, self._options.max_chunks):
            due = first_at + max(0, step.before + step.tokens - 1) / rate if rate else first_at
            if await left_before(self._left, due):
                await self._go_on_for_nobody(first_at)
                return False
            self._requests[step.index].sample(step.tokens)
            if step.last:
                self._end(step.index)
            await deliver(step)
        return True

    async def _go_on_for_nobody(self, first_at: float) -> None:
        rate = self._options.tokens_per_second
        lag = self._options.abort_lag_tokens
        due = int((self._account.clock() - first_at) * rate) + 1 if rate else 0
        if rate:
            await asyncio.sleep(lag / rate)
        for request in self._requests:
            sampled, total = request.output_tokens, request.sequence.completion_tokens
            if not request.is_over:
                # Its last token may be among them; the engine's front end had let it go by then.
                request.sample(min(total, max(due, sampled) + lag) - sampled)
                request.abort(self._options.late_tokens, self._options.after_end_tokens)

    def _prefill(self) -> None:
        for request in self._requests:
            request.prefill()

    def _end(self, index: int) -> None:
        self._requests[index].end()
        if (index + 1) % self._n == 0:
            self._account.counters.choices.observe(self._n)


async def left_before(left: asyncio.Event, due: float) -> bool:
    """Wait until `due` (the loop's seconds); true, at once, when the client leaves before."""
    if due <= asyncio.get_running_loop().time():
        # Lets the other connections have their turn, and this one notice that it was closed.
        await asyncio.sleep(0)
        return left.is_set()
    try:
        async with asyncio.timeout_at(due):
            await left.wait()
    except TimeoutError:
        return False
    return True
