"""What each scalar type of site files takes, as which canonical text, and what it refuses and why."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.site_files.legal_scalars import (
    COUNTRY,
    CURRENCY,
    IBAN,
    LANGUAGE,
    NUMBERING,
    VAT_ID,
    ZONE,
    doubtful_vat_id,
)
from adapters.site_files.scalars import DAY, PERCENT, TEXT, Scalar, WrongTextError
from adapters.site_files.tariff_scalars import PRICE, UNITS
from billing.money import format_price


@pytest.mark.parametrize(
    ("scalar", "text", "canonical"),
    [
        (PRICE, "0.40", "0.4"),
        (PRICE, "1_000.50", "1000.5"),
        (PRICE, "007", "7"),
        (PRICE, "0.00", "0"),
        (UNITS, "50_000_000", "50000000"),
        (PERCENT, "15%", "15%"),
        (PERCENT, "2.50 %", "2.5%"),
        (PERCENT, "100%", "100%"),
        (DAY, "2028-02-29", "2028-02-29"),
        (TEXT, "  Acme UAB ", "Acme UAB"),
        (COUNTRY, "NO", "NO"),
        (CURRENCY, "ISK", "ISK"),
        (ZONE, "UTC", "UTC"),
        (ZONE, "America/St_Thomas", "America/St_Thomas"),
        (LANGUAGE, "en-GB", "en-GB"),
        (VAT_ID, "LT100001234510", "LT100001234510"),  # docs/site-files.md's
        (VAT_ID, "EL 094 259 216", "EL094259216"),
        (VAT_ID, "CHE-116.281.710", "CHE116281710"),  # outside the EU only the rough shape is known
        (IBAN, "LT02 9999 9000 0000 0001", "LT029999900000000001"),
        (NUMBERING, "{yyyy}/{n}", "{yyyy}/{n}"),
    ],
)
def test_a_good_text_becomes_its_canonical_one(scalar: Scalar, text: str, canonical: str) -> None:
    assert scalar.read(text) == canonical
    assert scalar.read(canonical) == canonical


@pytest.mark.parametrize(
    ("scalar", "text", "why"),
    [
        (PRICE, "-1", "is negative"),
        (PRICE, "1e3", "has an exponent"),
        (PRICE, "1,5", "has a decimal comma"),
        (PRICE, ".5", "is not a decimal number"),
        (PRICE, "1.", "is not a decimal number"),
        (PRICE, "1__0", "is not a decimal number"),
        (PRICE, "٣", "is not a decimal number"),  # a digit, but not one of ours
        (PRICE, "1" * 13, "has too many digits"),
        (PRICE, "NaN", "is not a decimal number"),
        (UNITS, "0", "is out of range"),
        (UNITS, "9" * 5000, "is out of range"),
        (UNITS, "1.5", "is not a whole number"),
        (PERCENT, "15", "has no % sign"),
        (PERCENT, "100.1%", "is more than 100%"),
        (DAY, "20261001", "is not a day"),
        (DAY, "1999-12-31", "is not between 2000 and 2199"),
        (TEXT, "a\nb", "holds a line break or another control character"),
        (TEXT, " ", "is empty"),
        (COUNTRY, "EU", "is not a country"),
        (CURRENCY, "TND", "is not a currency with at most two decimals"),
        (ZONE, "europe/vilnius", "is not a time zone"),
        (ZONE, "../../etc/passwd", "is not a time zone"),
        (
            ZONE,
            "Australia/Lord_Howe",
            "has a UTC offset that is not whole hours",
        ),  # half an hour of summer time
        (ZONE, "Asia/Kathmandu", "has a UTC offset that is not whole hours"),
        (LANGUAGE, "", "is not a language"),
        (VAT_ID, "LT123", "does not have the shape of its country's VAT numbers"),
        (VAT_ID, "100001234510", "is not a VAT number"),
        (IBAN, "LT12 1000 0111 0100 1001", "has wrong check digits"),
        (IBAN, "LT…", "is not an IBAN"),
        (NUMBERING, "{n}{n}", "is not a numbering pattern"),
        (NUMBERING, "{0.__class__}{n}", "is not a numbering pattern"),
    ],
)
def test_a_bad_text_is_refused_with_the_reason(scalar: Scalar, text: str, why: str) -> None:
    with pytest.raises(WrongTextError) as refused:
        scalar.read(text)
    assert str(refused.value) == why


def test_wrong_check_digits_of_a_vat_number_are_doubtful() -> None:
    assert not doubtful_vat_id("LT100001234510")
    assert doubtful_vat_id("LT100001234511")
    assert not doubtful_vat_id("CHE116281710")


@given(st.decimals(0, 10**12 - 1, places=6), st.integers(0, 6))
def test_a_price_is_the_same_number_in_its_shortest_text(price: Decimal, zeros: int) -> None:
    canonical = PRICE.read(f"{price:f}" + "0" * zeros)
    assert Decimal(canonical) == price
    assert canonical == format_price(price)


@given(
    st.text(max_size=30),
    st.sampled_from([PRICE, UNITS, PERCENT, DAY, ZONE, LANGUAGE, VAT_ID, IBAN, NUMBERING]),
)
def test_any_text_is_read_or_refused(text: str, scalar: Scalar) -> None:
    try:
        canonical = scalar.read(text)
    except WrongTextError:
        return
    assert scalar.read(canonical) == canonical
