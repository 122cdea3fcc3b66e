"""What a simulated engine is started with."""

from __future__ import annotations

from dataclasses import dataclass

# Ways to be wrong on purpose, so that checks which compare witnesses can be shown to fail:
#   miscount    usage over HTTP says a few completion tokens more than the counters
#   drop-usage  answers carry no usage
#   cut         the connection breaks in the middle of every generated answer
FAULTS = ("miscount", "drop-usage", "cut")
MISCOUNTED_TOKENS = 3


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How the engine behaves; the defaults are vLLM's own where it has them.

    `models`: the names that it serves, the first one answering requests that name none. `any_model` accepts
    every name. `tokens_per_second` is the pace of one sequence and `first_token_ms` the wait before its
    first token; 0 is as fast as possible. `abort_lag_tokens` are sampled after a client left, before the
    engine hears of it. `max_chunks`: chunks of a stream that carry tokens, however many tokens there are.
    `context_tokens` bounds prompt and output of requests that do not name their counts (`--max-model-len`).
    `fault` is one of FAULTS.
    """

    models: tuple[str, ...] = ("tiny",)
    any_model: bool = False
    tokens_per_second: float = 0
    first_token_ms: float = 0
    abort_lag_tokens: int = 3
    max_chunks: int = 64
    context_tokens: int = 131_072
    prompt_tokens_details: bool = False
    request_id_headers: bool = False
    force_include_usage: bool = False
    fault: str | None = None

    def __post_init__(self) -> None:
        assert self.models, "an engine serves at least one model"
        assert self.fault is None or self.fault in FAULTS, self.fault
