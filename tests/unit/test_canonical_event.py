from __future__ import annotations

import re

import pyarrow as pa
from event_examples import ABORTED, CHAT, VOID, three_events
from hypothesis import given
from hypothesis import strategies as st

from metering import canonical
from metering.event import EVENT_SCHEMA, KINDS, OUTCOMES, REASONS, Event, events_table

ids = st.binary(min_size=16, max_size=16)
maybe_ids = st.none() | ids
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
int64 = st.integers(-(2**63), 2**63 - 1)
events = st.builds(
    Event,
    kind=st.sampled_from(KINDS),
    time_us=st.integers(0, 2**52),
    request=ids,
    names=maybe_ids,
    customer=ids,
    project=maybe_ids,
    key=maybe_ids,
    endpoint=words,
    model=words,
    outcome=st.sampled_from(OUTCOMES),
    prompt_tokens=int64,
    cached_tokens=int64,
    completion_tokens=int64,
    reasoning_tokens=int64,
    generated_tokens=st.none() | int64,
    audio_seconds=int64,
    request_digest=maybe_ids,
    reason=st.none() | st.sampled_from(REASONS),
    whole_prompt=st.none() | int64,
)


def test_the_example_in_the_text_is_what_the_code_makes() -> None:
    text = canonical.__doc__ or ""
    example = re.findall(r"^    ((?:[0-9a-f]{2})+(?: [0-9a-f]+)*)$", text.split("In hex:")[1], re.M)
    assert canonical.pack(CHAT, 1, CHAT.time_us).hex() == "".join(example).replace(" ", "")


def test_an_absent_id_is_not_an_id_of_zeroes() -> None:
    zeroes = CHAT._replace(project=bytes(16))
    assert canonical.pack(zeroes, 1, 1) != canonical.pack(CHAT, 1, 1)


@given(st.lists(events, max_size=5), st.integers(1, 2**40))
def test_row_by_row_and_by_columns_are_the_same_bytes(some: list[Event], first: int) -> None:
    table = events_table(some, first)
    packed = [canonical.pack(event, first + at, event.time_us) for at, event in enumerate(some)]
    assert canonical.leaves(table) == packed
    assert canonical.table_of(packed).to_pylist() == table.to_pylist()


def test_a_slice_of_a_larger_table_has_the_same_bytes_as_its_rows_alone() -> None:
    table = pa.concat_tables([three_events(), events_table([VOID, ABORTED, CHAT], 4)])
    assert canonical.leaves(table.slice(2, 3)) == canonical.leaves(table)[2:5]


def test_the_parts_that_recovery_reads_are_where_the_text_says() -> None:
    leaf = canonical.pack(ABORTED, 7, 99)
    assert canonical.sequence_of(leaf) == 7
    assert canonical.time_us_of(leaf) == 99
    assert canonical.request_of(leaf) == ABORTED.request
    assert canonical.is_usage(leaf)
    assert not canonical.is_usage(canonical.pack(VOID, 8, 100))


def test_no_events_have_no_leaves() -> None:
    assert canonical.leaves(EVENT_SCHEMA.empty_table()) == []
    assert canonical.table_of([]).equals(EVENT_SCHEMA.empty_table())
