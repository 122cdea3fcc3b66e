"""What lines and events add up to within one span, model by model.

The engine counts the prompt of each line that sampled; `repeated_prompt` is what of it stands for a prompt that another
line had counted already (engine_request.py). What names no model is the only one's there is; what belongs to none in the
end is counted for the first model, so that nothing is dropped.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from metering.engine_amend import Amendment
from metering.engine_lines import Freed, Late, is_unmetered
from metering.engine_request import RequestLines, one_of_many
from metering.event import Event
from metering.fact import Span
from metering.told import Joined

#: So many requests are remembered, to know a prompt again, or an event that had no line; and so many of them kept over
#: a restart: whatever ran then ends at once.
MOST_REQUESTS = 20_000
MOST_KEPT = 256

_UNNAMED = ""
_V = TypeVar("_V")


@dataclass(slots=True)
class Sums:
    """Of one model. `alone` are events without a line, `lacking` those of them that must have had one; `events` are all
    events of this lane, as the ledger counts them (without a witness: those alone)."""

    lines: int = 0
    lines_missing: int = 0
    sampled_prompt: int = 0
    generated: int = 0
    late_prompt: int = 0
    late_generated: int = 0
    repeated_prompt: int = 0
    unmetered_prompt: int = 0
    unmetered_generated: int = 0
    alone: int = 0
    alone_prompt: int = 0
    alone_generated: int = 0
    lacking: int = 0
    audio_prompt: int = 0
    events_prompt: int = 0
    events_generated: int = 0

    def count_alone(self, told: Event, sign: int) -> None:
        """An event without a line (sign 1), or that it has one after all (−1)."""
        self.alone += sign
        self.alone_prompt += sign * told.prompt_tokens
        self.alone_generated += sign * told.completion_tokens
        self.lacking += sign * (told.outcome == "finished" and told.completion_tokens > 0)

    def all_alone(self) -> Sums:
        """The same where no event has a line."""
        return replace(self, events_prompt=self.alone_prompt, events_generated=self.alone_generated)


class SpanSums:
    """The sums of the span that runs. True if anything was counted."""

    def __init__(self) -> None:
        self._by_model: dict[str, Sums] = {}
        #: The first and the last time (µs) of the events to which `audio_prompt` belongs.
        self.audio_us: tuple[int, int] | None = None
        self._requests: OrderedDict[str, RequestLines] = OrderedDict()
        # Whether nothing at all is known of it.
        self._alone: OrderedDict[bytes, bool] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._by_model)

    def freed(self, line: Freed) -> None:
        """The engine freed a request."""
        sums = self._of(line.model)
        sums.lines += 1
        prompt = line.prompt_tokens if line.sampled else 0
        sums.sampled_prompt += prompt
        sums.generated += line.output_tokens
        if is_unmetered(line.external):
            sums.unmetered_prompt += prompt
            sums.unmetered_generated += line.output_tokens
        elif name := one_of_many(line):
            request = self._requests.get(name) or keep(self._requests, name, RequestLines())
            before = request.repeated_prompt
            request.add(line)
            sums.repeated_prompt += request.repeated_prompt - before

    def late(self, line: Late) -> None:
        """The front end dropped what the engine had counted."""
        sums = self._of(line.model)
        sums.late_prompt += line.prompt_tokens
        sums.late_generated += line.output_tokens

    def missing(self, lines: int) -> None:
        """So many lines must be there and are not."""
        self._of(None).lines_missing += lines

    def event(self, model: str, told: Event, joined: Joined) -> None:
        """One event is written: what was told of it, and what was added."""
        sums = self._of(model)
        self._audio(sums, joined.audio_prompt, told.time_us)
        sums.events_prompt += told.prompt_tokens if joined.prompt_tokens is None else joined.prompt_tokens
        if joined.generated_tokens is None:
            sums.events_generated += told.completion_tokens
            sums.count_alone(told, 1)
            nothing = not (told.prompt_tokens or told.completion_tokens or told.outcome == "finished")
            keep(self._alone, told.request, nothing)
        else:
            sums.events_generated += joined.generated_tokens

    def unjoined(self, told: Event) -> None:
        """One event is written, and there is no witness to join it with. Of every request: three additions."""
        sums = self._by_model.get(told.model) or self._of(told.model)
        sums.alone += 1
        sums.alone_prompt += told.prompt_tokens
        sums.alone_generated += told.completion_tokens

    def amendment(self, model: str, amendment: Amendment, told_model: str) -> None:
        """An amendment is written, of an event under `told_model`."""
        told, sums = amendment.told, self._of(model)
        self._audio(sums, amendment.audio_prompt, amendment.event.time_us)
        sums.events_prompt += amendment.event.prompt_tokens
        sums.events_generated += amendment.event.generated_tokens or 0
        if told.request in self._alone:
            del self._alone[told.request]
            self._of(told_model).count_alone(told, -1)

    def take_unseen(self) -> list[bytes]:
        """Requests without a line of which HTTP told nothing either, each once."""
        unseen = [request for request, nothing in self._alone.items() if nothing]
        for request in unseen:
            self._alone[request] = False
        return unseen

    def of(self, model: str) -> Sums:
        """What there is of a model so far."""
        return self._by_model.get(model, Sums())

    @property
    def lines_missing(self) -> int:
        """Of all models."""
        return sum(sums.lines_missing for sums in self._by_model.values())

    def take(self, models: Iterable[str]) -> dict[str, Sums]:
        """The sums of each model, and begin again. `models` are others that may be meant where none was named."""
        found, self._by_model = self._by_model, {}
        self.audio_us = None
        self._alone.clear()
        unnamed = found.pop(_UNNAMED, None)
        if unnamed is not None:
            first = found.setdefault(next(iter([*sorted(found), *models, "unknown"])), Sums())
            for name, value in asdict(unnamed).items():
                setattr(first, name, getattr(first, name) + value)
        return found

    def _audio(self, sums: Sums, tokens: int, time_us: int) -> None:
        if tokens:
            sums.audio_prompt += tokens
            first_us, last_us = self.audio_us or (time_us, time_us)
            self.audio_us = min(first_us, time_us), max(last_us, time_us)

    def _of(self, model: str | None) -> Sums:
        sums = self._by_model
        name = model or (next(iter(sums)) if len(sums) == 1 else _UNNAMED)
        return sums.get(name) or sums.setdefault(name, Sums())

    def to_json(self) -> dict[str, Any]:
        """What `take_json` goes on with."""
        newest = list(self._requests.items())[-MOST_KEPT:]
        return {
            "models": {model: asdict(sums) for model, sums in self._by_model.items()},
            "audio_us": self.audio_us,
            "requests": {name: lines.to_json() for name, lines in newest},
        }

    def take_json(self, found: dict[str, Any]) -> None:
        """Raises KeyError, TypeError or ValueError for what `to_json` never gave."""
        self._by_model = {model: Sums(**sums) for model, sums in found["models"].items()}
        self.audio_us = None
        if found["audio_us"] is not None:
            first_us, last_us = found["audio_us"]
            self.audio_us = int(first_us), int(last_us)
        self._requests = OrderedDict(
            (name, RequestLines.from_json(each)) for name, each in found["requests"].items()
        )


def keep(memory: OrderedDict[Any, _V], name: object, value: _V) -> _V:
    """Remember one more; beyond MOST_REQUESTS the oldest goes."""
    memory[name] = value
    if len(memory) > MOST_REQUESTS:
        memory.popitem(last=False)
    return value


def unaccounted(span: Span, sums: Sums) -> dict[tuple[str, str], int]:
    """The equations of reconciliation over one span, and the events of this lane in it."""
    prompt = span.engine_prompt + span.late_prompt + span.lost_prompt - span.audio_prompt
    generated = span.engine_generated + span.late_generated + span.lost_generated
    return {
        (span.model, "prompt"): prompt - span.repeated_prompt - span.unmetered_prompt - sums.events_prompt,
        (span.model, "generated"): generated - span.unmetered_generated - sums.events_generated,
    }
