"""What a simulated engine is started with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# Ways to be wrong on purpose, so that checks which compare witnesses can be shown to fail:
#   miscount    usage over HTTP says a few completion tokens more than the counters
#   drop-usage  answers carry no usage
#   cut         the connection breaks in the middle of every generated answer
FAULTS = ("miscount", "drop-usage", "cut")
MISCOUNTED_TOKENS = 3

# What a model can do decides which endpoints vLLM has; a real model does one of the first three.
TASKS = ("generate", "embed", "classify", "transcription")
ALL_TASKS = "all"

DEFAULT_PART_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class LineOptions:
    """How the engine's witness writes its lines, and how it fails.

    `part_bytes`: a file that has grown beyond them is followed by the next. `lose_every`: each so many-th line about
    a request is lost, its number with it (0: none). `delay_ms`: lines come so much later than they should.
    `aside`: the witness says that it does not know this engine, and writes nothing more.
    """

    folder: Path
    part_bytes: int = DEFAULT_PART_BYTES
    lose_every: int = 0
    delay_ms: float = 0
    aside: bool = False


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How the engine behaves; the defaults are vLLM's own where it has them.

    `models`: the names that it serves, the first one answering requests that name none. `aliases` are more names of
    the first model, which answers and counts as itself; `adapters` are adapters on it, which answer under their own
    names and count under its. `any_model` accepts every name.

    `tokens_per_second` is the pace of one sequence and `first_token_ms` the wait before its first token; 0 is as fast
    as possible. `abort_lag_tokens` are sampled after a client left, before the engine's front end hears of it and
    lets the request go. `late_tokens` come after that, counted by the scheduler and not by the front end;
    `after_end_tokens` after the scheduler heard too, counted by nobody. `max_chunks`: chunks of a stream that carry
    tokens, however many tokens there are. `context_tokens` bounds prompt and output of requests that do not name
    their counts (`--max-model-len`). `tasks` are of TASKS, or ALL_TASKS. `store_responses`: whether /v1/responses
    keeps what it answered (`VLLM_ENABLE_RESPONSES_API_STORE`). `lines`: None for an engine without a witness.
    `fault` is one of FAULTS.
    """

    models: tuple[str, ...] = ("tiny",)
    aliases: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    any_model: bool = False
    tokens_per_second: float = 0
    first_token_ms: float = 0
    abort_lag_tokens: int = 3
    late_tokens: int = 0
    after_end_tokens: int = 0
    max_chunks: int = 64
    context_tokens: int = 131_072
    prompt_tokens_details: bool = False
    request_id_headers: bool = False
    force_include_usage: bool = False
    tasks: tuple[str, ...] = ("generate",)
    store_responses: bool = False
    lines: LineOptions | None = None
    fault: str | None = None

    def __post_init__(self) -> None:
        assert self.models, "an engine serves at least one model"
        assert self.fault is None or self.fault in FAULTS, self.fault
        assert set(self.tasks) <= {*TASKS, ALL_TASKS}, self.tasks

    def does(self, *tasks: str) -> bool:
        """Whether the engine does one of these tasks."""
        return ALL_TASKS in self.tasks or any(task in self.tasks for task in tasks)
