"""Scalar types of the pricing language: prices, factors, bounds of tiers, hours of the day, models, windows, calendars."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from adapters.site_files.scalars import (
    DAY,
    DECIMAL_SCHEMA,
    Scalar,
    WrongTextError,
    one_of,
    pattern,
    read_decimal,
    read_whole_number,
    whole_number,
)
from billing.holiday import is_calendar
from billing.tariff import HOLIDAY, OUTCOMES, PROMPT_BANDS, WEEKDAYS

FIRST = "first"
"""What `supersedes` says for a version without `valid_from`."""

MOST_HOURS = 100_000
"""How long a price series may be: eleven years."""

_SPAN_OF_HOURS = re.compile(r"([0-9]{1,2}):([0-9]{2})-([0-9]{1,2}):([0-9]{2})")


def _signed(text: str, whole_digits: int, decimals: int) -> str:
    """As `read_decimal`, below zero too; there is one zero."""
    if not text.startswith("-"):
        return read_decimal(text, whole_digits, decimals)
    if text.startswith("--"):
        raise WrongTextError("has more than one minus sign")
    magnitude = read_decimal(text[1:], whole_digits, decimals)
    return "0" if magnitude == "0" else f"-{magnitude}"


def _prompt_over(text: str) -> str:
    digits = read_whole_number(text)
    if digits not in {str(band) for band in PROMPT_BANDS}:
        raise WrongTextError("is not a length that usage is told apart by")
    return digits


def _hours(text: str) -> str:
    match = _SPAN_OF_HOURS.fullmatch(text)
    if match is None:
        raise WrongTextError("is not a span of hours")
    begin, end = int(match[1]), int(match[3])
    if begin > 24 or end > 24 or begin == 24:
        raise WrongTextError("names an hour that no day has")
    if (match[2], match[4]) != ("00", "00"):
        raise WrongTextError("has an edge inside an hour: usage is counted by whole hours")
    if begin == end:
        raise WrongTextError("begins where it ends: no hour, or all of them?")
    return f"{begin:02}:00-{end or 24:02}:00"


def read_hour(text: str) -> str:
    """A whole UTC hour: 2026-10-01T03:00:00+03:00 becomes 2026-10-01T00:00:00Z."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise WrongTextError("is not a time") from None
    if moment.tzinfo is None:
        raise WrongTextError("has no offset")
    if not 2000 <= moment.year <= 2199:
        raise WrongTextError("is not between 2000 and 2199")
    moment = moment.astimezone(UTC)
    if moment.minute or moment.second or moment.microsecond:
        raise WrongTextError("is not a whole hour of UTC")
    return moment.isoformat().replace("+00:00", "Z")


def _calendar(text: str) -> str:
    if not is_calendar(text):
        raise WrongTextError("is not a calendar of public holidays")
    return text


def _window_name(text: str) -> str:
    if text == "base":
        raise WrongTextError("is the name of the hours that are in no window")
    if re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,30}", text) is None:
        raise WrongTextError("is not a window's name")
    return text


def _file_name(text: str) -> str:
    name = text.strip()
    if name.startswith("/") or not name.isprintable() or not 0 < len(name) <= 300:
        raise WrongTextError("is not the name of a file beside this one")
    if ".." in name.split("/"):
        raise WrongTextError("leads out of the folder of this file")
    return name


MODEL_GLOB = pattern(
    "a model or glob", "1 to 200 visible characters, only * is special, such as qwen3-*", r"[!-~]{1,200}"
)
REGION_GLOB = pattern(
    "a region or glob", "letters, digits and . _ - *, such as LT-*", r"[A-Za-z0-9._*-]{1,63}"
)
PROMPT_OVER = Scalar(
    "a length of prompts",
    ", ".join(f"{band:_}" for band in PROMPT_BANDS),
    _prompt_over,
    {"enum": [*PROMPT_BANDS, *(text for band in PROMPT_BANDS for text in (f"{band}", f"{band:_}"))]},
)
PRICE = Scalar(
    "a price",
    "a plain decimal of 0 or more, up to 12 digits on each side of the point, such as 0.40",
    lambda text: read_decimal(text, 12, 12),
    DECIMAL_SCHEMA,
)
FACTOR = Scalar(
    "a factor",
    "a plain decimal of 0 or more, up to 3 digits before and 6 after the point, such as 0.7",
    lambda text: read_decimal(text, 3, 6),
    DECIMAL_SCHEMA,
)
SERIES_PRICE = Scalar(
    "a price of a series",
    "a plain decimal, also below 0, up to 10 digits before and 6 after the point, such as 41.20",
    lambda text: _signed(text, 10, 6),
    {"type": ["number", "string"], "pattern": r"^-?[0-9]+(_[0-9]+)*(\.[0-9]+)?$"},
)
UNITS = whole_number(1, 10**15)
DAY_OF_WINDOW = one_of("a day of a window", *WEEKDAYS, HOLIDAY)
HOURS = Scalar(
    "a span of hours",
    "whole hours of the day, end exclusive, such as 08:00-18:00 or 22:00-06:00; 00:00-24:00 is all of it",
    _hours,
    {"type": "string", "pattern": "^[0-9]{1,2}:00-[0-9]{1,2}:00$"},
)
WINDOW_NAME = Scalar(
    "a window's name",
    "[a-z0-9][a-z0-9_-]{0,30}, but not base",
    _window_name,
    {
        "type": ["string", "number", "boolean"],
        "pattern": "^[a-z0-9][a-z0-9_-]{0,30}$",
        "not": {"const": "base"},
    },
)
FIRST_HOUR = Scalar(
    "the first hour of a series",
    "a whole hour with offset, such as 2026-10-01T00:00:00Z",
    read_hour,
    {"type": "string"},
)
SERIES_FILE = Scalar(
    "the name of a file",
    "a CSV file with the header hour,price, its path as seen from this file, in its folder or below",
    _file_name,
    {
        "type": ["string", "number", "boolean"],
        "pattern": r"^\s*[^/\s]",
        "not": {"pattern": r"(^|/)\s*\.\.(/|\s*$)"},
    },
)
CALENDAR = Scalar(
    "a calendar of public holidays",
    "ISO 3166-1 or -2, such as LT or DE-BY",
    _calendar,
    {"type": "string", "pattern": "^[A-Z]{2}(-[A-Z0-9]{1,3})?$"},
)
OUTCOME = one_of("an outcome", *OUTCOMES)
BILLED_OUTPUT = one_of("what output is billed by", "delivered", "generated")
EVERY = one_of("how often a fee is due", "month", "once")
SUPERSEDES = Scalar(
    "the version that is superseded",
    f"its valid_from, such as 2026-10-01, or {FIRST} for one without",
    lambda text: text if text == FIRST else DAY.read(text),
    {"type": "string", "pattern": "^(first|[0-9]{4}-[0-9]{2}-[0-9]{2})$"},
)
