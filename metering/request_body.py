"""The body of a chat or completions request: read once, and changed only to make a stream tell its usage.

vLLM says nothing about usage in a stream unless asked. The sidecar always asks, for usage at the end and on every
chunk (`stream_options`), because a client may leave at any chunk, and what it was told up to there is what it used. So

    {"model": "m", "stream": true, …}    becomes
    {"stream_options":{"include_usage":true,"continuous_usage_stats":true},"model": "m", "stream": true, …}

and options that the client gave are widened in their place; every other byte stays. What the client did not ask for
is taken out of the answer again (`metering.sse`).

The engine is not asked to do what the sidecar could not read: JSON in another encoding than UTF-8, or nested deeper
than Python reads it, is refused. Plainly broken JSON goes on as it is, for the engine's own error to come back: it
reads with the same parser.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from metering.http_refusal import Refused

_ASKING = b'"stream_options":{"include_usage":true,"continuous_usage_stats":true}'
_KEY = "stream_options"
_KEY_BYTES = b'"stream_options"'
# Text that vLLM (pydantic, lax mode) takes for a boolean.
_TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})
_FALSE = frozenset({"0", "false", "f", "no", "n", "off"})
# A name of a model as engines serve it. Anything else is the client's own text, and that is never written down.
_MODEL = re.compile(r"[A-Za-z0-9][\w.:/@+-]{0,199}", re.ASCII)
_SPACE = re.compile(r"[ \t\n\r]*")
_read_value = json.JSONDecoder().raw_decode


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request asks for, and the body that goes to the engine.

    `model` is None where the client named none that could be one. `hide_final`, `hide_each`: the client did not ask
    for the usage chunk at the end, for the usage on each chunk. `choices_per_prompt` is the request's `n`.
    """

    body: bytes
    model: str | None = None
    stream: bool = False
    hide_final: bool = False
    hide_each: bool = False
    choices_per_prompt: int = 1


Span = tuple[int, int]


def read_ask(body: bytes) -> Ask | Refused:
    """Read the body of a chat or completions request."""
    try:
        text = body.decode("utf-8")
        if text[:1] in ("\ufeff", "\0") or text[1:2] == "\0":
            raise UnicodeError
        value, spans = _read_object(text) if _KEY_BYTES in body else (json.loads(text), [])
        if isinstance(value, dict) and _KEY in value and not spans:  # its name was written with escapes
            value, spans = _read_object(text)
    except UnicodeError:
        return Refused(400, "not_utf8", "A JSON body must be UTF-8, without a byte order mark.")
    except RecursionError:
        return Refused(400, "nested_too_deep", "The JSON body is nested too deep.")
    except ValueError:
        return Ask(body)
    if not isinstance(value, dict):
        return Ask(body)
    name = value.get("model")
    model = name if isinstance(name, str) and _MODEL.fullmatch(name) else None
    if _boolean(value.get("stream")) is not True:
        return Ask(body, model)
    return _asking(body, text, value, spans, model)


def _asking(body: bytes, text: str, value: dict[str, object], spans: list[Span], model: str | None) -> Ask:
    """A stream's request with both options on."""
    per_prompt = _count(value.get("n"))
    options = value.get(_KEY)
    if not spans:
        at = body.index(b"{") + 1
        return Ask(body[:at] + _ASKING + b"," + body[at:], model, True, True, True, per_prompt)
    if options is None:
        options = {}
    final = each = None
    if isinstance(options, dict):
        final = _boolean(options.get("include_usage", False), of_null=False)
        each = _boolean(options.get("continuous_usage_stats", False), of_null=False)
    if not isinstance(options, dict) or final is None or each is None:
        return Ask(
            body, model, True, choices_per_prompt=per_prompt
        )  # the engine refuses these, in its own words
    if final and each:
        return Ask(body, model, True, choices_per_prompt=per_prompt)
    widened = json.dumps(
        options | {"include_usage": True, "continuous_usage_stats": True}, separators=(",", ":")
    )
    for start, end in reversed(spans):
        text = text[:start] + widened + text[end:]
    return Ask(text.encode("utf-8"), model, True, not final, True, per_prompt)


def _read_object(text: str) -> tuple[dict[str, object], list[Span]]:
    """A JSON object and where in `text` the values of `stream_options` stand. ValueError if it is none."""
    value: dict[str, object] = {}
    spans: list[Span] = []
    at = _expect(text, _skip(text, 0), "{")
    if text[at : at + 1] == "}":
        at += 1
    else:
        while True:
            if text[at : at + 1] != '"':
                raise ValueError(f"no name at {at}")
            key, at = _read_value(text, at)
            start = _expect(text, _skip(text, at), ":")
            value[key], end = _read_value(text, start)
            if key == _KEY:
                spans.append((start, end))
            at = _skip(text, end)
            if text[at : at + 1] != ",":
                break
            at = _skip(text, at + 1)
        at = _expect(text, at, "}")
    if at != len(text):
        raise ValueError("text after the object")
    return value, spans


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    assert space is not None
    return space.end()


def _expect(text: str, at: int, what: str) -> int:
    """Past `what`, which must stand at `at`, and the space after it."""
    if text[at : at + 1] != what:
        raise ValueError(f"no {what} at {at}")
    return _skip(text, at + 1)


def _boolean(value: object, *, of_null: bool | None = None) -> bool | None:
    """What vLLM takes `value` for: true, false, or neither (None)."""
    if value is None:
        return of_null
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return True if value == 1 else False if value == 0 else None
    if isinstance(value, str):
        word = value.lower()
        return True if word in _TRUE else False if word in _FALSE else None
    return None


def _count(value: object) -> int:
    """The request's `n`, as vLLM would take it; 1 where it says nothing usable."""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            return max(1, int(value))
        except (ValueError, OverflowError):
            return 1
    return 1
