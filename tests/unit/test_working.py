"""The working of usage lines: every line that rating makes has one, with the same quantity, and says what it is of."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from small_books import BASE
from usage_cells import site_facts, usage_table

from billing.facts import Facts
from billing.holiday import with_holidays
from billing.line import FEE
from billing.period import Period
from billing.rating import rate
from billing.working import LineWorking, working

OCTOBER = Period(2026, 10)
START = datetime(2026, 9, 30, 21, tzinfo=UTC)
SITE = (
    BASE.replace("customer: x", "")
    + """kind: tariff
id: vilnius
operator: telecentras
currency: EUR
bill_output: generated
prices:
  - {models: [big-*], prompt_over: 128_000, input: 0.80, output: 3.00}
  - models: [big-*]
    input: 0.40
    cached_input: 0.10
    output: {graduated: [{up_to: 1000, price: 1.60}, {up_to: 2500, price: 1.20}, {price: 1.00}]}
  - models: [whisper-*]
    input: {package: {size: 1000, price: 2.00}}
    output: {volume: [{up_to: 1500, price: 5.00}, {price: 4.00}]}
    reasoning: 1.00
    requests: 10.00
windows:
  - {name: night, days: [mon, tue, wed, thu, fri], hours: "22:00-06:00", factor: 0.5}
  - {name: weekend, days: [sat, sun, holiday], factor: 0.7}
included: {input: 1500, output: 300}
---
kind: contract
customer: acme
tariff: vilnius
valid_from: 2026-10-20
prices: [{models: [big-1], input: 0.35, output: {graduated: [{up_to: 700, price: 1.50}, {price: 1.10}]}}]
included: {output: 900}
"""
)
FACTS = with_holidays(site_facts(SITE), OCTOBER)

EVENTS = st.lists(
    st.fixed_dictionaries(
        {
            "time": st.integers(0, 31 * 24 - 1).map(lambda hours: START + timedelta(hours=hours)),
            "customer": st.just("acme"),
            "node": st.just("vilnius-1"),
            "model": st.sampled_from(["big-1", "big-2", "whisper-3"]),
            "outcome": st.sampled_from(["finished", "finished", "aborted", "failed"]),
            "prompt_tokens": st.integers(-900, 3000),
            "cached_tokens": st.integers(0, 500),
            "completion_tokens": st.integers(-300, 900),
            "reasoning_tokens": st.integers(0, 100),
            "generated_tokens": st.integers(-400, 1200),
            "requests": st.sampled_from([1, 1, 1, -1]),
        }
    ),
    max_size=20,
)


def event(hour: int, model: str, **given: Any) -> dict[str, Any]:
    """An hour of October in Vilnius, counted from its first."""
    return {
        "time": START + timedelta(hours=hour),
        "customer": "acme",
        "node": "vilnius-1",
        "model": model,
        **given,
    }


def found(events: Sequence[dict[str, Any]], facts: Facts = FACTS) -> dict[tuple[Any, ...], LineWorking]:
    """The working by (model, meter, window, tier)."""
    made = working(usage_table(events), facts, OCTOBER, "acme")
    return {(each.model, each.meter, each.window, each.tier): each for each in made.lines.values()}


@settings(max_examples=60)
@given(EVENTS)
def test_every_line_of_usage_has_a_working_that_ends_in_its_quantity(events: list[dict[str, Any]]) -> None:
    rated = rate(usage_table(events), FACTS, OCTOBER).lines.get("acme", ())
    made = working(usage_table(events), FACTS, OCTOBER, "acme")
    assert {key: each.quantity for key, each in made.lines.items()} == {
        line.key[:7]: line.quantity for line in rated if line.meter != FEE
    }


def test_cached_tokens_that_the_row_does_not_price_are_counted_as_input_and_said() -> None:
    made = found([event(36, "whisper-3", prompt_tokens=2500, cached_tokens=400)])
    line = made[None, "input", "base", None]
    assert line.hours.made_of == {"input": 2100, "cached_input": 400}
    assert (line.hours.units, line.hours.free, line.quantity) == (2500, 1500, 1)
    assert line.pool is not None
    assert line.pool.total == 1000


def test_a_pool_says_what_lay_before_and_what_each_tier_holds() -> None:
    hours = [(36, "big-1", 1000), (37, "big-2", 900), (38, "big-1", 700)]
    made = found([event(hour, model, completion_tokens=tokens) for hour, model, tokens in hours])
    second = made["big-1", "output", "base", 2]
    assert second.quantity == 700
    assert second.pool is not None
    assert (second.pool.total, dict(second.pool.by_tier)) == (1700, {1: 1000, 2: 700})
    assert (second.before, second.hours.units, second.hours.free) == (1000, 1700, 900)
