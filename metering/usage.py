"""From what an engine says about usage to our quantities: one place, one function a dialect.

vLLM's chat and completions answers carry

    "usage": {"prompt_tokens": 538, "completion_tokens": 2, "total_tokens": 540,
              "prompt_tokens_details": {"cached_tokens": 512, …} | null,
              "completion_tokens_details": {"reasoning_tokens": 0, …} | null}

where cached tokens are part of the prompt's and reasoning tokens part of the completion's; several choices and batched
prompts are summed by the engine. Figures that are no whole numbers between 0 and `MAX_QUANTITY` are no usage.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from metering.event import MAX_QUANTITY


@dataclass(frozen=True, slots=True)
class Usage:
    """Quantities of one request. `cached_tokens` ≤ `prompt_tokens`, `reasoning_tokens` ≤ `completion_tokens`."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    audio_seconds: int = 0


NOTHING = Usage()


def openai_usage(raw: bytes | None) -> Usage | None:
    """The usage object of a chat or completions answer, as the bytes that stood there; None if it is not one."""
    if raw is None:
        return None
    try:
        value = json.loads(raw)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    prompt = _quantity(value.get("prompt_tokens"))
    completion = _quantity(value.get("completion_tokens", 0))
    cached = _detail(value.get("prompt_tokens_details"), "cached_tokens")
    reasoning = _detail(value.get("completion_tokens_details"), "reasoning_tokens")
    if prompt is None or completion is None:
        return None
    return Usage(prompt, min(cached, prompt), completion, min(reasoning, completion))


def sum_of_choices(by_choice: dict[int, bytes], choices_per_prompt: int) -> Usage:
    """What the running usage of each choice of a stream comes to: a prompt counts once, completions add up.

    Choices are numbered prompt by prompt, `choices_per_prompt` each. Running usage does not say what was cached.
    """
    prompts: dict[int, int] = {}
    completion = reasoning = 0
    for index, raw in by_choice.items():
        usage = openai_usage(raw) or NOTHING
        prompts[index // choices_per_prompt] = usage.prompt_tokens
        completion += usage.completion_tokens
        reasoning += usage.reasoning_tokens
    prompt = _quantity(sum(prompts.values()))
    if prompt is None or _quantity(completion) is None:
        return NOTHING
    return Usage(prompt, 0, completion, reasoning)


def _quantity(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= MAX_QUANTITY else None


def _detail(details: object, name: str) -> int:
    """A figure that engines may leave out: absent, null and nonsense are 0."""
    if not isinstance(details, dict):
        return 0
    return _quantity(details.get(name)) or 0
