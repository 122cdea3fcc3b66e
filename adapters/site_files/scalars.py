"""The scalar types of site files: each reads the text that stands there into one canonical text, or says
why not.

Canonical means that equal values are equal texts (`0.40` and `0.4` become "0.4", `50_000_000` "50000000",
an IBAN loses its blanks), so versions compare as texts and `get` writes what `apply` reads back unchanged.
Nothing becomes a number here: typing the text is left to `billing.facts`, with exact decimals.
"""

from __future__ import annotations

import functools
import re
import zoneinfo
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from importlib import resources

from babel import Locale, UnknownLocaleError
from stdnum import bic as stdnum_bic
from stdnum import iban as stdnum_iban
from stdnum.eu import vat as stdnum_vat
from stdnum.exceptions import InvalidChecksum, ValidationError

from billing.money import minor_digits
from metering.refusal import Refusal


class WrongTextError(ValueError):
    """What is wrong with a scalar's text, as the end of a sentence: "`sme 1` ..."."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """A type of scalar. `allowed` completes "allowed: …"; `read` gives the canonical text or raises
    WrongTextError.
    """

    name: str
    allowed: str
    read: Callable[[str], str]


def pattern(name: str, allowed: str, expression: str) -> Scalar:
    compiled = re.compile(expression)

    def read(text: str) -> str:
        if compiled.fullmatch(text) is None:
            raise WrongTextError(f"is not {name}")
        return text

    return Scalar(name, allowed, read)


def one_of(name: str, *words: str) -> Scalar:
    def read(text: str) -> str:
        if text not in words:
            raise WrongTextError(f"is not {name}")
        return text

    return Scalar(name, " | ".join(words), read)


def whole_number(least: int, most: int) -> Scalar:
    def read(text: str) -> str:
        if re.fullmatch(r"[0-9]+(_[0-9]+)*", text) is None:
            raise WrongTextError("is not a whole number")
        digits = text.replace("_", "").lstrip("0") or "0"
        if len(digits) > len(str(most)) or not least <= int(digits) <= most:
            raise WrongTextError("is out of range")
        return digits

    return Scalar("a whole number", f"{least} to {most:_}", read)


_DECIMAL = re.compile(r"([0-9]+(?:_[0-9]+)*)(?:\.([0-9]+))?")


def _decimal(text: str, whole_digits: int, decimals: int) -> str:
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
    number = _decimal(text[:-1].rstrip(), 3, 6)
    if Decimal(number) > 100:
        raise WrongTextError("is more than 100%")
    return f"{number}%"


@functools.cache
def countries() -> frozenset[str]:
    """The ISO 3166-1 alpha-2 codes, as the time zone database lists them."""
    table = resources.files("tzdata.zoneinfo").joinpath("iso3166.tab").read_text(encoding="utf-8")
    return frozenset(line[:2] for line in table.splitlines() if not line.startswith("#"))


def _country(text: str) -> str:
    if text not in countries():
        raise WrongTextError("is not a country")
    return text


def _currency(text: str) -> str:
    try:
        minor_digits(text)
    except Refusal:
        raise WrongTextError("is not a currency with at most two decimals") from None
    return text


@functools.cache
def _offsets_are_whole_hours(zone: str) -> bool:
    """Whether every UTC offset that `zone` has from 2020 to 2040 is whole hours: billing counts whole UTC
    hours.
    """
    timezone = zoneinfo.ZoneInfo(zone)
    noon = datetime(2020, 1, 1, 12, tzinfo=UTC)
    for day in range(21 * 366):
        offset = (noon + timedelta(days=day)).astimezone(timezone).utcoffset()
        if offset is None or offset % timedelta(hours=1):
            return False
    return True


@functools.cache
def zones() -> frozenset[str]:
    """The IANA zones that this Python knows, but for the names that stand for no place."""
    return frozenset(zoneinfo.available_timezones() - {"localtime", "Factory", "posixrules"})


def _zone(text: str) -> str:
    if text not in zones():
        raise WrongTextError("is not a time zone")
    if not _offsets_are_whole_hours(text):
        raise WrongTextError("has a UTC offset that is not whole hours")
    return text


def _language(text: str) -> str:
    try:
        Locale.parse(text, sep="-")
    except (UnknownLocaleError, ValueError, TypeError):
        raise WrongTextError("is not a language") from None
    return text


def _vat_id(text: str) -> str:
    """A VAT number without blanks. EU numbers must have their country's shape; a wrong check digit is only
    warned of (`doubtful_vat_id`), since registers hold numbers that fail it."""
    compact = re.sub(r"[\s.-]", "", text).upper()
    if re.fullmatch(r"[A-Z]{2}[A-Z0-9+*]{2,13}", compact) is None:
        raise WrongTextError("is not a VAT number")
    try:
        stdnum_vat.validate(compact)
    except InvalidChecksum:
        return compact
    except ValidationError:
        if compact[:2].lower().replace("el", "gr") in stdnum_vat.MEMBER_STATES:
            raise WrongTextError("does not have the shape of its country's VAT numbers") from None
    return compact


def doubtful_vat_id(vat_id: str) -> bool:
    """Whether an accepted VAT number fails its country's check digits."""
    try:
        stdnum_vat.validate(vat_id)
    except InvalidChecksum:
        return True
    except ValidationError:
        return False
    return False


