"""Following the witness's files: cut anywhere, rotated, restarted, damaged, taken away."""

from __future__ import annotations

import json
import os
import tempfile
import time
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tallygrid_vllm.lines import file_name, line

from metering.engine_lines import Ended
from metering.engine_tail import CHUNK_BYTES, EngineLines, Found

STREAM = "1760000000000000-4711-scheduler"


def late(n: int) -> bytes:
    return line(
        n,
        1,
        "late",
        {"model": None, "id": f"r{n}", "external": f"r{n}", "prompt_tokens": 0, "output_tokens": n},
    )


def ended(n: int, following: int | None) -> bytes:
    return line(n, 1, "ended", {"next": following})


def part(folder: Path, number: int = 0, start: int = 0, role: str = "scheduler") -> Path:
    return folder / file_name(1760000000000000 + start, 4711, role, number)


def numbers(found: Iterable[Found]) -> list[int]:
    return [each.line.n for each in found]


def resumed(reader: EngineLines, folder: Path) -> EngineLines:
    """Another reader, at the place of the first."""
    other = EngineLines(folder)
    other.go_on_at(json.loads(json.dumps(reader.place())))
    return other


def test_new_lines_are_found_once_as_they_come(tmp_path: Path) -> None:
    reader = EngineLines(tmp_path / "lines")
    assert numbers(reader.read()) == []
    (tmp_path / "lines").mkdir()
    with part(tmp_path / "lines").open("ab", buffering=0) as file:
        file.write(late(0) + late(1))
        assert numbers(reader.read()) == [0, 1]
        assert numbers(reader.read()) == []
        file.write(late(2)[:20])
        assert numbers(reader.read()) == []
        file.write(late(2)[20:])
        assert numbers(reader.read()) == [2]
    assert reader.take_faults() == []


def test_a_stream_is_followed_into_its_next_parts(tmp_path: Path) -> None:
    part(tmp_path, 0).write_bytes(late(0) + ended(1, 1))
    reader = EngineLines(tmp_path)
    assert numbers(reader.read()) == [0, 1]
    part(tmp_path, 1).write_bytes(late(2) + ended(3, 2))
    part(tmp_path, 2).write_bytes(late(4))
    assert numbers(reader.read()) == [2, 3, 4]
    assert reader.take_faults() == []


def test_an_engine_that_starts_again_is_a_stream_of_its_own(tmp_path: Path) -> None:
    part(tmp_path).write_bytes(late(0))
    reader = EngineLines(tmp_path)
    assert [each.stream for each in reader.read()] == [STREAM]
    part(tmp_path, start=1).write_bytes(late(0))
    part(tmp_path, role="frontend").write_bytes(late(0))
    assert len({each.stream for each in reader.read()} - {STREAM}) == 2
    assert reader.take_faults() == []


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_the_cuts_and_restarts_every_line_is_found_in_its_order(data: st.DataObject) -> None:
    every_line_is_found_in_its_order(data)


@pytest.mark.proof
@settings(max_examples=1_000, deadline=None)
@given(st.data())
def test_after_a_thousand_cuts_and_restarts_every_line_is_found_in_its_order(data: st.DataObject) -> None:
    every_line_is_found_in_its_order(data)


def every_line_is_found_in_its_order(data: st.DataObject) -> None:
    """The file grows by any number of bytes, the reader reads, keeps its place or is killed, and starts again."""
    count = data.draw(st.integers(1, 30))
    parts: list[bytearray] = [bytearray()]
    n = 0
    for each in range(count):
        parts[-1] += late(n)
        n += 1
        if each < count - 1 and data.draw(st.booleans()):
            parts[-1] += ended(n, len(parts))
            parts.append(bytearray())
            n += 1
    with tempfile.TemporaryDirectory() as name:
        folder, place = Path(name), "{}"
        reader = EngineLines(folder)
        kept: list[int] = []
        fresh: list[int] = []
        for number, content in enumerate(parts):
            written = 0
            while written < len(content):
                grown = min(len(content), written + data.draw(st.integers(1, 400)))
                with part(folder, number).open("ab") as file:
                    file.write(content[written:grown])
                written = grown
                fresh += numbers(reader.read())
                match data.draw(st.sampled_from(["go on", "commit", "killed"])):
                    case "commit":
                        place = json.dumps(reader.place())
                        kept, fresh = kept + fresh, []
                    case "killed":
                        assert reader.take_faults() == []
                        reader, fresh = EngineLines(folder), []
                        reader.go_on_at(json.loads(place))
        fresh += numbers(reader.read())
        assert kept + fresh == list(range(n))
        assert reader.take_faults() == []


