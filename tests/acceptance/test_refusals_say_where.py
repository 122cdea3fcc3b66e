"""Refusals of what was typed say of which option or file they are, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from command import EXAMPLE, Tally, over

from adapters.postgres.database import DatabaseUrls

NODE = ("--node", "vilnius-1")


def test_a_refusal_names_the_option_or_the_file_and_a_remedy(tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    junk.write_text("junk")
    tally = Tally(tmp_path / "data", folder=tmp_path)
    said = {
        ("usage", "--period", "2026-13"): "--period",
        ("report", "usage", "--period", "2026-13", "--out", "x"): "--period",
        ("period", "close", "2026-13"): "P",
        ("period", "show", "2026-13"): "P",
        ("node", "accept", "junk"): "junk",
        ("node", "enrol", "junk"): "junk",
        ("log", "check", "nosuch.json"): "FILE",
        ("archive", "expire", "--older-than", "0d", "--reason", "R"): "--older-than",
    }
    for command, where in said.items():
        refused = tally.refused(*command)
        assert (refused["where"], bool(refused["remedy"])) == (where, True), command
    refused = tally.refused("kafka", "prepare", TALLY_KAFKA="127.0.0.1:99999")
    assert (refused["code"], refused["where"]) == ("bad_kafka_settings", "TALLY_KAFKA")
    tally.refused("kafka", "prepare", "--retention-days", "99999999999", exit_code=2)
    assert not list(tally.data.glob("postgres*")), "none of it needed a database"


def test_a_customer_that_is_not_there_a_memory_that_is_none_and_sql_that_is_wrong(
    fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path
) -> None:
    ledger = over(fresh_urls(), tmp_path / "ledger", EXAMPLE)
    hold = ("archive", "hold", "add", "--operator", "telecentras", "--reason", "R")
    assert "tally get" in ledger.refused(*hold, "--customer", "zzz")["remedy"]
    assert ledger.refused("archive", "query", "SELECT 1 FROM event", "--memory", "")["where"] == "--memory"
    assert ledger.refused("archive", "query", "SELECT nothing FROM event")["remedy"]
