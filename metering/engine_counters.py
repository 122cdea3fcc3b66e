"""What the engine's own counters say: `GET /metrics` of vLLM, read down to the figures that spans need.

    vllm:prompt_tokens_total{engine="0",model_name="tiny"} 4711.0
    vllm:generation_tokens_total{engine="0",model_name="tiny"} 7322.0
    vllm:prompt_tokens_created{engine="0",model_name="tiny"} 1.7600000000000e+09
    vllm:num_requests_running{engine="0",model_name="tiny"} 0.0
    vllm:num_requests_waiting{engine="0",model_name="tiny"} 0.0
    process_start_time_seconds 1.7600000000000e+09

Counters begin at 0 with their process. That it was another one shows in the instants of birth; where several API
servers share the work vLLM shows none, and it shows in a counter that fell, or a model that is not there any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from metering.refusal import Refusal

_PROMPT = "vllm:prompt_tokens_total"
_GENERATED = "vllm:generation_tokens_total"
_BUSY = ("vllm:num_requests_running", "vllm:num_requests_waiting")
_BORN = ("vllm:prompt_tokens_created", "process_start_time_seconds")
_WANTED = (_PROMPT, _GENERATED, *_BUSY, *_BORN)

#: A count beyond it is no exact integer in a float any more.
_MOST = 2**53


class Counts(NamedTuple):
    """Tokens of one model since the engine's start, or between two looks."""

    prompt: int = 0
    generated: int = 0


@dataclass(frozen=True, slots=True)
class Scrape:
    """One look at one engine. `counts` by the name under which it serves the model.

    `busy` requests run or wait, None where the engine does not say. `born` are the instants at which its counters and
    its process began.
    """

    counts: Mapping[str, Counts]
    busy: int | None
    born: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """What `from_json` makes the same of."""
        return {"counts": dict(self.counts), "busy": self.busy, "born": list(self.born)}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Scrape:
        """Raises KeyError, TypeError or ValueError for what `to_json` never made."""
        counts = {
            model: Counts(int(prompt), int(generated))
            for model, (prompt, generated) in found["counts"].items()
        }
        return cls(counts, found["busy"], tuple(map(float, found["born"])))


@dataclass(frozen=True, slots=True)
class Look:
    """One look at all engines, by their addresses (None: it does not answer); `asked_us` is when it began.

    `in_air`: requests of this lane that have no event. `settled`: none of them waits for a line, no line for it.
    """

    scrapes: Mapping[str, Scrape | None]
    asked_us: int
    in_air: int
    settled: bool

    @property
    def idle(self) -> bool:
        """Nothing runs or waits, as far as the engines say; where one does not say: as far as this lane knows."""
        shown = [scrape.busy for scrape in self.scrapes.values() if scrape is not None]
        return all(busy == 0 if busy is not None else self.in_air == 0 for busy in shown or [None])


#: An engine that has just begun.
FRESH = Scrape({}, 0, ())


def read_counters(exposition: str) -> Scrape:
    """What `GET /metrics` said. Refusal `bad_metrics` if it is not Prometheus' text or a count is none."""
    # A server's whole text has thousands of lines; a parser for all of them would hold up the sidecar.
    lines = [line for line in exposition.splitlines() if line.startswith(_WANTED)]
    counts: dict[str, list[int]] = {}
    busy: int | None = None
    born: list[float] = []
    try:
        for family in text_string_to_metric_families("\n".join(lines) + "\n"):
            for sample in family.samples:
                if sample.name in (_PROMPT, _GENERATED):
                    of_model = counts.setdefault(sample.labels["model_name"], [0, 0])
                    of_model[sample.name == _GENERATED] += _count(sample.value)
                elif sample.name in _BUSY:
                    busy = (busy or 0) + _count(sample.value)
                elif sample.name in _BORN:
                    born.append(sample.value)
    except (ValueError, KeyError) as problem:
        raise Refusal(
            "bad_metrics",
            f"the engine's /metrics cannot be read ({type(problem).__name__})",
            remedy="give --engine the address of vLLM's own server",
        ) from None
    return Scrape({model: Counts(*both) for model, both in counts.items()}, busy, tuple(sorted(born)))


def is_same_engine(before: Scrape, now: Scrape) -> bool:
    """Whether `now` goes on where `before` was, and was not begun anew in between."""
    if not set(before.born) <= set(now.born):  # a model's series is born when it is first asked for
        return False
    return all(
        model in now.counts
        and now.counts[model].prompt >= counts.prompt
        and now.counts[model].generated >= counts.generated
        for model, counts in before.counts.items()
    )


def increase(before: Scrape, now: Scrape) -> dict[str, Counts]:
    """What each model's counters grew by on the same engine; only models that grew."""
    grown = {}
    for model, counts in now.counts.items():
        earlier = before.counts.get(model, Counts())
        change = Counts(counts.prompt - earlier.prompt, counts.generated - earlier.generated)
        if change != Counts():
            grown[model] = change
    return grown


def _count(value: float) -> int:
    if not (0 <= value <= _MOST and value == int(value)):  # NaN fails the first
        raise ValueError
    return int(value)
