"""Scalar types that the law and the world's registers define: countries, currencies, zones, languages, VAT numbers,
bank accounts, and the numbering of documents.
"""

from __future__ import annotations

import functools
import re
import zoneinfo
from datetime import UTC, datetime, timedelta
from importlib import resources

from babel import Locale, UnknownLocaleError
from stdnum import bic as stdnum_bic
from stdnum import iban as stdnum_iban
from stdnum.eu import vat as stdnum_vat
from stdnum.exceptions import InvalidChecksum, ValidationError

from adapters.site_files.scalars import Scalar, WrongTextError
from billing.money import minor_digits
from metering.refusal import Refusal


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


COUNTRY = Scalar(
    "a country", "ISO 3166-1 alpha-2 in capitals, such as LT", _country, {"enum": sorted(countries())}
)
CURRENCY = Scalar(
    "a currency",
    "ISO 4217 with at most two decimals, such as EUR",
    _currency,
    {"type": "string", "pattern": "^[A-Z]{3}$"},
)
ZONE = Scalar(
    "a time zone",
    "an IANA zone with whole-hour offsets, such as Europe/Vilnius",
    _zone,
    {"enum": sorted(zones())},
)
LANGUAGE = Scalar("a language", "BCP 47, such as lt or en-GB", _language)
VAT_ID = Scalar("a VAT number", "country prefix and number, such as LT100001234510", _vat_id)
IBAN = Scalar("an IBAN", "with right check digits; blanks may be left out", _iban)
BIC = Scalar("a BIC", "8 or 11 letters and digits, such as CBVILT2X", _bic)
NUMBERING = Scalar(
    "a numbering pattern",
    "letters, digits and / _ . - around one {n} or {n:06} and at most one {yyyy}, such as TLC-{yyyy}-{n:06}",
    _numbering,
)
