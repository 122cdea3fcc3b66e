"""What the watching of the engine keeps: whole, of one moment, and refused where it is something else."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from metering.engine_lines import Freed
from metering.engine_request import RequestLines
from metering.engine_state import EngineState
from metering.refusal import Refusal
from metering.said_once import MOST, SaidOnce

R = bytes(range(16))


def state() -> EngineState:
    lines = RequestLines()
    lines.add(Freed(0, "tiny", None, "0_chatcmpl-1", "chatcmpl-1", "aborted", 31, 16, 12, True))
    place = {"1760000000000000-4711-scheduler": {"part": 0, "offset": 1482, "n": 7}}
    pending = ("fact serves model=tiny name=alias",)
    return EngineState(place, {R: lines}, {"number": 3}, pending, ('{"told":"00"}', '{"told":"01"}'))


def test_what_was_kept_is_what_is_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "engine"
    taken: list[EngineState] = []
    assert not EngineState.read(path, taken.append)
    path.write_bytes(state().to_bytes())
    assert EngineState.read(path, taken.append)
    assert [each.to_bytes() for each in taken] == [state().to_bytes()]
    assert taken[0].held[R].prompts() == (31, 16)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"v":2,"lines":null,"held":[],"spans":{},"pending":[]}',
        b'{"v":1,"lines":null,"held":[{"request":"zz"}],"spans":{},"pending":[]}',
        b'{"v":1,"lines":null,"held":{},"spans":{}}',
        b'{"v":1,"lines":null,"held":[],"spans":{},"pending":[],"lacking":7}',
        b"[" * 100_000,
        b"\xff",
    ],
)
def test_anything_else_is_refused_and_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "engine"
    path.write_bytes(content)
    with pytest.raises(Refusal) as caught:
        EngineState.read(path, lambda _: None)
    assert caught.value.code == "bad_engine_state"
    assert "move it away" in caught.value.remedy


def test_a_part_that_cannot_be_taken_up_is_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "engine"
    path.write_bytes(state().to_bytes())

    def take(found: EngineState) -> None:
        raise KeyError(found.spans["number"])

    with pytest.raises(Refusal):
        EngineState.read(path, take)


def test_a_warning_is_logged_once_and_a_flood_of_them_ends(caplog: pytest.LogCaptureFixture) -> None:
    say = SaidOnce(logging.getLogger("metering.test"))
    for n in range(2 * MOST):
        say("the same")
        say(f"another {n}")
    lines = [entry.getMessage() for entry in caplog.records]
    assert lines[:2] == ["the same", "another 0"]
    assert len(lines) == MOST + 1
    assert lines[-1] == "more warnings like these are not logged"
