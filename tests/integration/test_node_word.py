"""Which lane of a node speaks for it: never two of them, and not nobody for long."""

from __future__ import annotations

import os
import time
from pathlib import Path

from lane_examples import KEY, NAMES

from metering.lane import Lane
from metering.node_word import SILENT_AFTER_S, NodeWord, Speaker, others_written_s


def begin(spool: Path, name: str) -> Lane:
    return Lane.open(spool, **NAMES | {"lane": name}, key=KEY)


def make_silent(lane: Lane) -> None:
    """As if it had written nothing for an hour."""
    long_ago_s = time.time() - SILENT_AFTER_S - 1
    for path in lane.path.iterdir():
        os.utime(path, (long_ago_s, long_ago_s))


def test_the_lane_that_came_first_speaks_whatever_they_are_called(tmp_path: Path) -> None:
    west, east, first = (begin(tmp_path, name) for name in ("west", "east", "sidecar-0"))
    assert [lane.speaker() for lane in (west, east, first)] == [
        Speaker.OURS,
        Speaker.ANOTHER,
        Speaker.ANOTHER,
    ]
    for lane in (west, east, first):
        lane.close()


def test_a_lane_that_is_away_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    spoke, other = begin(tmp_path, "sidecar-0"), begin(tmp_path, "sidecar-1")
    for lane in (spoke, other):
        lane.seal()
    spoke.close()
    assert other.speaker() is Speaker.NOBODY
    other.close()
    other = begin(tmp_path, "sidecar-1")
    assert other.speaker() is Speaker.NOBODY
    spoke = begin(tmp_path, "sidecar-0")
    assert (spoke.speaker(), other.speaker()) == (Speaker.OURS, Speaker.ANOTHER)
    spoke.close()
    other.close()


def test_after_an_hour_of_silence_another_speaks_and_goes_on_when_the_first_is_back(tmp_path: Path) -> None:
    spoke, other = begin(tmp_path, "sidecar-0"), begin(tmp_path, "sidecar-1")
    spoke.close()
    make_silent(spoke)
    assert other.speaker() is Speaker.OURS
    spoke = begin(tmp_path, "sidecar-0")
    assert (spoke.speaker(), other.speaker()) == (Speaker.ANOTHER, Speaker.OURS)
    spoke.close()
    other.close()


def test_a_lane_that_has_ended_is_not_waited_for(tmp_path: Path) -> None:
    spoke, other = begin(tmp_path, "sidecar-0"), begin(tmp_path, "sidecar-1")
    spoke.close(final=True)
    assert other.speaker() is Speaker.OURS
    other.close()


def test_a_new_lane_beside_an_abandoned_one_speaks_at_once(tmp_path: Path) -> None:
    abandoned = begin(tmp_path, "sidecar-0")
    abandoned.seal()
    abandoned.close()
    new = begin(tmp_path, "sidecar-1")
    assert new.speaker() is Speaker.OURS
    new.close()


def test_when_the_others_last_wrote_is_known(tmp_path: Path) -> None:
    alone = begin(tmp_path, "sidecar-0")
    (tmp_path / NAMES["operator"] / NAMES["node"] / "import-1").mkdir()
    assert others_written_s(alone.path) == 0
    other = begin(tmp_path, "sidecar-1")
    assert abs(others_written_s(alone.path) - time.time()) < 60
    alone.close()
    other.close()


def test_what_a_power_cut_left_of_the_word_names_nobody(tmp_path: Path) -> None:
    (tmp_path / "speaks").write_bytes(bytes(9))
    (tmp_path / "west").mkdir()
    word = NodeWord(tmp_path / "west")
    assert word.take() is Speaker.OURS
    assert (tmp_path / "speaks").read_bytes() == b"west"
    word.close()
