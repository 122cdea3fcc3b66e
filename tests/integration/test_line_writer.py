"""The witness's writer: at once on its way, whole or named, and never in the engine's way."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tallygrid_vllm.writer as writing
from tallygrid_vllm.writer import LineWriter, open_writer

from metering.engine_lines import Ended, EngineLine, Faults, Late, Opened
from metering.engine_tail import EngineLines

OPENED: dict[str, object] = {"engine": 0, "model": "tiny", "plugin": "0.1.0", "vllm": "0.32.0"}
WITNESS = Path(__file__).parents[2] / "adapters" / "vllm"


def said(n: int) -> dict[str, object]:
    return {"model": "tiny", "id": f"r{n}", "external": f"r{n}", "prompt_tokens": 0, "output_tokens": n}


def lines(folder: Path) -> list[EngineLine]:
    return [each.line for each in EngineLines(folder).read()]


def outputs(found: list[EngineLine]) -> list[int]:
    return [each.said.output_tokens for each in found if isinstance(each.said, Late)]


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[LineWriter]:
    made = LineWriter(tmp_path, "scheduler", OPENED, part_bytes=1000)
    yield made
    made.close()


def test_a_stream_opens_says_what_it_is_told_and_ends(tmp_path: Path, writer: LineWriter) -> None:
    writer.write("late", said(7))
    assert outputs(lines(tmp_path)) == [7]  # there at once, before any fsync
    writer.close()
    writer.close()
    writer.write("late", said(8))
    found = lines(tmp_path)
    assert [each.n for each in found] == [0, 1, 2]
    assert found[0].said == Opened("scheduler", 0, os.getpid(), 0, "tiny", "0.1.0", "0.32.0")
    assert found[2].said == Ended(None)


def test_a_part_that_has_grown_is_followed_by_another(tmp_path: Path, writer: LineWriter) -> None:
    for n in range(50):
        writer.write("late", said(n))
    writer.close()
    reader = EngineLines(tmp_path)
    found = [each.line for each in reader.read()]
    assert outputs(found) == list(range(50))
    assert len(list(tmp_path.iterdir())) > 4
    assert [each.n for each in found] == list(range(len(found)))
    assert reader.take_faults() == []


def test_a_disk_that_is_full_loses_lines_by_number_and_says_so_later(
    tmp_path: Path, writer: LineWriter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real_write = os.write
    room = [None, 20, 0, None]  # bytes that the disk takes of each line to come; None: all

    def write(descriptor: int, content: bytes) -> int:
        takes = room.pop(0) if room else None
        if takes == 0:
            raise OSError(errno.ENOSPC, "no space left")
        return real_write(descriptor, content[:takes])

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING, logger="vllm.tallygrid_vllm"):
        patched.setattr(os, "write", write)
        patched.setattr(LineWriter, "_put_on_disk", lambda self: self._dirty.clear())
        for n in range(1, 5):
            writer.write("late", said(n))
    writer.close()
    reader = EngineLines(tmp_path)
    found = [each.line for each in reader.read()]
    assert outputs(found) == [1, 4]
    assert Faults(2, "late: OSError") in [each.said for each in found]
    assert [fault.what for fault in reader.take_faults()] == [
        "a line of the engine's witness cannot be read: it is no JSON",
        "2 lines before line 4 were not written or cannot be read",
    ]
    assert len(caplog.records) == 1  # said once, not for every line


def test_work_that_fails_is_counted_and_goes_no_further(tmp_path: Path, writer: LineWriter) -> None:
    def fail(request: str) -> None:
        raise KeyError(request)

    writer.guarded("freed", fail, "r1")
    writer.guarded("freed", fail, "r2")
    writer.close()
    assert Faults(2, "freed: KeyError") in [each.said for each in lines(tmp_path)]


def test_faults_are_said_while_the_engine_runs(tmp_path: Path, writer: LineWriter) -> None:
    writer.fault("freed", ValueError())
    deadline = time.monotonic() + 10
    while not any(isinstance(each.said, Faults) for each in lines(tmp_path)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_file_that_was_deleted_is_noticed_and_another_begun(tmp_path: Path, writer: LineWriter) -> None:
    writer.write("late", said(1))
    for path in tmp_path.iterdir():
        path.unlink()
    writer.write("late", said(2))
    assert outputs(lines(tmp_path)) == [2]


def test_a_forked_child_has_a_stream_of_its_own(tmp_path: Path) -> None:
    """In a process of its own, since pytest's has threads."""
    script = (
        "import os, sys, pathlib\n"
        "from tallygrid_vllm.writer import LineWriter\n"
        f"writer = LineWriter(pathlib.Path(sys.argv[1]), 'scheduler', {OPENED!r})\n"
        "said = {'model': None, 'id': 'r', 'external': 'r', 'prompt_tokens': 0}\n"
        "writer.write('late', {**said, 'output_tokens': 1})\n"
        "child = os.fork()\n"
        "writer.write('late', {**said, 'output_tokens': 3 if child else 2})\n"
        "if child: os.waitpid(child, 0)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(WITNESS)}
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment, check=True)
    reader = EngineLines(tmp_path)
    streams: dict[str, list[EngineLine]] = {}
    for each in reader.read():
        streams.setdefault(each.stream, []).append(each.line)
    assert sorted(outputs(stream) for stream in streams.values()) == [[1, 3], [2]]
    assert all(isinstance(stream[-1].said, Ended) for stream in streams.values())
    assert reader.take_faults() == []


def test_without_a_folder_nothing_is_written_and_one_line_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(writing.FOLDER_VARIABLE, raising=False)
    assert open_writer("scheduler", OPENED) is None
    (tmp_path / "file").touch()
    monkeypatch.setenv(writing.FOLDER_VARIABLE, str(tmp_path / "file"))
    assert open_writer("scheduler", OPENED) is None
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["tallygrid"] * 2
