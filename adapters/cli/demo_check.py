"""The demo's check: the engine's own counters against the events, to the token.

Over HTTP nobody sees what an engine generates for a client that has gone. The simulated engine tells what each request
came to, so here those tokens are joined with the events by request id and named; whatever is left over is a difference,
and there must be none.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from prometheus_client.parser import text_string_to_metric_families

from adapters.simulated_engine.engine import REQUESTS_PATH

PROMPT, GENERATED = "vllm:prompt_tokens_total", "vllm:generation_tokens_total"


@dataclass(frozen=True, slots=True)
class Tokens:
    """Prompt and output tokens."""

    prompt: int = 0
    output: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.prompt + other.prompt, self.output + other.output)

    def __sub__(self, other: Tokens) -> Tokens:
        return Tokens(self.prompt - other.prompt, self.output - other.output)


def engine_counters(engine: str) -> Tokens:
    """The engine's counters over all models, from its /metrics."""
    sums = {PROMPT: 0, GENERATED: 0}
    for family in text_string_to_metric_families(_get(f"{engine}/metrics")):
        for sample in family.samples:
            if sample.name in sums:
                sums[sample.name] += int(sample.value)
    return Tokens(sums[PROMPT], sums[GENERATED])


def engine_requests(engine: str) -> dict[str, Tokens]:
    """What each request came to inside the simulated engine, by request id."""
    told: Mapping[str, Any] = json.loads(_get(engine + REQUESTS_PATH))
    return {name: Tokens(each["prompt_tokens"], each["generated_tokens"]) for name, each in told.items()}


def for_the_gone(batches: Iterable[pa.Table], requests: Mapping[str, Tokens]) -> Tokens:
    """What the engine processed beyond the events of requests whose answers nobody took to the end."""
    beyond = Tokens()
    for events in batches:
        unfinished = events.filter(pc.not_equal(events.column("outcome").cast(pa.string()), "finished"))
        for event in unfinished.select(["request", "prompt_tokens", "completion_tokens"]).to_pylist():
            engine = requests.get(event["request"].hex(), Tokens())
            beyond += engine - Tokens(event["prompt_tokens"], event["completion_tokens"])
    return beyond


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - the engine's own address
        content: bytes = answer.read()
        return content.decode()
