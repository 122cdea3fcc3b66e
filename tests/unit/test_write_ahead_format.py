from __future__ import annotations

import re
from dataclasses import replace

import pytest
from event_examples import ABORTED, CHAT, START_US
from hypothesis import given
from hypothesis import strategies as st

from metering import write_ahead
from metering.canonical import pack
from metering.lane_recovery import recovered
from metering.lane_state import LaneState
from metering.refusal import Refusal
from metering.write_ahead import (
    MAGIC,
    Intent,
    Opening,
    event_frame,
    intent_frame,
    intent_of,
    leaf_of,
    opening_frame,
    read_segment,
    told_frame,
)

INTENT = Intent(CHAT.request, START_US, CHAT.customer, None, CHAT.key, "chat", "m")
OTHER = INTENT._replace(request=b"\x99" * 16, project=b"\x66" * 16, key=None, model="lėtas")
OPENING = Opening(bytes(range(16)), None, 1, 0, 0, 0, 0)


def segment_of(*frames: bytes, opening: Opening = OPENING) -> bytes:
    return b"".join([MAGIC, opening_frame(opening), *frames])


FRAMES = (intent_frame(INTENT), intent_frame(OTHER), event_frame(pack(CHAT, 1, START_US)))


def test_the_example_in_the_text_is_what_the_code_writes() -> None:
    documented = (write_ahead.__doc__ or "").split("begins (hex)")[1].split("A kill")[0]
    documented = re.sub(r'  ("tally.*|88 bytes.*)', "", documented).replace("00×32", "00" * 32)
    assert segment_of() == bytes.fromhex(documented)


def test_a_segment_reads_back_as_it_was_written() -> None:
    segment = read_segment(segment_of(*FRAMES))
    assert segment is not None
    assert segment.opening == OPENING
    assert segment.frames == [*FRAMES]
    assert [intent_of(frame) for frame in segment.frames[:2]] == [INTENT, OTHER]
    assert leaf_of(segment.frames[2]) == pack(CHAT, 1, START_US)
    assert segment.unread == 0


@given(st.data())
def test_a_torn_last_frame_is_left_and_all_before_it_is_kept(data: st.DataObject) -> None:
    content = segment_of(*FRAMES)
    cut = data.draw(st.integers(len(segment_of()), len(content)))
    segment = read_segment(content[:cut])
    assert segment is not None
    ends = [len(segment_of(*FRAMES[:count])) for count in range(4)]
    whole = max(end for end in ends if end <= cut)
    assert (segment.whole, segment.unread) == (whole, cut - whole)
    assert len(segment.frames) == ends.index(whole)


def test_every_flipped_bit_ends_the_reading_there() -> None:
    content = segment_of(*FRAMES)
    last = len(content) - len(FRAMES[2])
    for at in range(last, len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[at] ^= 1 << bit
            segment = read_segment(bytes(flipped))
            assert segment is not None
            assert segment.frames == [*FRAMES[:2]]
            assert segment.unread == len(FRAMES[2])


def test_zeroes_that_a_power_cut_leaves_are_no_frames() -> None:
    segment = read_segment(segment_of(FRAMES[0]) + bytes(4_096))
    assert segment is not None
    assert segment.unread == 4_096


@pytest.mark.parametrize("cut", [0, 10, len(MAGIC), len(segment_of()) - 1])
def test_a_segment_without_its_whole_opening_is_none(cut: int) -> None:
    assert read_segment(segment_of()[:cut]) is None


def test_what_a_segment_carries_belongs_to_its_opening() -> None:
    carrying = replace(OPENING, carried=2)
    assert read_segment(segment_of(FRAMES[0], opening=carrying)) is None
    assert read_segment(segment_of(*FRAMES[:2], opening=carrying)) is not None


def test_an_event_closes_its_intent_and_one_without_an_intent_opens_and_closes() -> None:
    stray = event_frame(pack(ABORTED, 2, START_US + 1))
    state = recovered(read_segment(segment_of(*FRAMES, stray)), None, "")
    assert list(state.open) == [OTHER.request]
    assert (state.opened, state.closed, state.next_sequence) == (3, 2, 3)
    assert len(state.unsealed) == 2


def test_what_was_told_of_a_request_takes_the_place_of_its_intent() -> None:
    told = told_frame(pack(ABORTED, 0, START_US))
    other = told_frame(pack(ABORTED._replace(request=OTHER.request), 0, START_US))
    state = recovered(read_segment(segment_of(*FRAMES[:2], told, other)), None, "")
    assert state.open == {INTENT.request: FRAMES[0], OTHER.request: other, ABORTED.request: told}
    assert (state.opened, state.closed, state.next_sequence) == (3, 0, 1)
    opening, carried = state.opening(None)
    assert recovered(read_segment(segment_of(*carried, opening=opening)), None, "") == state


def test_a_segment_that_takes_over_says_the_same_as_the_one_before() -> None:
    state = recovered(read_segment(segment_of(*FRAMES)), None, "")
    opening, carried = state.opening(None)
    again = recovered(read_segment(segment_of(*carried, opening=opening)), None, "")
    assert again == state


def test_open_requests_become_interrupted_events_with_rising_times() -> None:
    state = LaneState(floor_us=START_US + 5)
    state.take_open(INTENT.request, FRAMES[0])
    state.take_open(OTHER.request, FRAMES[1])
    state.end_open(START_US, "sidecar_killed")
    assert (state.opened, state.closed, state.open) == (2, 2, {})
    assert state.floor_us == START_US + 7


def test_a_hole_in_the_sequence_numbers_stops_the_lane() -> None:
    with pytest.raises(Refusal) as refused:
        recovered(read_segment(segment_of(event_frame(pack(CHAT, 2, START_US)))), None, "lane")
    assert refused.value.code == "lane_state"
