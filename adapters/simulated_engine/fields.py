"""Reading a request's body: JSON, and fields of a type, refused in vLLM's words where they are of another.

Each reader returns None for a field that is missing or null.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from adapters.simulated_engine.errors import EngineError, bad_request, invalid

_NAMED = (
    "sim_prompt_tokens",
    "sim_cached_tokens",
    "sim_completion_tokens",
    "sim_reasoning_tokens",
    "sim_audio_seconds",
)
_MAX_NAMED = 10**12


def parse(body: bytes) -> Mapping[str, Any]:
    """The JSON object of a body. `EngineError` where it is none."""
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


def named_counts(given: Mapping[str, Any]) -> dict[str, int]:
    """The counts that a body names for the simulated engine in `vllm_xargs`."""
    named: dict[str, int] = {}
    arguments = given.get("vllm_xargs") or {}
    if not isinstance(arguments, dict):
        raise invalid("dict_type", "body.vllm_xargs", "Input should be a valid dictionary", arguments)
    for name in _NAMED:
        if name in arguments:
            count = as_integer(arguments[name], f"vllm_xargs.{name}")
            if not 0 <= count <= _MAX_NAMED:
                raise bad_request(f"{name} must be from 0 to {_MAX_NAMED}, got {count}.", name, count)
            named[name] = count
    return named


def integer(given: Mapping[str, Any], field: str) -> int | None:
    value = given.get(field)
    return None if value is None else as_integer(value, field)


def as_integer(value: object, field: str) -> int:
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


def number(given: Mapping[str, Any], field: str) -> float | None:
    value = given.get(field)
    if value is None or isinstance(value, float):
        return value
    if type(value) is int:
        return float(value)
    raise invalid("float_type", f"body.{field}", "Input should be a valid number", value)


def boolean(given: Mapping[str, Any], field: str) -> bool:
    value = given.get(field)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise invalid("bool_type", f"body.{field}", "Input should be a valid boolean", value)


def text(given: Mapping[str, Any], field: str) -> str | None:
    value = given.get(field)
    if value is None or isinstance(value, str):
        return value
    raise invalid("string_type", f"body.{field}", "Input should be a valid string", value)
