"""Usage past the end of its node or customer is billed, and a close and a preview tell of it by name."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from time import process_time
from typing import Any

from small_books import BASE, OCTOBER, OPERATOR, TARIFF, books_with, close, event, run
from usage_cells import site_facts, usage_table

from adapters.cli.period import warned
from billing.bill import segment_of
from billing.past_end import PastEnd, past_end
from billing.period import Period
from billing.preview import preview, preview_json

ENDED = """---
kind: node
id: n2
operator: telecentras
region: LT-VL
valid_until: 2026-10-10
---
kind: customer
id: gamma
operator: telecentras
name: Gamma
country: LT
valid_until: 2026-10-20
"""
AGAIN = """---
kind: node
id: n2
operator: telecentras
region: LT-KL
valid_from: 2026-10-25
"""
GAMMA: dict[str, Any] = {"customer": "gamma"}
N2: dict[str, Any] = {"node": "n2"}
OLD = PastEnd("node", "n2", date(2026, 10, 10), 2, datetime(2026, 10, 11, 12, tzinfo=UTC))


BACK = """---
kind: customer
id: gamma
operator: telecentras
name: Gamma
country: LT
segment: sme
valid_from: 2026-10-25
"""


def found(*usage: dict[str, object], site: str = ENDED, period: Period = OCTOBER) -> tuple[PastEnd, ...]:
    return past_end(usage_table(usage), site_facts(BASE + TARIFF + site), period)


def test_usage_past_the_end_of_its_node_is_counted_from_its_first_hour() -> None:
    assert found(event(1, day=9, **N2), event(1, day=12, **N2), event(1, day=11, **N2), event(1, day=12)) == (
        OLD,
    )


def test_the_end_is_a_local_midnight_and_exclusive() -> None:
    last, first = datetime(2026, 10, 9, 20, tzinfo=UTC), datetime(2026, 10, 9, 21, tzinfo=UTC)
    [ended] = found(event(1, **N2) | {"time": last}, event(1, **N2) | {"time": first})
    assert (ended.requests, ended.first_hour) == (1, first)


def test_a_later_version_ends_the_end() -> None:
    usage = [event(1, day=day, **N2) for day in (11, 24, 25, 30)]
    assert found(*usage, site=ENDED + AGAIN) == (replace(OLD, back=True),)
    assert found(event(1, day=9, month=11, **N2), site=ENDED + AGAIN, period=Period(2026, 11)) == ()


def test_months_after_the_end_are_told_too_and_those_before_are_not() -> None:
    [ended] = found(event(1, month=12, **GAMMA), period=Period(2026, 12))
    assert (ended.kind, ended.id, ended.valid_until) == ("customer", "gamma", date(2026, 10, 20))
    assert found(event(1, month=9, **GAMMA), period=Period(2026, 9)) == ()


def test_what_came_too_late_or_was_taken_back_is_not_told() -> None:
    assert found(event(1, day=11, late=True, **N2)) == ()
    assert found(event(1, day=11, **N2), event(-1, day=11, requests=-1, **N2)) == ()


def test_each_end_of_a_name_is_told_apart() -> None:
    again = AGAIN + "valid_until: 2026-10-28\n"
    usage = [event(1, day=day, **N2) for day in (12, 24, 26, 29, 11)]
    second = PastEnd("node", "n2", date(2026, 10, 28), 1, datetime(2026, 10, 29, 12, tzinfo=UTC))
    assert found(*usage, site=ENDED + again) == (replace(OLD, requests=3), second)


def test_usage_past_the_end_of_its_node_and_its_customer_is_told_of_both() -> None:
    both = found(event(1, day=21, **N2, **GAMMA), event(1, day=21, **N2), event(1, day=21, **GAMMA))
    assert [(each.kind, each.id, each.requests) for each in both] == [
        ("node", "n2", 2),
        ("customer", "gamma", 2),
    ]


def test_an_outcome_that_is_not_billed_is_not_told() -> None:
    failed = event(1, day=11, outcome="failed", **N2)
    assert found(failed) == ()
    assert found(failed, event(1, day=12, **N2), event(1, day=11, outcome="aborted", **N2)) == (OLD,)


def test_which_outcomes_are_billed_is_asked_of_the_tariff_of_the_customer_and_the_hour() -> None:
    terms = """---
