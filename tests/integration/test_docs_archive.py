"""What docs/archive.md tells a stranger to do with an archive: its query and its program, run as they stand there."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas
import pyarrow.parquet
import pytest
from cryptography.hazmat.primitives import serialization
from lane_examples import KEY, NAMES, HandClock, audit, open_lane, serve

from adapters.archive import BatchObjects
from adapters.archive_compact import compact
from adapters.objects import FolderObjects
from billing.intake_ports import StoredBatch

PAGE = (Path(__file__).parents[2] / "docs" / "archive.md").read_text(encoding="utf-8")
LANE = "/".join(NAMES.values())


def block(language: str) -> str:
    """The last one of a language: the program is the only Python of more than a line."""
    return str(re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[-1])


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two epochs of a lane, four batches, one of them a heartbeat: 3 + 2 requests of 7 + 1 tokens."""
    clock = HandClock()
    for requests in ((3, 0), (2, 2)):
        lane = open_lane(tmp_path / "spool", clock)
        for count in requests:
            serve(lane, count)
            clock.pass_s(10.5)
            lane.sync()
            lane.seal()
        lane.close()
    folder = BatchObjects(FolderObjects(tmp_path / "archive"))
    for batch in audit(tmp_path / "spool").batches:
        seal = batch.seal
        name = f"{seal.epoch}-{seal.number}-{batch.hash}"
        path = f"{seal.operator}/2026-10-05/{seal.node}/{seal.lane}/{name}"
        folder.put([StoredBatch(path, batch.note, batch.body)])
    public = KEY.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (tmp_path / "lane.pem").write_bytes(public)
    (tmp_path / "check_archive.py").write_text(block("python"), encoding="utf-8")
    return tmp_path / "archive"


def check(archive: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "check_archive.py", str(archive), f"{LANE}=lane.pem"]
    return subprocess.run(command, cwd=archive.parent, capture_output=True, text=True, check=False)


def test_the_pages_query_sums_an_archive(archive: Path) -> None:
    query = block("sql").replace("'archive/", f"'{archive}/")
    assert duckdb.connect().execute(query).fetchall() == [("2026-10", "m", "finished", 7, 49, 7, 7)]


def test_the_pages_program_finds_a_whole_archive_good(archive: Path) -> None:
    ran = check(archive)
    assert (ran.returncode, ran.stdout) == (0, f"{LANE}: 4 batches, 7 events, signed\n"), ran.stderr


def test_the_pages_program_finds_a_changed_body(archive: Path) -> None:
    body = next(archive.rglob("*.parquet"))
    content = bytearray(body.read_bytes())
    content[20] ^= 1
    body.write_bytes(content)
    assert check(archive).returncode != 0


def test_the_pages_program_finds_joined_batches_as_good_and_a_changed_one_among_them(archive: Path) -> None:
    closed = datetime(2027, 1, 1, tzinfo=UTC)
    [done] = compact(FolderObjects(archive), NAMES["operator"], lambda _node, _lane: closed, closed)
    assert (done.batches, done.objects_after) == (4, 2)
    ran = check(archive)
    assert (ran.returncode, ran.stdout) == (0, f"{LANE}: 4 batches, 7 events, signed\n"), ran.stderr

    [body] = archive.rglob("joined-*.parquet")
    events = pyarrow.parquet.ParquetFile(body).read()
    finished = events.column("endpoint").to_pylist()
    changed = events.set_column(8, "endpoint", [["rerank", *finished[1:]]])
    pyarrow.parquet.write_table(changed, body)
    assert "AssertionError" in check(archive).stderr


def test_the_pages_line_of_pandas_reads_a_day(archive: Path) -> None:
    line = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[0]
    names: dict[str, Any] = {"pandas": pandas}
    exec(line.replace("archive/telecentras/", f"{archive}/{NAMES['operator']}/"), names)
    assert len(names["events"]) == 7


def test_the_pages_program_finds_a_changed_seal_under_a_name_that_fits(archive: Path) -> None:
    seal = next(archive.rglob("*.seal"))
    forged = re.sub(rb"\nclosed \d+\n", b"\nclosed 0\n", seal.read_bytes())
    place = seal.stem.rpartition("-")[0]  # with the `_` that it begins with
    seal.with_name(f"{place}-{hashlib.sha256(forged).hexdigest()}.seal").write_bytes(forged)
    seal.unlink()
    assert "InvalidSignature" in check(archive).stderr


def test_the_pages_program_finds_a_batch_that_was_taken_out(archive: Path) -> None:
    seals = {
        path.read_text().split("\nprevious ")[1].split("\n")[0]: path for path in archive.rglob("*.seal")
    }
    seals["genesis"].unlink()
    assert "do not hang together" in check(archive).stderr
