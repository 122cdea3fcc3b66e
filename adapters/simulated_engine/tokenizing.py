"""`POST /tokenize` and `/detokenize`: what a tokenizer would say that made a token of every four bytes."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

from adapters.simulated_engine.asked import chat_tokens, find_model, tokens_of
from adapters.simulated_engine.dialect import Body
from adapters.simulated_engine.errors import invalid
from adapters.simulated_engine.fields import boolean, named_counts, parse, text
from adapters.simulated_engine.options import EngineOptions

VOCABULARY = 2048


def tokenize(body: bytes, options: EngineOptions) -> Body:
    """The tokens of a `prompt`, or of a chat's `messages`. Raises `EngineError` where vLLM refuses it."""
    given = parse(body)
    find_model(text(given, "model"), options)
    count = named_counts(given).get("sim_prompt_tokens", _count(given))
    tokens = [_token(number) for number in range(count)]
    strings = [f"t{token}" for token in tokens] if boolean(given, "return_token_strs") else None
    return {
        "count": count,
        "max_model_len": options.context_tokens,
        "tokens": tokens,
        "token_strs": strings,
    }


def detokenize(body: bytes, options: EngineOptions) -> Body:
    """The text of `tokens`. Raises `EngineError` where vLLM refuses it."""
    given = parse(body)
    if "tokens" not in given:
        raise invalid("missing", "body.tokens", "Field required", given)
    tokens = given["tokens"]
    if not isinstance(tokens, list):
        raise invalid("list_type", "body.tokens", "Input should be a valid list", tokens)
    find_model(text(given, "model"), options)
    return {"prompt": "".join(f" t{token}" for token in tokens)}


def _count(given: Mapping[str, Any]) -> int:
    if "messages" in given:
        return chat_tokens(given)
    prompt = text(given, "prompt")
    if prompt is None:
        raise invalid("missing", "body.prompt", "Field required", given)
    return tokens_of(prompt)


def _token(place: int) -> int:
    return zlib.crc32(place.to_bytes(8, "big")) % VOCABULARY
