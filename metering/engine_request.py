"""What the engine's lines say of one request of a client, whatever the order in which they came.

One request can be many for the engine, and the engine's counters then count its prompt many times while HTTP's usage
says it once. Which lines are of the same prompt is in their external id (vLLM 0.32 and 0.33, measured):

    chatcmpl-R, cmpl-R-0, embd-R-2, …       one prompt each; n > 1: n lines with the same external id
    chatcmpl-R-<16 hex>-beam-<j>            beam search: a line for each beam of each step (16 hex: the step), with
    cmpl-R-<16 hex>-beam-<j>                what was found so far as its prompt: p, p + 1, p + 2, … tokens

A prompt is that of its sampled line with the least cached tokens: an engine that works on the same prompt twice finds
it in its cache the second time. Of a beam search the prompts are those of its first steps. A step has as many lines as
the search is wide, the first one only one; where no step has two, each step goes on where one of a token less was.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from metering.engine_lines import Freed

_CHILD = re.compile(r"\d+_")
_BEAM = re.compile(r"-(?P<step>[0-9a-f]{16,32})-beam-\d+$")


class Prompts(NamedTuple):
    """Tokens of the prompts, each counted once: all of them, and those of them that were cached."""

    tokens: int
    cached: int


def one_of_many(line: Freed) -> str | None:
    """What the lines have in common that may be of the same prompt as this one; None where it stands alone."""
    beam = _beam(line.external)
    if beam is not None:
        return line.external[: beam.start()]
    return line.external if line.id[:1].isdigit() and _CHILD.match(line.id) else None


_NONE = Prompts(0, 0)


class RequestLines:
    """The lines of one request, added up. Equal sets of lines give equal figures."""

    __slots__ = ("_prompts", "_steps", "count", "generated", "lora", "model", "sampled_prompts")

    def __init__(self) -> None:
        self.count = 0
        self.generated = 0
        #: What the engine's counter says of them: the prompts of all that were sampled.
        self.sampled_prompts = 0
        self.model: str | None = None
        self.lora: str | None = None
        self._prompts: dict[str, Prompts] = {}
        self._steps: dict[str, tuple[int, Prompts]] = {}

    def add(self, line: Freed) -> None:
        """One line more."""
        self.count += 1
        self.generated += line.output_tokens
        self.model = line.model or self.model
        self.lora = line.lora or self.lora
        prompt = Prompts(line.prompt_tokens, line.cached_tokens) if line.sampled else _NONE
        self.sampled_prompts += prompt.tokens
        beam = _beam(line.external)
        if beam is None:
            before = self._prompts.get(line.external)
            self._prompts[line.external] = prompt if before is None else _of_the_two(prompt, before)
        else:
            count, seen = self._steps.get(beam["step"], (0, _NONE))
            self._steps[beam["step"]] = (count + 1, _of_the_two(prompt, seen))

    def prompts(self) -> Prompts:
        """Every prompt once."""
        if len(self._prompts) == 1 and not self._steps:
            return next(iter(self._prompts.values()))
        once = [*self._prompts.values(), *_first_steps(list(self._steps.values()))]
        return Prompts(sum(each.tokens for each in once), sum(each.cached for each in once))

    @property
    def repeated_prompt(self) -> int:
        """What the engine's counter has beyond `prompts`."""
        return self.sampled_prompts - self.prompts().tokens

    def to_json(self) -> dict[str, Any]:
        """What `from_json` makes the same lines of."""
        return {
            "count": self.count,
            "generated": self.generated,
            "sampled_prompts": self.sampled_prompts,
            "model": self.model,
            "lora": self.lora,
            "prompts": self._prompts,
            "steps": self._steps,
        }

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> RequestLines:
        """Raises KeyError, TypeError or ValueError for what `to_json` never made."""
        self = cls()
        self.count = int(found["count"])
        self.generated = int(found["generated"])
        self.sampled_prompts = int(found["sampled_prompts"])
        self.model = found["model"]
        self.lora = found["lora"]
        self._prompts = {name: _prompts(each) for name, each in found["prompts"].items()}
        self._steps = {step: (int(count), _prompts(each)) for step, (count, each) in found["steps"].items()}
        return self


def _beam(external: str) -> re.Match[str] | None:
    return _BEAM.search(external) if "-beam-" in external else None


def _prompts(found: list[int]) -> Prompts:
    tokens, cached = found
    return Prompts(int(tokens), int(cached))


def _of_the_two(one: Prompts, other: Prompts) -> Prompts:
    """One prompt, seen by two lines: the sampled one, of two the one that found less of it in the cache."""
    return max(one, other) if _NONE in (one, other) else min(one, other, key=lambda each: (each.cached, each))


def _first_steps(steps: list[tuple[int, Prompts]]) -> list[Prompts]:
    """The prompts that the searches of one request began with, one for each batched prompt."""
    if any(count > 1 for count, _ in steps):
        return [prompt for count, prompt in steps if count == 1]
    by_tokens: dict[int, list[Prompts]] = {}
    for _, prompt in steps:
        by_tokens.setdefault(prompt.tokens, []).append(prompt)
    firsts: list[Prompts] = []
    for tokens, there in by_tokens.items():
        begun_here = len(there) - len(by_tokens.get(tokens - 1, []))
        firsts += sorted(there, key=lambda prompt: prompt.cached)[: max(begun_here, 0)]
    return firsts
