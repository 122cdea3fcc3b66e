"""`tally log` as an operator, a customer and an auditor use it."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command import EXAMPLE, Json, Tally, over, write_rows

from adapters.cli.framework import EXAMPLES
from adapters.cli.subjects import import_all
from adapters.postgres.database import DatabaseUrls

import_all()
Urls = Callable[[], DatabaseUrls]


@pytest.fixture(scope="module")
def tally(fresh_urls: Urls, tmp_path_factory: pytest.TempPathFactory) -> Tally:
    """October imported, closed and issued; `tally intake` ran for a moment, which made the keys."""
    folder = tmp_path_factory.mktemp("log")
    row = {"time": "2026-10-12T09:30:00Z", "customer": "acme", "model": "qwen3-32b"}
    usage = [{**row, "prompt_tokens": 10_000_000 + n, "completion_tokens": 2_000_000} for n in range(10)]
    tally = over(fresh_urls(), folder / "data", EXAMPLE)
    tally.folder = folder
    assert tally("log", "checkpoint") == {"checkpoints": []}
    assert tally.refused("log", "key")["code"] == "no_log_key"
    tally("import", str(write_rows(folder / "usage.csv", usage)), "--node", "vilnius-1")
    with tally.serving("intake"):
        pass
    tally("period", "close", "2026-10", "--issue")
    (folder / "log.key").write_text(tally("log", "key")["key"] + "\n")
    return tally


def checkpoint(tally: Tally) -> Json:
    found: Json = tally("log", "checkpoint", "--operator", "telecentras")["checkpoints"][0]
    return found


def invoice(tally: Tally) -> Json:
    [found] = tally("invoice", "list")["invoices"]
    return found  # type: ignore[no-any-return]  # JSON


def test_the_examples_run_as_they_stand(tally: Tally) -> None:
    for path in ("log checkpoint", "log key", "log prove", "log check"):
        ran = tally.run(*shlex.split(EXAMPLES[path])[1:])
        assert ran.exit_code == 0, ran
        assert ran.stdout.strip()


def test_the_keys_are_the_operators_own_and_nobody_elses_to_read(tally: Tally) -> None:
    folder = tally.data / "keys" / "log"
    keys = sorted(folder.glob("*.key"))
    assert [key.name for key in keys] == ["_installation.key", "telecentras.key"]
    beside = sorted(path.name for path in folder.iterdir() if path not in keys)
    assert beside == ["_installation.signed", "telecentras.signed"], "what each of them signed last"
    assert {key.stat().st_mode & 0o777 for key in keys} == {0o600}
    assert tally("log", "key", "--operator", "_installation")["operator"] == "_installation"


def test_an_invoice_names_the_signed_checkpoint_that_it_was_computed_from(tally: Tally) -> None:
    named = invoice(tally)["checkpoint"]
    lines = named.split("\n")
    assert lines[0] == "telecentras.tallygrid/log"
    newest = checkpoint(tally)
    assert 0 < int(lines[1]) < newest["size"]
    [body] = (tally.data / "archive").rglob("*.parquet")
    batch = tally("log", "prove", "--batch", body.stem.rpartition("-")[2], "--out", "batch.json")
    assert batch["index"] < int(lines[1])  # what it bills is under the checkpoint that it names
    assert newest["waiting"] is False
    shown = tally.run("invoice", "render", invoice(tally)["id"], "--format", "pdf", "--out", "invoice.pdf")
    assert shown.exit_code == 0, shown


def test_a_customer_checks_the_own_invoice_offline(tally: Tally, tmp_path: Path) -> None:
    """With the proof, the key, and the line of an earlier invoice: in a folder where nothing else is."""
    mine = invoice(tally)
    line = " ".join(mine["checkpoint"].split("\n")[:3])
    tally("log", "prove", "--document", mine["number"], "--seen", line, "--out", str(tmp_path / "proof"))
    auditor = Tally(tmp_path / "nothing", folder=tmp_path)
    key = (tally.folder / "log.key").read_text().strip()
    checked = auditor("log", "check", "proof", "--pin", key, "--seen", line)
    assert (checked["ok"], checked["pinned"], checked["failures"]) == (True, True, [])
    content = json.loads(checked["content"])
    assert (content["table"], content["row"]["number"]) == ("document", mine["number"])
    assert content["row"]["content"]["gross"] == mine["gross"]
    (tmp_path / "seen").write_text(mine["checkpoint"])
    assert auditor("log", "check", "proof", "--pin", key, "--seen", "seen")["ok"]
    assert not (tmp_path / "nothing").exists()


def test_without_a_pinned_key_the_origin_is_unproved_and_the_exit_code_says_so(
    tally: Tally, tmp_path: Path
) -> None:
    tally("log", "prove", "--leaf", "0", "--out", str(tmp_path / "proof"))
    ran = Tally(tmp_path).run("log", "check", str(tmp_path / "proof"))
    assert ran.exit_code == 3
    assert "consistent, origin unproved" in ran.stdout


def test_a_changed_proof_differs(tally: Tally, tmp_path: Path) -> None:
    file = tmp_path / "proof"
    tally("log", "prove", "--document", invoice(tally)["number"], "--out", str(file))
    file.write_text(file.read_text().replace("2026-10", "2026-11"))
    ran = Tally(tmp_path).run("log", "check", str(file), "--pin", str(tally.folder / "log.key"), "--json")
    assert ran.exit_code == 3
    assert ran.document["failures"] == ["the content is not what the leaf commits to"]
    file.write_text("{}")
    assert tally.refused("log", "check", str(file))["code"] == "bad_proof"


def test_an_accepted_batch_is_proved_by_its_hash(tally: Tally, tmp_path: Path) -> None:
    [body] = (tally.data / "archive").rglob("*.parquet")
    seal_hash = body.stem.rpartition("-")[2]
    proved = tally("log", "prove", "--batch", seal_hash, "--out", str(tmp_path / "proof"))
    assert seal_hash in proved["leaf"]
    assert proved["leaf"].startswith("tallygrid/leaf/v1\nbatch vilnius-1 ")


def test_every_checkpoint_seen_is_proved_to_be_the_beginning_of_the_log(tally: Tally, tmp_path: Path) -> None:
    before = checkpoint(tally)
    tally("key", "create", "--customer", "acme")
    after = checkpoint(tally)
    assert after["size"] > before["size"]
    (tmp_path / "seen").write_text(before["checkpoint"])
    asked = ("--leaf", str(after["size"] - 1), "--seen", str(tmp_path / "seen"))
    tally("log", "prove", *asked, "--out", str(tmp_path / "proof"))
    key = str(tally.folder / "log.key")
    seen = str(tmp_path / "seen")
    assert tally("log", "check", str(tmp_path / "proof"), "--pin", key, "--seen", seen)["ok"]


def test_a_log_that_can_not_be_signed_fails_no_command_and_is_said(tally: Tally) -> None:
    key = tally.data / "keys" / "log" / "telecentras.key"
    kept = key.read_bytes()
    key.write_bytes(b"no key")
    ran = tally.run("key", "create", "--customer", "acme")
    assert ran.exit_code == 0, ran
    assert (
        "warning: the log of telecentras is not signed: the file holds no Ed25519 private key" in ran.stderr
    )
    named = {check["name"]: check for check in tally.run("doctor", "--json").document["checks"]}
    assert named["log telecentras"]["state"] == "warning"
    key.write_bytes(kept)
    assert checkpoint(tally)["waiting"] is False


@pytest.mark.parametrize("step", ["contents", "numbers", "tiles", "checkpoint", "head"])
def test_a_command_killed_while_it_signs_leaves_a_log_that_the_next_one_goes_on_with(
    tally: Tally, step: str, tmp_path: Path
) -> None:
    before = checkpoint(tally)
    killed = tally.run("key", "create", "--customer", "acme", TALLY_KILL_AT=f"log-{step}:1")
    assert killed.exit_code < 0, killed
    after = checkpoint(tally)
    assert after["size"] > before["size"]
    assert after["waiting"] is False
    (tmp_path / "seen").write_text(before["checkpoint"])
    asked = ("--leaf", str(after["size"] - 1), "--seen", str(tmp_path / "seen"))
    proved = tally("log", "prove", *asked, "--out", str(tmp_path / "proof"))
    assert json.loads(proved["content"])["table"] == "api_key"
    names = {check["name"]: check["state"] for check in tally.run("doctor", "--json").document["checks"]}
    assert names["log telecentras"] == "ok"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--batch", "ab" * 32], "unknown_batch"),
        (["--document", "TLC-9"], "unknown_document"),
        (["--leaf", "100000"], "unknown_leaf"),
        (["--leaf", "1", "--document", "TLC-9"], "which_leaf"),
        (["--leaf", "1", "--operator", "kaunas"], "unknown_operator"),
        (["--leaf", "1", "--seen", "somebody"], "bad_checkpoint"),
        (["--leaf", "1", "--seen", "kaunas.tallygrid/log 1 " + "A" * 43 + "="], "bad_seen"),
    ],
)
def test_what_can_not_be_proved_is_named(
    tally: Tally, arguments: list[str], code: str, tmp_path: Path
) -> None:
    assert tally.refused("log", "prove", *arguments, "--out", str(tmp_path / "proof"))["code"] == code
    assert not (tmp_path / "proof").exists()


def test_a_changed_archive_is_named_by_doctor_and_proves_nothing(tally: Tally, tmp_path: Path) -> None:
    assert "log telecentras" in {check["name"] for check in tally("doctor")["checks"]}
    log = tally.data / "archive" / "telecentras" / "_log"
    copy = tmp_path / "copy"
    shutil.copytree(log, copy)
    [bundle] = (log / "tile" / "entries").rglob(str(checkpoint(tally)["size"]))
    changed = bytearray(bundle.read_bytes())
    changed[40] ^= 1
    bundle.write_bytes(changed)
    refused = tally.refused("log", "prove", "--leaf", "0", "--out", str(tmp_path / "proof"))
    assert refused["code"] == "damaged_log"
    shutil.rmtree(log)
    shutil.copytree(copy, log)
    tally("log", "prove", "--leaf", "0", "--out", str(tmp_path / "proof"))
