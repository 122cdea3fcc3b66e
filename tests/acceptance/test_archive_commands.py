"""The archive as people use it: asked in SQL, joined, made usage of again, and let go of by retention, not by accident."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import asyncpg
import pandas
import pytest
from command import EXAMPLE, Json, Tally, over, write_rows

from adapters.cli.framework import EXAMPLES
from adapters.cli.subjects import import_all
from adapters.postgres.database import DatabaseUrls
from metering.identity import LaneKey

import_all()
HOLD = "2f1c5f2e-6a0c-4c55-9a1e-3f0d7b7f4c11"
BY_MODEL = "SELECT customer, model, count(*) AS requests, sum(prompt_tokens) AS prompt FROM event GROUP BY ALL ORDER BY ALL"


@pytest.fixture
def urls(fresh_urls: Callable[[], DatabaseUrls]) -> DatabaseUrls:
    return fresh_urls()


@pytest.fixture
def tally(urls: DatabaseUrls, tmp_path: Path) -> Tally:
    return october(urls, tmp_path)


@pytest.fixture(scope="module")
def read(fresh_urls: Callable[[], DatabaseUrls], tmp_path_factory: pytest.TempPathFactory) -> Tally:
    """One that tests only read."""
    return october(fresh_urls(), tmp_path_factory.mktemp("read"))


def october(urls: DatabaseUrls, tmp_path: Path) -> Tally:
    """Two imports of Acme's and of the university's October, 12 requests each over two days."""
    tally = over(urls, tmp_path / "data", EXAMPLE)
    for customer in ("acme", "city-university"):
        rows = [
            {
                "time": (datetime.fromisoformat("2026-10-12T09:30:00Z") + timedelta(hours=4 * n)).isoformat(),
                "customer": customer,
                "model": "qwen3-32b",
                "prompt_tokens": 1_000_000 + n,
                "completion_tokens": 1000,
            }
            for n in range(12)
        ]
        tally("import", str(write_rows(tmp_path / f"{customer}.csv", rows)), "--create-customers")
    return tally


def only(document: Json) -> Json:
    [found] = document["operators"]
    assert isinstance(found, dict)
    return found


def example(path: str) -> list[str]:
    return shlex.split(EXAMPLES[path])[1:]


def archived(tally: Tally, pattern: str) -> list[Path]:
    return sorted((tally.data / "archive").rglob(pattern))


def test_the_archive_answers_sql_with_the_names_of_customers(read: Tally) -> None:
    answered = read("archive", "query", BY_MODEL)
    assert answered["rows"] == [
        {"customer": "acme", "model": "qwen3-32b", "requests": 12, "prompt": 12_000_066},
        {"customer": "city-university", "model": "qwen3-32b", "requests": 12, "prompt": 12_000_066},
    ]
    usage = read("usage", "--period", "2026-10", "--by", "customer,model")
    assert [row["prompt_tokens"] for row in usage["rows"]] == [row["prompt"] for row in answered["rows"]]
    assert read(*example("archive query"))["rows"] == [
        {"model": "qwen3-32b", "requests": 24, "tokens": 24_000}
    ]


def test_a_query_of_a_day_reads_that_day_in_the_operators_zone(read: Tally) -> None:
    counted = "SELECT count(*) AS n, min(time) AS first, max(time) AS last FROM event"
    [row] = read("archive", "query", counted, "--from", "2026-10-13", "--to", "2026-10-14")["rows"]
    assert row == {"n": 12, "first": "2026-10-12T21:30:00Z", "last": "2026-10-13T17:30:00Z"}
    assert read("archive", "query", counted, "--period", "2026-09")["rows"][0]["n"] == 0


REFUSED = {
    "SELECT * FROM read_text('/etc/passwd')": "disabled",
    "SELECT * FROM 's3://somewhere/else.parquet'": "disabled",
    "COPY (SELECT 1) TO '/tmp/stolen'": "not one SELECT",
    "SELECT 1; SELECT 2": "not one SELECT",
    "INSTALL httpfs": "not one SELECT",
    "SELECT nothing FROM event": "nothing",
    "SELEKT": "syntax",
}


def test_a_query_only_reads_and_only_the_archive(read: Tally) -> None:
    for sql, said in REFUSED.items():
        error = read.refused("archive", "query", sql)
        assert (error["code"], error["where"]) == ("bad_query", "SQL")
        assert said in error["what"]


def test_a_query_is_bounded_in_time_memory_and_rows(read: Tally) -> None:
    endless = "SELECT count(*) FROM range(1000000) a, range(1000000) b"
    assert read.refused("archive", "query", endless, "--timeout", "0.5")["code"] == "query_too_long"
    large = "SELECT list(range) FROM range(100000000)"
    assert read.refused("archive", "query", large, "--memory", "50MB")["code"] == "query_too_large"
    cut = read("archive", "query", "SELECT * FROM event", "--limit", "5")
    assert (len(cut["rows"]), cut["truncated"]) == (5, True)


def test_joined_batches_give_the_same_answers_the_same_usage_and_the_same_imports(
    tally: Tally, tmp_path: Path
) -> None:
    morning = datetime.fromisoformat("2026-10-15T06:00:00Z")
    rows = [
        {
            "time": (morning + timedelta(milliseconds=n)).isoformat(),
            "customer": "acme",
            "model": "qwen3-32b",
            "request_id": f"request-{n}",
            "prompt_tokens": 100,
            "completion_tokens": 10,
        }
        for n in range(10_500)
    ]
    tally("import", str(write_rows(tmp_path / "large.csv", rows)))
    seals = "SELECT hash, root, events FROM seal ORDER BY hash"
    answers = [tally("archive", "query", sql)["rows"] for sql in (BY_MODEL, seals)]

    done = only(tally("archive", "compact", "--days", "90"))
    assert (done["files"], done["batches"], done["events"], done["faults"]) == (1, 2, 10_500, [])
    assert only(tally("archive", "compact", "--days", "90"))["files"] == 0

    assert [tally("archive", "query", sql)["rows"] for sql in (BY_MODEL, seals)] == answers
    rebuilt = only(tally("archive", "rebuild"))
    assert (rebuilt["ok"], rebuilt["events"], rebuilt["different"]) == (True, 10_524, 0)
    assert len(pandas.read_parquet(tally.data / "archive" / "telecentras")) == 10_524
    again = tally("import", str(write_rows(tmp_path / "again.csv", rows[10_300:])))
    assert (again["already_known"], again["events"]) == (200, 0)


def test_usage_made_again_from_the_archive_is_the_ledgers_and_what_a_close_rated(tally: Tally) -> None:
    only(tally("period", "close", "2026-10"))
    assert tally("archive", "rebuild", "--period", "2026-10", "--root")["ok"]
    closed = only(tally("archive", "rebuild", "--up-to", "2026-10"))
    assert (closed["ok"], closed["close"]["number"]) == (True, 1)
    assert closed["rated"] == closed["rated_at_close"]
    assert closed["rated"]["output"] == 24_000
    refused = tally.refused("archive", "rebuild", "--up-to", "2026-10/7")
    assert refused["code"] == "not_closed"
    assert "each as in the database" in tally.run(*example("archive rebuild")).stdout


def test_a_rebuild_names_cells_that_somebody_changed(tally: Tally, urls: DatabaseUrls) -> None:
    asyncio.run(count_a_cell_twice(urls))
    ran = tally.run("archive", "rebuild", "--json")
    assert ran.exit_code == 3, ran
    found = only(ran.document)
    assert (found["different"], found["findings"]) == (1, [])
    [cell] = found["differences"]
    assert (cell["archive"]["requests"], cell["database"]["requests"]) == (1, 2)
    assert (cell["model"], cell["node"]) == ("qwen3-32b", "vilnius-1")


async def count_a_cell_twice(urls: DatabaseUrls) -> None:
    connection = await asyncpg.connect(urls.intake)
    await connection.execute(
        "INSERT INTO hourly_usage SELECT * FROM usage_cell ORDER BY hour, customer LIMIT 1"
    )
    await connection.close()


def test_a_rebuild_names_a_missing_an_extra_and_a_damaged_batch(tally: Tally) -> None:
    body, *others = archived(tally, "*.parquet")
    body.write_bytes(body.read_bytes()[:-1])
    seal = next(path for path in archived(tally, "_*.seal") if path.stem[1:] == others[-1].stem)
    extra = seal.with_name(f"_{'c' * 32}-7-{'d' * 64}.seal")
    extra.write_bytes(seal.read_bytes())
    ran = tally.run("archive", "rebuild", "--json")
    assert ran.exit_code == 3, ran
    findings = only(ran.document)["findings"]
    assert [each["code"] for each in findings] == ["damaged", "damaged"]
    assert findings[0]["where"].endswith(body.stem) or findings[1]["where"].endswith(body.stem)

    extra.unlink()
    seal.unlink()
    ran = tally.run("archive", "rebuild")
    assert ran.exit_code == 3, ran
    assert "missing: telecentras/vilnius-1/" in ran.stdout or "missing: telecentras/2026" in ran.stdout


def sign(tally: Tally) -> None:
    """The log's key is on this machine, as where `tally intake` made it."""
    LaneKey.load_or_create(tally.data / "keys" / "log" / "telecentras.key")


