"""What-if equals what a close would bill: every customer's net, over random sites and usage; and its parts sum to it.

The property has few examples here and many under the `proof` marker.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_sites import BASE, MONTHS, Month, events, examples, site_text, sites
from rated_bills import facts_for, rated_bills
from usage_cells import usage_table

from billing import what_if_condensed
from billing.hourly import hour_number, read_hourly
from billing.line import FEE
from billing.meters import quantities_under
from billing.period import Period
from billing.usage_runs import from_tables, to_tables, usage_runs
from billing.what_if import PeriodOutcome, period_outcome
from billing.what_if_table import outcome_from, outcome_table
from billing.what_if_turns import NEVER, included_turns
from metering.event import QUANTITIES

Drawn = tuple[Month, list[dict[str, Any]], list[dict[str, Any]], list[str]]
UNREAD = st.lists(st.sampled_from(QUANTITIES), unique=True)


@st.composite
def drawn(draw: st.DrawFn) -> Drawn:
    month = draw(st.sampled_from(MONTHS))
    return month, draw(sites(month)), draw(st.lists(events(month), max_size=25)), draw(UNREAD)


def check_kept(outcome: PeriodOutcome) -> None:
    """As a table and back an outcome is what it was."""
    kept = outcome_from(outcome_table(outcome))
    bills = outcome.bills
    assert kept.bills.customers == list(bills.customers)
    assert kept.bills.net.tolist() == bills.net.tolist()
    assert kept.bills.discounts.tolist() == bills.discounts.tolist()
    assert kept.bills.floors.tolist() == bills.floors.tolist()
    assert kept.segments == list(outcome.segments)
    assert (kept.worth, kept.packages, kept.unpriced) == (outcome.worth, outcome.packages, outcome.unpriced)
    assert kept.period == outcome.period


def holds_what_a_close_bills(case: Drawn) -> None:
    month, site, usage, unread = case
    is_what_a_close_bills(Period.parse(month.name), site_text(site), usage, unread)


def is_what_a_close_bills(
    period: Period, text: str, usage: list[dict[str, Any]], unread: Sequence[str]
) -> None:
    """`unread`: quantities that are not read where nothing rests on them."""
    facts, table = facts_for(text, period), usage_table(usage)
    told = rated_bills(table, facts, period)
    start, end = period.bounds(facts.operator[-1].zone)
    others = sorted(set(unread) - quantities_under(facts))
    runs = usage_runs(read_hourly(table.drop_columns(others), start, end)[0], hour_number(start))
    outcome = period_outcome(from_tables(to_tables(runs)), facts, period)
    check_kept(outcome)
    assert dict(zip(outcome.bills.customers, outcome.bills.net.tolist(), strict=True)) == told.nets
    for place, customer in enumerate(outcome.bills.customers):
        bill = told.bills[customer]
        assert int(outcome.bills.usage[place]) == sum(each.amount for each in bill.lines if each.meter != FEE)
        assert int(outcome.bills.fees[place]) == sum(each.amount for each in bill.lines if each.meter == FEE)
    assert {(each.model, each.meter, each.region, each.tokens, each.why) for each in outcome.unpriced} == {
        (each.model, each.meter, each.region, each.tokens, each.why) for each in told.rated.unpriced
    }
    lines = [line for bill in told.bills.values() for line in bill.lines if line.meter != FEE]
    digits = 100
    exact = sum(
        (
            Fraction(line.unit_price) * line.quantity * digits / line.price_base
            for line in lines
            if line.price_base != 1
        ),
        Fraction(0),
    )
    assert outcome.worth.total == exact
    by_model: dict[str, Fraction] = {}
    for line in lines:
        if line.price_base != 1:
            assert line.model is not None
            value = Fraction(line.unit_price) * line.quantity * digits / line.price_base
            by_model[line.model] = by_model.get(line.model, Fraction(0)) + value
    told_by_model = {m: Fraction(v, outcome.worth.per_minor) for m, v in outcome.worth.by_model.items() if v}
    assert told_by_model == {m: v for m, v in by_model.items() if v}
    assert sum(outcome.worth.by_region.values()) == sum(outcome.worth.by_hour)
    assert outcome.packages == sum(line.amount for line in lines if line.price_base == 1)


@examples(60)
@given(drawn())
def test_a_what_if_of_the_facts_in_force_is_what_a_close_bills(case: Drawn) -> None:
    holds_what_a_close_bills(case)


@pytest.mark.proof
@pytest.mark.timeout(1800)
@examples(4_000)
@given(drawn())
def test_four_thousand_what_ifs_are_what_a_close_bills(case: Drawn) -> None:
    holds_what_a_close_bills(case)


TARIFF = """---
kind: tariff
id: vilnius
operator: telecentras
currency: EUR
bill_output: {output}
windows: [{{name: night, days: [mon, tue, wed, thu, fri], hours: "22:00-06:00", factor: 0.5}}]
prices:
  - {{models: [a], {prices}}}
  - {{models: ['*'], {other_prices}}}
