"""A month closes when every lane that is due is complete up to its end, or a person signs for what is not there."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from books_in_memory import BooksInMemory
from hypothesis import given
from hypothesis import strategies as st
from small_books import OPERATOR, books_with, close, event

from billing.completeness import LaneEnd, incomplete
from billing.gaps import AcceptedGaps, Gap, gap_sentence
from metering.refusal import Refusal

START, END = datetime(2026, 9, 30, 21, tzinfo=UTC), datetime(2026, 10, 31, 22, tzinfo=UTC)  # in Vilnius


def us(instant: datetime) -> int:
    return int(instant.timestamp()) * 1_000_000


LANE = LaneEnd("vilnius-1", "sidecar-0", "sidecar", us(START) - 1, us(END))
ACCEPTED = AcceptedGaps({"vilnius-1"}, "the node burnt down")


def books(*lanes: LaneEnd) -> BooksInMemory:
    made = books_with(event(100))
    made.books[OPERATOR].lanes = list(lanes)
    return made


def refusal(made: BooksInMemory, **how: Any) -> Refusal:
    with pytest.raises(Refusal) as refused:
        close(made, **how)
    return refused.value


def behind(lane: LaneEnd, days: int) -> LaneEnd:
    return replace(lane, complete_to_us=us(END - timedelta(days=days)))


def test_lanes_that_are_complete_to_the_end_leave_no_gap() -> None:
    assert incomplete([LANE, replace(LANE, lane="b", complete_to_us=us(END) + 5)], START, END) == []


def test_a_lane_leaves_a_gap_from_where_it_is_complete_to_the_end_of_the_month() -> None:
    assert incomplete([behind(LANE, 2)], START, END) == [
        Gap("vilnius-1", "sidecar-0", us(END) - 2 * 86_400_000_000, us(END), None, kind="incomplete")
    ]


@pytest.mark.parametrize(
    "lane",
    [
        replace(LANE, kind="import", complete_to_us=us(START)),
        replace(LANE, ended=True, complete_to_us=us(START)),
        replace(LANE, retired_us=us(START), reason="it was sold", complete_to_us=us(START)),
        replace(LANE, since_us=us(END), complete_to_us=None),
    ],
    ids=[
        "an import is complete by declaration",
        "it ended",
        "it was retired before",
        "it was there afterwards only",
    ],
)
def test_a_lane_that_is_not_due_leaves_none(lane: LaneEnd) -> None:
    assert incomplete([lane], START, END) == []


def test_a_lane_that_sealed_nothing_is_incomplete_from_its_enrolment_or_the_months_beginning() -> None:
    middle = us(START) + 86_400_000_000
    silent = replace(LANE, complete_to_us=None)
    gaps = incomplete([silent, replace(silent, lane="west", since_us=middle)], START, END)
    assert [gap.begins_us for gap in gaps] == [us(START), middle]


def test_what_a_lane_may_have_served_before_it_was_retired_is_a_gap_with_the_reason() -> None:
    """Complete up to 20 October, retired on the 25th: October prints five days, November nothing."""
    day, complete_us, retired_us = 86_400_000_000, us(END) - 12 * 86_400_000_000, us(END) - 7 * 86_400_000_000
    lane = replace(LANE, complete_to_us=complete_us, retired_us=retired_us, reason="it was sold")
    [gap] = incomplete([lane], START, END)
    assert gap == Gap("vilnius-1", "sidecar-0", complete_us, retired_us, None, "it was sold", "retired")
    assert incomplete([lane], END, END + timedelta(days=30)) == []
    [first] = incomplete([lane], START, START + (END - START) - timedelta(days=10))
    assert first.ends_us == us(END) - 10 * day, "retired after the month: all of the rest of it"

    [row] = close(books(lane))["gaps"]
    assert (row["kind"], row["reason"]) == ("retired", "it was sold")
    assert gap_sentence(row) == (
        "without what vilnius-1/sidecar-0 may have served before it was retired from 2026-10-19T22:00:00.000000Z"
        " to 2026-10-24T22:00:00.000000Z: it was sold"
    )


@given(st.integers(-50, 50), st.integers(-50, 50), st.booleans())
def test_a_gap_lies_within_the_month_and_ends_with_it(enrolled: int, complete: int, sealed: bool) -> None:
    day = 86_400_000_000
    lane = replace(
        LANE,
        since_us=us(START) + enrolled * day,
        complete_to_us=us(START) + complete * day if sealed else None,
    )
    for gap in incomplete([lane], START, END):
        assert us(START) <= gap.begins_us < gap.ends_us == us(END)


def test_a_close_refuses_names_the_lane_and_how_far_it_is_and_says_what_to_do() -> None:
    refused = refusal(books(LANE, behind(replace(LANE, lane="west"), 1)))
    assert (refused.code, refused.where) == ("incomplete_lane", "vilnius-1/west")
    assert (
        "complete up to 2026-10-30T22:00:00.000000Z only, not to 2026-10-31T22:00:00.000000Z" in refused.what
    )
    for remedy in (
        "tally streams",
        "tally node retire --node vilnius-1 --lane west",
        "--accept-gap vilnius-1",
    ):
        assert remedy in refused.remedy
    both = refusal(books(behind(LANE, 3), behind(replace(LANE, lane="west"), 1)))
    assert [fault.where for fault in both.faults] == ["vilnius-1/sidecar-0", "vilnius-1/west"]


def test_who_signs_for_it_closes_and_the_reason_stays_with_the_close() -> None:
    [gap] = close(books(behind(LANE, 1)), accept_gaps=ACCEPTED)["gaps"]
    assert gap == {
        "kind": "incomplete",
        "node": "vilnius-1",
        "lane": "sidecar-0",
        "from": "2026-10-30T22:00:00.000000Z",
        "to": "2026-10-31T22:00:00.000000Z",
        "requests": None,
        "reason": "the node burnt down",
    }


def test_a_lane_that_came_further_needs_no_second_signature_and_one_that_is_whole_none_at_all() -> None:
    made = books(behind(LANE, 3))
    close(made, accept_gaps=ACCEPTED)
    made.books[OPERATOR].lanes = [behind(LANE, 1)]
    assert [gap["reason"] for gap in close(made)["gaps"]] == ["the node burnt down"]
    made.books[OPERATOR].lanes = [behind(LANE, 1), behind(replace(LANE, lane="west"), 1)]
    assert refusal(made).where == "vilnius-1/west", "another lane is another gap"
    made.books[OPERATOR].lanes = [LANE]
    assert close(made)["gaps"] == []


def test_a_node_that_lacks_nothing_is_not_signed_for() -> None:
    refused = refusal(books(LANE), accept_gaps=ACCEPTED)
    assert (refused.code, refused.where) == ("no_gap", "--accept-gap")


def test_a_month_that_is_not_over_asks_no_lane() -> None:
    row = close(books(behind(LANE, 20)), now=datetime(2026, 10, 20, tzinfo=UTC), accept_unfinished=True)
    assert (row["unfinished"], row["gaps"]) == (True, [])


def test_accept_unfinished_spares_a_month_that_is_over_nothing() -> None:
    assert refusal(books(behind(LANE, 1)), accept_unfinished=True).code == "incomplete_lane"
