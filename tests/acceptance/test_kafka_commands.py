"""Kafka from the command line, with a real broker: topics, and a shipper."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import Tally
from kafka_broker import KafkaBroker, unique_prefix

from adapters.cli.framework import EXAMPLES
from adapters.cli.subjects import import_all

import_all()


@pytest.fixture
def tally(kafka: KafkaBroker, tmp_path: Path) -> Tally:
    """An empty data folder, and topics of its own that are not made yet."""
    named = {"TALLY_KAFKA": kafka.address, "TALLY_KAFKA_PREFIX": unique_prefix()}
    return Tally(tmp_path / "data", environment=named)


def test_topics_are_made_once_and_a_second_time_changes_nothing(tally: Tally) -> None:
    line = EXAMPLES["kafka prepare"].split()[1:]
    prefix = tally.environment["TALLY_KAFKA_PREFIX"]
    assert tally(*line)["created"] == [f"{prefix}.batches", f"{prefix}.accepted"]
    again = tally(*line)
    assert (again["created"], again["mended"], again["differences"]) == ([], [], [])
    plain = tally.run(*line)
    assert plain.exit_code == 0
    assert f"{prefix}.batches   there" in plain.stdout


def test_what_differs_is_said_with_its_remedy_and_mended_when_asked_for(tally: Tally) -> None:
    tally("kafka", "prepare", "--partitions", "2", "--retention-days", "1")
    asked = ("kafka", "prepare", "--partitions", "4", "--retention-days", "7")
    ran = tally.run(*asked, "--json")
    assert ran.exit_code == 3
    found = json.loads(ran.stdout)["differences"]
    assert [each["what"] for each in found] == [
        "a batch is kept for 24 hours, not for 7 days",
        "2 partitions, not 4",
    ]
    assert all("--mend" in each["remedy"] for each in found)
    assert [each["what"] for each in tally(*asked, "--mend")["mended"]] == [each["what"] for each in found]
    assert tally(*asked)["differences"] == []


def test_more_copies_than_brokers_are_refused(tally: Tally) -> None:
    assert tally.refused("kafka", "prepare", "--replication", "3")["code"] == "too_few_brokers"
    assert tally.refused("kafka", "prepare", "--in-sync", "2")["code"] == "too_few_copies"


def test_a_shipper_serves_before_kafka_has_topics_and_stops_cleanly(tally: Tally) -> None:
    with tally.serving(*EXAMPLES["shipper"].split()[1:]) as told:
        assert told["shipper"] == f"{tally.environment['TALLY_KAFKA_PREFIX']}.batches"


def test_without_kafka_its_commands_say_what_to_set(tmp_path: Path) -> None:
    tally = Tally(tmp_path / "data")
    for line in (["kafka", "prepare"], ["shipper"]):
        refused = tally.refused(*line)
        assert (refused["code"], refused["where"]) == ("no_kafka", "TALLY_KAFKA")
