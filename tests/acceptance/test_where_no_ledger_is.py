"""A machine whose ledger is elsewhere: nothing is answered from an empty database, and what to do instead is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from command import EXAMPLE, Tally, over

from adapters.postgres.database import DatabaseUrls

NODE = ("--node", "vilnius-1")


@pytest.fixture
def site(tmp_path: Path) -> Tally:
    """A node that wrote its request."""
    site = Tally(tmp_path / "site", folder=tmp_path)
    site("node", "enrol", "--operator", "telecentras", *NODE, "--out", "vilnius-1.request")
    return site


def is_untouched(site: Tally) -> bool:
    return not list(site.data.glob("postgres*"))


def test_a_node_whose_request_waits_is_told_to_take_the_answer_and_makes_no_database(site: Tally) -> None:
    refused = site.refused("sidecar", "--engine", "http://127.0.0.1:1", "--listen", "127.0.0.1:0")
    assert refused["code"] == "no_database_here"
    assert "the request of vilnius-1 waits for its answer" in refused["what"]
    assert "tally node accept ANSWER" in refused["remedy"]
    assert is_untouched(site)


def test_an_enrolled_node_answers_no_question_from_a_database_that_is_not_there(
    site: Tally, fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path
) -> None:
    ledger = over(fresh_urls(), tmp_path / "ledger", EXAMPLE)
    ledger("node", "enrol", str(tmp_path / "vilnius-1.request"))
    site("node", "accept", "vilnius-1.answer")
    remedies = {
        ("streams",): "ask where the ledger is",
        ("usage",): "ask where the ledger is",
        ("node", "list"): "ask where the ledger is",
        ("apply", str(EXAMPLE)): "a data folder of its own",
        ("node", "rotate", *NODE): "tally node rotate --out FILE",
        ("node", "reseal", *NODE, "--lane", "sidecar-0"): "--after HASH",
    }
    for command, remedy in remedies.items():
        refused = site.refused(*command)
        assert refused["code"] == "no_database_here", command
        assert "vilnius-1 of telecentras was enrolled from afar" in refused["what"]
        assert remedy in refused["remedy"], command
    assert is_untouched(site)
    assert site.run("doctor", "--json").document["ok"]


def test_a_reason_that_says_nothing_and_a_file_that_cannot_be_written_are_refused_by_name(
    fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path
) -> None:
    ledger = over(fresh_urls(), tmp_path / "ledger", EXAMPLE)
    nothing = ("--reason", " ")
    for command in (
        ("archive", "expire", "--older-than", "10d", *nothing),
        ("archive", "hold", "add", "--operator", "telecentras", *nothing),
        ("archive", "hold", "remove", "2f1c5f2e-6a0c-4c55-9a1e-3f0d7b7f4c11", *nothing),
        ("node", "revoke", *NODE, "--last", "now", *nothing),
        ("node", "retire", *NODE, *nothing),
        ("intake", "repair", *NODE, "--drop", "00", *nothing),
        ("import", "void", "x", *nothing),
        ("invoice", "credit", "x", "--full", *nothing),
        ("period", "close", "2026-10", "--accept-gap", "vilnius-1", *nothing),
    ):
        assert ledger.refused(*command)["code"] == "no_reason", command
    nowhere = str(tmp_path / "nowhere" / "x")
    for writing in (
        ("log", "prove", "--leaf", "0", "--out", nowhere),
        ("archive", "rebuild", "--export", nowhere),
        ("node", "rotate", "--operator", "telecentras", *NODE, "--out", nowhere),
        ("node", "enrol", "--operator", "telecentras", *NODE, "--out", nowhere),
        ("report", "usage", "--period", "2026-10", "--out", nowhere),
    ):
        refused = ledger.refused(*writing)
        assert (refused["code"], refused["where"]) == ("cannot_write", nowhere), writing
    assert ledger.refused("log", "prove", "--leaf", str(2**63), "--out", "x.json", exit_code=2)
