"""One engine request: what vLLM's scheduler knows of a prompt's choice, from its prefill until it is freed.

Here the three witnesses are fed, each by its own rule. The counters get what reaches the front end while it still
holds the request. The lines get everything that was sampled before the scheduler let it go, when it does. What HTTP
says is for the dialects.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from adapters.simulated_engine.asked import Sequence
from adapters.simulated_engine.counters import ModelCounters, RequestTokens
from adapters.simulated_engine.lines import Lines, Name

_STATUS = {"stop": "stopped", "length": "length_capped"}


@dataclass(frozen=True, slots=True)
class Account:
    """What the engine requests of one HTTP request are counted into, and when (in the loop's seconds) it arrived.

    `max_tokens` is None for requests that generate nothing. `model` is the name that `counters` stand under.
    """

    counters: ModelCounters
    tokens: RequestTokens
    lines: Lines | None
    model: str
    lora: str | None
    max_tokens: int | None
    clock: Callable[[], float]
    arrived: float


class EngineRequest:
    """A sequence that the engine works on. Ends once, by `end` or by `abort`."""

    __slots__ = ("_account", "_name", "is_over", "is_prefilled", "output_tokens", "sequence")

    def __init__(self, name: Name, sequence: Sequence, account: Account) -> None:
        self.sequence = sequence
        self.output_tokens = 0
        self.is_prefilled = False
        self.is_over = False
        self._name = name
        self._account = account
        account.counters.scheduled(sequence)

    def prefill(self) -> None:
        """The prompt went through the model, and gave its first output."""
        account = self._account
        self.is_prefilled = True
        account.counters.prefilled(self.sequence, account.clock() - account.arrived)
        account.tokens.prompt_tokens += self.sequence.prompt_tokens

    def sample(self, tokens: int) -> None:
        self.output_tokens += tokens
        self._account.counters.generation_tokens += tokens
        self._account.tokens.generated_tokens += tokens

    def end(self) -> None:
        """Everything was generated."""
        account = self._account
        account.counters.ended(account.max_tokens, self.sequence, account.clock() - account.arrived)
        self._freed(_STATUS[self.sequence.finish], 0)

    def abort(self, late_tokens: int = 0, after_end_tokens: int = 0) -> None:
        """The client left. `late_tokens` came after the front end let go, `after_end_tokens` after the scheduler did."""
        if self.is_over:
            return
        left = self.sequence.completion_tokens - self.output_tokens if self.is_prefilled else 0
        late = min(late_tokens, left)
        self._freed("aborted", late)
        lines = self._account.lines
        if lines is None:
            return
        if after_end_tokens and left > late:
            lines.after_end(self._name, min(after_end_tokens, left - late))
        if late:
            lines.late(self._name, model=self._account.model, prompt_tokens=0, output_tokens=late)

    def _freed(self, status: str, late_tokens: int) -> None:
        self.is_over = True
        account = self._account
        if account.lines is not None:
            sequence = self.sequence
            cached_tokens = sequence.cached_tokens if self.is_prefilled else 0
            output_tokens = self.output_tokens + late_tokens
            counted = (sequence.prompt_tokens, cached_tokens, output_tokens, self.is_prefilled)
            account.lines.freed(
                self._name, model=account.model, lora=account.lora, status=status, counted=counted
            )


def engine_names(external: str, n: int) -> list[Name]:
    """vLLM's ids for a prompt's choices: eight digits of its own behind, a choice's place in front."""
    engine_id = f"{external}-{secrets.token_hex(4)}"
    if n == 1:
        return [Name(engine_id, external)]
    return [Name(f"{choice}_{engine_id}", external) for choice in range(n)]
