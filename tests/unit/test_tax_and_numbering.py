"""VAT cases by country and day; numbers of documents."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.numbering import check_numbering, render, series
from billing.ports import Series
from billing.site import Customer, Operator
from billing.tax import TaxCase, tax_case, taxes
from metering.refusal import Refusal


def operator(country: str, vat_id: str | None = "XX1") -> Operator:
    return Operator("op", "Operator", country, "EUR", "UTC", vat_id=vat_id)


def customer(country: str) -> Customer:
    return Customer("acme", "op", "Acme", country)


@pytest.mark.parametrize(
    ("country", "day", "rate"),
    [
        ("LT", date(2026, 10, 31), "21"),
        ("LV", date(2026, 10, 31), "21"),
        ("EE", date(2023, 12, 31), "20"),
        ("EE", date(2024, 1, 31), "22"),
        ("EE", date(2025, 6, 30), "22"),
        ("EE", date(2025, 7, 31), "24"),
        ("FI", date(2024, 8, 31), "24"),
        ("FI", date(2024, 9, 30), "25.5"),
        ("DE", date(2020, 10, 31), "16"),
        ("DE", date(2026, 10, 31), "19"),
        ("IT", date(2026, 10, 31), "22"),
        ("SE", date(2026, 10, 31), "25"),
    ],
)
def test_the_rate_is_that_of_the_country_on_the_periods_last_day(country: str, day: date, rate: str) -> None:
    assert tax_case(operator(country), customer(country), day) == TaxCase("S", Decimal(rate))


@pytest.mark.parametrize(
    ("seller", "buyer"),
    [
        (operator("LT"), customer("LV")),
        (operator("LT", None), customer("LT")),
        (operator("FR"), customer("FR")),
    ],
    ids=["abroad", "operator without VAT number", "country without a known rate"],
)
def test_every_other_case_is_refused_by_name(seller: Operator, buyer: Customer) -> None:
    with pytest.raises(Refusal) as refused:
        tax_case(seller, buyer, date(2026, 10, 31))
    assert refused.value.code == "tax_case_not_supported"


def test_tax_is_rounded_once_per_category_and_rate() -> None:
    finnish, reduced = TaxCase("S", Decimal("25.5")), TaxCase("S", Decimal(10))
    found = taxes([(finnish, 101), (finnish, 101), (reduced, 5), (finnish, -2)])
    assert [(tax.rate, tax.basis, tax.amount) for tax in found] == [
        (Decimal(10), 5, 1),
        (Decimal("25.5"), 200, 51),
    ]


def test_numbers_follow_the_pattern() -> None:
    assert render("TLC-{yyyy}-{n:06}", 2026, 42) == "TLC-2026-000042"
    assert render("A{n}", 2026, 42) == "A42"
    assert render("A{n:02}", 2026, 4242) == "A4242"


def test_a_series_starts_anew_each_year_only_where_the_pattern_holds_the_year() -> None:
    assert series("op", "invoice", "TLC-{yyyy}-{n:06}", 2026) == Series("op", "invoice", 2026)
    assert series("op", "invoice", "TLC-{n:06}", 2026) == Series("op", "invoice", 0)


@pytest.mark.parametrize(
    ("numbering", "shared"),
    [
        ({"invoice": "A{n}", "credit_note": "A{n:06}"}, "A111111"),
        ({"invoice": "CN-{yyyy}-{n:06}"}, "CN-1111-111111"),
        ({"invoice": "T-{yyyy}-{n}", "credit_note": "T-2026-{n}"}, "T-2026-1"),
        ({"invoice": "A{n}", "credit_note": "A1{n}"}, "A11"),
        ({"invoice": "{n}-{yyyy}", "self_billed_invoice": "{yyyy}-{n:02}"}, "1111-1111"),
        ({"invoice": "{n:02}", "credit_note": "0{n}"}, "01"),
    ],
    ids=[
        "padding aside",
        "another's default",
        "a year spelt out",
        "a digit more",
        "turned round",
        "a nought",
    ],
)
def test_two_kinds_that_could_share_a_number_are_refused_with_one(
    numbering: dict[str, str], shared: str
) -> None:
    with pytest.raises(Refusal, match=f"could share a number, such as {shared}$") as refused:
        check_numbering(numbering)
    assert refused.value.code == "bad_numbering"


@pytest.mark.parametrize(
    "numbering",
    [
        {"invoice": "TLC-{yyyy}-{n:06}", "credit_note": "TLCK-{yyyy}-{n:06}"},
        {"invoice": "{yyyy}/{n:04}-F", "credit_note": "{yyyy}/{n:04}-K"},
        {"invoice": "A{n}", "credit_note": "A0{n}"},
    ],
    ids=["prefixes", "endings", "no count begins with 0"],
)
def test_kinds_whose_numbers_are_apart_are_taken(numbering: dict[str, str]) -> None:
    check_numbering(numbering)


_LITERAL = st.text(alphabet="A1-", max_size=3)
_PATTERN = st.tuples(_LITERAL, st.sampled_from(["{n}", "{n:02}"]), _LITERAL).map("".join)


@given(_PATTERN, _PATTERN, st.integers(1, 2000), st.integers(1, 2000))
def test_patterns_that_are_taken_never_meet(one: str, other: str, first: int, second: int) -> None:
    if render(one, 2026, first) == render(other, 2026, second):
        with pytest.raises(Refusal):
            check_numbering({"invoice": one, "credit_note": other})


def test_the_defaults_are_numbers_apart() -> None:
    check_numbering({})
