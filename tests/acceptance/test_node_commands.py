"""Nodes and their keys at the command line: from afar by two files, rotated, stolen and sealed again, given up."""

from __future__ import annotations

import http.client
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from command import EXAMPLE, Json, Tally, over, simulated_engine

from adapters.cli.framework import EXAMPLES
from adapters.cli.subjects import import_all
from adapters.postgres.database import DatabaseUrls

import_all()
NODE = ("--node", "vilnius-1")
LANE = (*NODE, "--lane", "sidecar-0")


@pytest.fixture
def ledger(fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path) -> Tally:
    return over(fresh_urls(), tmp_path / "ledger", EXAMPLE)


def ask(sidecar: str, secret: str) -> int:
    connection = http.client.HTTPConnection(urlsplit(sidecar).netloc, timeout=30)
    body = {"model": "qwen3-32b", "messages": [{"role": "user", "content": "Labas!"}], "max_tokens": 5}
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {secret}"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def serve(tally: Tally, secret: str, requests: int = 1) -> None:
    """A sidecar that serves some requests and is stopped, with all of them sealed."""
    with (
        simulated_engine() as engine,
        tally.serving("sidecar", *NODE, "--engine", engine["engine"], "--listen", "127.0.0.1:0") as told,
    ):
        assert [ask(told["sidecar"], secret) for _ in range(requests)] == [200] * requests


def carry(site: Tally, ledger: Tally) -> Json:
    """What Kafka would bring: the site's spool at the ledger; what `tally streams` says of the lane then."""
    shutil.copytree(site.data / "spool", ledger.data / "spool", dirs_exist_ok=True)
    return lane(ledger)


def lane(tally: Tally) -> Json:
    ran = tally.run("streams", "--json")
    assert ran.exit_code in (0, 3), ran
    [row] = ran.document["lanes"]
    return dict(row)


def test_a_node_without_a_database_is_enrolled_by_two_files_that_are_carried(
    ledger: Tally, tmp_path: Path
) -> None:
    secret = ledger("key", "create", "--customer", "acme")["secret"]
    site = Tally(tmp_path / "site", folder=tmp_path)
    asked = site("node", "enrol", "--operator", "telecentras", *NODE, "--out", "vilnius-1.request")
    assert asked["lanes"] == ["sidecar-0"]

    taken = ledger("node", "enrol", str(tmp_path / "vilnius-1.request"))

    assert (taken["key"], taken["answer"]) == (asked["key"], str(tmp_path / "vilnius-1.answer"))
    assert site(*shlex.split(EXAMPLES["node accept"])[1:]) == {
        "operator": "telecentras",
        "node": "vilnius-1",
        "api_keys": 1,
    }
    serve(site, secret)
    checks = site.run("doctor", "--json").document["checks"]
    [node] = [check for check in checks if check["name"] == "node vilnius-1"]
    assert node["what"].startswith("enrolled from afar for telecentras; 1 API key, as of ")
    assert not list((tmp_path / "site").glob("postgres*")), "it needed no database"
    assert carry(site, ledger)["state"] == "live"
    assert ledger("usage")["total"]["requests"] == 1
    [key] = ledger("node", "list")["lanes"][0]["keys"]
    private = (tmp_path / "site" / "keys" / "lanes" / "vilnius-1" / "sidecar-0.key").read_bytes()
    assert not any(
        private in path.read_bytes() for path in (tmp_path / "ledger").rglob("*") if path.is_file()
    )
    assert len(key["public_key"]) == 64

    site("node", "rotate", "--out", "new.request")
    serve(site, secret)
    waiting = ledger("node", "list")["lanes"][0]
    assert len(waiting["keys"]) == 1
    assert carry(site, ledger)["set_aside"] >= 1, "its new key is not enrolled yet"
    assert ledger("node", "enrol", str(tmp_path / "new.request"))["lanes"] == [
        {"lane": "sidecar-0", "rank": 1}
    ]
    assert lane(ledger)["set_aside"] == 0
    assert ledger("usage")["total"]["requests"] == 2


def test_a_request_of_another_machine_in_the_nodes_name_is_refused(ledger: Tally, tmp_path: Path) -> None:
    mine, thief = (Tally(tmp_path / name, folder=tmp_path) for name in ("mine", "thief"))
    for tally, name in ((mine, "mine"), (thief, "thief")):
        tally("node", "enrol", "--operator", "telecentras", *NODE, "--out", f"{name}.request")
    ledger("node", "enrol", str(tmp_path / "mine.request"))
    refused = ledger.refused("node", "enrol", str(tmp_path / "thief.request"))
    assert refused["code"] == "another_node_key"
    assert thief.refused("node", "accept", str(tmp_path / "mine.answer"))["code"] == "not_this_node"
    elsewhere = Tally(tmp_path / "elsewhere", folder=tmp_path)
    elsewhere("node", "enrol", "--operator", "veliau", *NODE, "--out", "x.request")
    assert ledger.refused("node", "enrol", str(tmp_path / "x.request"))["code"] == "unknown_node"
    (tmp_path / "bent.request").write_bytes(
        (tmp_path / "mine.request").read_bytes().replace(b"sidecar-0", b"sidecar-1")
    )
    assert ledger.refused("node", "enrol", str(tmp_path / "bent.request"))["code"] == "bad_signature"
    replaced = ledger("node", "enrol", str(tmp_path / "thief.request"), "--new-node-key")
    assert replaced["lanes"] == [{"lane": "sidecar-0", "rank": 1}]


