"""What lies between two turns of a customer's pools is one sum; an hour in which a pool turns stands alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import pytest
from rated_bills import facts_for, rated_bills
from usage_cells import usage_table

from billing import what_if
from billing.hourly import hour_number, read_hourly
from billing.period import Period
from billing.usage_runs import usage_runs
from billing.what_if import period_outcome
from billing.what_if_condensed import Condensed, condensed

BASE = (Path(__file__).parent.parent / "vectors" / "rating" / "base.yaml").read_text()
OCTOBER = Period(2026, 10)
TARIFF = """---
kind: tariff
id: vilnius
operator: telecentras
currency: EUR
prices: [{models: ['*'], input: 0.4, output: {graduated: [{up_to: 50, price: 3}, {price: 2}]}}]
included: {input: 100}
"""
INPUT = (30, 20, 10, 90, 10, 10, 20)
OUTPUT = (10, 10, 10, 10, 10, 0, 70)
"""The free input is used up in the fourth hour; the first tier of output is full at the end of the fifth."""


@pytest.mark.parametrize("void", [False, True])
def test_hours_between_turns_are_one_sum_and_bills_and_hours_are_exact(
    void: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = datetime(2026, 10, 5, 9, tzinfo=UTC)
    used = [
        {
            "time": at + timedelta(hours=hour),
            "customer": "acme",
            "node": "vilnius-1",
            "model": "m",
            "prompt_tokens": prompt,
            "completion_tokens": completion,
        }
        for hour, (prompt, completion) in enumerate(zip(INPUT, OUTPUT, strict=True))
    ]
    if void:
        used.append(
            {**used[0], "time": at + timedelta(hours=7), "prompt_tokens": -25, "completion_tokens": 0}
        )
    made: list[Condensed] = []

    def seen(*asked: object) -> Condensed:
        made.append(condensed(*asked))  # type: ignore[arg-type]  # as it was called
        return made[-1]

    monkeypatch.setattr(what_if, "condensed", seen)
    facts, table = facts_for(BASE + TARIFF, OCTOBER), usage_table(used)
    start, end = OCTOBER.bounds(facts.operator[-1].zone)
    runs = usage_runs(read_hourly(table, start, end)[0], hour_number(start))
    outcome = period_outcome(runs, facts, OCTOBER)

    [sums] = made
    first = hour_number(at) - hour_number(start)
    told = sorted(zip((sums.hour - first).tolist(), sums.turning.tolist(), strict=True))
    alone = [(hour, True) for hour in range(8)]
    assert told == (alone if void else [(0, False), (3, True), (4, True), (5, False)])
    bills = rated_bills(table, facts, OCTOBER)
    assert dict(zip(outcome.bills.customers, outcome.bills.net.tolist(), strict=True)) == bills.nets
    by_hour = {
        hour: Fraction(value, outcome.worth.per_minor) for hour, value in enumerate(outcome.worth.by_hour)
    }
    input_at, per_token = 40, Fraction(1, 10**6)
    fourth = (50 * input_at + 10 * 300) * per_token
    last = (20 * input_at + 70 * 200) * per_token
    assert (by_hour[12], by_hour[15], by_hour[18]) == (30 * 100 * per_token, fourth, last)


def test_an_hour_that_a_later_one_takes_back_is_worth_what_it_is_whoever_else_used_anything() -> None:
    at = datetime(2026, 10, 5, 3, tzinfo=UTC)
    taken = [
        {
            "time": at + timedelta(hours=hour),
            "customer": "acme",
            "node": "vilnius-1",
            "model": "m",
            "prompt_tokens": tokens,
        }
        for hour, tokens in ((0, 10**9), (4, -(10**9)))
    ]
    plain = TARIFF.split("prices:")[0] + "prices: [{models: ['*'], input: 1, output: 1}]\n"
    facts = facts_for(BASE + plain, OCTOBER)
    start, end = OCTOBER.bounds(facts.operator[-1].zone)
    for others in ([], [{**taken[0], "customer": "beta", "time": at.replace(hour=12), "prompt_tokens": 1}]):
        runs = usage_runs(read_hourly(usage_table([*taken, *others]), start, end)[0], hour_number(start))
        worth = period_outcome(runs, facts, OCTOBER).worth
        told = {hour: Fraction(value, worth.per_minor) for hour, value in enumerate(worth.by_hour) if value}
        assert [told[6], told[10]] == [100_000, -100_000]
