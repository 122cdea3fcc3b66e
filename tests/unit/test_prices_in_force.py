"""The prices that hold at an instant: which version, row, band and window, at which factor, and until when."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from usage_cells import site_facts

from adapters.prices import read_instant
from billing.facts import Facts
from billing.prices_asked import Question, prices_in_force, with_holidays_ahead
from billing.prices_in_force import window_in_force
from metering.refusal import Refusal
from reports.prices import price_foot, price_head, price_text, prices_json

SITE = """
kind: operator
id: telecentras
name: AB Pavyzdys
country: LT
currency: EUR
timezone: Europe/Vilnius
default_tariff: vilnius
---
{kind: node, id: vilnius-1, operator: telecentras, region: LT-VL}
---
{kind: node, id: roma-1, operator: telecentras, region: IT-RM}
---
{kind: customer, id: acme, operator: telecentras, name: Acme UAB, country: LT, segment: sme}
---
{kind: customer, id: walk-in, operator: telecentras, name: Walk In, country: LT}
---
kind: tariff
id: vilnius
operator: telecentras
currency: EUR
valid_from: 2026-10-01
prices:
  - {models: ["qwen3-*"], regions: [LT-*], prompt_over: 128_000, input: 0.60, output: 2.40}
  - models: ["qwen3-*"]
    regions: [LT-*]
    input: 0.40
    cached_input: 0.10
    output: {graduated: [{up_to: 50_000_000, price: 1.60}, {price: 1.20}]}
  - {models: ["llama-*"], input: 0.60, output: {package: {size: 1_000_000, price: 2.00}}}
windows:
  - {name: night, days: [mon, tue, wed, thu, fri], hours: "22:00-06:00", factor: 0.5}
  - {name: weekend, days: [sat, sun, holiday], hours: "00:00-24:00", factor: 0.7}
  - name: spot
    hours: "10:00-12:00"
    series: {file: spot.csv, first: 2026-10-05T07:00:00Z, prices: [40, 40.1]}
    steps: [{up_to: 40, factor: 0.6}, {factor: 1.0}]