def _iban(text: str) -> str:
    try:
        return str(stdnum_iban.validate(text))
    except InvalidChecksum:
        raise WrongTextError("has wrong check digits") from None
    except ValidationError:
        raise WrongTextError("is not an IBAN") from None


def _bic(text: str) -> str:
    try:
        return str(stdnum_bic.validate(text))
    except ValidationError:
        raise WrongTextError("is not a BIC") from None


_NUMBERING = re.compile(r"[A-Za-z0-9/_. -]*")


def _numbering(text: str) -> str:
    literal, counters = re.subn(r"\{n(?::0[1-9])?\}", "", text)
    literal, years = re.subn(r"\{yyyy\}", "", literal)
    if counters != 1 or years > 1 or len(text) > 40 or _NUMBERING.fullmatch(literal) is None:
        raise WrongTextError("is not a numbering pattern")
    return text


TEXT = Scalar("text", "1 to 300 characters on one line", _text)
BOOLEAN = Scalar("true or false", "true | false", _boolean)
ID = pattern(
    "an id", "[a-z0-9][a-z0-9._-]{0,62}: small letters, digits and . _ -", r"[a-z0-9][a-z0-9._-]{0,62}"
)
REGION = pattern("a region", "letters, digits and . _ -, such as LT-VL", r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
REGION_GLOB = pattern(
    "a region or glob", "letters, digits and . _ - *, such as LT-*", r"[A-Za-z0-9._*-]{1,63}"
)
MODEL_GLOB = pattern(
    "a model or glob", "1 to 200 visible characters, only * is special, such as qwen3-*", r"[!-~]{1,200}"
)
DAY = Scalar("a day", "year-month-day, such as 2026-10-01", _day)
PRICE = Scalar(
    "a price",
    "a plain decimal of 0 or more, up to 12 digits on each side of the point, such as 0.40",
    lambda text: _decimal(text, 12, 12),
)
AMOUNT = Scalar("an amount", "a plain decimal of 0 or more, such as 5.00", lambda text: _decimal(text, 13, 2))
PERCENT = Scalar("a percentage", "0% to 100%, up to 6 decimals, such as 2.5%", _percent)
UP_TO = whole_number(1, 10**15)
DAYS = whole_number(0, 3660)
FIRST_NUMBER = whole_number(1, 10**9)
COUNTRY = Scalar("a country", "ISO 3166-1 alpha-2 in capitals, such as LT", _country)
CURRENCY = Scalar("a currency", "ISO 4217 with at most two decimals, such as EUR", _currency)
ZONE = Scalar("a time zone", "an IANA zone with whole-hour offsets, such as Europe/Vilnius", _zone)
LANGUAGE = Scalar("a language", "BCP 47, such as lt or en-GB", _language)
VAT_ID = Scalar("a VAT number", "country prefix and number, such as LT100001234510", _vat_id)
IBAN = Scalar("an IBAN", "with right check digits; blanks may be left out", _iban)
BIC = Scalar("a BIC", "8 or 11 letters and digits, such as CBVILT2X", _bic)
NUMBERING = Scalar(
    "a numbering pattern",
    "letters, digits and / _ . - around one {n} or {n:06} and at most one {yyyy}, such as TLC-{yyyy}-{n:06}",
    _numbering,
)
EMAIL = pattern(
    "an e-mail address", "name@host, such as ap@acme.example", r"[!-?A-~]{1,64}@[A-Za-z0-9.-]{1,190}"
)
SEGMENT = one_of("a segment", "enterprise", "sme", "startup", "research", "public", "private")
SELLER = one_of("a seller", "operator", "platform")
OUTCOME = one_of("an outcome", "finished", "aborted", "failed", "interrupted")