kind: tariff
id: failures
operator: telecentras
currency: EUR
bill_outcomes: [failed]
prices: [{models: [m], input: 1, output: 0}]
---
kind: contract
customer: beta
tariff: failures
valid_from: 2026-10-20
"""

    def told(customer: str, day: int, outcome: str) -> bool:
        return found(event(1, customer, day, outcome=outcome, **N2), site=ENDED + terms) != ()

    assert [told("beta", 19, outcome) for outcome in ("finished", "failed")] == [True, False]
    assert [told("beta", 20, outcome) for outcome in ("finished", "failed")] == [False, True]
    assert [told("acme", 20, outcome) for outcome in ("finished", "failed")] == [True, False]


def test_a_close_bills_it_and_warns_of_it_by_name() -> None:
    row = close(books_with(event(100, day=11, **N2), event(3, day=20, **GAMMA), site=ENDED))
    assert [each["net"] for each in row["drafts"]] == ["100.00", "3.00"]
    assert row["warnings"] == [
        {
            "what": "1 request of node n2 from 2026-10-11T12:00:00Z on, past its valid_until 2026-10-10, billed without "
            "a region",
            "where": "node/n2",
            "remedy": "if it serves on, apply it with a later valid_until or none; if not, `tally node retire` its lanes",
            "requests": 1,
        },
        {
            "what": "1 request of customer gamma from 2026-10-20T12:00:00Z on, past its valid_until 2026-10-20, billed "
            "without a segment's discount",
            "where": "customer/gamma",
            "remedy": "if it stays, apply it with a later valid_until or none; if not, `tally key revoke` its keys",
            "requests": 1,
        },
    ]
    [of_node, of_customer] = warned([row])
    assert of_node.startswith("warning: telecentras 2026-10: 1 request of node n2 from ")
    assert of_customer.endswith(
        " (if it stays, apply it with a later valid_until or none; if not, `tally key revoke` its keys)"
    )
    assert list(warned([{**row, "warnings": [], "earlier": [row]}])) == [of_node, of_customer]
    assert close(books_with(event(100)))["warnings"] == []
    del row["warnings"]
    assert list(warned([row])) == [], "a close that was kept before there were warnings"


def test_a_customer_that_is_back_at_the_months_end_has_its_segments_discount_and_is_not_said_to_lack_it() -> (
    None
):
    ended = ENDED.replace("valid_until: 2026-10-20", "valid_until: 2026-10-10")
    books = books_with(event(100, day=15, **GAMMA), site=ended + BACK)
    facts = run(books.books[OPERATOR].facts())
    assert segment_of("gamma", OCTOBER, facts) == "sme"
    [warning] = close(books)["warnings"]
    assert warning["what"].endswith("on, past its valid_until 2026-10-10, billed")
    assert warning["remedy"].startswith("it is back since; ")


def test_a_node_that_is_back_had_no_region_all_the_same() -> None:
    [warning] = close(books_with(event(100, day=15, **N2), site=ENDED + AGAIN))["warnings"]
    assert warning["what"].endswith("billed without a region")
    assert warning["remedy"].startswith("it is back since; ")


def test_ended_names_without_usage_cost_nothing_and_many_with_usage_are_summed_at_once() -> None:
    facts = site_facts(BASE + TARIFF + ENDED)
    [gamma] = facts.customers["gamma"]
    many = {f"c{number:04}": (replace(gamma, id=f"c{number:04}"),) for number in range(2000)}
    usage = usage_table([event(1, day=25, customer=name) for name in many for _ in range(5)])
    began = process_time()
    told = past_end(usage, replace(facts, customers=many), OCTOBER)
    assert past_end(usage.slice(0, 0), replace(facts, customers=many), OCTOBER) == ()
    assert process_time() - began < 0.5
    assert [(each.id, each.requests) for each in told] == [(name, 5) for name in many]


def test_a_preview_warns_of_its_own_customers_usage() -> None:
    books = books_with(event(100, day=11, **N2), event(3, day=20, **GAMMA), site=ENDED)
    book = books.books[OPERATOR]

    def warned(customer: str) -> list[str]:
        shown = preview(book.rows, run(book.facts()), OCTOBER, customer, (), ())
        return [each["where"] for each in preview_json(shown)["warnings"]]

    assert (warned("acme"), warned("gamma"), warned("beta")) == (["node/n2"], ["customer/gamma"], [])
