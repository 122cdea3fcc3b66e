"""`tally backup` and `tally restore`, as somebody types them at 3 a.m."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import EXAMPLE, Tally, data_folder, over, vilnius, write_rows

from adapters.cli.framework import EXAMPLES
from adapters.cli.subjects import import_all
from adapters.log_sequencer import log_key_path
from adapters.postgres.database import DatabaseUrls
from metering.identity import LaneKey

import_all()  # for their examples

OPERATOR = "telecentras"
Json = dict[str, Any]


def usage_file(path: Path, prompt_tokens: int) -> str:
    row = {"time": "2026-10-12T09:30:00Z", "customer": "acme", "model": "qwen3-32b"}
    write_rows(
        path, [{**row, "prompt_tokens": prompt_tokens + n, "completion_tokens": 2_000_000} for n in range(3)]
    )
    return str(path)


def bill(tally: Tally, file: str) -> None:
    tally("import", file, "--node", "vilnius-1")
    tally("period", "close", "2026-10", "--issue", "--accept-unfinished")


def books(tally: Tally) -> list[Json]:
    """What people would compare."""
    balance = tally("ledger", "trial-balance")
    del balance["as_of"]  # now
    return [tally("invoice", "list"), tally("usage", "--by", "customer,day,model"), balance]


def test_the_disk_dies_and_the_ledger_goes_on_where_it_was(tmp_path: Path) -> None:
    with vilnius() as tally, data_folder() as another:
        tally.folder = another.folder = tmp_path
        bill(tally, usage_file(tmp_path / "first.csv", 10_000_000))
        taken = tally(*shlex.split(EXAMPLES["backup"])[1:], "--with-keys")
        assert (taken["keys"], taken["operators"]) == (True, [OPERATOR])
        bill(tally, usage_file(tmp_path / "second.csv", 20_000_000))
        tally("key", "create", "--role", "finance", "--operator", OPERATOR)
        lost = books(tally)
        invoice = tally("invoice", "show", "TLC-2026-000002")

        # Another machine: the archive comes from its own backup, the database from yesterday's.
        shutil.copytree(tally.data / "archive", another.data / "archive")
        file = usage_file(tmp_path / "third.csv", 30_000_000)
        refused = another.refused("import", file, "--node", "vilnius-1")
        assert (refused["code"], "tally restore" in refused["remedy"]) == ("behind_archive", True)
        restored = another("restore", taken["file"])
        assert [each["proved"] for each in restored["operators"]] == [True, True]
        assert books(another) == lost
        assert another("invoice", "show", "TLC-2026-000002") == invoice
        assert another(*shlex.split(EXAMPLES["restore"])[1:])["backup"] is None  # nothing is left to do
        bill(another, file)
        numbers = [row["number"] for row in another("invoice", "list")["invoices"]]
        assert sorted(numbers) == [f"TLC-2026-{n:06}" for n in (1, 2, 3)]
        assert another("ledger", "trial-balance")["balanced"]


def ledger(urls: DatabaseUrls, data: Path) -> Tally:
    """A PostgreSQL of the operator's own, and the data folder of the machine where intake runs and logs are signed."""
    for operator in (OPERATOR, "*"):
        path = log_key_path(data / "keys", operator)
        path.parent.mkdir(parents=True, exist_ok=True)
        LaneKey.load_or_create(path)
    tally = beside(urls, data)
    tally("apply", str(EXAMPLE))
    return tally


def beside(urls: DatabaseUrls, data: Path) -> Tally:
    assert urls.owner is not None
    tally = over(urls, data)
    tally.environment["TALLY_DATABASE_OWNER_URL"] = urls.owner
    return tally


EARLY = ("restored-table:3", "restoring:1")  # before the backup is in
LATE = ("restored:1", "replayed:4", "brought-forward:1", "restore-committed:1")


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param((LATE[1],), id="half-way"),
        pytest.param((*EARLY, *LATE), id="all", marks=pytest.mark.proof),
    ],
)
def test_a_restore_that_is_killed_anywhere_goes_on_when_it_is_run_again(
    fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path, steps: tuple[str, ...]
) -> None:
    data = tmp_path / "data"
    tally = ledger(fresh_urls(), data)
    bill(tally, usage_file(tmp_path / "first.csv", 10_000_000))
    backup = tally("backup", "--out", str(tmp_path / "backup.tar"))["file"]
    bill(tally, usage_file(tmp_path / "second.csv", 20_000_000))
    lost = books(tally)

    for step in steps:
        again = beside(fresh_urls(), data)
        assert again.run("restore", backup, TALLY_KILL_AT=step).exit_code == -9, step
        if step in LATE:
            assert again.refused("restore", backup)["code"] == "not_empty"
            again("restore")
        else:
            again("restore", backup)
        assert books(again) == lost, step


def test_a_database_behind_its_archive_is_read_and_not_written(
    fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path
) -> None:
    """The restore stopped half-way: somebody has to decide. Meanwhile what is there can be looked at."""
    data = tmp_path / "data"
    tally = ledger(fresh_urls(), data)
    first = usage_file(tmp_path / "first.csv", 10_000_000)
    bill(tally, first)
    backup = tally("backup", "--out", str(tmp_path / "backup.tar"))["file"]
    bill(tally, usage_file(tmp_path / "second.csv", 20_000_000))

    old = beside(fresh_urls(), data)
    assert old.run("restore", backup, TALLY_KILL_AT="restored").exit_code == -9
    for written in (
        ("apply", str(EXAMPLE)),
        ("import", first, "--node", "vilnius-1"),
        ("invoice", "issue", "--period", "2026-10"),
        ("key", "create", "--customer", "acme"),
        ("intake",),
    ):
        assert old.refused(*written)["code"] == "behind_archive", written
    ran = old.run("invoice", "list", "--json")
    assert [row["number"] for row in ran.document["invoices"]] == ["TLC-2026-000001"]
    assert "warning: " in ran.stderr
    assert "tally restore" in ran.stderr
    doctor = old.run("doctor", "--json")
    assert doctor.exit_code == 3
    [found] = [check for check in doctor.document["checks"] if check["name"] == "archive"]
    assert (found["state"], "tally restore" in found["remedy"]) == ("fault", True)
