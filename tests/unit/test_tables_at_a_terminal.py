"""Tables with sentences fit a terminal; a pipe gets every line whole."""

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


def test_a_pipe_gets_the_line_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert LONG in shown(monkeypatch, capsys, terminal=False)[1]
