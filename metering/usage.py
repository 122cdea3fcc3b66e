"""From what an engine says about usage to our quantities: one place, one function a dialect.

Cached tokens are part of the prompt's and reasoning tokens part of the completion's; several choices and batched prompts
are summed by the engine. What vLLM (0.32) says, by dialect:

    openai     chat, completions, and streams of transcriptions: {"prompt_tokens": 538, "completion_tokens": 2,
               "total_tokens": 540, "prompt_tokens_details": {"cached_tokens": 512, …} | null,
               "completion_tokens_details": {"reasoning_tokens": 0, …} | null}
    responses  {"input_tokens": 538, "input_tokens_details": {"cached_tokens": 512, …}, "output_tokens": 2,
               "output_tokens_details": {"reasoning_tokens": 0, …}, "total_tokens": 540}
    messages   {"input_tokens": 26, "cache_read_input_tokens": 512, "output_tokens": 2}: `input_tokens` is what is left
               of the prompt after what was read from the cache, and what was written to it where the engine says so
               (`cache_creation_input_tokens`); where it says neither (`--enable-prompt-tokens-details` is off), it is
               the whole prompt. So the prompt is the sum of what is there.
    pooled     embeddings, pooling, score, rerank, classify: {"prompt_tokens": 12, "total_tokens": 12, …}
    audio      transcriptions in one answer: {"type": "duration", "seconds": 11}, the engine rounds up; the verbose form
               says `"duration": 10.416` instead, which is rounded up here likewise

Figures that are no whole numbers between 0 and `MAX_QUANTITY` are no usage.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import NamedTuple

import orjson

from metering.event import MAX_QUANTITY


# Made for each request: a named tuple is made four times as fast as a frozen dataclass.
class Usage(NamedTuple):
    """Quantities of one request. `cached_tokens` ≤ `prompt_tokens`, `reasoning_tokens` ≤ `completion_tokens`."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    audio_seconds: int = 0


NOTHING = Usage()


def openai_usage(raw: bytes | None) -> Usage | None:
    """The usage object of a chat or completions answer, as the bytes that stood there; None if it is not one."""
    value = _object(raw)
    if value is None:
        return None
    prompt = _quantity(value.get("prompt_tokens"))
    completion = _quantity(value.get("completion_tokens", 0))
    if prompt is None or completion is None:
        return None
    of_prompt, of_completion = value.get("prompt_tokens_details"), value.get("completion_tokens_details")
    if of_prompt is None and of_completion is None:
        return Usage(prompt, 0, completion)
    cached = _detail(of_prompt, "cached_tokens")
    reasoning = _detail(of_completion, "reasoning_tokens")
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


def responses_usage(raw: bytes | None) -> Usage | None:
    """The usage object of a response; None if it is not one."""
    value = _object(raw)
    if value is None:
        return None
    prompt = _quantity(value.get("input_tokens"))
    completion = _quantity(value.get("output_tokens"))
    if prompt is None or completion is None:
        return None
    cached = _detail(value.get("input_tokens_details"), "cached_tokens")
    reasoning = _detail(value.get("output_tokens_details"), "reasoning_tokens")
    return Usage(prompt, min(cached, prompt), completion, min(reasoning, completion))


def messages_usage(raw: bytes | None) -> Usage | None:
    """The usage object of an Anthropic message; None if it is not one. Reasoning is not told apart there."""
    value = _object(raw)
    if value is None:
        return None
    left = _quantity(value.get("input_tokens"))
    completion = _quantity(value.get("output_tokens"))
    if left is None or completion is None:
        return None
    cached = _detail(value, "cache_read_input_tokens")
    prompt = _quantity(left + cached + _detail(value, "cache_creation_input_tokens"))
    return None if prompt is None else Usage(prompt, cached, completion)


def pooled_usage(raw: bytes | None) -> Usage | None:
    """The usage object of an answer without generated text; None if it is not one."""
    value = _object(raw)
    prompt = None if value is None else _quantity(value.get("prompt_tokens"))
    return None if prompt is None else Usage(prompt)


def audio_usage(usage: bytes | None, duration: bytes | None) -> Usage | None:
    """The usage object of a transcription, or else its `duration` in seconds, each started second counted whole."""
    value = _object(usage)
    if value is not None:
        seconds = _quantity(value.get("seconds")) if value.get("type") == "duration" else None
    else:
        seconds = _whole_seconds(duration)
    return None if seconds is None else Usage(audio_seconds=seconds)


def deltas_usage(prompt_tokens: int, cached_tokens: int, deltas: int, reasoning_deltas: int) -> Usage:
    """What is known of a stream without running usage that did not end: each delta passed on holds at least a token."""
    return Usage(prompt_tokens, cached_tokens, deltas, reasoning_deltas)


def _object(raw: bytes | None) -> dict[str, object] | None:
    if raw is None:
        return None
    try:
        value = orjson.loads(raw)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _quantity(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= MAX_QUANTITY else None


def _detail(details: object, name: str) -> int:
    """A figure that engines may leave out: absent, null and nonsense are 0."""
    if not isinstance(details, dict):
        return 0
    return _quantity(details.get(name)) or 0


def _whole_seconds(raw: bytes | None) -> int | None:
    if raw is None or len(raw) > 64:
        return None
    try:
        seconds = Decimal(raw.decode("ascii"))
        if not 0 <= seconds <= MAX_QUANTITY:
            return None
        return int(seconds.to_integral_value(ROUND_CEILING))
    except (InvalidOperation, UnicodeDecodeError):
        return None