def test_a_reader_that_stops_early_goes_on_there(tmp_path: Path) -> None:
    part(tmp_path).write_bytes(b"".join(late(n) for n in range(5)))
    reader = EngineLines(tmp_path)
    first = reader.read()
    assert [next(first).line.n, next(first).line.n] == [0, 1]
    first.close()
    assert numbers(resumed(reader, tmp_path).read()) == [2, 3, 4]


def test_a_torn_last_line_is_left_and_named_once_it_is_old(tmp_path: Path) -> None:
    part(tmp_path).write_bytes(late(0) + late(1)[:30])
    reader = EngineLines(tmp_path)
    assert numbers(reader.read()) == [0]
    assert reader.take_faults() == []
    os.utime(part(tmp_path), (time.time() - 60, time.time() - 60))
    assert numbers(reader.read()) == numbers(reader.read()) == []
    [fault] = reader.take_faults()
    assert fault.what == "the last line is torn: 30 bytes without an end"
    assert fault.where == f"{part(tmp_path).name}:{len(late(0))}"


def test_a_torn_last_line_counts_once_over_all_starts(tmp_path: Path) -> None:
    part(tmp_path).write_bytes(late(0) + late(1)[:30])
    os.utime(part(tmp_path), (time.time() - 60, time.time() - 60))
    reader = EngineLines(tmp_path)
    assert (numbers(reader.read()), reader.take_missing()) == ([0], 1)
    for _ in range(3):
        reader = resumed(reader, tmp_path)
        assert (numbers(reader.read()), reader.take_missing()) == ([], 0)


def test_a_torn_last_line_that_was_there_before_the_first_start_is_missed_by_nobody(tmp_path: Path) -> None:
    part(tmp_path).write_bytes(late(0) + late(1)[:30])
    os.utime(part(tmp_path), (time.time() - 60, time.time() - 60))
    reader = EngineLines(tmp_path)
    reader.skip()
    assert (numbers(reader.read()), reader.take_missing()) == ([], 0)
    part(tmp_path).write_bytes(late(0) + late(1) + late(2))
    assert (numbers(reader.read()), reader.take_missing()) == ([1, 2], 0)


def test_a_line_that_was_written_over_a_torn_one_is_read_and_the_loss_is_named(tmp_path: Path) -> None:
    part(tmp_path).write_bytes(late(0) + late(1)[:30])
    os.utime(part(tmp_path), (time.time() - 60, time.time() - 60))
    reader = EngineLines(tmp_path)
    assert numbers(reader.read()) == [0]
    with part(tmp_path).open("ab") as file:
        file.write(b"\n" + late(2))
    assert numbers(reader.read()) == [2]
    assert [fault.what for fault in reader.take_faults()][1:] == [
        "a line of the engine's witness cannot be read: it is no JSON",
        "1 lines before line 2 were not written or cannot be read",
    ]
    assert reader.take_missing() == 1


def test_a_deleted_line_is_named(tmp_path: Path) -> None:
    part(tmp_path).write_bytes(late(0) + late(2))
    reader = EngineLines(tmp_path)
    assert numbers(reader.read()) == [0, 2]
    assert [fault.what for fault in reader.take_faults()] == [
        "1 lines before line 2 were not written or cannot be read"
    ]
    assert (reader.take_missing(), reader.take_missing()) == (1, 0)


