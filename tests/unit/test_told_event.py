"""What was told becomes the event by writing over its bytes: the same bytes as if the whole event had been packed."""

from __future__ import annotations

import pytest
from event_examples import ABORTED, CHAT, START_US
from hypothesis import given
from hypothesis import strategies as st

from metering.canonical import pack
from metering.event import MAX_QUANTITY, REASONS, Event
from metering.refusal import Refusal
from metering.told import TOLD_SEQUENCE, Joined, events_of, joined_leaf

TOKENS = st.integers(0, MAX_QUANTITY)
EVENTS = st.builds(
    lambda event, cached, more, tokens, reason, model: event._replace(
        cached_tokens=cached,
        prompt_tokens=min(cached + more, MAX_QUANTITY),
        completion_tokens=tokens,
        reason=reason,
        model=model,
    ),
    st.sampled_from([CHAT, ABORTED]),
    TOKENS,
    TOKENS,
    TOKENS,
    st.sampled_from([None, *REASONS]),
    st.sampled_from(["m", "qwen3-8b", "lėtas-modelis"]),
)


@given(EVENTS, st.integers(1, 2**40), st.none() | TOKENS, st.none() | TOKENS, st.data())
def test_a_joined_event_has_the_bytes_of_the_whole_one(
    event: Event, sequence: int, generated: int | None, prompt: int | None, data: st.DataObject
) -> None:
    completion = data.draw(st.none() | TOKENS)
    model = data.draw(st.none() | st.sampled_from(["x", "qwen3-8b-instruct", "ŽĄ/sis"]))
    cached = None if prompt is None else data.draw(st.integers(0, prompt))
    whole = event
    if generated is not None:
        whole = whole._replace(generated_tokens=generated)
    if prompt is not None and cached is not None:
        whole = whole._replace(prompt_tokens=prompt, cached_tokens=cached)
    if completion is not None:
        completion = max(completion, event.reasoning_tokens)
        whole = whole._replace(completion_tokens=completion)
    if model is not None:
        whole = whole._replace(model=model)
    told = pack(event, TOLD_SEQUENCE, event.time_us)
    joined = Joined(event.request, generated, prompt, cached, completion, model)
    assert joined_leaf(told, sequence, START_US + 9, joined) == pack(whole, sequence, START_US + 9)


@given(st.lists(EVENTS, max_size=4))
def test_told_events_are_read_back(events: list[Event]) -> None:
    assert events_of([pack(event, TOLD_SEQUENCE, event.time_us) for event in events]) == events


@pytest.mark.parametrize(
    "joined",
    [
        Joined(CHAT.request, generated_tokens=-1),
        Joined(CHAT.request, generated_tokens=MAX_QUANTITY + 1),
        Joined(CHAT.request, prompt_tokens=5, cached_tokens=6),
        Joined(CHAT.request, prompt_tokens=MAX_QUANTITY + 1),
        Joined(CHAT.request, completion_tokens=MAX_QUANTITY + 1),
    ],
)
def test_figures_that_no_event_may_have_are_refused(joined: Joined) -> None:
    with pytest.raises(Refusal) as refused:
        joined_leaf(pack(CHAT, TOLD_SEQUENCE, START_US), 1, START_US, joined)
    assert refused.value.code == "bad_event"
