"""The scalar types of site files: each reads the text that stands there into one canonical text, or says
why not.

Canonical means that equal values are equal texts (`0.40` and `0.4` become "0.4", `50_000_000` "50000000",
an IBAN loses its blanks), so versions compare as texts and `get` writes what `apply` reads back unchanged.
Nothing becomes a number here: typing the text is left to `billing.facts`, with exact decimals.

Each says in JSON Schema too what it takes (`schema`), so that editors complete and check (`json_schema`). An editor has
YAML's own types, so numbers stand there beside texts; what a schema can't say is left to `read`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any


class WrongTextError(ValueError):
    """What is wrong with a scalar's text, as the end of a sentence: "`sme 1` ..."."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """A type of scalar. `allowed` completes "allowed: …"; `read` gives the canonical text or raises
    WrongTextError. `schema`: keywords of JSON Schema, which may take more than `read` does, never less.
    """

    name: str
    allowed: str
    read: Callable[[str], str]
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": ["string", "number", "boolean"]})


def pattern(name: str, allowed: str, expression: str) -> Scalar:
    compiled = re.compile(expression)

    def read(text: str) -> str:
        if compiled.fullmatch(text) is None:
            raise WrongTextError(f"is not {name}")
        return text

    return Scalar(
        name, allowed, read, {"type": ["string", "number", "boolean"], "pattern": f"^{expression}$"}
    )


def one_of(name: str, *words: str) -> Scalar:
    def read(text: str) -> str:
        if text not in words:
            raise WrongTextError(f"is not {name}")
        return text

    return Scalar(name, " | ".join(words), read, {"enum": list(words)})


def read_whole_number(text: str) -> str:
    """The digits of a whole number without `_` and leading zeros."""
    if re.fullmatch(r"[0-9]+(_[0-9]+)*", text) is None:
        raise WrongTextError("is not a whole number")
    return text.replace("_", "").lstrip("0") or "0"


def whole_number(least: int, most: int) -> Scalar:
    def read(text: str) -> str:
        digits = read_whole_number(text)
        if len(digits) > len(str(most)) or not least <= int(digits) <= most:
            raise WrongTextError("is out of range")
        return digits

    bounds = {"minimum": least, "maximum": most}
    schema = {"type": ["integer", "string"], **bounds, "pattern": "^[0-9]+(_[0-9]+)*$"}
    return Scalar("a whole number", f"{least} to {most:_}", read, schema)


_DECIMAL = re.compile(r"([0-9]+(?:_[0-9]+)*)(?:\.([0-9]+))?")


def read_decimal(text: str, whole_digits: int, decimals: int) -> str:
    """The shortest text of a plain, non-negative decimal with so many digits at most."""
    match = _DECIMAL.fullmatch(text)
    if match is None:
        if text.startswith("-") and _DECIMAL.fullmatch(text[1:]):
            raise WrongTextError("is negative")
        if re.fullmatch(r"[0-9._]+[eE][+-]?[0-9]+", text):
            raise WrongTextError("has an exponent")
        if re.fullmatch(r"[0-9]+,[0-9]+", text):
            raise WrongTextError("has a decimal comma")
        raise WrongTextError("is not a decimal number")
    whole = match[1].replace("_", "").lstrip("0") or "0"
    fraction = (match[2] or "").rstrip("0")
    if len(whole) > whole_digits or len(fraction) > decimals:
        raise WrongTextError("has too many digits")
    return f"{whole}.{fraction}" if fraction else whole


def _boolean(text: str) -> str:
    if text in ("true", "false"):
        return text
    if text.lower() in ("yes", "no", "on", "off", "y", "n", "0", "1", "true", "false"):
        raise WrongTextError("is not a truth value here")
    raise WrongTextError("is neither true nor false")


def _text(text: str) -> str:
    stripped = text.strip()
    if not stripped:
        raise WrongTextError("is empty")
    if len(stripped) > 300:
        raise WrongTextError("is longer than 300 characters")
    if not stripped.isprintable():
        raise WrongTextError("holds a line break or another control character")
    return stripped


def _day(text: str) -> str:
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text) is None:
        raise WrongTextError("is not a day")
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise WrongTextError("is not a day of the calendar") from None
    if not 2000 <= day.year <= 2199:
        raise WrongTextError("is not between 2000 and 2199")
    return text


def _percent(text: str) -> str:
    if not text.endswith("%"):
        raise WrongTextError("has no % sign")
    number = read_decimal(text[:-1].rstrip(), 3, 6)
    if Decimal(number) > 100:
        raise WrongTextError("is more than 100%")
    return f"{number}%"


DECIMAL_SCHEMA = {"type": ["number", "string"], "minimum": 0, "pattern": r"^[0-9]+(_[0-9]+)*(\.[0-9]+)?$"}

TEXT = Scalar("text", "1 to 300 characters on one line", _text)
BOOLEAN = Scalar("true or false", "true | false", _boolean, {"enum": [True, False, "true", "false"]})
ID = pattern(
    "an id", "[a-z0-9][a-z0-9._-]{0,62}: small letters, digits and . _ -", r"[a-z0-9][a-z0-9._-]{0,62}"
)
REGION = pattern("a region", "letters, digits and . _ -, such as LT-VL", r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
DAY = Scalar(
    "a day",
    "year-month-day, such as 2026-10-01",
    _day,
    {"type": "string", "format": "date", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"},
)
AMOUNT = Scalar(
    "an amount",
    "a plain decimal of 0 or more, such as 5.00",
    lambda text: read_decimal(text, 13, 2),
    DECIMAL_SCHEMA,
)
PERCENT = Scalar(
    "a percentage",
    "0% to 100%, up to 6 decimals, such as 2.5%",
    _percent,
    {"type": "string", "pattern": r"^[0-9]+(_[0-9]+)*(\.[0-9]+)?\s*%$"},
)
DAYS = whole_number(0, 3660)
FIRST_NUMBER = whole_number(1, 10**9)
SEGMENTS = ("enterprise", "sme", "startup", "research", "public", "private")
SEGMENT = one_of("a segment", *SEGMENTS)
SELLER = one_of("a seller", "operator", "platform")
EMAIL = pattern(
    "an e-mail address", "name@host, such as ap@acme.example", r"[!-?A-~]{1,64}@[A-Za-z0-9.-]{1,190}"
)