def test_a_line_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    part(tmp_path).write_bytes(late(0) + late(1) + late(1) + late(2))
    reader = EngineLines(tmp_path)
    assert numbers(reader.read()) == [0, 1, 2]
    assert [fault.what for fault in reader.take_faults()] == ["line 1 is there twice"]


def test_an_unknown_format_holds_its_stream_and_no_other(tmp_path: Path) -> None:
    part(tmp_path).write_bytes(late(0) + b'{"v":2}\n' + late(1))
    part(tmp_path, start=1).write_bytes(late(0))
    reader = EngineLines(tmp_path)
    assert numbers(reader.read()) == [0, 0]
    assert numbers(reader.read()) == []
    [fault] = reader.take_faults()
    assert "writes format 2" in fault.what
    # A later Tallygrid reads it from there; here the line becomes one of ours.
    part(tmp_path).write_bytes(late(0) + late(1))
    assert numbers(resumed(reader, tmp_path).read()) == [1]


def test_memory_stays_bounded_by_lines_without_end(tmp_path: Path) -> None:
    with part(tmp_path).open("wb") as file:
        file.write(late(0))
        for _ in range(32):
            file.write(b"x" * 1024 * 1024)
        file.write(b"\n" + late(1))
    reader = EngineLines(tmp_path)
    tracemalloc.start()
    try:
        assert numbers(reader.read()) == [0, 1]
        assert tracemalloc.get_traced_memory()[1] < 8 * CHUNK_BYTES
    finally:
        tracemalloc.stop()
    assert len(reader.take_faults()) > 100 - 1


def test_a_missing_part_is_named_and_passed_over(tmp_path: Path) -> None:
    part(tmp_path, 0).write_bytes(late(0) + ended(1, 1))
    part(tmp_path, 2).write_bytes(late(9))
    reader = EngineLines(tmp_path)
    assert numbers(reader.read()) == [0, 1, 9]
    assert [fault.what for fault in reader.take_faults()] == [
        "part 1 is missing",
        "7 lines before line 9 were not written or cannot be read",
    ]


def test_what_was_read_is_removed_once_it_is_old_and_what_may_grow_stays(tmp_path: Path) -> None:
    part(tmp_path, 0).write_bytes(late(0) + ended(1, 1))
    part(tmp_path, 1).write_bytes(late(2))
    part(tmp_path, start=1).write_bytes(late(0) + ended(1, None))
    part(tmp_path, start=2).write_bytes(late(0) + late(1)[:9])
    reader = EngineLines(tmp_path)
    assert reader.remove_read(unchanged_s=3600) == []
    assert len(list(reader.read())) == 6
    assert reader.remove_read(unchanged_s=3600) == []  # another lane may not have read it yet
    for path in (part(tmp_path, 0), part(tmp_path, start=1), part(tmp_path, start=2)):
        os.utime(path, (time.time() - 7200, time.time() - 7200))
    assert sorted(reader.remove_read(unchanged_s=3600)) == [
        part(tmp_path, 0).name,
        part(tmp_path, start=1).name,
    ]
    os.utime(part(tmp_path, 1), (time.time() - 7200, time.time() - 7200))
    assert reader.remove_read(unchanged_s=3600) == [part(tmp_path, 1).name]
    assert numbers(reader.read()) == []
    assert list(reader.place()) == ["1760000000000002-4711-scheduler"]


def test_what_was_there_before_can_be_skipped(tmp_path: Path) -> None:
    part(tmp_path, 0).write_bytes(late(0) + ended(1, 1))
    part(tmp_path, 1).write_bytes(late(2) + late(3)[:20])
    reader = EngineLines(tmp_path)
    reader.skip()
    assert numbers(reader.read()) == []
    part(tmp_path, 1).write_bytes(late(2) + late(3) + late(4))
    assert numbers(reader.read()) == [3, 4]
    assert reader.take_faults() == []


def test_a_stream_that_is_over_says_so(tmp_path: Path) -> None:
    part(tmp_path).write_bytes(late(0) + ended(1, None))
    assert [each.line.said for each in EngineLines(tmp_path).read()][-1] == Ended(None)
