"""Figures as people read them: amounts, quantities, prices, percents and days in a language's own writing.

Only the writing is a language's (Babel tells its marks and names); every digit comes from exact text. Nothing
here rounds, and no value passes through a float, so a figure on paper is the figure in the books:

    amount(-123456, "EUR", "en")      −1,234.56              lt: −1 234,56 (with no-break spaces)
    quantity(1234567, "en")           1,234,567              lt: 1 234 567
    exact(Decimal("0.0000012"), "en") 0.0000012              lt: 0,0000012

A negative figure carries a true minus sign (U+2212) in every language.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache

from babel import Locale
from babel.dates import format_date, format_datetime, format_skeleton
from babel.numbers import get_decimal_symbol, get_group_symbol

from billing.money import format_minor, format_price
from billing.period import Period
from reports.languages import locale_of

MINUS = "\u2212"
NO_BREAK_SPACE = "\u00a0"
_GROUP = 3
_DAYS = {"lv": "dd.MM.y."}  # Babel's own has the word for year in it, too long for a column


def amount(minor: int, currency: str, language: str) -> str:
    """An amount in minor units with all of the currency's digits, without its name: `1,234.50`."""
    return written(format_minor(minor, currency), language)


def money(minor: int, currency: str, language: str) -> str:
    """An amount and its currency's ISO 4217 code: `1,234.50 EUR`, never parted by a line break."""
    return f"{amount(minor, currency, language)}{NO_BREAK_SPACE}{currency}"


def quantity(count: int, language: str) -> str:
    """A whole number with its thousands parted."""
    return written(str(count), language)


def exact(value: Decimal, language: str) -> str:
    """A price or factor, every digit of it and not one more: `0.4`, never `0.40` or `4E-1`."""
    return written(format_price(value), language)


def price(value: Decimal, language: str, decimals: int = 2) -> str:
    """A price with all of its digits, and zeros up to `decimals`: `0.40`, `0.075`."""
    whole, _, fraction = format_price(value).partition(".")
    return written(f"{whole}.{fraction:0<{decimals}}" if decimals else format_price(value), language)


def percent(points: Decimal, language: str) -> str:
    """Percent points: `25.5%`, where the language parts the sign `25,5 %`."""
    return f"{exact(points, language)}{_percent_sign(language)}"


def day(value: date, language: str) -> str:
    """A day of the calendar: `31 Oct 2026`, in Lithuanian `2026-10-31`."""
    text: str = format_date(value, _DAYS.get(language, "medium"), locale_of(language))
    return text.replace(" ", NO_BREAK_SPACE)


def month(period: Period, language: str) -> str:
    """A billing period by name: `October 2026`, `2026 m. spalis`."""
    text: str = format_skeleton("yMMMM", period.first_day, locale=locale_of(language))
    return text.replace(" ", NO_BREAK_SPACE)


def instant(value: datetime, language: str) -> str:
    """An instant in UTC to the second, with the zone named: `1 Nov 2026, 00:00:00 UTC`."""
    assert value.utcoffset() is not None, "instants are aware"
    text: str = format_datetime(value, "medium", locale=locale_of(language))
    return f"{text} UTC"


def written(digits: str, language: str) -> str:
    """Plain decimal text (`-1234.50`) with the language's marks; the digits stay as they are."""
    sign, unsigned = ("-", digits[1:]) if digits.startswith("-") else ("", digits)
    whole, point, fraction = unsigned.partition(".")
    assert whole.isdecimal(), digits
    assert fraction.isdecimal() if point else not fraction, digits
    group, decimal = _marks(language)
    head = len(whole) % _GROUP or _GROUP
    parts = [whole[:head], *(whole[at : at + _GROUP] for at in range(head, len(whole), _GROUP))]
    text = group.join(parts) + (decimal + fraction if point else "")
    assert text.replace(group, "").replace(decimal, ".") == unsigned, "every digit survives"
    return MINUS + text if sign else text


@lru_cache(maxsize=16)
def _percent_sign(language: str) -> str:
    """The sign, with the space that the language puts before it."""
    pattern: str = Locale.parse(locale_of(language)).percent_formats[None].pattern
    assert pattern.endswith("%"), pattern
    return f"{NO_BREAK_SPACE}%" if NO_BREAK_SPACE in pattern else "%"


@lru_cache(maxsize=16)
def _marks(language: str) -> tuple[str, str]:
    """The marks that part thousands and decimals."""
    locale = locale_of(language)
    return get_group_symbol(locale), get_decimal_symbol(locale)
