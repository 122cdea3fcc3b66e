"""What a request asks for: its body read, checked in vLLM's order, and reduced to counts.

Counts come from the text: a token for every four bytes, a few more for each message of a chat, and as many
output tokens as the body's checksum says. A body may name them instead, for every prompt and choice alike,
in a field that the real server hands through to its scheduler and otherwise ignores:

    "vllm_xargs": {"sim_prompt_tokens": 71234, "sim_cached_tokens": "70912",
                   "sim_completion_tokens": 512, "sim_reasoning_tokens": 100}

Named counts are not held to the context length, only an explicit `max_tokens` still cuts them.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from adapters.simulated_engine.errors import EngineError, bad_request, invalid, unknown_model
from adapters.simulated_engine.options import EngineOptions

Endpoint = Literal["chat", "completions"]

COMPLETION_DEFAULT_MAX_TOKENS = 16
_NAMED = ("sim_prompt_tokens", "sim_cached_tokens", "sim_completion_tokens", "sim_reasoning_tokens")
_MAX_NAMED = 10**12
_MAX_CHOICES = 16_384


@dataclass(frozen=True, slots=True)
class Sequence:
    """One sequence to generate: a prompt's choice. `finish` is `stop` or `length`."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    finish: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that the engine accepts. `sequences` are prompts × `n`, a prompt's choices side by side.

    `echoes` holds each prompt's text where the answer repeats it. `reasons` is true where reasoning tokens
    are reported, as by a server with a reasoning parser. `max_tokens` is what the engine's own histogram
    counts.
    """

    endpoint: Endpoint
    model: str
    request_id: str | None
    n: int
    sequences: tuple[Sequence, ...]
    echoes: tuple[str, ...] | None
    max_tokens: int
    stream: bool
    include_usage: bool
    continuous_usage: bool
    reasons: bool


def read_request(endpoint: Endpoint, body: bytes, options: EngineOptions) -> Asked:
    """Read a request's body. Raises `EngineError` where vLLM refuses it."""
    given = _parse(body)
    named = _named_counts(given)
    stream = _boolean(given, "stream")
    max_tokens = _integer(given, "max_completion_tokens") if endpoint == "chat" else None
    if max_tokens is None:
        max_tokens = _integer(given, "max_tokens")
    n = _integer(given, "n")
    temperature = _number(given, "temperature")
    prompts, echoes = _messages(given) if endpoint == "chat" else _prompts(given)
    include_usage, continuous = _stream_options(given, stream, options)
    model = _model(given, options)

    if n is not None and n < 1:
        raise bad_request(f"n must be at least 1, got {n}.")
    if n is not None and n > _MAX_CHOICES:
        raise bad_request(f"n must be at most {_MAX_CHOICES}, got {n}.")
    if max_tokens is not None and max_tokens < 1:
        raise bad_request(f"max_tokens must be at least 1, got {max_tokens}.", "max_tokens", max_tokens)
    if temperature is not None and temperature < 0:
        raise bad_request(
            f"temperature must be non-negative, got {temperature}.", "temperature", float(temperature)
        )
    if temperature == 0 and n is not None and n > 1:
        raise bad_request(f"n must be 1 when using greedy sampling, got {n}.")
    if "sim_prompt_tokens" not in named:
        _check_context(prompts, max_tokens, options)

    if max_tokens is None and endpoint == "completions" and "sim_completion_tokens" not in named:
        max_tokens = COMPLETION_DEFAULT_MAX_TOKENS
    natural = 16 + zlib.crc32(body) % 48
    sequences = tuple(
        _sequence(prompt, named, natural, max_tokens) for prompt in prompts for _ in range(n or 1)
    )
    return Asked(
        endpoint=endpoint,
        model=model,
        request_id=_text(given, "request_id"),
        n=n or 1,
        sequences=sequences,
        echoes=echoes if _boolean(given, "echo") else None,
        max_tokens=max_tokens
        or max(1, options.context_tokens - max(each.prompt_tokens for each in sequences)),
        stream=stream,
        include_usage=include_usage,
        continuous_usage=continuous,
        reasons=endpoint == "chat" and "sim_reasoning_tokens" in named,
    )


def tokens_of(text: str) -> int:
    return (len(text.encode("utf-8", "surrogatepass")) + 3) // 4


def _parse(body: bytes) -> Mapping[str, Any]:
    if not body:
        raise invalid("missing", "body", "Field required", None)
    try:
        given = json.loads(body)
    except json.JSONDecodeError as error:
        raise invalid("json_invalid", f"body.{error.pos}", "JSON decode error", {}, error.msg) from None
    except (ValueError, RecursionError):
        raise EngineError(400, "There was an error parsing the body", "Bad Request") from None
    if not isinstance(given, dict):
        says = "Input should be a valid dictionary or object to extract fields from"
        raise invalid("model_attributes_type", "body", says, given)
    return given