def test_what_no_close_covers_or_a_hold_keeps_does_not_expire(tally: Tally) -> None:
    sign(tally)
    asked = ("archive", "expire", "--older-than", "30d", "--reason", "retention schedule")
    assert only(tally(*asked))["kept_not_billed"] == 2
    only(tally("period", "close", "2026-10"))
    held = tally(*example("archive hold add"))["id"]
    assert only(tally(*asked))["kept_by_hold"] == 2
    assert [each["reason"] for each in tally("archive", "hold", "list")["holds"]] == ["dispute of October"]
    assert len(archived(tally, "*.parquet")) == 2
    remove = [held if word == HOLD else word for word in example("archive hold remove")]
    assert tally(*remove)["removed"]
    assert tally.refused(*remove)["code"] == "unknown_hold"
    tally("archive", "hold", "add", "--operator", "telecentras", "--customer", "acme", "--reason", "a claim")
    assert only(tally(*asked, "--dry-run"))["batches"] == 1
    expired = only(tally(*asked))
    assert (expired["files"], expired["kept_by_hold"]) == (1, 1)
    assert len(archived(tally, "*.parquet")) == 1


def test_after_expiry_seals_and_sums_stay_and_a_rebuild_says_what_went(tally: Tally) -> None:
    sign(tally)
    closed = only(tally("period", "close", "2026-10", "--issue"))
    usage = tally("usage", "--period", "2026-10")
    seals = [path.read_bytes() for path in archived(tally, "_*.seal")]
    tally("archive", "expire", "--older-than", "30", "--reason", "retention schedule")

    assert archived(tally, "*.parquet") == []
    assert [path.read_bytes() for path in archived(tally, "_*.seal")] == seals
    assert tally("usage", "--period", "2026-10") == usage
    rebuilt = only(tally("archive", "rebuild"))
    assert (rebuilt["ok"], rebuilt["expired"], rebuilt["findings"]) == (True, 2, [])
    assert rebuilt["cells"] > 0, "the cells that were kept are compared, one by one"
    again = only(tally("archive", "rebuild", "--up-to", "2026-10"))
    assert (again["ok"], again["rated"]) == (True, again["rated_at_close"])
    assert closed["rated"] == again["rated"]
    answered = tally("archive", "query", "SELECT stored, count(*) AS n FROM seal GROUP BY ALL")
    assert {row["stored"]: row["n"] for row in answered["rows"]}["gone"] == 2
    assert list(answered["expired_before"]) == ["telecentras"]
    assert tally("archive", "query", "SELECT count(*) AS n FROM event")["rows"] == [{"n": 0}]