segments: {sme: 15%}
included: {input: 1_000_000, output: 10}
minimum: 5.00
---
kind: tariff
id: vilnius
operator: telecentras
currency: EUR
valid_from: 2027-01-01
prices: [{models: ["*"], input: 1, output: 1}]
---
{kind: tariff, id: other, operator: telecentras, currency: EUR, prices: [{models: ["*"], input: 1, output: 1}]}
---
kind: contract
customer: acme
tariff: vilnius
valid_from: 2026-10-20
prices: [{models: ["qwen3-32b"], only: true, input: 0.30, output: 1.00}]
discount: 10%
included: {output: 5_000_000}
commitment: 1000.00
fees: [{name: Reserved capacity, amount: 500.00}]
"""


def answer(at: str, fixed: dict[str, list[str]] | None = None, **asked: str) -> dict[str, Any]:
    """What `tally tariff show vilnius --at …` says."""
    instant = datetime.fromisoformat(at)
    facts: Facts = with_holidays_ahead(site_facts(SITE), instant, fixed or {})
    return prices_json(prices_in_force(facts, Question(asked.pop("tariff", "vilnius"), instant, **asked)))


def refusal(at: str, **asked: str) -> Refusal:
    with pytest.raises(Refusal) as refused:
        answer(at, None, **asked)
    return refused.value


def prices(document: dict[str, Any]) -> dict[tuple[str, str], list[str]]:
    """The prices in force by (row, meter), tier after tier."""
    return {
        (row["price_row"], meter["meter"]): [tier["unit_price"] for tier in meter["tiers"]]
        for row in document["prices"]
        for meter in row["meters"]
        if meter["tiers"]
    }


def test_at_night_a_price_is_its_list_price_times_the_windows_factor() -> None:
    found = answer("2026-10-07T23:30+03:00", model="qwen3-32b", region="LT-VL")
    assert found["window"] | {"days": None} == {
        "name": "night",
        "factor": "0.5",
        "days": None,
        "hours": "22:00-06:00",
        "series": None,
        "series_price": None,
        "step": None,
        "place": None,
    }
    assert prices(found) == {
        ("tariff:2", "input"): ["0.2"],
        ("tariff:2", "cached_input"): ["0.05"],
        ("tariff:2", "output"): ["0.8", "0.6"],
        ("tariff:1", "input"): ["0.3"],
        ("tariff:1", "output"): ["1.2"],
    }


def test_rows_for_long_prompts_hold_in_their_bands_only() -> None:
    found = answer("2026-10-07T15:00+03:00", model="qwen3-32b", region="LT-VL")
    assert [(row["price_row"], row["prompt_over"], row["prompt_up_to"]) for row in found["prices"]] == [
        ("tariff:2", None, 128_000),
        ("tariff:1", 128_000, None),
    ]


def test_without_a_region_each_region_of_the_nodes_says_which_row_it_has() -> None:
    found = answer("2026-10-07T15:00+03:00", model="qwen3-32b")
    assert [(row["price_row"], row["in_regions"]) for row in found["prices"]] == [
        (None, ["IT-RM"]),
        ("tariff:2", ["LT-VL"]),
        ("tariff:1", ["LT-VL"]),
    ]
    everywhere = answer("2026-10-07T15:00+03:00", model="llama-3")
    assert [row["in_regions"] for row in everywhere["prices"]] == [["IT-RM", "LT-VL"]]


def test_a_package_costs_the_same_in_every_window() -> None:
    found = answer("2026-10-10T12:00+03:00", model="llama-3")
    [row] = found["prices"]
    assert [meter for meter in row["meters"] if meter["meter"] == "output"] == [
        {
            "meter": "output",
            "pricing": "package",
            "counted_as": None,
            "unit": "package",
            "price_base": 1,
            "package_size": 1_000_000,
            "tiers": [{"tier": None, "up_to": None, "list_price": "2", "unit_price": "2"}],
        }
    ]
    assert prices(found)["tariff:3", "input"] == ["0.42"]


def test_a_person_reads_of_a_package_what_it_holds_and_that_its_price_is_for_each() -> None:
    text = price_text(answer("2026-10-10T12:00+03:00", model="llama-3"))
    said = " ".join(" ".join(text).split())
    assert "output package of 1,000,000 tokens 2 1 2" in said
    assert "per 1,000,000, packages per started package, without VAT" in said
    assert max(map(len, text)) <= 80


def test_a_meter_without_a_price_says_as_which_it_counts() -> None:
    found = answer("2026-10-07T15:00+03:00", model="qwen3-32b", region="LT-VL")
    meters = {
        meter["meter"]: (meter["pricing"], meter["counted_as"]) for meter in found["prices"][1]["meters"]
    }
    assert meters == {
        "input": ("plain", None),
        "cached_input": ("counted", "input"),
        "output": ("plain", None),
        "reasoning": ("counted", "output"),
        "requests": ("free", None),
        "audio_seconds": ("not_priced", None),
    }


def test_the_hour_that_the_clock_shows_twice_is_two_hours_and_both_are_sundays() -> None:
    for at, local in (
        ("2026-10-25T03:30+03:00", "2026-10-25T03:30:00+03:00"),
        ("2026-10-25T03:30+02:00", "2026-10-25T03:30:00+02:00"),
    ):
        found = answer(at)
        assert (found["local"], found["window"]["name"]) == (local, "weekend")


def test_a_night_before_a_holiday_goes_on_into_it_and_the_rest_of_it_is_the_holidays() -> None:
    # 24 December 2026 is a Thursday and, like 25 December, a holiday in Lithuania
    assert answer("2026-12-24T05:59+02:00")["window"]["name"] == "night"
    assert answer("2026-12-24T06:00+02:00")["window"]["name"] == "weekend"


def test_holidays_that_a_close_fixed_win_in_their_month() -> None:
    assert answer("2026-12-24T12:00+02:00", {"LT": []})["window"]["name"] == "base"
    assert answer("2026-11-24T12:00+02:00", {"LT": ["2026-11-24"]})["window"]["name"] == "weekend"


def test_a_series_window_says_the_hours_price_and_its_step() -> None:
    at_ten, at_eleven = (answer(f"2026-10-05T{hour}:15+03:00")["window"] for hour in (10, 11))
    assert [at_ten[key] for key in ("name", "factor", "series_price", "step")] == ["spot:1", "0.6", "40", 1]
    assert [at_eleven[key] for key in ("name", "factor", "series_price", "step")] == [
        "spot:2",
        "1",
        "40.1",
        2,
    ]


def test_an_hour_without_a_price_in_its_series_has_no_price() -> None:
    found = answer("2026-10-06T10:00+03:00", model="qwen3-32b", region="LT-VL")
    assert (found["window"]["name"], found["window"]["factor"]) == ("spot", None)
    assert prices(found)["tariff:2", "input"] == [None]
    assert "spot.csv has no price for this hour" in price_head(found)[2]


def test_the_next_change_is_the_windows_edge_and_the_next_version_after_it() -> None:
    found = answer("2026-10-07T23:30+03:00")
    assert [(change["local"], change["what"]) for change in found["changes"]] == [
        ("2026-10-08T06:00:00+03:00", "no window, factor 1"),
        ("2027-01-01T00:00:00+02:00", "tariff vilnius@2027-01-01 begins"),
    ]
    mine = answer("2026-10-07T23:30+03:00", customer="walk-in")
    assert mine["changes"] == found["changes"]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 24 * 120))
def test_until_the_next_change_each_hour_has_the_same_window_and_from_then_on_another(hours: int) -> None:
    instant = datetime(2026, 10, 1, tzinfo=UTC) + timedelta(hours=hours)
    facts = with_holidays_ahead(site_facts(SITE), instant, {})
    [tariff, *_] = [each for each in facts.tariffs["vilnius"] if each.windows]
    changes = prices_in_force(facts, Question("vilnius", instant)).changes
    if not changes or changes[0].what.startswith("tariff"):
        return
    now, then = (window_in_force(tariff, facts, each) for each in (instant, changes[0].at))
    assert (then.name, then.factor) != (now.name, now.factor)
    while instant < changes[0].at:
        each = window_in_force(tariff, facts, instant)
        assert (each.name, each.factor) == (now.name, now.factor)
        instant += timedelta(hours=1)


CHANGING = (
    SITE.replace("default_tariff: vilnius", "default_tariff: vilnius\nvalid_until: 2029-01-01")
    + """
