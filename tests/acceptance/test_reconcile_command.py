"""`tally reconcile` as an operator meets it: October on one node whose sidecar's seals are made by hand, so that what
the engine counted is known, and what was done to it too.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from command import EXAMPLE, Tally, over, write_rows
from intake_world import START, Writer, us
from sqlalchemy import text

from adapters.postgres.database import Database, DatabaseUrls
from adapters.postgres.lane_keys import enroll_lane
from metering.batch import SealedBatch
from metering.fact import Fact, Span, Unmetered
from metering.identity import LaneKey
from metering.lane_folder import LaneFolder

OCTOBER = "2026-10"
SECOND = 1_000_000
# Of each `serve`, and of each request: enough to be worth a document.
REQUESTS, PROMPT, GENERATED = 3, 1_000_000, 10


@dataclass
class Node:
    """A lane of the example's node, enrolled, whose batches come into the spool."""

    tally: Tally
    customer: bytes
    writer: Writer = field(default_factory=Writer)
    spans: int = 0

    def serve(self, *facts: Fact, **counted: Any) -> None:
        """Three requests, and the span in which the engine counted them; `counted`: what it said else."""
        begins_us = self.writer.time_us
        batch = self.writer.seal(
            REQUESTS, customer=self.customer, prompt_tokens=PROMPT, generated_tokens=GENERATED
        )
        self.writer.time_us += SECOND
        said = {
            "number": self.spans,
            "model": "qwen3-32b",
            "from_us": begins_us,
            "to_us": self.writer.time_us,
            "ended": "quiet",
            "witness": "yes",
            "engine_prompt": REQUESTS * PROMPT,
            "engine_generated": REQUESTS * GENERATED,
            "lines": REQUESTS,
        }
        span = Span(**{**dict.fromkeys(Span.__slots__, 0), **said, **counted})
        self.spans += 1
        self.publish(batch, self.writer.seal(0, facts=[span, *facts]))

    def seal_up_to_november(self) -> None:
        """A heartbeat: the lane is complete up to the end of October, in Vilnius."""
        self.writer.time_us = max(self.writer.time_us, us(datetime(2026, 10, 31, 22, tzinfo=UTC)))
        self.publish(self.writer.seal(0))

    def publish(self, *batches: SealedBatch) -> None:
        writer = self.writer
        folder = LaneFolder.open(self.tally.data / "spool", writer.operator, writer.node, writer.lane)
        try:
            for batch in batches:
                folder.publish(batch)
        finally:
            folder.close()


@pytest.fixture
def node(fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path) -> Node:
    urls = fresh_urls()
    tally = over(urls, tmp_path / "data", EXAMPLE)
    writer = Writer()
    return Node(tally, asyncio.run(enrolled(urls, writer)), writer)


async def enrolled(urls: DatabaseUrls, writer: Writer) -> bytes:
    """Enrols the lane; the id under which the example's customer Acme stands in events."""
    database = await Database.open(urls)
    try:
        async with database.app(writer.operator) as conn:
            public = LaneKey.public_bytes(writer.key)
            await enroll_lane(conn, writer.operator, writer.node, writer.lane, writer.kind, public, START)
            found = await conn.execute(
                text("SELECT id FROM subject WHERE kind = 'customer' AND slug = 'acme'")
            )
            return bytes(found.scalar_one().bytes)
    finally:
        await database.close()


def test_a_month_without_a_difference_says_so_from_the_counters_to_the_invoice(node: Node) -> None:
    node.serve()
    node.serve(engine_generated=REQUESTS * GENERATED - 2, late_generated=2)
    refused = node.tally.refused("period", "close", OCTOBER)
    assert (refused["code"], refused["where"]) == ("incomplete_lane", "vilnius-1/sidecar-0")
    assert "complete up to 2026-10-05T08:00:10.000000Z only" in refused["what"]
    node.seal_up_to_november()
    node.tally("period", "close", OCTOBER, "--issue")

    found = node.tally("reconcile", "--period", OCTOBER)

    [row] = found["nodes"]
    assert (row["node"], row["model"], row["requests"], row["witness"]) == (
        "vilnius-1",
        "qwen3-32b",
        6,
        "yes",
    )
    assert (row["engine_prompt"], row["events_prompt"], row["unaccounted_prompt"]) == (
        6_000_000,
        6_000_000,
        0,
    )
    assert (row["engine_generated"], row["events_generated"], row["unaccounted_generated"]) == (58, 60, 0)
    assert (row["causes"]["late_generated"], found["unaccounted"]) == (2, 0)
    assert found["rated"] == found["invoiced"]
    assert found["rated"]["input"] + found["rated"]["cached_input"] == 6_000_000
    said = node.tally.run("reconcile", "--period", OCTOBER)
    assert (said.exit_code, said.stdout.splitlines()[-1]) == (0, "No difference.")
    assert "known: vilnius-1 qwen3-32b: 2 generated tokens came after their request had ended" in said.stdout
    hours = node.tally("reconcile", "--by", "hour", "--node", "vilnius-1")
    assert [each["hour"] for each in hours["nodes"]] == ["2026-10-05T11:00:00+03:00"]
    assert hours["periods"] == [], "a node alone is rated nowhere"