def test_a_stolen_key_is_revoked_and_what_the_node_served_is_sealed_again_and_billed_once(
    ledger: Tally,
) -> None:
    secret = ledger("key", "create", "--customer", "acme")["secret"]
    ledger(*shlex.split(EXAMPLES["node enrol"])[1:])
    serve(ledger, secret)
    ledger("usage")
    good = ledger(*shlex.split(EXAMPLES["node list"])[1:])["lanes"][0]["last_seal"]
    serve(ledger, secret, 2)
    revoked = ledger(*shlex.split(EXAMPLES["node revoke"])[1:])
    assert (revoked["last_good"], revoked["accepted_after"]) == (good, [])
    assert ledger.refused("sidecar", *NODE, "--engine", "http://127.0.0.1:1")["code"] == "key_revoked"
    found = lane(ledger)
    assert (found["state"], found["cases"][0]["code"]) == ("revoked", "revoked")
    assert ledger.refused("period", "close", "2026-10")["code"] == "held_batches"
    ledger(*shlex.split(EXAMPLES["node rotate"])[1:])
    resealed = ledger(*shlex.split(EXAMPLES["node reseal"])[1:])
    assert len(resealed["batches"]) == found["held"]
    assert ledger("usage")["total"]["requests"] == 3

    # The command that `tally streams` names settles what is still held.
    [case] = lane(ledger)["cases"]
    named = shlex.split(case["commands"][-1])[1:]
    assert named[:2] == ["intake", "repair"]
    decided = ledger(*named)
    assert [each["requests"] for each in decided["decisions"] if each["requests"]] == []
    assert (lane(ledger)["held"], lane(ledger)["state"]) == (0, "live")
    assert ledger("usage")["total"]["requests"] == 3
    [row] = ledger("period", "close", "2026-10")["operators"]
    assert row["gaps"] == []


def test_a_lane_that_is_given_up_holds_no_month_up(ledger: Tally, tmp_path: Path) -> None:
    secret = ledger("key", "create", "--customer", "acme")["secret"]
    ledger("node", "enrol", *NODE, "--lane", "sidecar-0", "--lane", "sidecar-1")
    gone = ledger("node", "retire", *NODE, "--lane", "sidecar-1", "--reason", "it was never started")
    assert gone["final"] is False
    ledger_rows = {row["lane"]: row["state"] for row in ledger("node", "list")["lanes"]}
    assert ledger_rows == {"sidecar-0": "live", "sidecar-1": "retired"}
    serve(ledger, secret)
    ended = ledger("node", "retire", *LANE, "--reason", "the node was sold")
    assert ended["final"] is True
    assert {row["lane"]: row["state"] for row in ledger("node", "list")["lanes"]}["sidecar-0"] == "final"
    assert ledger.refused("node", "retire", *LANE, "--reason", "again")["code"] in ("not_due", "lane_ended")
    said = ledger.run("node", "list")
    assert "sidecar-1" in said.stdout


def test_a_decision_needs_one_way_one_lane_and_a_reason(ledger: Tally) -> None:
    line = shlex.split(EXAMPLES["intake repair"])[1:]
    assert ledger.refused(*line)["code"] == "unknown_lane"
    ledger("node", "enrol", *NODE)
    assert ledger.refused(*line)["code"] == "unknown_batch"
    assert ledger.refused(*line, "--keep", "3f9a1c0d5e7b2846")["code"] == "which_decision"
    assert ledger.refused("intake", "repair", "--reason", "why")["code"] == "which_decision"
    retired = ledger(*shlex.split(EXAMPLES["node retire"])[1:])
    assert retired["lane"] == "sidecar-0"


def test_doctor_warns_of_a_lane_that_was_enrolled_and_never_sealed(ledger: Tally) -> None:
    ledger("node", "enrol", *NODE)
    checks = ledger.run("doctor", "--json").document["checks"]
    [found] = [check for check in checks if check["name"] == "lane vilnius-1/sidecar-0"]
    assert (found["state"], found["what"]) == ("warning", "it is enrolled, and no batch of it ever came")
    assert "None" not in ledger.run("doctor").stdout
