"""A JSON object as the engine's server reads it, with the places of a few of its members, so that they can be changed
while every other byte stays.

vLLM reads bodies with Python's `json` and its figures with pydantic in lax mode, so "yes" is true and "3" is three.
What is read here is read the same way. Two readers that disagreed would let a client have one thing and be counted
for another. What orjson reads, `json` reads alike (of a name that comes twice the last value; an integer beyond 64 bits
is the one thing that comes out differently, as a float, and no member that counts here may be one); it is six times as
fast. What it does not read (NaN, lone surrogates, another encoding) `json` decides.
"""

from __future__ import annotations

import json
import re

import orjson

from metering.http_refusal import Refused

# Text that pydantic (lax mode) takes for a boolean.
_TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})
_FALSE = frozenset({"0", "false", "f", "no", "n", "off"})
_SPACE = re.compile(r"[ \t\n\r]*")
_read_value = json.JSONDecoder().raw_decode

#: A body with more members than this is not read: a few bytes of JSON make an object of a hundred, and reading it would
#: hold up every other client. Prompts as ids of tokens have a comma for each.
MOST_MEMBERS = 2_000_000
_LARGE_BYTES = 1024 * 1024

Span = tuple[int, int]
#: The text, the object in it, and where in the text the values of the wanted member stand, each time that it occurs.
#: The text is left out where nothing in it is wanted.
Read = tuple[str, dict[str, object], list[Span]]


def read_body(body: bytes, name: str = "") -> Read | Refused | None:
    """The object in `body` with the places of its member `name`.

    None if there is none, and then the engine finds none either and says so in its own words. Refused is what the
    engine might read and we do not: another encoding than UTF-8, deeper nesting than Python's, more than MOST_MEMBERS.
    """
    if len(body) > _LARGE_BYTES and body.count(b",") + body.count(b"[") + body.count(b"{") > MOST_MEMBERS:
        return Refused(413, "too_many_members", f"The JSON body has more than {MOST_MEMBERS:,} members.")
    try:
        quickly = orjson.loads(body)
    except ValueError:
        quickly = None
    if isinstance(quickly, dict) and name not in quickly:
        return "", quickly, []
    if json.detect_encoding(body) != "utf-8":
        return Refused(400, "not_utf8", "A JSON body must be UTF-8, without a byte order mark.")
    try:
        text = body.decode("utf-8", "surrogatepass")
        value, spans = _read_object(text, name) if name and name in text else (json.loads(text), [])
        if isinstance(value, dict) and name in value and not spans:  # the name was written with escapes
            value, spans = _read_object(text, name)
    except RecursionError:
        return Refused(400, "nested_too_deep", "The JSON body is nested too deep.")
    except ValueError:
        return None
    return (text, value, spans) if isinstance(value, dict) else None


def encoded(text: str) -> bytes:
    """The bytes of (a part of) the text that `read_body` gave."""
    return text.encode("utf-8", "surrogatepass")


def boolean(value: object, *, of_null: bool | None = None) -> bool | None:
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


def count(value: object) -> int:
    """A number of choices, as vLLM would take it; 1 where it says nothing usable."""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            return max(1, int(value))
        except (ValueError, OverflowError):
            return 1
    return 1


def _read_object(text: str, name: str) -> tuple[dict[str, object], list[Span]]:
    """A JSON object and where in `text` the values of `name` stand. ValueError if it is none."""
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
            if key == name:
                spans.append((start, end))
            at = _skip(text, end)
            if text[at : at + 1] != ",":
                break
            at = _skip(text, at + 1)
        at = _expect(text, at, "}")
    if _skip(text, at) != len(text):
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
