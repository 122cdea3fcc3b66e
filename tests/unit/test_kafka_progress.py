"""How far a worker may say that it has read: never past a message that is not settled, whatever fails in between."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from adapters.kafka.progress import Progress, Token
from billing.intake_ports import Position

SOURCE = "cluster/topic-id/tally.batches"


def started(kept_bytes: int = 1_000) -> Progress:
    progress = Progress(kept_bytes)
    progress.begin(SOURCE, 0)
    return progress


def read(progress: Progress, *offsets: int, partition: int = 0) -> list[object]:
    """Messages of 10 bytes each; their tokens."""
    came = progress.read(partition, [(offset, b"note.", b"body.") for offset in offsets])
    return [delivery.token for delivery in came]


def offsets(progress: Progress) -> list[int]:
    tokens = [delivery.token for delivery in progress.again()]
    return [token.offset for token in tokens if isinstance(token, Token)]


def test_a_position_goes_on_behind_what_is_settled() -> None:
    progress = started()
    tokens = read(progress, 40, 41, 42)
    assert progress.positions(tokens[:2]) == [Position(SOURCE, 0, 42)]
    assert progress.settle(tokens[:2]) == {0: 42}
    assert progress.positions(tokens[2:]) == [Position(SOURCE, 0, 43)]


def test_a_position_never_passes_a_message_that_is_not_settled() -> None:
    progress = started()
    tokens = read(progress, 40, 41, 42)
    assert progress.positions(tokens[1:]) == [Position(SOURCE, 0, 40)]
    progress.settle(tokens[1:])
    assert progress.positions(tokens[:1]) == [Position(SOURCE, 0, 43)]


def test_what_is_not_settled_comes_again_in_its_order() -> None:
    progress = started()
    tokens = read(progress, 40, 41, 42)
    progress.settle([tokens[1]])
    assert offsets(progress) == [40, 42]
    assert progress.rewind() == {}


def test_what_was_read_in_an_earlier_turn_moves_nothing() -> None:
    progress = started()
    tokens = read(progress, 40, 41)
    progress.end([0])
    assert not progress.holds(tokens[0])
    assert progress.positions(tokens) == []
    progress.begin(SOURCE, 0)
    read(progress, 40)
    assert progress.settle(tokens) == {}
    assert offsets(progress) == [40]


def test_nothing_is_read_of_a_partition_that_is_not_ours() -> None:
    assert read(started(), 7, partition=1) == []


def test_what_finds_no_room_is_read_again_once_nothing_kept_is_left() -> None:
    progress = started(kept_bytes=20)
    tokens = read(progress, 40, 41, 42, 43)
    assert offsets(progress) == [40, 41]
    progress.settle(tokens[:1])
    assert progress.rewind() == {}
    progress.settle(tokens[1:2])
    assert progress.rewind() == {0: 42}
    assert progress.positions(read(progress, 42)) == [Position(SOURCE, 0, 43)]


def test_a_log_that_lost_its_end_is_followed_back() -> None:
    progress = started()
    progress.settle(read(progress, 998, 999))
    assert progress.positions(read(progress, 900)) == [Position(SOURCE, 0, 901)]


@given(st.data())
def test_in_any_order_of_settling_a_position_is_the_first_offset_that_is_not_settled(
    data: st.DataObject,
) -> None:
    progress = started(data.draw(st.integers(0, 100)))
    left = dict(zip(range(50), read(progress, *range(50)), strict=True))
    while left:
        going = data.draw(st.lists(st.sampled_from(sorted(left)), min_size=1, unique=True))
        tokens = [left.pop(offset) for offset in going]
        expected = min(left, default=50)
        assert progress.positions(tokens) == [Position(SOURCE, 0, expected)]
        assert progress.settle(tokens) == {0: expected}
    assert progress.again() == []
