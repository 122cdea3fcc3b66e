"""What the engine has processed, per model: vLLM's own counters, kept by vLLM's own rules.

- The prefix cache is asked for a prompt when it is scheduled.
- A prompt counts when its first token is sampled, once for each of `n` choices (HTTP's usage says it once).
- Generated tokens count as they are sampled, of requests that are aborted too.
- An aborted sequence counts in nothing else: no `request_success`, no histogram of finished requests. So
  `generation_tokens − Σ request_generation_tokens` are the tokens of aborted and running requests.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field

from adapters.simulated_engine.asked import Sequence

FINISH_REASONS = ("stop", "length", "abort", "error", "repetition")
FIRST_TOKEN_BUCKETS_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0),
    *(2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
LATENCY_BUCKETS_S = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
CHOICE_BUCKETS = (1.0, 2.0, 5.0, 10.0, 20.0)


class Histogram:
    """Counts of observations up to each bound, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum: float = 0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        return sum(self.counts)

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """(upper bound, observations up to it), the last bound infinite."""
        seen = 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            seen += count
            yield bound, seen


def token_buckets(most: int) -> tuple[float, ...]:
    """1, 2, 5, 10, 20, 50 … up to `most`, as vLLM makes them from the context length."""
    bounds: list[float] = []
    for exponent in range(len(str(most))):
        bounds += [float(digit * 10**exponent) for digit in (1, 2, 5) if digit * 10**exponent <= most]
    return tuple(bounds)


@dataclass(slots=True)
class ModelCounters:
    """The counters of one model. All counts are tokens or requests; `running` goes up and down."""

    buckets: tuple[float, ...]
    running: int = 0
    queried_tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generation_tokens: int = 0
    finished: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FINISH_REASONS, 0))
    request_prompt_tokens: Histogram = field(init=False)
    request_generation_tokens: Histogram = field(init=False)
    request_computed_tokens: Histogram = field(init=False)
    max_tokens: Histogram = field(init=False)
    choices: Histogram = field(init=False)
    first_token_s: Histogram = field(init=False)
    latency_s: Histogram = field(init=False)

    def __post_init__(self) -> None:
        self.request_prompt_tokens = Histogram(self.buckets)
        self.request_generation_tokens = Histogram(self.buckets)
        self.request_computed_tokens = Histogram(self.buckets)
        self.max_tokens = Histogram(self.buckets)
        self.choices = Histogram(CHOICE_BUCKETS)
        self.first_token_s = Histogram(FIRST_TOKEN_BUCKETS_S)
        self.latency_s = Histogram(LATENCY_BUCKETS_S)

    def scheduled(self, sequence: Sequence) -> None:
        """A sequence's turn has come."""
        self.queried_tokens += sequence.prompt_tokens

    def prefilled(self, sequence: Sequence, waited_s: float) -> None:
        """A sequence's prompt went through the model."""
        self.prompt_tokens += sequence.prompt_tokens
        self.cached_tokens += sequence.cached_tokens
        self.first_token_s.observe(waited_s)

    def ended(self, max_tokens: int | None, sequence: Sequence, took_s: float) -> None:
        """A sequence was generated to its end (an aborted one never gets here).

        `max_tokens` is None for one that generates nothing.
        """
        self.finished[sequence.finish] += 1
        self.request_prompt_tokens.observe(sequence.prompt_tokens)
        self.request_generation_tokens.observe(sequence.completion_tokens)
        self.request_computed_tokens.observe(sequence.prompt_tokens - sequence.cached_tokens)
        if max_tokens is not None:
            self.max_tokens.observe(max_tokens)
        self.latency_s.observe(took_s)


@dataclass(slots=True)
class RequestTokens:
    """What one request came to inside the engine, whoever still listened: the same additions as the counters'."""

    prompt_tokens: int = 0
    generated_tokens: int = 0


class Counters:
    """The counters of every model that was asked for, made when a name is first seen, and of every request."""

    def __init__(self, models: tuple[str, ...], context_tokens: int) -> None:
        self._buckets = token_buckets(context_tokens)
        self.by_model: dict[str, ModelCounters] = {}
        self.by_request: dict[str, RequestTokens] = {}
        for model in models:
            self.of(model)

    def of(self, model: str) -> ModelCounters:
        found = self.by_model.get(model)
        if found is None:
            found = self.by_model[model] = ModelCounters(self._buckets)
        return found