@pytest.mark.parametrize(
    ("done", "unaccounted", "said"),
    [
        ({"engine_generated": 37}, 7, "the engine counted 7 generated tokens (of 37) that nothing explains"),
        (
            {"engine_prompt": 4_000_000, "engine_generated": 40},
            1_000_010,
            "the engine counted 1,000,000 prompt tokens (of 4,000,000)",
        ),
        (
            {"engine_prompt": 2_999_950},
            50,
            "events say 50 prompt tokens more than the engine counted (2,999,950)",
        ),
        ({"lines": 2, "lines_missing": 1}, 0, "1 line of the engine missing"),
    ],
    ids=["7 tokens added to a counter", "an event dropped", "a counter set back", "an engine line deleted"],
)
def test_what_was_tampered_with_shows_with_place_hour_and_exit_3(
    node: Node, done: dict[str, int], unaccounted: int, said: str
) -> None:
    node.serve()
    node.writer.time_us += 3_600 * SECOND
    node.serve(**done)

    ran = node.tally.run("reconcile", "--json")

    assert ran.exit_code == 3
    [row] = ran.document["differences"]
    assert (row["node"], row["hour"]) == ("vilnius-1", "2026-10-05T12:00:00+03:00")
    assert ran.document["unaccounted"] == unaccounted
    told = node.tally.run("reconcile")
    assert told.exit_code == 3
    assert "DIFFERENCE: vilnius-1 qwen3-32b, hour 2026-10-05T12:00:00+03:00 (compared from" in told.stdout
    assert said in told.stdout
    assert "  likely: " in told.stdout


def test_a_month_with_an_unmetered_interval_closes_when_a_person_accepts_it_with_a_reason(
    node: Node, tmp_path: Path
) -> None:
    at_us = us(START)
    node.serve(Unmetered(at_us, at_us + 200 * SECOND, 17))
    node.seal_up_to_november()

    refused = node.tally.refused("period", "close", OCTOBER)
    assert (refused["code"], refused["where"]) == ("unmetered_interval", "vilnius-1/sidecar-0")
    assert "2026-10-05T08:00:00.000000Z to 2026-10-05T08:03:20.000000Z" in refused["what"]
    before = node.tally.run("reconcile")
    assert before.exit_code == 3
    assert "UNMETERED: vilnius-1: 17 requests served unmetered" in before.stdout
    accept = ("--accept-gap", "vilnius-1")
    assert node.tally.refused("period", "close", OCTOBER, *accept)["code"] == "empty_reason"
    elsewhere = node.tally.refused("period", "close", OCTOBER, "--accept-gap", "kaunas-9", "--reason", "why")
    assert elsewhere["code"] == "unmetered_interval"

    [row] = node.tally("period", "close", OCTOBER, *accept, "--reason", "the disk was full")["operators"]

    assert [(gap["requests"], gap["reason"]) for gap in row["gaps"]] == [(17, "the disk was full")]
    assert node.tally("period", "close", OCTOBER)["operators"][0]["gaps"] == row["gaps"]
    assert node.tally("reconcile")["unmetered"][0]["reason"] == "the disk was full"
    report = tmp_path / "usage.json"
    node.tally("report", "usage", "--period", OCTOBER, "--format", "json", "--out", str(report))
    document = json.loads(report.read_text())
    assert (document["whole"], document["gaps"][0]["reason"]) == (False, "the disk was full")


def test_usage_that_came_after_the_close_is_not_billed_yet_and_no_difference(
    node: Node, tmp_path: Path
) -> None:
    node.serve()
    accept = ("--accept-gap", "vilnius-1", "--reason", "its sidecar is stopped until next week")
    node.tally("period", "close", OCTOBER, "--issue", *accept)
    late = {
        "time": "2026-10-12T09:30:00Z",
        "customer": "acme",
        "model": "plain-model",
        "prompt_tokens": 5_000,
        "completion_tokens": 0,
    }
    node.tally("import", str(write_rows(tmp_path / "late.csv", [late])), "--node", "vilnius-1")

    ran = node.tally.run("reconcile", "--period", OCTOBER, "--json")

    assert (ran.exit_code, ran.document["differences"]) == (0, [])
    [period] = ran.document["periods"]
    assert period["differences"] == []
    assert period["not_billed_yet"] == [{"meter": "input", "rated": 3_000_000, "now": 3_005_000}]
    said = node.tally.run("reconcile", "--period", OCTOBER).stdout
    assert (
        f"not billed yet: +5,000 input tokens that came after the last close; tally period close {OCTOBER}"
        in said
    )
    node.serve()
    node.tally("usage")  # takes in what waits
    [period] = node.tally("reconcile", "--period", OCTOBER)["periods"]
    assert [each["now"] for each in period["not_billed_yet"]] == [6_005_000, 60]
    node.tally("period", "close", OCTOBER)
    found = node.tally("reconcile", "--period", OCTOBER)
    assert (found["rated"]["input"], found["invoiced"]["input"]) == (6_005_000, 3_000_000)
    assert "on no issued document" in node.tally.run("reconcile", "--period", OCTOBER).stdout