included: {{{included}}}
"""
METERS = ("input", "cached_input", "output", "reasoning", "requests", "audio_seconds")


@st.composite
def included_units(draw: st.DrawFn) -> tuple[str, list[dict[str, Any]], list[str]]:
    """A tariff under which units are used up within a month, its price rows alike in what they price; and usage."""
    meters = ["input", "output", *draw(st.lists(st.sampled_from(METERS), unique=True, max_size=3))]

    def prices() -> str:
        kinds = st.sampled_from(
            ["3", "0.7", "{volume: [{up_to: 90, price: 3}, {price: 2}]}", "{package: {size: 40, price: 1}}"]
        )
        return ", ".join(f"{meter}: {draw(kinds)}" for meter in dict.fromkeys(meters))

    included = draw(st.dictionaries(st.sampled_from(meters), st.integers(1, 150), min_size=1))
    text = TARIFF.format(
        output=draw(st.sampled_from(["delivered", "generated"])),
        prices=prices(),
        other_prices=prices(),
        included=", ".join(f"{meter}: {units}" for meter, units in included.items()),
    )
    small = st.integers(0, 60)

    def used() -> dict[str, Any]:
        prompt, completion, generated = draw(small), draw(small), draw(small)
        return {
            "time": datetime(2026, 10, 5, 18, tzinfo=UTC) + timedelta(hours=draw(st.integers(0, 30))),
            "customer": draw(st.sampled_from(["acme", "beta"])),
            "node": "vilnius-1",
            "model": draw(st.sampled_from("ab")),
            "prompt_tokens": prompt,
            # in one case of nine more than there was, so that input is below 0
            "cached_tokens": draw(st.integers(0, prompt + prompt // 8)),
            "completion_tokens": completion,
            "reasoning_tokens": draw(st.integers(0, completion)),
            "generated_tokens": generated,
            "audio_seconds": draw(st.integers(0, 5)),
        }

    return text, [used() for _ in range(draw(st.integers(1, 30)))], draw(UNREAD)


def check_included_units(count: int) -> None:
    """So many cases, most of which go by hours that are searched (`billing.what_if_turns`)."""
    searched = 0

    def counted(*asked: Any) -> tuple[Any, Any]:
        nonlocal searched
        known, turns = included_turns(*asked)
        searched += int((turns[:, known] != NEVER).sum())
        return known, turns

    @examples(count)
    @given(included_units())
    def check(case: tuple[str, list[dict[str, Any]], list[str]]) -> None:
        text, usage, unread = case
        is_what_a_close_bills(Period(2026, 10), BASE + text, usage, unread)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(what_if_condensed, "included_turns", counted)
        check()
    assert searched > count // 4


def test_units_used_up_in_hours_that_are_searched_are_what_a_close_bills() -> None:
    check_included_units(60)


@pytest.mark.proof
@pytest.mark.timeout(1800)
def test_units_used_up_are_what_a_close_bills_in_four_thousand_cases() -> None:
    check_included_units(4_000)