def test_nothing_expires_while_no_checkpoint_covers_the_decision(
    tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.cli.archive_retention._LOOKS", 1)
    only(tally("period", "close", "2026-10"))
    asked = ("archive", "expire", "--older-than", "30d", "--reason", "retention schedule")
    refused = tally.refused(*asked)
    assert (refused["code"], refused["where"]) == ("unsigned", "telecentras")
    assert len(archived(tally, "*.parquet")) == 2
    assert len(archived(tally, "_log/content/*/*.jsonl")) > 0, (
        "what was decided is in the archive all the same"
    )
    assert only(tally("archive", "rebuild"))["ok"]
    sign(tally)
    assert only(tally(*asked))["files"] == 2
    rebuilt = only(tally("archive", "rebuild"))
    assert (rebuilt["ok"], rebuilt["expired"], rebuilt["findings"]) == (True, 2, [])


def test_the_remaining_examples_run_as_they_stand(tally: Tally) -> None:
    sign(tally)
    for path in ("archive compact", "archive expire", "archive hold list"):
        assert tally.run(*example(path)).exit_code == 0


@pytest.mark.proof
@pytest.mark.timeout(1300)
def test_the_spark_job_says_what_rebuild_says(tally: Tally, urls: DatabaseUrls, tmp_path: Path) -> None:
    pytest.importorskip("pyspark", reason="pyspark is not installed: pip install -e '.[spark]'")
    sign(tally)
    only(tally("period", "close", "2026-10"))
    tally("archive", "hold", "add", "--operator", "telecentras", "--customer", "acme", "--reason", "a claim")
    assert only(tally("archive", "expire", "--older-than", "30", "--reason", "retention"))["files"] == 1
    tally("archive", "compact", "--days", "90")
    cells = tmp_path / "cells.parquet"
    for broken in (False, True):
        if broken:
            asyncio.run(count_a_cell_twice(urls))
        ran = tally.run("archive", "rebuild", "--period", "2026-10", "--export", str(cells), "--json")
        said = only(ran.document)
        assert said["expired"] == 1
        job = on_spark(tally, cells)
        assert job.returncode == ran.exit_code == (3 if broken else 0), job.stderr
        document = json.loads(job.stdout)
        for name in ("ok", "lanes", "batches", "events", "expired", "findings", "different", "differences"):
            assert document[name] == said[name], name


def on_spark(tally: Tally, cells: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "adapters.archive_spark",
        "--master",
        "local[2]",
        "--operator",
        "telecentras",
    ]
    command += ["--archive", str(tally.data / "archive"), "--cells", str(cells)]
    environment = os.environ | {"SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=False)