def witness_check(node: Node) -> dict[str, Any]:
    [check] = [each for each in node.tally("doctor")["checks"] if each["name"] == "witness vilnius-1"]
    found: dict[str, Any] = check
    return found


def test_doctor_faults_what_stayed_unchecked_for_a_day_and_says_what_to_do(node: Node) -> None:
    begins = datetime.now(UTC) - timedelta(hours=30)
    node.writer.time_us = us(begins)
    node.serve()
    node.publish(node.writer.seal(2, customer=node.customer, generated_tokens=10))
    node.tally("usage")  # takes in what waits
    ran = node.tally.run("doctor", "--json")
    [check] = [each for each in ran.document["checks"] if each["name"] == "reconcile vilnius-1"]
    assert (ran.exit_code, check["state"], check["what"][:10]) == (3, "fault", "2 requests")
    assert "(since_quiet_point)" in check["what"]
    assert "once a day" in check["remedy"]


def test_doctor_says_of_an_engine_that_was_not_quiet_that_its_lines_are_read(node: Node) -> None:
    node.writer.time_us = us(datetime.now(UTC) - timedelta(hours=3))
    node.serve()
    node.writer.time_us = us(datetime.now(UTC) - timedelta(minutes=5))
    node.publish(node.writer.seal(2, customer=node.customer, generated_tokens=10))
    node.tally("usage")
    check = witness_check(node)
    assert (check["state"], check["what"][:14]) == ("warning", "its lines are ")
    assert "--engine-lines" not in check["remedy"]


def test_what_no_counter_was_read_for_is_said_to_be_unchecked(node: Node) -> None:
    node.publish(node.writer.seal(2, customer=node.customer))
    ran = node.tally.run("reconcile")
    assert ran.exit_code == 3, "it was a day ago and longer"
    assert "No difference." not in ran.stdout
    assert (
        "NOT CHECKED for more than 24 hours: vilnius-1, 200 prompt and 20 generated tokens of 2 requests"
        in ran.stdout
    )
    assert "nobody has read this node's engine counters" in ran.stdout
    [check] = [each for each in node.tally("doctor")["checks"] if each["name"] == "witness vilnius-1"]
    assert (check["state"], "no fact of its engine" in check["what"]) == ("warning", True)


@pytest.mark.parametrize(
    ("witness", "state", "what"),
    [
        ("yes", "ok", "seen up to 2026-10-05T"),
        ("aside", "warning", "stepped aside"),
        ("no", "warning", "none: "),
    ],
)
def test_doctor_says_of_each_node_whether_the_engines_witness_was_seen(
    node: Node, witness: str, state: str, what: str
) -> None:
    node.serve(witness=witness)
    node.tally("usage")  # takes in what waits
    [check] = [each for each in node.tally("doctor")["checks"] if each["name"] == "witness vilnius-1"]
    assert (check["state"], check["what"][: len(what)]) == (state, what)


def test_requests_that_the_engine_did_not_witness_are_told_of_as_billed_as_delivered(
    node: Node, tmp_path: Path
) -> None:
    node.publish(node.writer.seal(2, customer=node.customer))
    node.serve()
    found = node.tally("usage", "--by", "model")
    assert (found["total"]["requests"], found["total"]["unwitnessed_requests"]) == (5, 2)
    assert "2 of 5 requests have no figure from the engine itself: billed as delivered" in (
        node.tally.run("usage").stdout
    )
    written = tmp_path / "usage.csv"
    node.tally("report", "usage", "--period", OCTOBER, "--format", "csv", "--out", str(written))
    rows = list(csv.DictReader(io.StringIO(written.read_text())))
    assert [(row["customer"], row["unwitnessed_requests"]) for row in rows] == [("acme", "2")]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--by", "day"], "unknown_by"),
        (["--node", "nowhere"], "unknown_node"),
        (["--operator", "nobody"], "unknown_operator"),
        (["--period", "October"], "bad_period"),
    ],
)
def test_what_is_not_there_is_refused_by_name(node: Node, options: list[str], code: str) -> None:
    assert node.tally.refused("reconcile", *options)["code"] == code


def test_an_installation_without_anything_has_nothing_to_compare(node: Node) -> None:
    ran = node.tally.run("reconcile")
    assert (ran.exit_code, ran.stdout.splitlines()[-1]) == (0, "Nothing to compare.")
