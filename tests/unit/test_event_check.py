"""What may be written down is what can be sealed: the check of one event and that of a table agree."""

from __future__ import annotations

from typing import Any

import pytest
from event_examples import ABORTED, CHAT, VOID
from hypothesis import given, settings
from hypothesis import strategies as st

from metering.body import events_fault
from metering.event import (
    EARLIEST_TIME_US,
    END_OF_TIME_US,
    KINDS,
    MAX_QUANTITY,
    OUTCOMES,
    REASONS,
    Event,
    events_table,
)
from metering.event_check import check_event
from metering.refusal import Refusal

figures = st.sampled_from(
    [0, 0, 1, 2, 7, -1, -7, MAX_QUANTITY, MAX_QUANTITY + 1, -MAX_QUANTITY, -MAX_QUANTITY - 1]
)
words = st.sampled_from(
    ["m", "", "a\0b", "x" * 256, "x" * 257, "x" * 1_024, "x" * 1_025, "ė" * 512, "ė" * 513]
)
events = st.builds(
    Event._replace,
    st.sampled_from([CHAT, ABORTED, VOID]),
    kind=st.sampled_from([*KINDS, "usage", "usage", "gift"]),
    outcome=st.sampled_from([*OUTCOMES, "forgotten"]),
    reason=st.sampled_from([None, None, *REASONS, "boredom"]),
    names=st.none() | st.just(bytes(16)),
    endpoint=st.just("chat") | words,
    model=st.just("m") | words,
    time_us=st.just(CHAT.time_us)
    | st.sampled_from([EARLIEST_TIME_US - 1, EARLIEST_TIME_US, END_OF_TIME_US - 1, END_OF_TIME_US]),
    prompt_tokens=figures,
    cached_tokens=figures,
    completion_tokens=figures,
    reasoning_tokens=figures,
    generated_tokens=st.none() | figures,
    audio_seconds=figures,
    whole_prompt=st.none() | figures,
)  # fmt: skip


def is_accepted(event: Event) -> bool:
    try:
        check_event(event)
    except Refusal:
        return False
    return True


@given(events)
@settings(max_examples=500, deadline=None)
def test_an_event_may_be_written_down_exactly_if_a_table_of_it_can_be_sealed(event: Event) -> None:
    assert is_accepted(event) == (events_fault(events_table([event], 1)) is None)


@pytest.mark.parametrize("event", [CHAT, ABORTED, VOID, CHAT._replace(reason="engine_closed")])
def test_an_ordinary_event_may_be_written_down(event: Event) -> None:
    check_event(event)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"outcome": "forgotten"}, "no kind and outcome"),
        ({"reason": "boredom"}, "no reason of an event"),
        ({"model": ""}, "name of a model or endpoint"),
        ({"request": b"short"}, "an id has 16 bytes"),
        ({"customer": b""}, "an id has 16 bytes"),
        ({"time_us": 0}, "outside 2020 to 2099"),
        ({"names": bytes(16)}, "names a request"),
        ({"prompt_tokens": -1}, "prompt_tokens is -1"),
        ({"cached_tokens": 1_001}, "cached_tokens 1001 is more than prompt_tokens 1000"),
        ({"reasoning_tokens": 51}, "reasoning_tokens 51 is more than completion_tokens 50"),
        ({"generated_tokens": MAX_QUANTITY + 1}, "generated_tokens is"),
    ],
)
def test_what_is_wrong_with_an_event_is_said(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(Refusal) as refused:
        check_event(CHAT._replace(**changes))
    assert what in refused.value.what
