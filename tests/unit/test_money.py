"""Exact money: rounding, text, splitting."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing import money
from metering.refusal import Refusal

MINORS = st.integers(-(10**14), 10**14)
PRICES = st.decimals(0, 10**6, places=9)


@pytest.mark.parametrize(
    ("value", "rounded"),
    [
        ("0.5", 1),
        ("-0.5", -1),
        ("1.5", 2),
        ("2.5", 3),
        ("-2.5", -3),
        ("2.4999999999999999999999999999999", 2),
    ],
)
def test_halves_go_away_from_zero(value: str, rounded: int) -> None:
    assert money.round_half_away(Decimal(value)) == rounded


def test_an_amount_rounds_once_after_the_whole_product() -> None:
    # 12,500 tokens at 0.40 per million are 0.005 EUR: half a cent
    assert money.line_amount(12_500, Decimal("0.40"), 1_000_000, "EUR") == 1
    assert money.line_amount(12_499, Decimal("0.40"), 1_000_000, "EUR") == 0
    assert money.line_amount(-12_500, Decimal("0.40"), 1_000_000, "EUR") == -1
    assert money.line_amount(1_250_000, Decimal("0.40"), 1_000_000, "ISK") == 1


@given(st.integers(-(10**18), 10**18), PRICES)
def test_line_amounts_are_the_nearest_cent(quantity: int, price: Decimal) -> None:
    exact = Fraction(quantity) * Fraction(price) * 100 / 1_000_000
    amount = money.line_amount(quantity, price, 1_000_000, "EUR")
    assert abs(amount - exact) <= Fraction(1, 2)
    assert abs(amount) >= abs(exact) - Fraction(1, 2)


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [
        (0, "EUR", "0.00"),
        (5, "EUR", "0.05"),
        (-5, "EUR", "-0.05"),
        (123456, "SEK", "1234.56"),
        (-123, "ISK", "-123"),
    ],
)
def test_amounts_are_text_with_the_currencys_digits(minor: int, currency: str, text: str) -> None:
    assert money.format_minor(minor, currency) == text
    assert money.parse_amount(text, currency) == minor


@given(st.integers(-1000 * money.MAX_MINOR, 1000 * money.MAX_MINOR), st.sampled_from(["EUR", "ISK", "SEK"]))
def test_an_amount_reads_back_as_it_was_written(minor: int, currency: str) -> None:
    assert money.parse_amount(money.format_minor(minor, currency), currency) == minor


@pytest.mark.parametrize("text", ["", "1,5", "1.234", "1e3", "+1", "0x1", "1.", ".5", "٣"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(Refusal) as refused:
        money.parse_amount(text, "EUR")
    assert refused.value.code == "bad_amount"


@pytest.mark.parametrize("currency", ["BHD", "XXX", "eur", "EURO", ""])
def test_currencies_with_more_than_two_decimals_or_unknown_are_refused(currency: str) -> None:
    with pytest.raises(Refusal) as refused:
        money.minor_digits(currency)
    assert refused.value.code == "unsupported_currency"


@pytest.mark.parametrize(
    ("price", "text"),
    [
        ("0.40", "0.4"),
        ("1E+2", "100"),
        ("1E-9", "0.000000001"),
        ("-0.0", "0"),
        ("100", "100"),
        ("0.10", "0.1"),
    ],
)
def test_prices_are_shortest_text_and_never_an_exponent(price: str, text: str) -> None:
    assert money.format_price(Decimal(price)) == text


def test_a_left_over_cent_goes_to_the_largest_remainder_then_to_the_first_named() -> None:
    thirds = [Decimal("33.3"), Decimal("33.3"), Decimal("33.4")]
    assert money.split(100, thirds) == (33, 33, 34)
    assert money.split(1, [Decimal(50), Decimal(50)]) == (1, 0)
    assert money.split(-1, [Decimal(50), Decimal(50)]) == (-1, 0)
    assert money.split(0, [Decimal(100)]) == (0,)


@given(
    MINORS,
    st.lists(st.integers(0, 10_000), min_size=1, max_size=6).filter(lambda parts: sum(parts) <= 10_000),
)
def test_parts_sum_to_the_whole_and_each_is_within_a_cent(total: int, hundredths: list[int]) -> None:
    percents = [Decimal(part).scaleb(-2) for part in (*hundredths, 10_000 - sum(hundredths))]
    parts = money.split(total, percents)
    assert sum(parts) == total
    for part, percent in zip(parts, percents, strict=True):
        assert abs(part - Fraction(total) * Fraction(percent) / 100) < 1
