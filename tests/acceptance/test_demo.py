"""`tally demo`: the whole road in one command; and with an engine that miscounts, its check must fail."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from command import ROOT, Ran, Tally

from adapters.postgres.embedded import discard


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Ran]]:
    """A demo as it should be and one with a fault, side by side."""
    tally = Tally(tmp_path_factory.mktemp("unused") / "data")
    started = {
        "true": tally.start("demo", "--json", "--keep"),
        "miscount": tally.start("demo", "--json", "--fault", "miscount"),
    }
    demos = {name: each.wait() for name, each in started.items()}
    yield demos
    kept = Path(demos["true"].document["data"])
    discard(kept)
    for demo in demos.values():
        shutil.rmtree(Path(demo.document["files"][0]).parents[1])
    assert not tally.data.exists()  # a demo works in a folder of its own


def test_the_demos_events_are_the_engines_own_counters(demos: dict[str, Ran]) -> None:
    ran = demos["true"]
    demo = ran.document

    assert ran.exit_code == 0, ran
    assert demo["difference"] == {"prompt_tokens": 0, "output_tokens": 0}
    assert demo["requests"] == demo["events"] == demo["answers"] + demo["hung_up"]
    assert demo["hung_up"] > 0
    assert demo["refused"] == 0


def test_the_demos_usage_is_made_again_from_its_archive_and_its_invoice_is_proved(
    demos: dict[str, Ran],
) -> None:
    proved = demos["true"].document["proved"]
    assert proved["ok"]
    assert proved["batches"] > 0
    assert (proved["cells"] > 0, proved["different"]) == (True, 0)
    assert proved["log"]["document"] == demos["true"].document["invoices"][0]["number"]


def test_the_demo_sends_the_whole_sample(demos: dict[str, Ran]) -> None:
    with (ROOT / "examples" / "vilnius" / "requests.csv").open() as sample:
        rows = list(csv.DictReader(sample))

    assert demos["true"].document["requests"] == len(rows)
    assert demos["true"].document["engine"]["prompt_tokens"] == sum(int(row["prompt_tokens"]) for row in rows)


def test_the_demo_issues_invoices_and_settles_them(demos: dict[str, Ran]) -> None:
    demo = demos["true"].document

    assert demo["unfinished"] is True
    assert {invoice["state"] for invoice in demo["invoices"]} == {"issued"}
    assert {invoice["customer"] for invoice in demo["invoices"]} == {
        "acme",
        "baltic-letters",
        "river-institute",
    }
    net = sum(Decimal(invoice["net"]) for invoice in demo["invoices"])
    assert Decimal(demo["settlement"]["base"]) == net
    assert sum(Decimal(share["amount"]) for share in demo["settlement"]["shares"]) == net


def test_the_demos_files_are_there_and_its_data_folder_can_be_looked_into(demos: dict[str, Ran]) -> None:
    demo = demos["true"].document
    files = {Path(path).suffix: Path(path) for path in demo["files"]}

    assert {".pdf", ".csv", ".json"} == set(files)
    assert all(path.read_bytes().startswith(b"%PDF-") for suffix, path in files.items() if suffix == ".pdf")
    assert json.loads(files[".json"].read_text())
    kept = Tally(Path(demo["data"]))
    assert kept("usage")["total"]["requests"] == demo["events"]
    assert [each["number"] for each in kept("invoice", "list")["invoices"]] == [
        each["number"] for each in demo["invoices"]
    ]
    assert kept("streams")["lanes"][0]["holes"] == 0


def test_an_engine_that_miscounts_is_found_out(demos: dict[str, Ran]) -> None:
    ran = demos["miscount"]

    assert ran.exit_code == 3, ran
    assert ran.document["difference"]["output_tokens"] != 0
    assert ran.document["data"] is None


def test_without_keep_only_the_files_stay(demos: dict[str, Ran]) -> None:
    files = [Path(path) for path in demos["miscount"].document["files"]]

    assert all(path.is_file() for path in files)
    assert [path.name for path in files[0].parents[1].iterdir()] == ["files"]