def _named_counts(given: Mapping[str, Any]) -> dict[str, int]:
    named: dict[str, int] = {}
    arguments = given.get("vllm_xargs") or {}
    if not isinstance(arguments, dict):
        raise invalid("dict_type", "body.vllm_xargs", "Input should be a valid dictionary", arguments)
    for name in _NAMED:
        if name in arguments:
            count = _as_integer(arguments[name], f"vllm_xargs.{name}")
            if not 0 <= count <= _MAX_NAMED:
                raise bad_request(f"{name} must be from 0 to {_MAX_NAMED}, got {count}.", name, count)
            named[name] = count
    return named


def _messages(given: Mapping[str, Any]) -> tuple[list[int], tuple[str, ...]]:
    if "messages" not in given:
        raise invalid("missing", "body.messages", "Field required", given)
    messages = given["messages"]
    if not isinstance(messages, list):
        raise invalid("list_type", "body.messages", "Input should be a valid list", messages)
    tokens = 3
    for number, message in enumerate(messages):
        if not isinstance(message, dict):
            says = "Input should be a valid dictionary"
            raise invalid("dict_type", f"body.messages.{number}", says, message)
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"text": content}]
        texts = (part.get("text") for part in parts if isinstance(part, dict))
        tokens += 4 + sum(tokens_of(text) for text in texts if isinstance(text, str))
    return [tokens], ()


def _prompts(given: Mapping[str, Any]) -> tuple[list[int], tuple[str, ...]]:
    """A text, a list of token ids, or a list of either."""
    prompt = given.get("prompt")
    if prompt is None or prompt in ("", []):
        raise bad_request("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
    many = prompt if isinstance(prompt, list) and not isinstance(prompt[0], int) else [prompt]
    counts: list[int] = []
    for one in many:
        if isinstance(one, str):
            counts.append(max(1, tokens_of(one)))
        elif isinstance(one, list) and one and all(type(token) is int and token >= 0 for token in one):
            counts.append(len(one))
        else:
            raise invalid("string_type", "body.prompt", "Input should be a valid string", one)
    return counts, tuple(one if isinstance(one, str) else "" for one in many)


def _stream_options(given: Mapping[str, Any], stream: bool, options: EngineOptions) -> tuple[bool, bool]:
    """(usage in a last chunk, usage on every chunk): the second only together with the first."""
    wanted = given.get("stream_options")
    if wanted is not None and not stream:
        raise bad_request("Stream options can only be defined when `stream=True`.", "stream_options")
    if options.force_include_usage:
        return True, True
    if wanted is None:
        return False, False
    if not isinstance(wanted, dict):
        raise invalid("dict_type", "body.stream_options", "Input should be a valid dictionary", wanted)
    include = bool(wanted.get("include_usage"))
    return include, include and bool(wanted.get("continuous_usage_stats"))


def _model(given: Mapping[str, Any], options: EngineOptions) -> str:
    model = _text(given, "model")
    if not model:
        return options.models[0]
    if model not in options.models and not options.any_model:
        raise unknown_model(model, options.models)
    return model


def _check_context(prompts: list[int], max_tokens: int | None, options: EngineOptions) -> None:
    context = options.context_tokens
    if max_tokens is not None and max_tokens > context:
        raise bad_request(
            f"max_tokens={max_tokens} cannot be greater than max_model_len={context}."
            " Please request fewer output tokens.",
            "max_tokens",
            max_tokens,
        )
    longest = max(prompts)
    if longest >= context:
        raise bad_request(
            f"This model's maximum context length is {context} tokens. However, your prompt contains {longest}"
            " input tokens, which exceeds this limit even without any output tokens."
            " Please reduce the length of the input prompt.",
            "input_tokens",
            longest,
        )


def _sequence(prompt: int, named: Mapping[str, int], natural: int, limit: int | None) -> Sequence:
    prompt_tokens = named.get("sim_prompt_tokens", prompt)
    wanted = named.get("sim_completion_tokens", natural)
    completion = wanted if limit is None else min(wanted, limit)
    return Sequence(
        prompt_tokens=prompt_tokens,
        cached_tokens=min(named.get("sim_cached_tokens", 0), prompt_tokens),
        completion_tokens=completion,
        reasoning_tokens=min(named.get("sim_reasoning_tokens", 0), completion),
        finish="stop" if limit is None or wanted < limit else "length",
    )


def _integer(given: Mapping[str, Any], field: str) -> int | None:
    value = given.get(field)
    return None if value is None else _as_integer(value, field)


def _as_integer(value: object, field: str) -> int:
    if type(value) is int:
        return value
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            says = "Input should be a valid integer, unable to parse string as an integer"
            raise invalid("int_parsing", f"body.{field}", says, value) from None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise invalid("int_type", f"body.{field}", "Input should be a valid integer", value)


def _number(given: Mapping[str, Any], field: str) -> float | None:
    value = given.get(field)
    if value is None or isinstance(value, float):
        return value
    if type(value) is int:
        return float(value)
    raise invalid("float_type", f"body.{field}", "Input should be a valid number", value)


def _boolean(given: Mapping[str, Any], field: str) -> bool:
    value = given.get(field)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise invalid("bool_type", f"body.{field}", "Input should be a valid boolean", value)


def _text(given: Mapping[str, Any], field: str) -> str | None:
    value = given.get(field)
    if value is None or isinstance(value, str):
        return value
    raise invalid("string_type", f"body.{field}", "Input should be a valid string", value)
