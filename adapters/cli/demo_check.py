"""The demo's check: the engine's own counters against the events, to the token.

What the engine generated for clients that hung up is in no answer; its witness wrote it down, and the events have it. So
the counters have to be: what finished requests were told, and what the witness saw of the others. An engine whose answers
and counters disagree is found out, and `tally reconcile` looks at the same from the other side: from counters and lines.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

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


def told_and_gone(by_outcome: Iterable[Mapping[str, Any]]) -> tuple[Tokens, Tokens]:
    """Of rows of usage by outcome: what clients were told, and what was generated beyond it for answers that nobody took
    to the end."""
    told = gone = Tokens()
    for row in by_outcome:
        told += Tokens(row["prompt_tokens"], row["completion_tokens"])
        if row["outcome"] != "finished":
            gone += Tokens(0, row["generated_tokens"] - row["completion_tokens"])
    return told, gone


def counted_by(nodes: Iterable[Mapping[str, Any]]) -> Tokens:
    """Of reconciled nodes: what the sidecar read off the engine's counters."""
    counted = Tokens()
    for node in nodes:
        counted += Tokens(node["engine_prompt"], node["engine_generated"])
    return counted


def late_tokens(nodes: Iterable[Mapping[str, Any]]) -> Tokens:
    """Of reconciled nodes: what the engine's front end let fall, so that it is generated and in no counter."""
    late = Tokens()
    for node in nodes:
        late += Tokens(node["causes"]["late_prompt"], node["causes"]["late_generated"])
    return late


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - the engine's own address
        content: bytes = answer.read()
        return content.decode()
