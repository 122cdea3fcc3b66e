"""Which batches of a lane go over, and which go again: worked examples, and a world that loses some of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from metering.lane_progress import (
    LONGEST_PATIENCE_US,
    PATIENCE_US,
    LaneProgress,
    acknowledged,
    due,
    handed_over,
)

SECOND = 1_000_000
HOUR = 3_600 * SECOND


def names(first: int, last: int) -> list[str]:
    return [f"{number:012d}" for number in range(first, last + 1)]


def sent(count: int, at_us: int = 0) -> LaneProgress:
    """`count` batches went over, none is acknowledged."""
    return handed_over(LaneProgress(), names(1, count), at_us)


def test_what_is_new_goes_over_once() -> None:
    waiting = names(1, 3)
    assert due(LaneProgress(), waiting, 0) == waiting
    assert due(sent(3), waiting, SECOND) == []
    assert due(sent(3), names(1, 5), SECOND) == names(4, 5)


def test_after_a_minute_without_a_word_the_oldest_goes_again_and_then_ever_more_seldom() -> None:
    progress, waiting = sent(3), names(1, 3)
    went: dict[int, list[str]] = {}
    for second in range(6 * 3_600):
        if going := list(due(progress, waiting, second * SECOND)):
            went[second] = going
            progress = handed_over(progress, going, second * SECOND)
    assert list(went)[:4] == [60, 60 + 120, 60 + 120 + 240, 60 + 120 + 240 + 480]
    assert list(went)[-1] - list(went)[-2] == LONGEST_PATIENCE_US // SECOND == 3_600
    oldest, next_one, last = names(1, 3)
    assert list(went.values())[:4] == [[oldest], [oldest, next_one], [oldest, last], [oldest, next_one]]
    assert len(went) == 10


def test_what_was_lost_is_there_again_in_a_dozen_rounds() -> None:
    progress, waiting = sent(5_000), names(1, 5_000)
    rounds = 0
    while waiting:
        going = due(progress, waiting, PATIENCE_US)
        progress = handed_over(progress, going, PATIENCE_US)
        progress = acknowledged(progress, going[-1], PATIENCE_US)
        waiting = waiting[len(going) :]
        rounds += 1
    assert rounds == 13


def test_when_what_went_first_arrives_after_all_nothing_more_goes_again() -> None:
    progress = handed_over(sent(100), due(sent(100), names(1, 100), PATIENCE_US), PATIENCE_US)
    progress = acknowledged(progress, names(1, 40)[-1], PATIENCE_US)
    assert due(progress, names(41, 100), 2 * PATIENCE_US - 1) == []
    assert due(progress, names(41, 100), 2 * PATIENCE_US) == names(41, 41)


def test_a_lane_that_moves_is_never_sent_twice() -> None:
    progress = sent(100)
    for number in range(1, 100):
        now_us = number * 59 * SECOND
        progress = acknowledged(progress, names(number, number)[0], now_us)
        assert due(progress, names(number + 1, 100), now_us + 58 * SECOND) == []


def test_once_all_is_acknowledged_whatever_waits_is_new_by_whatever_name() -> None:
    progress = acknowledged(sent(200), names(200, 200)[0], SECOND)
    assert due(progress, names(1, 3), SECOND) == names(1, 3)


def test_what_is_sent_after_a_pause_has_its_own_minute() -> None:
    progress = acknowledged(sent(3), names(3, 3)[0], SECOND)
    progress = handed_over(progress, names(4, 4), HOUR)
    assert due(progress, names(4, 4), HOUR + 59 * SECOND) == []
    assert due(progress, names(4, 4), HOUR + 60 * SECOND) == names(4, 4)


def test_after_a_start_everything_that_waits_goes_over_though_older_ones_are_acknowledged_first() -> None:
    progress = acknowledged(LaneProgress(), names(7, 7)[0], 0)
    assert due(progress, names(8, 9), 0) == names(8, 9)


@given(st.sets(st.integers(1, 60)), st.integers(1, 60), st.lists(st.integers(1, 5), max_size=200))
def test_whatever_the_topic_loses_the_lane_arrives_whole(
    lost: set[int], count: int, pauses: list[int]
) -> None:
    """Intake takes what follows on what it has; the first time that a batch of `lost` goes over, it is lost."""
    waiting, progress, arrived = names(1, count), LaneProgress(), set[str]()
    lost_names, now_us, mark = {f"{number:012d}" for number in lost}, 0, 0
    for pause in [*pauses, *[3_600] * 200]:
        going = list(due(progress, waiting, now_us))
        progress = handed_over(progress, going, now_us)
        arrived |= {name for name in going if name not in lost_names}
        lost_names -= set(going)
        while f"{mark + 1:012d}" in arrived:
            mark += 1
        if mark and waiting and f"{mark:012d}" >= waiting[0]:
            progress = acknowledged(progress, f"{mark:012d}", now_us)
            waiting = names(mark + 1, count)
        now_us += pause * SECOND
    assert waiting == []
