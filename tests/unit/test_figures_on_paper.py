"""Figures are written in a language's own marks, and every digit survives."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.money import format_minor, format_price
from billing.period import Period
from reports import figures
from reports.languages import LANGUAGES, language_of, words

NBSP = "\u00a0"
MARKS = {"en": (",", "."), "lt": (NBSP, ",")}


def digits_of(text: str, language: str) -> str:
    """What a reader of that language takes the figure to be, as plain decimal text."""
    group, decimal = MARKS[language]
    return text.replace(group, "").replace(decimal, ".").replace(figures.MINUS, "-")


def test_amounts_prices_and_quantities_in_both_languages() -> None:
    assert figures.amount(-123_456, "EUR", "en") == "−1,234.56"
    assert figures.amount(-123_456, "EUR", "lt") == f"−1{NBSP}234,56"
    assert figures.amount(123_456, "ISK", "en") == "123,456"
    assert figures.money(5, "EUR", "en") == f"0.05{NBSP}EUR"
    assert figures.quantity(9_876_543_210, "lt") == f"9{NBSP}876{NBSP}543{NBSP}210"
    assert figures.exact(Decimal("0.40"), "en") == "0.4"
    assert figures.exact(Decimal("1.2E-6"), "lt") == "0,0000012"
    assert figures.percent(Decimal("25.5"), "en") == "25.5%"
    assert figures.percent(Decimal(21), "lt") == f"21{NBSP}%"


def test_days_months_and_instants_in_both_languages() -> None:
    assert figures.day(date(2026, 10, 31), "en") == f"31{NBSP}Oct{NBSP}2026"
    assert figures.day(date(2026, 10, 31), "lt") == "2026-10-31"
    assert figures.month(Period(2026, 10), "lt") == f"2026{NBSP}m.{NBSP}spalis"
    assert figures.instant(datetime(2026, 11, 1, tzinfo=UTC), "en") == "1 Nov 2026, 00:00:00 UTC"


@given(st.integers(-(10**18), 10**18), st.sampled_from(LANGUAGES))
def test_every_digit_of_an_amount_survives(minor: int, language: str) -> None:
    assert digits_of(figures.amount(minor, "EUR", language), language) == format_minor(minor, "EUR")
    assert digits_of(figures.quantity(minor, language), language) == str(minor)


@given(st.decimals(-(10**12), 10**12, places=12), st.sampled_from(LANGUAGES))
def test_every_digit_of_a_price_survives(price: Decimal, language: str) -> None:
    assert digits_of(figures.exact(price, language), language) == format_price(price)


@pytest.mark.parametrize("text", ["", "1e5", "1,5", "NaN", "--1", ".5", "1."])
def test_what_is_not_plain_decimal_text_is_our_own_bug(text: str) -> None:
    with pytest.raises(AssertionError):
        figures.written(text, "en")


def test_a_language_without_words_is_answered_in_english() -> None:
    asked = ("lt", "LT-lt", "lt_LT", "en-GB", "fi", "", None)
    assert [language_of(each) for each in asked] == ["lt", "lt", "lt", "en", "en", "en", "en"]


def test_every_word_stands_in_every_language_with_the_same_blanks() -> None:
    for name, english in words("en").items():
        blanks = [
            sorted(part.split("}")[0] for part in text.split("{")[1:])
            for text in (english, words("lt")[name])
        ]
        assert english.strip(), name
        assert words("lt")[name].strip(), name
        assert blanks[0] == blanks[1], name
