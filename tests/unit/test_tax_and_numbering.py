"""VAT cases by country and day; numbers of documents."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

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
    "numbering",
    [{"invoice": "A{n}", "credit_note": "A{n:06}"}, {"invoice": "CN-{yyyy}-{n:06}"}],
    ids=["padding aside the same", "as another kind's default"],
)
def test_two_kinds_that_would_share_numbers_are_refused(numbering: dict[str, str]) -> None:
    with pytest.raises(Refusal) as refused:
        check_numbering(numbering)
    assert refused.value.code == "bad_numbering"


def test_the_defaults_are_numbers_apart() -> None:
    check_numbering({})
