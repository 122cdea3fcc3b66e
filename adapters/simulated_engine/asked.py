"""What a request asks for: its body read, checked in vLLM's order, and reduced to counts.

Counts come from the text: a token for every four bytes, a few more for each message of a chat, and as many
output tokens as the body's checksum says. A body may name them instead, for every prompt and choice alike,
in a field that the real server hands through to its scheduler and otherwise ignores:

    "vllm_xargs": {"sim_prompt_tokens": 71234, "sim_cached_tokens": "70912",
                   "sim_completion_tokens": 512, "sim_reasoning_tokens": 100}

Named counts are not held to the context length, only an explicit `max_tokens` still cuts them.

Chats and completions are read here; the other dialects read their own bodies into the same `Asked`.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from adapters.simulated_engine.errors import bad_request, invalid, unknown_model
from adapters.simulated_engine.fields import boolean, integer, named_counts, number, parse, text
from adapters.simulated_engine.options import EngineOptions

Endpoint = Literal["chat", "completions", "messages", "responses", "transcriptions", "translations"]

COMPLETION_DEFAULT_MAX_TOKENS = 16
_MAX_CHOICES = 16_384


@dataclass(frozen=True, slots=True)
class Served:
    """A model that a request names: as answers show it, as it is counted, and the adapter that it is, or None."""

    shown: str
    counted: str
    lora: str | None


@dataclass(frozen=True, slots=True)
class Sequence:
    """One sequence to generate: a prompt's choice. `finish` is `stop` or `length`."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    finish: str

    @property
    def shown_tokens(self) -> int:
        """The tokens that have a text: all but the one by which a sequence ends itself."""
        return max(0, self.completion_tokens - (self.finish == "stop"))


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that the engine accepts. `sequences` are prompts × `n`, a prompt's choices side by side.

    `echoes` holds each prompt's text where the answer repeats it. `reasons` is true where reasoning tokens
    are reported, as by a server with a reasoning parser. `max_tokens` is what the engine's own histogram
    counts. `beam` is true where the choices are a beam search's.
    """

    endpoint: Endpoint
    served: Served
    request_id: str | None
    n: int
    sequences: tuple[Sequence, ...]
    echoes: tuple[str, ...] | None
    max_tokens: int
    stream: bool
    include_usage: bool
    continuous_usage: bool
    reasons: bool
    beam: bool = False


def read_request(endpoint: Literal["chat", "completions"], body: bytes, options: EngineOptions) -> Asked:
    """Read a request's body. Raises `EngineError` where vLLM refuses it."""
    given = parse(body)
    named = named_counts(given)
    chat = endpoint == "chat"
    stream = boolean(given, "stream")
    beam = boolean(given, "use_beam_search")
    echo = boolean(given, "echo")
    max_tokens = integer(given, "max_completion_tokens") if chat else None
    if max_tokens is None:
        max_tokens = integer(given, "max_tokens")
    n = integer(given, "n")
    temperature = number(given, "temperature")
    prompts, echoes = ([chat_tokens(given)], ()) if chat else _prompts(given)
    include_usage, continuous = _stream_options(given, stream, options)
    if beam and stream and not chat:
        raise bad_request("Streaming is not currently supported with beam search")
    served = find_model(text(given, "model"), options)

    if echo and max_tokens == 0:
        max_tokens = 1  # vLLM samples one token and leaves its text out
    check_limits(max_tokens, temperature)
    if n is not None and n < 1:
        raise bad_request(f"n must be at least 1, got {n}.")
    if n is not None and n > _MAX_CHOICES:
        raise bad_request(f"n must be at most {_MAX_CHOICES}, got {n}.")
    if temperature == 0 and n is not None and n > 1 and not beam:
        raise bad_request(f"n must be 1 when using greedy sampling, got {n}.")
    if "sim_prompt_tokens" not in named:
        check_context(prompts, max_tokens, options)

    if max_tokens is None and not chat and "sim_completion_tokens" not in named:
        max_tokens = COMPLETION_DEFAULT_MAX_TOKENS
    natural = natural_tokens(body)
    sequences = tuple(
        sequence(prompt, named, natural, max_tokens) for prompt in prompts for _ in range(n or 1)
    )
    return Asked(
        endpoint=endpoint,
        served=served,
        request_id=text(given, "request_id"),
        n=n or 1,
        sequences=sequences,
        echoes=echoes if echo else None,
        max_tokens=most_tokens(max_tokens, sequences, options),
        stream=stream,
        include_usage=include_usage,
        continuous_usage=continuous,
        reasons=chat and "sim_reasoning_tokens" in named,
        beam=beam,
    )


