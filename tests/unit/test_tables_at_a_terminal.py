"""Tables with sentences fit a terminal, and a file or a pipe 100 columns; other tables are one line a row."""

from __future__ import annotations

import re
import sys

import pytest

from adapters.cli import framework
from adapters.cli.framework import Result, table

LONG = "the spool's disk is full and nothing can be written down until it has room again, /" + "x" * 90
_BOLD = re.compile(r"\x1b\[[0-9;]*m")


def shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, terminal: bool
) -> list[str]:
    monkeypatch.setenv("COLUMNS", "70")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    drawn = table(None, ("state", "name", "what"), [["fault", "disk", LONG]], sentences=("what",))
    framework._print(Result({}, drawn), as_json=False)
    return _BOLD.sub("", capsys.readouterr().out).splitlines()


def test_a_terminal_gets_lines_as_wide_as_itself_with_nothing_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = shown(monkeypatch, capsys, terminal=True)
    assert max(map(len, lines)) <= 70
    assert "".join(lines).count("x") == LONG.count("x")
    assert lines[2].startswith(" " * 8), "a sentence goes on below itself"


def test_a_pipe_gets_lines_of_100_columns_so_that_one_sentence_does_not_pad_every_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = shown(monkeypatch, capsys, terminal=False)
    assert 90 < max(map(len, lines)) <= 100
    assert "".join(lines).count("x") == LONG.count("x")


def test_a_table_without_sentences_is_one_line_a_row_however_wide(capsys: pytest.CaptureFixture[str]) -> None:
    framework._print(Result({}, table(None, ("hash",), [["0" * 300]])), as_json=False)
    assert capsys.readouterr().out.splitlines()[1].strip() == "0" * 300
