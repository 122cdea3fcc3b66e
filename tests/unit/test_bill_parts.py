"""Fees, discounts and floors: what contracts and tariffs add to a month's lines, as a person would work it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from decimal import Decimal

from billing.bill import make_bill, segment_of
from billing.bill_part import BillPart
from billing.discount import discount_parts
from billing.facts import Facts
from billing.fees import days_in_force, fee_lines
from billing.floor import floor_part
from billing.line import FREE, UNBILLED, Line, Tier
from billing.period import Period
from billing.site import Customer, Operator
from billing.tariff import Contract, Fee, Tariff

OCTOBER = Period(2026, 10)
OPERATOR = Operator("op", "Operator", "LT", "EUR", "Europe/Vilnius", default_tariff="t")
TARIFF = Tariff("t", "op", "EUR", "Europe/Vilnius", (), segments={"sme": Decimal(15)})
CONTRACT = Contract("acme", "t", discount=Decimal(10))


def facts(
    contracts: Sequence[Contract] = (), tariffs: Sequence[Tariff] = (TARIFF,), segment: str | None = "sme"
) -> Facts:
    return Facts(
        operator=(OPERATOR,),
        customers={"acme": (Customer("acme", "op", "Acme", "LT", segment=segment),)},
        tariffs={"t": tuple(tariffs)},
        contracts={"acme": tuple(contracts)} if contracts else {},
    )


def line(
    amount: int, row: str = "tariff:1", contract: str | None = None, tier: Tier = None, tariff: str = "t"
) -> Line:
    price = Decimal(1)
    return Line(
        *(tariff, contract, row, "m", "input", "base", tier, amount * 10_000, "token", 1_000_000),
        *(price, price, price, amount, amount * 10_000),
    )


def floor(lines: Sequence[Line], of: Facts) -> tuple[str, int] | None:
    part = floor_part("acme", OCTOBER, lines, (), of)
    return None if part is None else (part.reason, part.amount)


def fees(*contracts: Contract, period: Period = OCTOBER) -> list[tuple[str | None, str | None, int]]:
    return [(each.contract_version, each.item, each.amount) for each in fee_lines(contracts, period, "EUR")]


def test_a_months_fee_is_shared_by_the_days_of_each_version() -> None:
    first = Contract("acme", "t", fees=(Fee("Reserved", 50_000),))
    second = replace(first, valid_from=date(2026, 10, 11), fees=(Fee("Reserved", 60_000),))
    assert fees(first, second) == [("acme", "Reserved", 16_129), ("acme@2026-10-11", "Reserved", 40_645)]
    assert fees(first) == [("acme", "Reserved", 50_000)]


def test_a_fee_ends_with_its_contract() -> None:
    ending = Contract("acme", "t", valid_until=date(2026, 10, 16), fees=(Fee("Reserved", 31_000),))
    assert fees(ending) == [("acme", "Reserved", 15_000)]
    assert fees(ending, period=OCTOBER.next) == []


def test_a_version_that_is_followed_before_the_month_has_no_day_in_it() -> None:
    versions = [Contract("acme", "t", valid_from=date(2026, month, 1), valid_until=None) for month in (8, 9)]
    assert days_in_force(versions, OCTOBER) == {"acme@2026-09-01": 31}
    assert days_in_force((), OCTOBER) == {}


def test_a_version_that_ended_does_not_come_back_when_the_next_one_ends() -> None:
    versions = [Contract("acme", "t"), Contract("acme", "t", (), date(2026, 10, 5), date(2026, 10, 10))]
    assert days_in_force(versions, OCTOBER) == {"acme": 4, "acme@2026-10-05": 5}


def test_a_fee_once_is_whole_in_the_month_in_which_it_is_first_stated() -> None:
    first = Contract("acme", "t", valid_from=date(2026, 10, 31), fees=(Fee("Setup", 9_999, "once"),))
    again = replace(first, valid_from=date(2026, 11, 5))
    assert fees(first, again) == [("acme@2026-10-31", "Setup", 9_999)]
    assert fees(first, again, period=OCTOBER.next) == []


def test_the_segment_takes_off_tariff_rows_and_the_contract_off_what_is_left_of_all() -> None:
    lines = [line(8000, contract="acme"), line(2000, "contract:1", "acme")]
    assert list(discount_parts(lines, facts([CONTRACT]), "acme", "sme")) == [
        BillPart("segment:t|acme", "Segment discount", -1200, base=8000, percent=Decimal(15)),
        BillPart("discount:t|acme", "Contract discount", -880, base=8800, percent=Decimal(10)),
    ]


def test_each_versions_lines_have_its_own_percent_and_a_half_cent_goes_away_from_zero() -> None:
    later = replace(TARIFF, valid_from=date(2026, 10, 15), segments={"sme": Decimal("2.5")})
    lines = [line(10), line(20, tariff="t@2026-10-15"), line(-20, tariff="t@2026-10-15", row="tariff:2")]
    found = list(discount_parts(lines, facts(tariffs=[TARIFF, later]), "acme", "sme"))
    assert [(part.key, part.amount, part.base) for part in found] == [("segment:t|", -2, 10)]


def test_a_segment_that_the_tariff_does_not_name_has_no_discount() -> None:
    assert list(discount_parts([line(8000)], facts(), "acme", "research")) == []
    assert list(discount_parts([line(8000)], facts(), "acme", None)) == []


def test_the_segment_is_that_of_the_periods_last_hour() -> None:
    versions = (
        Customer("acme", "op", "Acme", "LT", segment="sme"),
        Customer("acme", "op", "Acme", "LT", segment="research", valid_from=date(2026, 10, 31)),
        Customer("acme", "op", "Acme", "LT", segment="public", valid_from=date(2026, 11, 1)),
    )
    assert segment_of("acme", OCTOBER, replace(facts(), customers={"acme": versions})) == "research"


def test_a_minimum_is_asked_for_where_something_was_used_free_or_not() -> None:
    of = facts(tariffs=[replace(TARIFF, minimum=500)])
    assert floor([line(120)], of) == ("Minimum charge", 380)
    assert floor([line(0, tier=FREE)], of) == ("Minimum charge", 500)
    assert floor([line(0, tier=UNBILLED)], of) is None
    assert floor([], of) is None
    assert floor([line(500)], of) is None


def test_a_minimum_is_the_average_of_the_days_tariffs() -> None:
    later = replace(TARIFF, valid_from=date(2026, 10, 11), minimum=3100)
    assert floor([line(1)], facts(tariffs=[TARIFF, later])) == (
        "Minimum charge",
        2099,
    )  # 21 × 31.00 ÷ 31 − 0.01


def test_a_tariffs_day_may_begin_on_the_day_before_or_after_the_operators() -> None:
    day = date(2026, 10, 11)
    behind = [replace(TARIFF, timezone="America/New_York")]
    behind.append(replace(behind[0], valid_from=day, minimum=3100))
    assert floor([line(1)], facts(tariffs=behind)) == ("Minimum charge", 1999), "from the 12th in Vilnius"
    ahead = [replace(TARIFF, timezone="Pacific/Kiritimati")]
    ahead.append(replace(ahead[0], valid_from=day, minimum=3100))
    of = replace(facts(tariffs=ahead), operator=(replace(OPERATOR, timezone="Pacific/Pago_Pago"),))
    assert floor([line(1)], of) == ("Minimum charge", 2199), "from the 10th in Pago Pago"


def test_a_commitment_stands_in_for_the_minimum_on_its_days_without_usage_too() -> None:
    of = facts(
        [replace(CONTRACT, valid_from=date(2026, 10, 11), commitment=100_000)], [replace(TARIFF, minimum=500)]
    )
    assert floor([line(120)], of) == ("Commitment", 67_903 - 120)
    assert floor([], of) == ("Commitment", 67_742)


def test_a_commitment_of_nothing_is_a_statement() -> None:
    of = facts([replace(CONTRACT, commitment=0)], [replace(TARIFF, minimum=500)])
    assert floor([line(120)], of) is None


def test_after_a_contract_has_ended_the_default_tariffs_minimum_counts() -> None:
    of = facts(
        [replace(CONTRACT, commitment=0, valid_until=date(2026, 10, 16))], [replace(TARIFF, minimum=3100)]
    )
    assert floor([line(100)], of) == ("Minimum charge", 1500)  # 16 of 31 days


def test_a_bill_is_lines_discounts_the_floors_shortfall_and_fees_beside_it() -> None:
    of = facts([replace(CONTRACT, commitment=10_000, fees=(Fee("Reserved", 50_000),))])
    lines = [line(8000, contract="acme"), *fee_lines(of.contracts["acme"], OCTOBER, "EUR")]
    bill = make_bill("acme", OCTOBER, "EUR", lines, of, [])
    assert [(part.key, part.amount) for part in bill.parts] == [
        ("segment:t|acme", -1200),
        ("discount:t|acme", -680),
        ("floor", 10_000 - 6120),
    ]
    assert bill.net == 10_000 + 50_000