---
{kind: node, id: vilnius-1, operator: telecentras, region: LT-KA, valid_from: 2027-03-01}
---
{kind: contract, customer: walk-in, tariff: vilnius, valid_from: 2027-02-01, valid_until: 2027-05-01}
---
{kind: customer, id: walk-in, operator: telecentras, name: Walk In, country: LT, segment: sme, valid_from: 2027-04-01}
---
{kind: operator, id: telecentras, name: AB Pavyzdys, country: LT, currency: EUR, timezone: Europe/Vilnius,
 default_tariff: other, valid_from: 2027-06-01}
---
{kind: customer, id: walk-in, operator: telecentras, name: Walk In, country: LT, segment: sme,
 valid_from: 2027-07-01, valid_until: 2027-08-01}
"""
)


@pytest.mark.parametrize(
    ("at", "change"),
    [
        ("2027-01-15", "contract walk-in@2027-02-01 begins"),
        ("2027-02-15", "node vilnius-1 is in LT-KA instead of LT-VL"),
        ("2027-03-15", "customer walk-in is in segment sme instead of none, for that whole month"),
        ("2027-04-15", "contract walk-in@2027-02-01 ends"),
        ("2027-05-15", "telecentras's default tariff is other instead of vilnius"),
    ],
)
def test_a_customers_next_change_is_whichever_version_comes_next(at: str, change: str) -> None:
    facts = with_holidays_ahead(site_facts(CHANGING), datetime.fromisoformat(f"{at}T00:00Z"), {})
    instant = datetime.fromisoformat(f"{at}T00:00Z")
    asked = prices_in_force(facts, Question("vilnius", instant, customer="walk-in"))
    assert [each.what for each in asked.changes] == [change]


def test_only_nodes_of_the_region_asked_for_change_its_prices() -> None:
    instant = datetime(2027, 2, 15, tzinfo=UTC)
    facts = with_holidays_ahead(site_facts(CHANGING), instant, {})
    said = {
        region: [
            each.what for each in prices_in_force(facts, Question("vilnius", instant, region=region)).changes
        ]
        for region in ("LT-VL", "IT-RM")
    }
    assert said == {"LT-VL": ["node vilnius-1 is in LT-KA instead of LT-VL"], "IT-RM": []}


def test_a_customer_whose_declaration_has_ended_is_refused_with_its_versions() -> None:
    facts, instant = site_facts(CHANGING), datetime(2027, 9, 1, tzinfo=UTC)
    with pytest.raises(Refusal) as refused:
        prices_in_force(facts, Question("vilnius", instant, customer="walk-in"))
    assert "walk-in@2027-07-01 from 2027-07-01 until 2027-08-01" in refused.value.remedy


def test_the_last_version_knows_no_change() -> None:
    found = answer("2027-05-01T00:00+03:00")
    assert found["changes"] == []
    assert list(price_foot(found))[-1] == "next: no change is known"


def test_a_customers_rows_come_first_with_its_discounts_and_what_is_free() -> None:
    found = answer("2026-11-02T12:00+02:00", model="qwen3-32b", region="LT-VL", customer="acme")
    assert (found["contract_version"], found["segment"]) == ("acme@2026-10-20", "sme")
    assert prices(found)["contract:1", "input"] == ["0.21"]  # All Souls' Day is a holiday
    assert (found["segment_discount"], found["contract_discount"]) == ("15", "10")
    assert (found["minimum"], found["commitment"]) == ("5.00", "1000.00")
    assert found["fees"] == [{"name": "Reserved capacity", "amount": "500.00", "every": "month"}]
    assert found["included"] == [
        {"meter": "input", "quantity": 1_000_000, "version": "vilnius@2026-10-01"},
        {"meter": "output", "quantity": 5_000_000, "version": "acme@2026-10-20"},
    ]
    assert "commitment: 1000.00 EUR a month" in list(price_foot(found))


def test_before_its_contract_a_customer_has_the_tariffs_prices() -> None:
    found = answer("2026-10-19T15:00+03:00", model="qwen3-32b", region="LT-VL", customer="acme")
    assert found["contract_version"] is None
    assert found["changes"][1]["what"] == "contract acme@2026-10-20 begins"


def test_what_is_not_there_is_refused_with_what_is() -> None:
    at = "2026-10-19T15:00+03:00"
    assert (refusal("2026-09-01T00:00Z").code, refusal("2026-09-01T00:00Z").remedy) == (
        "not_in_force",
        "its versions: vilnius@2026-10-01 from 2026-10-01, vilnius@2027-01-01 from 2027-01-01",
    )
    unknown = refusal(at, model="QWEN3-32b")
    assert (unknown.code, unknown.remedy) == (
        "unknown_model",
        "its rows price: qwen3-*, llama-* (case counts)",
    )
    region = refusal(at, region="DE-BY")
    assert (region.code, region.remedy) == ("unknown_region", "regions with nodes: IT-RM, LT-VL")
    customer = refusal(at, customer="acne")
    assert (customer.code, customer.remedy) == ("unknown_customer", "did you mean acme?")
    other = refusal(at, tariff="other", customer="walk-in")
    assert (other.code, other.remedy) == ("other_tariff", "tally tariff show vilnius --customer walk-in")


def test_a_region_that_a_row_names_may_be_asked_for_before_a_node_is_there() -> None:
    found = answer("2026-10-19T15:00+03:00", region="LT-KL")
    assert [row["price_row"] for row in found["prices"]] == ["tariff:1", "tariff:2", "tariff:3"]


def test_a_person_reads_a_block_for_each_row_with_a_line_for_each_meter_and_tier() -> None:
    text = price_text(answer("2026-10-07T23:30+03:00", model="qwen3-32b", region="LT-VL"))
    at = next(number for number, line in enumerate(text) if line.startswith("  meter"))
    assert [" ".join(line.split()) for line in text[at : at + 7]] == [
        "meter how list price factor price",
        "tariff:2: qwen3-* in LT-VL, prompts to 128,000",
        "input plain 0.4 0.5 0.2",
        "cached_input plain 0.1 0.5 0.05",
        "output graduated 1: up to 50,000,000 1.6 0.5 0.8",
        "graduated 2: over 50,000,000 1.2 0.5 0.6",
        "reasoning counted as output",
    ]
    assert len({len(line) for line in text[at + 2 : at + 6]}) == 1, "figures end in one column"


def test_whatever_is_asked_is_read_in_eighty_columns() -> None:
    for asked in ({}, {"model": "qwen3-32b"}, {"model": "qwen3-32b", "customer": "acme"}):
        text = price_text(answer("2026-10-25T03:30+03:00", None, **asked))
        assert max(map(len, text)) <= 80, text


def keys_of(value: object) -> set[str]:
    """Every key of a JSON document, however deep; of `segments` the names are somebody's own."""
    if isinstance(value, dict):
        inner = [keys_of(each) for key, each in value.items() if key != "segments"]
        return set(value).union(*inner)
    return set().union(*map(keys_of, value)) if isinstance(value, list) else set()


