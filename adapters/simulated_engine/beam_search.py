"""A beam search: every token of every beam is an engine request of its own, with the prompt and what the beam has.

So the engine's counters and lines see, for `n` beams of `m` tokens over a prompt of `p`, one request of p tokens and
then n of p + 1, n of p + 2, … each giving one token: 1 + (m - 1) · n tokens. HTTP's usage says p and n · m, and
the answer comes whole. When the client leaves, the step that is under way comes to its end for nobody.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

from adapters.simulated_engine.asked import Sequence
from adapters.simulated_engine.engine_request import Account, EngineRequest, engine_names
from adapters.simulated_engine.generation import Deliver, Step, left_before
from adapters.simulated_engine.options import EngineOptions


class BeamSearch:
    """The life of one beam search in the engine; used as `Generation` is."""

    def __init__(
        self,
        sequences: tuple[Sequence, ...],
        n: int,
        account: Account,
        externals: Iterable[str],
        options: EngineOptions,
    ) -> None:
        self._sequences = sequences
        self._n = n
        self._account = account
        self._options = options
        self._prompts = list(zip(externals, sequences[::n], strict=True))
        self._left = asyncio.Event()

    def client_left(self) -> None:
        self._left.set()

    def at_once(self) -> None:
        for place in range(self._steps):
            self._finish(self._begin(place))

    async def run(self, started: Callable[[], Awaitable[None]], deliver: Deliver) -> bool:
        rate = self._options.tokens_per_second
        due = self._account.arrived + self._options.first_token_ms / 1000
        for place in range(self._steps):
            requests = self._begin(place)
            self._account.counters.running += len(requests)
            try:
                if await left_before(self._left, due):
                    return False
                self._finish(requests)
            finally:
                self._account.counters.running -= len(requests)
                for request in requests:
                    request.abort()
            due += 1 / rate if rate else 0
        await started()
        for index, sequence in enumerate(self._sequences):
            await deliver(Step(index, 0, sequence.completion_tokens, last=True))
        return True

    @property
    def _steps(self) -> int:
        return max(sequence.completion_tokens for _, sequence in self._prompts)

    def _begin(self, place: int) -> list[EngineRequest]:
        """The engine requests of one step: one a prompt at first, then one a beam."""
        requests = []
        for external, sequence in self._prompts:
            if place < sequence.completion_tokens:
                batch = f"{external}-{secrets.token_hex(8)}"
                for beam in range(self._n if place else 1):
                    (name,) = engine_names(f"{batch}-beam-{beam}", 1)
                    requests.append(EngineRequest(name, _one_token_more(sequence, place), self._account))
        return requests

    def _finish(self, requests: list[EngineRequest]) -> None:
        for request in requests:
            request.prefill()
            request.sample(1)
            request.end()
            self._account.counters.choices.observe(1)


def _one_token_more(sequence: Sequence, already: int) -> Sequence:
    prompt_tokens = sequence.prompt_tokens + already
    return replace(sequence, prompt_tokens=prompt_tokens, completion_tokens=1, finish="length")
