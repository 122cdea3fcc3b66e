"""The hours in which included units are used up are those that a walk from hour to hour finds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rated_bills import facts_for
from usage_cells import usage_table

from billing.charges import meter_pricing
from billing.hourly import hour_number, read_hourly
from billing.included import included_by_meter
from billing.meters import meter_rules
from billing.period import Period
from billing.tariff import METERS
from billing.usage_runs import usage_runs
from billing.what_if_turns import NEVER, included_turns
from billing.what_if_view import Hours, view_of

BASE = (Path(__file__).parent.parent / "vectors" / "rating" / "base.yaml").read_text()
OCTOBER = Period(2026, 10)
BEGIN = datetime(2026, 10, 5, 9, tzinfo=UTC)
TARIFF = """---
kind: tariff
id: vilnius
operator: telecentras
currency: EUR
prices: [{{models: ['*'], input: 0.4, cached_input: 0.1, output: {output}}}]
included: {{input: 100, output: 50}}
"""
GRADUATED = "{graduated: [{up_to: 50, price: 3}, {price: 2}]}"
Used = list[tuple[int, str, int, int, int]]
"""Hour, model, prompt, cached and completion tokens."""


def turns(used: Used, output: str = "2") -> tuple[bool, set[int]]:
    """Whether acme's hours are known, and these, from BEGIN on."""
    events: list[dict[str, Any]] = [
        {
            "time": BEGIN + timedelta(hours=hour),
            "customer": "acme",
            "node": "vilnius-1",
            "model": model,
            "prompt_tokens": prompt,
            "cached_tokens": cached,
            "completion_tokens": completion,
        }
        for hour, model, prompt, cached, completion in used
    ]
    facts = facts_for(BASE + TARIFF.format(output=output), OCTOBER)
    zone = facts.operator[-1].zone
    hours = Hours(*(hour_number(instant) for instant in OCTOBER.bounds(zone)))
    runs = usage_runs(read_hourly(usage_table(events), *OCTOBER.bounds(zone))[0], hours.first)
    view = view_of(runs, facts, OCTOBER, zone, hours, {})
    included = included_by_meter(runs.customers, facts, hours.end - 1, zone)
    rows = view.placed.rows
    pricings = [meter_pricing(meter, rows, included.get(meter), len(runs.models)) for meter in METERS]
    asked = [each for each in pricings if each.included is not None or each.graduated.any()]
    known, found = included_turns(runs, view, meter_rules(rows), asked)
    first = hour_number(BEGIN) - hours.first
    return bool(known.all()), {hour - first for hour in found.ravel().tolist() if hour != NEVER}


def test_an_hour_is_the_one_in_which_the_running_sum_reaches_what_is_included() -> None:
    assert turns([(0, "m", 60, 0, 0), (1, "m", 39, 0, 50), (2, "n", 1, 0, 0), (3, "m", 9, 0, 9)]) == (
        True,
        {1, 2},  # output in the second hour, input exactly in the third
    )


def test_two_meters_that_turn_in_one_hour_turn_once() -> None:
    assert turns([(0, "m", 99, 0, 49), (7, "m", 1, 0, 1)]) == (True, {7})


def test_what_is_not_used_up_has_no_hour() -> None:
    assert turns([(0, "m", 99, 0, 49)]) == (True, set())


@pytest.mark.parametrize(
    ("used", "output"),
    [
        ([(0, "m", 200, 0, 0)], GRADUATED),
        ([(0, "m", 200, 0, 0), (1, "m", -1, 0, 0)], "2"),
        ([(0, "m", 200, 0, 0), (1, "m", 5, 6, 0)], "2"),  # more cached than there was: input of −1
    ],
)
def test_graduated_prices_and_meters_below_zero_are_for_the_longer_way(used: Used, output: str) -> None:
    assert not turns(used, output)[0]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 20),
            st.sampled_from("mn"),
            st.integers(0, 60),
            st.integers(0, 20),
            st.integers(0, 30),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_the_hours_are_those_of_a_walk(used: Used) -> None:
    known, found = turns(used)
    walked: set[int] = set()
    by_run: dict[tuple[int, str], int] = {}
    for hour, model, prompt, cached, _ in used:
        by_run[hour, model] = by_run.get((hour, model), 0) + prompt - cached
    assert known == all(tokens >= 0 for tokens in by_run.values())
    sums = {100: 0, 50: 0}
    for hour in sorted({each[0] for each in used}):
        before = dict(sums)
        sums[100] += sum(prompt - cached for at, _, prompt, cached, _ in used if at == hour)
        sums[50] += sum(completion for at, *_, completion in used if at == hour)
        walked |= {hour for bound in sums if before[bound] < bound <= sums[bound]}
    assert not known or found == walked
