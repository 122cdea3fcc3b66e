"""What a request to `/v1/responses` asks for. vLLM ignores `X-Request-Id` here: the id is the body's `request_id`."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from adapters.simulated_engine.asked import (
    Asked,
    check_context,
    check_limits,
    find_model,
    message_tokens,
    most_tokens,
    natural_tokens,
    sequence,
    tokens_of,
)
from adapters.simulated_engine.errors import EngineError, bad_request, bad_response, invalid
from adapters.simulated_engine.fields import boolean, integer, named_counts, number, parse, text
from adapters.simulated_engine.options import EngineOptions

_NO_STORE = (
    "This vLLM engine does not support `store=True` and therefore does not support the background mode. To enable"
    " these features, set the environment variable `VLLM_ENABLE_RESPONSES_API_STORE=1` when launching the vLLM server."
)


@dataclass(frozen=True, slots=True)
class AskedResponse:
    """A request for a response. `echoed` are the fields that its body repeats, by name."""

    asked: Asked
    id: str
    background: bool
    stored: bool
    previous: str | None
    echoed: Mapping[str, Any]


def read_response(body: bytes, options: EngineOptions, earlier: Callable[[str], int | None]) -> AskedResponse:
    """Read a request's body. `earlier` knows the tokens of a stored response, prompt and output; None of any other.

    Raises `EngineError` where vLLM refuses it.
    """
    given = parse(body)
    named = named_counts(given)
    background, stream = boolean(given, "background"), boolean(given, "stream")
    store = given.get("store") is None or boolean(given, "store")
    if background and not store:
        raise bad_request("background can only be used when `store` is true", "background")
    max_tokens = integer(given, "max_output_tokens")
    prompt_tokens = _prompt_tokens(given)
    served = find_model(text(given, "model"), options)
    if background and not options.store_responses:
        raise bad_response(400, _NO_STORE, "background")
    previous = text(given, "previous_response_id")
    if previous is not None:
        tokens = earlier(previous)
        if tokens is None:
            raise not_found(previous)
        prompt_tokens += tokens
    if "sim_prompt_tokens" not in named:
        check_context([prompt_tokens], max_tokens, options, "max_output_tokens")
    check_limits(max_tokens, number(given, "temperature"))

    sequences = (sequence(prompt_tokens, named, natural_tokens(body), max_tokens),)
    response_id = text(given, "request_id") or f"resp_{secrets.token_hex(8)}"
    asked = Asked(
        endpoint="responses",
        served=served,
        request_id=response_id,
        n=1,
        sequences=sequences,
        echoes=None,
        max_tokens=most_tokens(max_tokens, sequences, options),
        stream=stream,
        include_usage=True,
        continuous_usage=False,
        reasons="sim_reasoning_tokens" in named,
    )
    stored = store and options.store_responses
    return AskedResponse(asked, response_id, background, stored, previous, given)


def not_found(response_id: str) -> EngineError:
    return bad_response(404, f"Response with id '{response_id}' not found.", "response_id")


def _prompt_tokens(given: Mapping[str, Any]) -> int:
    if "input" not in given:
        # vLLM sets the choice of a request without tools before it looks at anything.
        raise invalid("missing", "body.input", "Field required", {**given, "tool_choice": "none"})
    asked = given["input"]
    instructions = text(given, "instructions")
    tokens = 4 + tokens_of(instructions) if instructions else 0
    if isinstance(asked, str):
        return tokens + 7 + tokens_of(asked)
    if isinstance(asked, list):
        return tokens + message_tokens(asked, "body.input")
    raise invalid("string_type", "body.input", "Input should be a valid string", asked)
