"""What-if equals what a close would bill: every customer's net, over random sites and usage; and its parts sum to it.

The property has few examples here and many under the `proof` marker.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_sites import MONTHS, Month, events, examples, site_text, sites
from rated_bills import facts_for, rated_bills
from usage_cells import usage_table

from billing.hourly import hour_number, read_hourly
from billing.line import FEE
from billing.meters import quantities_under
from billing.period import Period
from billing.usage_runs import from_tables, to_tables, usage_runs
from billing.what_if import PeriodOutcome, period_outcome
from billing.what_if_table import outcome_from, outcome_table
from metering.event import QUANTITIES

Drawn = tuple[Month, list[dict[str, Any]], list[dict[str, Any]]]


@st.composite
def drawn(draw: st.DrawFn) -> Drawn:
    month = draw(st.sampled_from(MONTHS))
    return month, draw(sites(month)), draw(st.lists(events(month), max_size=25))


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
    month, site, usage = case
    period, text = Period.parse(month.name), site_text(site)
    facts, table = facts_for(text, period), usage_table(usage)
    told = rated_bills(table, facts, period)
    start, end = period.bounds(facts.operator[-1].zone)
    others = sorted(set(QUANTITIES) - quantities_under(facts))  # nothing rests on them
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


@examples(25)
@given(drawn())
def test_a_what_if_of_the_facts_in_force_is_what_a_close_bills(case: Drawn) -> None:
    holds_what_a_close_bills(case)


@pytest.mark.proof
@pytest.mark.timeout(1800)
@examples(4_000)
@given(drawn())
def test_four_thousand_what_ifs_are_what_a_close_bills(case: Drawn) -> None:
    holds_what_a_close_bills(case)
