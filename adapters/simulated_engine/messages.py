"""Anthropic's dialect: `POST /v1/messages` and `/v1/messages/count_tokens`, which vLLM makes of chats.

Two things about its figures are easily missed. Where prompt details are on, `input_tokens` leaves out what was found
in the cache and what was put there, but `message_start` comes before either is known and says the whole prompt.
A refusal by the engine has Anthropic's form; a body that does not validate is refused in OpenAI's.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from typing import Any

from adapters.simulated_engine.answers import running_usage, usage_of
from adapters.simulated_engine.asked import (
    Asked,
    check_context,
    check_limits,
    content_tokens,
    find_model,
    message_tokens,
    natural_tokens,
    sequence,
)
from adapters.simulated_engine.dialect import Answering, Body, named_event, words
from adapters.simulated_engine.errors import EngineError, Fault, invalid, invalid_fields
from adapters.simulated_engine.fields import boolean, integer, named_counts, number, parse
from adapters.simulated_engine.generation import Step
from adapters.simulated_engine.options import EngineOptions

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens"}


def read_messages(body: bytes, options: EngineOptions) -> Asked:
    """Read a request's body. Raises `EngineError` where vLLM refuses it."""
    given = parse(body)
    named = named_counts(given)
    max_tokens = _check_fields(given, ("model", "messages", "max_tokens"))
    stream = boolean(given, "stream")
    prompt_tokens = _prompt_tokens(given)
    with _AnthropicForm():
        served = find_model(given["model"], options)
        check_limits(None, number(given, "temperature"))
        if "sim_prompt_tokens" not in named:
            check_context([prompt_tokens], max_tokens, options)
    one = sequence(prompt_tokens, named, natural_tokens(body), max_tokens)
    return Asked(
        endpoint="messages",
        served=served,
        request_id=None,
        n=1,
        sequences=(one,),
        echoes=None,
        max_tokens=max_tokens or 1,
        stream=stream,
        include_usage=stream,
        continuous_usage=stream,
        reasons="sim_reasoning_tokens" in named,
    )


def count_tokens(body: bytes, options: EngineOptions) -> Body:
    """What the prompt of a conversation comes to; nothing is generated."""
    given = parse(body)
    _check_fields(given, ("model", "messages"))
    with _AnthropicForm():
        find_model(given["model"], options)
    tokens = named_counts(given).get("sim_prompt_tokens", _prompt_tokens(given))
    return {"input_tokens": tokens, "context_management": {"original_input_tokens": tokens}}


class Anthropic:
    """The dialect of messages. Its stream has one block open at a time: thinking, then text."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._sequence = answering.asked.sequences[0]
        self._block: str | None = None
        self._index = -1

    def whole(self, reported_tokens: int) -> Body:
        answering, one = self._answering, self._sequence
        thinking = words(0, one.reasoning_tokens, one) if answering.asked.reasons else ""
        text = words(one.reasoning_tokens, one.completion_tokens, one)
        content: list[Body] = []
        if thinking:
            content.append({"type": "thinking", "thinking": thinking, "signature": secrets.token_hex(16)})
        if text or not content:
            content.append({"type": "text", "text": text})
        body: Body = {
            "id": answering.id,
            "type": "message",
            "role": "assistant",
            "content": content,
            "model": answering.asked.served.shown,
            "stop_reason": _STOP_REASONS[one.finish],
        }
        if answering.options.fault != "drop-usage":
            body["usage"] = self._usage(reported_tokens)
        return body

    def opened(self) -> Iterator[bytes]:
        return iter(())

    def started(self) -> Iterator[bytes]:
        answering = self._answering
        message: Body = {
            "id": answering.id,
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": answering.asked.served.shown,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _anthropic_usage(running_usage(answering, 0, 0, 0)),
        }
        yield named_event({"type": "message_start", "message": message})

    def told(self, step: Step) -> Iterator[bytes]:
        text = words(step.before, step.before + step.tokens, self._sequence)
        if not text:
            return
        thinks = self._answering.asked.reasons and step.before < self._sequence.reasoning_tokens
        block = "thinking" if thinks else "text"
        if self._block != block:
            yield from self._close_block()
            self._block, self._index = block, self._index + 1
            started = {"type": block, block: ""}
            yield named_event({"type": "content_block_start", "content_block": started, "index": self._index})
        yield self._delta({"type": f"{block}_delta", block: text})

    def ended(self, reported_tokens: int) -> Iterator[bytes]:
        yield from self._close_block()
        reason = {"stop_reason": _STOP_REASONS[self._sequence.finish], "stop_sequence": None}
        told: Body = {"type": "message_delta", "delta": reason}
        if self._answering.options.fault != "drop-usage":
            told["usage"] = self._usage(reported_tokens)
        yield named_event(told)
        yield named_event({"type": "message_stop"})

    def _close_block(self) -> Iterator[bytes]:
        if self._block is None:
            return
        if self._block == "thinking":
            yield self._delta({"type": "signature_delta", "signature": secrets.token_hex(16)})
        yield named_event({"type": "content_block_stop", "index": self._index})
        self._block = None

    def _delta(self, delta: Body) -> bytes:
        return named_event({"type": "content_block_delta", "delta": delta, "index": self._index})

    def _usage(self, reported_tokens: int) -> Body:
        return _anthropic_usage(usage_of(self._answering, reported_tokens, self._sequence.reasoning_tokens))


class _AnthropicForm:
    """What is refused inside goes out in Anthropic's form."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: object, _trace: object) -> None:
        if isinstance(error, EngineError):
            refused = error.body["error"]
            shown = {"type": "error", "error": {"type": refused["type"], "message": refused["message"]}}
            error.body = shown


def _anthropic_usage(usage: Body) -> Body:
    said: Body = {"input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"]}
    if details := usage.get("prompt_tokens_details"):
        read, created = details["cached_tokens"], details["created_cache_tokens"]
        said["input_tokens"] = max(0, usage["prompt_tokens"] - read - created)
        said |= {"cache_creation_input_tokens": created, "cache_read_input_tokens": read}
    return said


def _check_fields(given: Mapping[str, Any], needed: tuple[str, ...]) -> int | None:
    """Refuse what does not validate, all that is missing at once; returns `max_tokens`."""
    missing = [name for name in needed if name not in given]
    if missing:
        raise invalid_fields([Fault("missing", f"body.{name}", "Field required", given) for name in missing])
    model = given["model"]
    if not isinstance(model, str):
        raise invalid("string_type", "body.model", "Input should be a valid string", model)
    if not isinstance(given["messages"], list):
        raise invalid("list_type", "body.messages", "Input should be a valid list", given["messages"])
    max_tokens = integer(given, "max_tokens")
    if max_tokens is not None and max_tokens <= 0:
        says = "Value error, max_tokens must be positive"
        because = ValueError("max_tokens must be positive")
        raise invalid("value_error", "body.max_tokens", says, max_tokens, because)
    return max_tokens


def _prompt_tokens(given: Mapping[str, Any]) -> int:
    tokens = message_tokens(given["messages"], "body.messages")
    return tokens + (4 + content_tokens(given["system"]) if given.get("system") else 0)