def tokens_of(words: str) -> int:
    return (len(words.encode("utf-8", "surrogatepass")) + 3) // 4


def natural_tokens(body: bytes) -> int:
    """How long an answer would be that nobody cut: the same for the same body."""
    return 16 + zlib.crc32(body) % 48


def chat_tokens(given: Mapping[str, Any]) -> int:
    """The prompt that a chat's `messages` come to."""
    if "messages" not in given:
        raise invalid("missing", "body.messages", "Field required", given)
    messages = given["messages"]
    if not isinstance(messages, list):
        raise invalid("list_type", "body.messages", "Input should be a valid list", messages)
    return message_tokens(messages, "body.messages")


def message_tokens(messages: list[Any], path: str) -> int:
    tokens = 3
    for place, message in enumerate(messages):
        if not isinstance(message, dict):
            raise invalid("dict_type", f"{path}.{place}", "Input should be a valid dictionary", message)
        tokens += 4 + content_tokens(message.get("content"))
    return tokens


def content_tokens(content: object) -> int:
    """A text, or a list of parts of which some have one."""
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return sum(tokens_of(each) for each in texts if isinstance(each, str))


def find_model(model: str | None, options: EngineOptions) -> Served:
    """The model of a request; one that names none takes the first. Raises `EngineError` for one not served."""
    first = options.models[0]
    if not model or model in options.aliases:
        return Served(first, first, None)
    if model in options.adapters:
        return Served(model, first, model)
    if model in options.models or options.any_model:
        return Served(model, model, None)
    raise unknown_model(model, (*options.models, *options.aliases))


def check_limits(max_tokens: int | None, temperature: float | None) -> None:
    if max_tokens is not None and max_tokens < 1:
        raise bad_request(f"max_tokens must be at least 1, got {max_tokens}.", "max_tokens", max_tokens)
    if temperature is not None and temperature < 0:
        raise bad_request(
            f"temperature must be non-negative, got {temperature}.", "temperature", float(temperature)
        )


def check_context(
    prompts: list[int], max_tokens: int | None, options: EngineOptions, field: str = "max_tokens"
) -> None:
    """Refuse what does not fit into the context; `field` is how the dialect calls its limit."""
    context = options.context_tokens
    if max_tokens is not None and max_tokens > context:
        raise bad_request(
            f"{field}={max_tokens} cannot be greater than max_model_len={context}."
            " Please request fewer output tokens.",
            field,
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


def most_tokens(max_tokens: int | None, sequences: tuple[Sequence, ...], options: EngineOptions) -> int:
    """The limit that the engine works with: the request's, else what the context leaves."""
    return max_tokens or max(1, options.context_tokens - max(each.prompt_tokens for each in sequences))


def sequence(prompt: int, named: Mapping[str, int], natural: int, limit: int | None) -> Sequence:
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


def _prompts(given: Mapping[str, Any]) -> tuple[list[int], tuple[str, ...]]:
    """A text, a list of token ids, or a list of either."""
    prompt = given.get("prompt")
    if prompt is None or prompt in ("", []):
        raise bad_request("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
    return prompt_tokens(prompt, "prompt")


def prompt_tokens(prompt: object, field: str) -> tuple[list[int], tuple[str, ...]]:
    """The tokens of each prompt in a field that holds a text, a list of token ids, or a list of either; and the texts."""
    many = prompt if isinstance(prompt, list) and prompt and type(prompt[0]) is not int else [prompt]
    counts: list[int] = []
    for one in many:
        if isinstance(one, str):
            counts.append(max(1, tokens_of(one)))
        elif isinstance(one, list) and one and all(type(token) is int and token >= 0 for token in one):
            counts.append(len(one))
        else:
            raise invalid("string_type", f"body.{field}", "Input should be a valid string", one)
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
