"""A what-if told: parts that sum to the whole, tables that fit a terminal, a picture in two forms."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from zoneinfo import ZoneInfo

import pytest
from rated_bills import facts_for
from usage_cells import usage_table

from adapters.cli.tariff_simulate import simulated_json
from adapters.usage_cache import Prepared
from adapters.what_if import WhatIf, not_whole, read_periods, refused_by_a_close, simulated
from billing.hourly import hour_number, read_hourly
from billing.period import Period
from billing.usage_runs import usage_runs
from billing.what_if_compared import Comparison, Pair, with_tariff
from metering.refusal import Fault, Refusal
from reports.what_if import exact_text, what_if_json, what_if_sections
from reports.what_if_picture import picture_kind, what_if_picture

BASE = (Path(__file__).parent.parent / "vectors" / "rating" / "base.yaml").read_text()
OCTOBER = Period(2026, 10)
TARIFF = "---\nkind: tariff\nid: vilnius\noperator: telecentras\ncurrency: EUR\n"
NOW = TARIFF + "prices: [{models: ['*'], input: 0.4, output: 1.6}]\nsegments: {sme: 15%}\nminimum: 1.00\n"
THEN = NOW.replace("1.6", "1.85") + "windows: [{name: night, hours: '22:00-06:00', factor: 0.5}]\n"


def event(hour: int, **given: Any) -> dict[str, Any]:
    at = datetime(2026, 10, 5, tzinfo=UTC) + timedelta(hours=hour)
    return {"time": at, "customer": "acme", "node": "vilnius-1", "model": "m", **given}


@pytest.fixture(scope="module")
def shown() -> Comparison:
    usage = [event(hour, prompt_tokens=1_000_003, completion_tokens=500_001) for hour in range(48)]
    usage += [event(10, customer="beta", model="n", prompt_tokens=7)]
    facts, other = facts_for(BASE + NOW, OCTOBER), facts_for(BASE + THEN, OCTOBER)
    start, end = OCTOBER.bounds(facts.operator[-1].zone)
    runs = usage_runs(read_hourly(usage_table(usage), start, end)[0], hour_number(start))
    prepared = Prepared(runs, Path("nowhere"))
    return simulated({OCTOBER: prepared}, facts, with_tariff(facts, other.tariffs["vilnius"]), {})


def test_parts_sum_to_the_whole_on_both_sides(shown: Comparison) -> None:
    for side in ("now", "then"):
        net = getattr(shown.parts["net"], side)
        undivided = sum(getattr(pair, side) for pair in shown.undivided.values())
        for divided in (shown.by_model.values(), shown.by_region.values(), shown.by_hour):
            assert sum(getattr(pair, side) for pair in divided) + undivided == net
        for divided in (shown.by_segment.values(), shown.by_period.values(), shown.customers.values()):
            assert sum(getattr(pair, side) for pair in divided) == net


def test_nights_are_half_as_dear_then_and_days_dearer(shown: Comparison) -> None:
    assert [pair.change < 0 for pair in shown.by_hour] == [hour < 6 or hour >= 22 for hour in range(24)]


def test_both_sides_go_by_the_holidays_that_the_months_close_fixed() -> None:
    holiday = NOW + "holidays: LT\nwindows: [{name: free, days: [holiday], factor: 0}]\n"
    facts, start = facts_for(BASE + holiday, OCTOBER), OCTOBER.bounds(ZoneInfo("Europe/Vilnius"))[0]
    hourly = read_hourly(
        usage_table([event(10, prompt_tokens=10_000_000)]), *OCTOBER.bounds(facts.operator[-1].zone)
    )
    usage = {OCTOBER: Prepared(usage_runs(hourly[0], hour_number(start)), Path("nowhere"))}
    nets = [
        simulated(usage, facts, facts, fixed).parts["net"]
        for fixed in ({}, {OCTOBER: {"LT": ["2026-10-05"]}})
    ]
    assert [(int(pair.now), int(pair.then)) for pair in nets] == [(400, 400), (100, 100)]  # the minimum


def test_json_has_what_is_odd_in_the_file_beside_the_figures(shown: Comparison) -> None:
    odd = (
        Fault("prices[2] is never reached: row 1 takes its requests", "then.yaml:9", "put it first"),
        Fault("night: 500 is a thousand times the usual", "then.yaml:12"),
    )
    asked = WhatIf("telecentras", "EUR", "vilnius", ("vilnius",), ("vilnius@2026-10-01",), odd, shown)
    told = simulated_json(asked)
    assert told["warnings"] == [
        {
            "what": "prices[2] is never reached: row 1 takes its requests",
            "where": "then.yaml:9",
            "remedy": "put it first",
        },
        {"what": "night: 500 is a thousand times the usual", "where": "then.yaml:12", "remedy": ""},
    ]
    assert told["put"] == ["vilnius@2026-10-01"]
    assert simulated_json(replace(asked, warnings=()))["warnings"] == [], "a list also where nothing is odd"


def test_a_month_that_runs_or_has_not_begun_is_warned_of_by_name() -> None:
    months = [Period(2026, 10), Period(2026, 11), Period(2026, 12)]
    now = datetime(2026, 10, 31, 22, tzinfo=UTC)  # the midnight with which November begins in Vilnius
    whole = "fees, commitments and minimums are those of the whole month"
    assert [each.what for each in not_whole(months, ZoneInfo("Europe/Vilnius"), now)] == [
        f"2026-11 is not over: usage so far; {whole}",
        f"2026-12 has not begun: no usage yet; {whole}",
    ]


@pytest.mark.parametrize(
    ("price", "asked_for"),
    [
        ("826446280991.735", None),  # with 21 % of VAT a cent below 1,000,000,000,000,000.00
        ("826446280991.736", "1000000000000000.56"),
        ("999999999999.999", "1209999999999998.79"),
    ],
)
def test_a_bill_that_a_close_refuses_is_warned_of(price: str, asked_for: str | None) -> None:
    facts, other = (
        facts_for(BASE + NOW.replace("0.4", each).replace("segments: {sme: 15%}\n", ""), OCTOBER)
        for each in ("1", price)
    )
    start, end = OCTOBER.bounds(facts.operator[-1].zone)
    runs = usage_runs(
        read_hourly(usage_table([event(10, prompt_tokens=1_000_000_000)]), start, end)[0], hour_number(start)
    )
    usage = {OCTOBER: Prepared(runs, Path("nowhere"))}
    found = simulated(usage, facts, with_tariff(facts, other.tariffs["vilnius"]), {})
    said = [each.what for each in refused_by_a_close(found, "EUR")]
    why = "a close refuses that (amount_too_large)"
    assert said == ([f"then acme would be asked for {asked_for} EUR for 2026-10: {why}"] if asked_for else [])


def test_json_has_net_amounts_in_cents_and_worth_exactly(shown: Comparison) -> None:
    told = what_if_json("telecentras", "EUR", "vilnius", ["vilnius"], ["vilnius"], shown)
    assert Decimal(told["net"]["then"]) - Decimal(told["net"]["now"]) == Decimal(told["net"]["change"])
    assert told["hours"][12]["now"] == "2.4000056"
    assert sum(Decimal(each["now"]) for each in (*told["models"], *told["undivided"])) == Decimal(
        told["net"]["now"]
    )
    counted = told["customers"]
    assert counted["up"] + counted["down"] + counted["unchanged"] == len(counted["changes"])


def test_tables_fit_into_80_columns(shown: Comparison) -> None:
    for title, columns, rows in what_if_sections("EUR", shown):
        widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        assert sum(widths) + 2 * len(widths) <= 80, title
        assert len(title) <= 80


def test_where_nothing_changes_no_table_of_changes_is_shown(shown: Comparison) -> None:
    same = {name: Pair(pair.now, pair.now) for name, pair in shown.customers.items()}
    *_, (title, _, rows) = what_if_sections("EUR", replace(shown, customers=same))
    assert (title, rows) == ("Customers: 0 pay more, 0 less, 2 the same", [])


def test_the_picture_is_the_same_bytes_each_time_and_asks_for_nothing_from_elsewhere(
    shown: Comparison,
) -> None:
    for kind, begins in (("svg", b"<?xml"), ("png", b"\x89PNG")):
        drawn = what_if_picture("telecentras", "EUR", shown, kind)
        assert drawn.startswith(begins)
        assert drawn == what_if_picture("telecentras", "EUR", shown, kind)
        assert b'href="http' not in drawn


def test_a_picture_says_in_words_what_it_shows(shown: Comparison) -> None:
    drawn = what_if_picture("a & b, tariff vilnius", "EUR", shown, "svg").decode()
    root = ElementTree.fromstring(drawn)
    named = {child.tag.rpartition("}")[2]: child.text or "" for child in root}
    assert named["title"] == "a & b, tariff vilnius"
    assert named["desc"].startswith("net ")
    assert "customers whose bills change most" in named["desc"]


def test_what_rounding_comes_to_has_no_percent(shown: Comparison) -> None:
    rows = [row for _, _, rows in what_if_sections("EUR", shown) for row in rows]
    assert {row[-1] for row in rows if row[0] == "rounding of lines"} == {""}


def test_a_picture_has_a_suffix_that_is_known() -> None:
    assert picture_kind("a/b.SVG") == "svg"
    with pytest.raises(Refusal) as refused:
        picture_kind("what-if.pdf")
    assert refused.value.code == "unknown_format"


def test_exact_amounts_have_the_digits_that_they_need() -> None:
    assert [exact_text(Fraction(minor), "EUR") for minor in (0, 5, -123, Fraction(1, 8))] == [
        *("0.00", "0.05", "-1.23", "0.00125"),
    ]


def test_periods_are_months_and_ranges_of_them() -> None:
    assert read_periods(["2026-11..2027-01", "2026-12"]) == [
        Period(2026, 11),
        Period(2026, 12),
        Period(2027, 1),
    ]
    for wrong in ("2026-10..2026-09", "2026", "2000-01..2026-01"):
        with pytest.raises(Refusal) as refused:
            read_periods([wrong])
        assert refused.value.code == "bad_period"


def test_a_picture_shows_what_packages_change_by_and_names_cut_in_the_middle(shown: Comparison) -> None:
    name = "Qwen/Qwen3-235B-A22B-Instruct-2507"
    packages, of_model = Pair(Fraction(0), Fraction(250)), shown.by_model["m"]
    other = replace(
        shown, undivided={**shown.undivided, "packages": packages}, by_model={name: of_model, "$x$": of_model}
    )
    drawn = what_if_picture("telecentras", "EUR", other, "svg")
    for said in (b"packages", b"2.50", "Qwen/Qwen3-…truct-2507".encode(), b"$x"):
        assert b"<!-- " + said in drawn, said
    assert b"<!-- packages" not in what_if_picture("telecentras", "EUR", shown, "svg")


def test_a_picture_of_no_change_says_so_and_has_no_figures_around_zero(shown: Comparison) -> None:
    def kept(pairs: Any) -> Any:
        return {name: Pair(pair.now, pair.now) for name, pair in pairs.items()}

    same = replace(
        shown,
        by_model=kept(shown.by_model),
        by_region=kept(shown.by_region),
        customers=kept(shown.customers),
        undivided=kept(shown.undivided),
    )
    drawn = what_if_picture("telecentras", "EUR", same, "svg")
    assert drawn.count(b"<!-- no change -->") == 2
    assert "<!-- −".encode() not in drawn, "no axis goes below 0"


def test_bars_of_models_and_of_regions_stand_under_headings_of_their_own(shown: Comparison) -> None:
    drawn = what_if_picture("telecentras", "EUR", shown, "svg")
    assert drawn.index(b"<!-- by model -->") < drawn.index(b"<!-- m -->") < drawn.index(b"<!-- by region -->")
