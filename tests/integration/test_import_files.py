"""Files of usage rows as they are found: what of them is read, and in whose words they are refused."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from adapters.importing import csv_rows
from adapters.importing.csv_rows import read_csv
from adapters.importing.formats import open_source, text_chunks
from adapters.importing.source_file import SourceFile
from metering.refusal import Refusal

HEAD = b"time,customer,note\n"
REFUSED = """
import sys, threading
from pathlib import Path
from adapters.importing.formats import open_source, text_chunks
from metering.refusal import Refusal

def read():
    try:
        list(text_chunks(open_source(Path(sys.argv[1]))))
    except Refusal as refused:
        print(refused.what)

reading = threading.Thread(target=read)
reading.start()
reading.join()
"""


def rows_of(path: Path) -> tuple[list[dict[str, Any]], list[int], SourceFile]:
    source = open_source(path)
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    for chunk in text_chunks(source):
        rows += chunk.columns.to_pylist()
        lines += chunk.lines.to_pylist()
    return rows, lines, source


def refusal_of(path: Path) -> Refusal:
    with pytest.raises(Refusal) as refused:
        rows_of(path)
    return refused.value


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 8 bytes, lines of up to 64: every seam there can be."""
    monkeypatch.setattr(csv_rows, "CHUNK_BYTES", 8)
    monkeypatch.setattr(csv_rows, "MAX_LINE_BYTES", 64)


def test_a_refused_bomb_leaves_python_to_end_in_peace(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.csv.gz"
    bomb.write_bytes(gzip.compress(HEAD + b"x" * 100_000_000))

    for _ in range(3):
        ran = subprocess.run(
            [sys.executable, "-c", REFUSED, str(bomb)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        assert (ran.returncode, ran.stderr) == (0, "")
        assert ran.stdout == "the row that begins here does not end within 16 MiB\n"


def test_every_byte_is_read_on_the_thread_that_asked(tmp_path: Path) -> None:
    threads = set()

    class Told:
        def __init__(self, left: bytes) -> None:
            self.left = left

        def read(self, size: int) -> bytes:
            threads.add(threading.get_ident())
            taken, self.left = self.left[:size], self.left[size:]
            return taken

    list(read_csv(SourceFile(tmp_path / "usage.csv", "CSV", 0), Told(HEAD + b"1,acme,x\n" * 3_000_000)))

    assert threads == {threading.get_ident()}


@pytest.mark.usefixtures("small_blocks")
def test_a_line_end_within_quotes_ends_no_row_wherever_a_block_ends(tmp_path: Path) -> None:
    file = tmp_path / "usage.csv"
    file.write_bytes(HEAD + b'1,acme,"two\nlines, and ""a"" comma"\r\n\n2,nova,5" pipe\n3,acme,last')

    rows, _, source = rows_of(file)

    assert [row["note"] for row in rows] == ['two\nlines, and "a" comma', '5" pipe', "last"]
    assert source.faults == []


@pytest.mark.usefixtures("small_blocks")
def test_each_row_and_each_fault_has_its_line_across_blocks(tmp_path: Path) -> None:
    file = tmp_path / "usage.csv"
    file.write_bytes(HEAD + b"1,acme,a\n\n2,acme\n3,acme,b\n4,acme,c,d\n5,nova,e\n")

    rows, lines, source = rows_of(file)

    assert [(row["time"], line) for row, line in zip(rows, lines, strict=True)] == [
        ("1", 2),
        ("3", 5),
        ("5", 7),
    ]
    assert [fault.where for fault in source.faults] == ["usage.csv:4", "usage.csv:6"]


@pytest.mark.usefixtures("small_blocks")
def test_a_quote_that_is_never_closed_is_named_and_swallows_no_row(tmp_path: Path) -> None:
    file = tmp_path / "usage.csv"
    file.write_bytes(HEAD + b'1,acme,a\n2,acme,"b\n3,acme,c\n')

    refused = refusal_of(file)

    assert (refused.code, refused.where) == ("unreadable_file", "usage.csv:3")
    assert "quote that is never closed" in refused.what


@pytest.mark.usefixtures("small_blocks")
def test_a_line_without_an_end_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    file = tmp_path / "usage.csv"
    file.write_bytes(HEAD + b"1,acme,a\n2,acme," + b"b" * 1_000)

    refused = refusal_of(file)

    assert (refused.code, refused.where) == ("unreadable_file", "usage.csv:3")
    assert "does not end" in refused.what


@pytest.mark.parametrize("count", [1, 300_000])
def test_a_row_in_latin_1_is_refused_by_its_line(tmp_path: Path, count: int) -> None:
    file = tmp_path / "usage.csv"
    file.write_bytes(HEAD + b"1,acme,plain\n" * count + "2,acme,größer\n".encode("latin-1"))

    refused = refusal_of(file)

    assert refused.what == "the line is not UTF-8 text"
    assert refused.where == f"usage.csv:{count + 2}"
    assert "UTF-8" in refused.remedy


def test_a_name_that_is_no_regular_file_is_told_from_one_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")

    refusals = [refusal_of(tmp_path / name) for name in ("folder.csv", "pipe.csv", "none.csv")]

    assert [refused.code for refused in refusals] == ["not_a_file", "not_a_file", "no_such_file"]
    assert "folder" in refusals[0].what
    assert "no regular file" in refusals[1].what
    assert all(refused.remedy for refused in refusals)


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.csv", b"", "no head"),
        ("a.csv", b"time,time,model\n", "stand twice"),
        ("a.csv", b'"' + b"x" * 200_000 + b'"\n', "does not end"),
        ("a.csv", b"x" * 17_000_000, "does not end"),
        ("a.json", b"[" * 200_000, "nested too deep"),
        ("a.json", b"[{", "not a JSON array"),
        ("a.json", b'["\xe4"]', "not UTF-8"),
        ("a.jsonl", b'{"note": "\xe4"}\n', "not UTF-8"),
        ("a.parquet", b"not parquet", "not a readable Parquet file"),
        ("a.csv.gz", b"not gzip", "cannot be read to its end"),
    ],
)
def test_what_cannot_be_read_is_refused_in_plain_words_with_what_to_do(
    tmp_path: Path, name: str, content: bytes, what: str
) -> None:
    (tmp_path / name).write_bytes(content)

    refused = refusal_of(tmp_path / name)

    assert what in refused.what
    assert "recursion" not in refused.what
    assert refused.remedy
