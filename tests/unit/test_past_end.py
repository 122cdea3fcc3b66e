"""Usage past the end of its node or customer is billed, and a close and a preview tell of it by name."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from small_books import BASE, OCTOBER, OPERATOR, TARIFF, books_with, close, event, run
from usage_cells import site_facts, usage_table

from adapters.cli.period import period_text
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
    assert found(*usage, site=ENDED + AGAIN) == (OLD,)
    assert found(event(1, day=9, month=11, **N2), site=ENDED + AGAIN, period=Period(2026, 11)) == ()


def test_months_after_the_end_are_told_too_and_those_before_are_not() -> None:
    [ended] = found(event(1, month=12, **GAMMA), period=Period(2026, 12))
    assert (ended.kind, ended.id, ended.valid_until) == ("customer", "gamma", date(2026, 10, 20))
    assert found(event(1, month=9, **GAMMA), period=Period(2026, 9)) == ()


def test_what_came_too_late_or_was_taken_back_is_not_told() -> None:
    assert found(event(1, day=11, late=True, **N2)) == ()
    assert found(event(1, day=11, **N2), event(-1, day=11, requests=-1, **N2)) == ()


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
    said = period_text(row)
    assert said[1].startswith("  warning: 1 request of node n2 from ")
    assert close(books_with(event(100)))["warnings"] == []
    del row["warnings"]
    assert len(period_text(row)) == 1, "a close that was kept before there were warnings"


def test_a_preview_warns_of_its_own_customers_usage() -> None:
    books = books_with(event(100, day=11, **N2), event(3, day=20, **GAMMA), site=ENDED)
    book = books.books[OPERATOR]

    def warned(customer: str) -> list[str]:
        shown = preview(book.rows, run(book.facts()), OCTOBER, customer, (), ())
        return [each["where"] for each in preview_json(shown)["warnings"]]

    assert (warned("acme"), warned("gamma"), warned("beta")) == (["node/n2"], ["customer/gamma"], [])