def test_the_keys_of_the_document_are_those_in_docs_commands_md() -> None:
    page = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")
    section = page.partition("### `tally tariff show ID`")[2].partition("\n### ")[0]
    [told] = re.findall(r"^    \{tariff, .*?\}$", section, re.MULTILINE | re.DOTALL)
    found = answer("2026-11-02T12:00+02:00", model="qwen3-32b", region="LT-VL", customer="acme")
    assert set(re.findall(r"[a-z_]+", told)) == keys_of(found)


VILNIUS = site_facts(SITE).operator[0].zone


def test_a_local_time_without_an_offset_is_taken_where_it_is_one_instant() -> None:
    assert read_instant("2026-10-25T05:30", VILNIUS) == datetime(2026, 10, 25, 3, 30, tzinfo=UTC)
    assert read_instant("2026-10-25", VILNIUS) == datetime(2026, 10, 24, 21, tzinfo=UTC)
    assert read_instant("2026-10-25T03:30+03:00", VILNIUS) == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("2026-10-25T03:30", "ambiguous_time", "2026-10-25T03:30+03:00 or 2026-10-25T03:30+02:00"),
        ("2026-03-29T03:30", "bad_time", "skip 03:30 on 2026-03-29"),
        ("yesterday", "bad_time", "not a time: yesterday"),
        ("9999-12-31", "bad_time", "not a time: 9999-12-31"),
        ("0001-01-01T00:00+14:00", "bad_time", "not a time"),
    ],
)
def test_a_time_that_is_no_instant_or_two_is_refused(text: str, code: str, said: str) -> None:
    with pytest.raises(Refusal) as refused:
        read_instant(text, VILNIUS)
    assert refused.value.code == code
    assert said in f"{refused.value.what} {refused.value.remedy}"


def test_factors_are_exact() -> None:
    found = answer("2026-10-07T23:30+03:00", model="qwen3-32b", region="LT-VL")
    for row in found["prices"]:
        for meter in row["meters"]:
            for tier in meter["tiers"]:
                assert Decimal(tier["unit_price"]) == Decimal(tier["list_price"]) * Decimal("0.5")


def test_a_unit_price_is_the_one_that_is_billed_to_its_last_digit() -> None:
    night = datetime.fromisoformat("2026-10-07T23:30+03:00")
    long = SITE.replace("input: 0.60, output: 2.40", "input: 123456789012.123456789012, output: 2.40")
    facts = with_holidays_ahead(site_facts(long.replace("factor: 0.5", "factor: 0.333333")), night, {})
    found = prices_json(prices_in_force(facts, Question("vilnius", night, model="qwen3-32b", region="LT-VL")))
    assert prices(found)["tariff:1", "input"] == ["41152221851.778148221851736996"]
