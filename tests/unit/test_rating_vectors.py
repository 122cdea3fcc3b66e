"""The worked examples of tests/vectors/rating: billing gives what is written there, and so does the slow plain bill."""

from __future__ import annotations

import pytest
from plain_bill import plain_bills
from rated_bills import facts_for, plain_unpriced, rated_bills
from rating_vectors import (
    RATINGS,
    VECTORS,
    adjustments_of,
    currency_of,
    events_of,
    found,
    found_part,
    plainly_found,
    plainly_found_parts,
    site_of,
    sorted_lines,
    stated_lines,
    stated_parts,
    unpriced_of,
)
from usage_cells import usage_table

from billing.money import format_minor
from billing.period import Period


@pytest.mark.parametrize("name", RATINGS)
def test_a_worked_example_is_billed_as_written(name: str) -> None:
    vector = RATINGS[name]
    period, usage = Period.parse(vector["period"]), usage_table(events_of(vector["usage"]))
    told = rated_bills(usage, facts_for(site_of(vector), period), period, adjustments_of(vector))
    assert plain_unpriced(told.rated) == unpriced_of(vector)
    assert set(told.bills) == set(vector["expect"])
    for customer, expected in vector["expect"].items():
        bill = told.bills[customer]
        assert sorted_lines([found(line, currency_of(vector)) for line in bill.lines]) == stated_lines(
            vector, customer
        )
        parts = {each["key"]: each for each in stated_parts(expected)}
        assert {
            part.key: found_part(part, parts.get(part.key, {"reason": None})["reason"], currency_of(vector))
            for part in bill.parts
        } == parts
        assert format_minor(bill.net, currency_of(vector)) == expected["net"]


@pytest.mark.parametrize("name", RATINGS)
def test_the_slow_plain_bill_agrees_with_a_worked_example(name: str) -> None:
    vector = RATINGS[name]
    events = events_of(vector["usage"])
    told = plain_bills(site_of(vector), events, vector["period"], adjustments_of(vector))
    assert told.unpriced == unpriced_of(vector)
    assert set(told.bills) == set(vector["expect"])
    for customer, expected in vector["expect"].items():
        bill = told.bills[customer]
        lines = sorted_lines(
            [plainly_found(key, line, currency_of(vector)) for key, line in bill.lines.items()]
        )
        assert lines == stated_lines(vector, customer)
        parts = [
            {name: value for name, value in each.items() if name != "reason"}
            for each in stated_parts(expected)
        ]
        assert sorted_lines(plainly_found_parts(bill, currency_of(vector))) == sorted_lines(parts)
        assert format_minor(bill.net, currency_of(vector)) == expected["net"]


@pytest.mark.parametrize("name", VECTORS)
def test_every_example_shows_its_working(name: str) -> None:
    assert VECTORS[name]["title"]
    assert VECTORS[name]["rules"]
    assert len(VECTORS[name]["working"]) > 60
