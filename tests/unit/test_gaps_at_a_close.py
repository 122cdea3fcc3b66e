"""What a node served unmetered stops the close of its month, until a person accepts that with a reason."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from books_in_memory import BooksInMemory
from small_books import OPERATOR, books_with, close, event

from billing.gaps import AcceptedGaps, Gap, asked, newest
from billing.period import Period
from metering.refusal import Refusal


def us(day: int, month: int = 10) -> int:
    return int(datetime(2026, month, day, tzinfo=UTC).timestamp()) * 1_000_000


GAP = Gap("vilnius-1", "sidecar-0", us(5), us(5) + 200_000_000, 17)
ACCEPTED = AcceptedGaps({"vilnius-1"}, "the disk was full")


def books(*gaps: Gap) -> BooksInMemory:
    made = books_with(event(100))
    made.books[OPERATOR].unmetered = list(gaps)
    return made


def refusal(books: BooksInMemory, **how: Any) -> Refusal:
    with pytest.raises(Refusal) as refused:
        close(books, **how)
    assert books.books[OPERATOR].closes == []
    return refused.value


def test_a_close_refuses_over_it_and_names_node_and_times() -> None:
    refused = refusal(books(GAP))
    assert (refused.code, refused.where) == ("unmetered_interval", "vilnius-1/sidecar-0")
    assert refused.what == (
        "17 requests were served unmetered from 2026-10-05T00:00:00.000000Z to 2026-10-05T00:03:20.000000Z"
        " on vilnius-1, so the usage of 2026-10 is not whole"
    )
    assert "--accept-gap vilnius-1 --reason" in refused.remedy
    both = refusal(books(GAP, replace(GAP, begins_us=us(6), ends_us=us(6), requests=1)))
    assert [fault.what.split(" from")[0] for fault in both.faults] == [
        "17 requests were served unmetered",
        "1 request was served unmetered",
    ]


def test_an_accepted_one_stands_on_the_close_with_its_reason() -> None:
    row = close(books(GAP), accept_gaps=ACCEPTED)
    assert row["gaps"] == [
        {
            "kind": "unmetered",
            "node": "vilnius-1",
            "lane": "sidecar-0",
            "from": "2026-10-05T00:00:00.000000Z",
            "to": "2026-10-05T00:03:20.000000Z",
            "requests": 17,
            "reason": "the disk was full",
        }
    ]


def test_what_was_accepted_once_stays_accepted_until_it_grows() -> None:
    made = books(GAP)
    first = close(made, accept_gaps=ACCEPTED)
    assert close(made)["gaps"] == first["gaps"]
    assert close(made, accept_gaps=AcceptedGaps({"vilnius-1"}, "another day"))["gaps"] == first["gaps"]
    made.books[OPERATOR].unmetered = [replace(GAP, ends_us=GAP.ends_us + 1, requests=18)]
    with pytest.raises(Refusal) as refused:
        close(made)
    assert refused.value.code == "unmetered_interval"


def test_who_accepts_one_node_has_not_accepted_another() -> None:
    other = replace(GAP, node="kaunas-1")
    assert refusal(books(GAP, other), accept_gaps=ACCEPTED).where == "kaunas-1/sidecar-0"
    nodes = AcceptedGaps({"vilnius-1", "kaunas-1"}, "the disk was full")
    assert len(close(books(GAP, other), accept_gaps=nodes)["gaps"]) == 2


def test_a_node_that_has_no_gap_is_named_beside_the_one_that_has() -> None:
    found = refusal(books(GAP), accept_gaps=AcceptedGaps({"nope"}, "why"))
    assert found.code == "unmetered_interval"
    assert found.what.endswith("; nope, named by --accept-gap, lacks nothing there")
    assert "--accept-gap," not in refusal(books(GAP)).what


def test_a_gap_that_is_not_there_can_not_be_accepted() -> None:
    assert refusal(books(), accept_gaps=ACCEPTED).code == "no_gap"
    september = replace(GAP, begins_us=us(5, 9), ends_us=us(6, 9))
    assert refusal(books(september), accept_gaps=ACCEPTED).code == "no_gap"


def test_a_gap_across_the_months_edge_stops_both() -> None:
    made = books(replace(GAP, begins_us=us(30, 9), ends_us=us(2)))
    for period in (Period(2026, 9), Period(2026, 10)):
        with pytest.raises(Refusal) as refused:
            close(made, period)
        assert refused.value.code == "unmetered_interval"


def test_the_close_of_december_accepts_for_the_months_that_it_closes_again() -> None:
    """Otherwise a gap that was found late in a waiting month could never be accepted with it."""
    made = books_with(event(1, month=3), operator="smallest_document: 5.00")
    assert close(made, Period(2026, 3))["waiting"]
    made.books[OPERATOR].unmetered = [replace(GAP, begins_us=us(5, 3), ends_us=us(5, 3))]
    at = datetime(2027, 1, 5, tzinfo=UTC)
    with pytest.raises(Refusal) as refused:
        close(made, Period(2026, 12), at)
    assert refused.value.code == "unmetered_interval"
    row = close(made, Period(2026, 12), at, accept_gaps=ACCEPTED)
    assert [gap["reason"] for gap in row["earlier"][0]["gaps"]] == ["the disk was full"]


def test_a_gap_that_was_sealed_again_or_grew_is_one_gap() -> None:
    grown = replace(GAP, ends_us=GAP.ends_us + 5, requests=20)
    later = replace(GAP, begins_us=us(7), ends_us=us(8))
    assert newest([later, grown, GAP, GAP]) == [grown, later]


@pytest.mark.parametrize(("nodes", "reason"), [(["a"], None), (["a"], "  "), ([], "why")])
def test_a_gap_is_accepted_with_a_reason_and_a_reason_is_for_a_gap(
    nodes: list[str], reason: str | None
) -> None:
    with pytest.raises(Refusal) as refused:
        asked(nodes, reason)
    assert refused.value.code == "empty_reason"
