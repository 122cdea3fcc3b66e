"""The usage report: its sums, how complete it says it is, and its CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paper_examples import DETAIL, OCTOBER, OPERATOR, UNFINISHED, lane, report, usage_row

from metering.refusal import Refusal
from reports.formats import FORMATS, USAGE, media_type, render_usage
from reports.usage import FIGURES, SECTIONS, usage_csv, usage_json, usage_report


def test_sections_are_sums_of_the_detail() -> None:
    made = report(DETAIL)
    customers = made.section("customer")
    assert [(row["customer"], row["model"], row["requests"], row["aborted"]) for row in customers] == [
        ("acme", "claude-opus-4", 4, 1),
        ("baltic-letters", "qwen3-32b", 2, 0),
        ("river-institute", "qwen3-32b", 1, 0),
    ]
    assert [(row["region"], row["requests"]) for row in made.section("region")] == [(None, 1), ("LT-VL", 6)]
    assert made.total["prompt_tokens"] == 3 * 1_000 + 800 + 2 * 5_000_000 + 40
    for name in SECTIONS:
        assert sum(row["prompt_tokens"] for row in made.section(name)) == made.total["prompt_tokens"]


def test_tables_of_different_snapshots_are_our_own_bug() -> None:
    made = report(DETAIL)
    with pytest.raises(AssertionError, match="one snapshot"):
        usage_report(
            OPERATOR, OCTOBER, detail=DETAIL[:1], days=made.days, lanes=made.lanes, made_at=made.made_at
        )


@pytest.mark.parametrize(
    ("lanes", "whole"),
    [
        ([lane()], True),
        ([], True),  # nothing was ever due
        ([lane(complete_to="2026-10-31T21:59:59.999999Z")], False),
        ([lane(complete_to="2026-10-31T22:00:00.000000Z")], True),
        ([lane(complete_to=None, lag_s=None)], False),
        ([lane(holes=1)], False),
        ([lane(held=2)], False),
        ([lane(forks=1)], False),
        ([lane(), lane("1", complete_to="2026-10-05T00:00:00.000000Z", due=False)], True),  # it has ended
        ([lane("import-1", kind="import", complete_to="2026-10-05T00:00:00.000000Z", due=False)], True),
        ([lane("import-1", kind="import", complete_to=None, due=False)], True),
        ([lane(operator="another", holes=1)], True),
    ],
)
def test_a_report_is_whole_when_nothing_of_its_period_can_be_missing(
    lanes: list[dict[str, Any]], whole: bool
) -> None:
    assert report(DETAIL, lanes).whole is whole


def test_a_report_with_an_import_half_taken_in_is_not_whole_and_names_it() -> None:
    accepted = {
        "kind": "unmetered",
        "node": "vilnius-1",
        "lane": "0",
        "from": "2026-10-05T00:00:00.000000Z",
        "to": "2026-10-05T00:03:20.000000Z",
        "requests": 17,
        "reason": "the disk was full",
    }
    made = report(DETAIL, unfinished=[UNFINISHED])
    told = usage_json(made)

    assert (told["whole"], told["unfinished_imports"]) == (False, [UNFINISHED])
    assert not report(DETAIL, gaps=[accepted], unfinished=[UNFINISHED]).whole_but_for_accepted_gaps
    assert usage_json(report(DETAIL))["unfinished_imports"] == []


def test_a_running_period_is_not_whole() -> None:
    assert not report(DETAIL, made_at=datetime(2026, 10, 31, 21, 59, tzinfo=UTC)).whole


def test_complete_to_is_that_of_the_lane_furthest_behind() -> None:
    behind = lane("1", complete_to="2026-10-30T12:00:00.500000Z")
    assert report(DETAIL, [lane(), behind]).complete_to == datetime(2026, 10, 30, 12, 0, 0, 500_000, UTC)
    assert report(DETAIL, [lane(), lane("1", complete_to=None, lag_s=None)]).complete_to is None


def test_what_was_served_unmetered_makes_a_report_not_whole_and_stands_in_it_with_its_reason() -> None:
    gap = {
        "kind": "unmetered",
        "node": "vilnius-1",
        "lane": "0",
        "from": "2026-10-05T00:00:00.000000Z",
        "to": "2026-10-05T00:03:20.000000Z",
        "requests": 17,
        "reason": "the disk was full",
    }
    made = report(DETAIL, gaps=[gap])
    assert (made.whole, usage_json(made)["gaps"]) == (False, [gap])
    assert made.whole_but_for_accepted_gaps


def test_a_gap_is_no_excuse_for_what_nobody_accepted() -> None:
    gap = {"kind": "incomplete", "node": "vilnius-1", "reason": "the node burned"}
    behind = lane(complete_to="2026-10-30T12:00:00.000000Z")
    assert report(DETAIL, [behind], gaps=[gap]).whole_but_for_accepted_gaps
    for made in (
        report(DETAIL, [behind], gaps=[gap, gap | {"reason": None}]),
        report(DETAIL, [behind], gaps=[gap | {"kind": "unmetered"}]),
        report(DETAIL, [behind], gaps=[gap | {"node": "another"}]),
        report(DETAIL, [lane(holes=1)], gaps=[gap]),
        report(DETAIL, [behind], gaps=[gap], made_at=datetime(2026, 10, 31, 21, 59, tzinfo=UTC)),
        report(DETAIL),
    ):
        assert not made.whole_but_for_accepted_gaps


def test_csv_is_rfc_4180_with_a_header() -> None:
    assert usage_csv(DETAIL[:1]) == (
        b"customer,model,region,outcome,requests,aborted,prompt_tokens,cached_tokens,completion_tokens,"
        b"reasoning_tokens,generated_tokens,audio_seconds,unwitnessed_requests\r\n"
        b"acme,claude-opus-4,LT-VL,finished,3,0,3000,750,1500,375,1500,0,0\r\n"
    )
    assert usage_csv([], by=["day"]).startswith(b"day,requests,")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@cf/llama", "\tx", "\rx"])
def test_csv_text_never_begins_a_formula(text: str) -> None:
    row = usage_row(1, 8, customer="acme", model=text, region=None, outcome="finished")
    [_, written] = csv.reader(io.StringIO(usage_csv([row]).decode(), newline=""))
    assert written[1] == f"'{text}"
    assert written[2] == ""


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")))
def test_csv_gives_back_any_other_text(text: str) -> None:
    row = usage_row(1, 8, customer="acme", model=text, region="LT", outcome="finished")
    [_, written] = csv.reader(io.StringIO(usage_csv([row]).decode(), newline=""))
    assert written[1] in (text, f"'{text}")
    assert written[1][:1] not in ("=", "+", "-", "@", "\t", "\r")


def test_json_has_the_words_of_the_command_line() -> None:
    document = usage_json(report(DETAIL))
    assert json.loads(render_usage(report(DETAIL), "lt", "json")) == document
    assert document["operator"] == "telecentras"
    assert (document["from"], document["to"]) == ("2026-09-30T21:00:00Z", "2026-10-31T22:00:00Z")
    assert document["made_at"] == "2026-11-01T09:30:00Z"
    assert (document["whole"], document["complete_to"]) == (True, "2026-10-31T22:00:05Z")
    assert list(document["rows"][0]) == ["customer", "model", "region", "outcome", *FIGURES]
    assert list(document["by"]) == ["customer", "model", "region", "outcome", "day"]
    assert document["by"]["day"][0]["day"] == "2026-10-25T00:00:00+03:00"
    assert document["lanes"] == [lane()]


def test_a_format_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(Refusal) as refused:
        render_usage(report(DETAIL), "en", "xlsx")
    assert refused.value.code == "unknown_format"
    assert refused.value.remedy == "one of: pdf, csv, json"
    assert {media_type(USAGE, format) for format in FORMATS[USAGE]} == set(FORMATS[USAGE].values())
