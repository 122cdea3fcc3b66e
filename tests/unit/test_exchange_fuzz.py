"""Whatever an engine sends, on every endpoint: no failure, one event with possible figures, and the client's bytes."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from exchange_wire import Wire, chunked, sized
from hypothesis import given, settings
from hypothesis import strategies as st

from metering import sse
from metering.endpoints import ENDPOINTS
from metering.event import MAX_QUANTITY
from metering.sse import StreamReader

METERED = [endpoint.path.decode() for endpoint in ENDPOINTS if endpoint.metered]
WORDS = [
    *(
        "usage",
        "response",
        "status",
        "model",
        "message",
        "delta",
        "type",
        "choices",
        "index",
        "duration",
        "seconds",
    ),
    *("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "cache_read_input_tokens"),
    *("prompt_tokens_details", "input_tokens_details", "cached_tokens", "reasoning_tokens", "finish_reason"),
]
NAMES = [
    *("response.created", "response.output_text.delta", "response.completed", "response.failed", "error"),
    *("message_start", "content_block_delta", "message_delta", "message_stop"),
]
figures = st.integers(-(10**30), 10**30) | st.integers(0, 50) | st.floats() | st.booleans() | st.none()
values = st.recursive(
    figures | st.sampled_from(["completed", "duration", "text_delta", "failed"]) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5),
    max_leaves=15,
)
bodies = st.dictionaries(st.sampled_from(WORDS), values, max_size=6).map(
    lambda value: json.dumps(value).encode()
)
broken = bodies.flatmap(lambda body: st.integers(0, len(body)).map(lambda at: body[:at] + b'"}' + body[at:]))
answers = bodies | broken | st.binary(max_size=60)
events = st.tuples(st.sampled_from(NAMES), bodies | broken).map(
    lambda event: b"event: %b\ndata: %b\n\n" % (event[0].encode(), event[1])
)
streams = st.lists(
    events
    | bodies.map(lambda body: b"data: %b\n\n" % body)
    | st.sampled_from(
        [b"data: [DONE]\n\n", b'data: {"error":{}}\n\n', b"\n", b": ping\n\n", "data: ž€".encode()]
    ),
    min_size=1,
    max_size=6,
)


def fed(wire: Wire, data: bytes, cuts: list[int]) -> Wire:
    places = sorted(min(cut, len(data)) for cut in cuts)
    for start, end in pairwise([0, *places, len(data)]):
        if start < end:
            wire.engine(data[start:end])
    return wire


def possible(wire: Wire) -> None:
    event = wire.event
    assert 0 <= event.cached_tokens <= event.prompt_tokens <= MAX_QUANTITY
    assert 0 <= event.reasoning_tokens <= event.completion_tokens <= MAX_QUANTITY
    assert 0 <= event.audio_seconds <= MAX_QUANTITY
    assert wire.steps[-1].over


@pytest.mark.parametrize("path", METERED)
@settings(max_examples=30)
@given(body=answers, cuts=st.lists(st.integers(0, 400), max_size=5))
def test_any_body_passes_unchanged_and_leaves_one_event(path: str, body: bytes, cuts: list[int]) -> None:
    told = sized(body)
    wire = fed(Wire({"model": "tiny", "input": "a"}, path=path), told, cuts)
    assert wire.sent == told
    assert wire.event.outcome in ("finished", "failed", "aborted")
    possible(wire)


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages", "/v1/chat/completions"])
@settings(max_examples=60)
@given(pieces=streams, cuts=st.lists(st.integers(0, 600), max_size=5), leaves=st.booleans())
def test_any_stream_is_read_alike_however_it_is_cut(
    path: str, pieces: list[bytes], cuts: list[int], leaves: bool
) -> None:
    told = chunked(pieces)[: -5 if leaves else None]
    ask = {
        "model": "tiny",
        "stream": True,
        "stream_options": {"include_usage": 1, "continuous_usage_stats": 1},
    }
    whole, cut = Wire(ask, path=path).engine(told), fed(Wire(ask, path=path), told, cuts)
    if leaves:
        whole.gone()
        cut.gone()
    assert whole.seen.body == cut.seen.body == b"".join(pieces)
    assert whole.event == cut.event
    possible(cut)


@given(pieces=streams, cuts=st.lists(st.integers(0, 600), max_size=5))
def test_an_edited_stream_is_edited_alike_however_it_is_cut(pieces: list[bytes], cuts: list[int]) -> None:
    told = chunked(pieces)
    whole, cut = Wire({"stream": True}).engine(told), fed(Wire({"stream": True}), told, cuts)
    assert whole.seen.body == cut.seen.body
    assert (whole.event.outcome, whole.outcome[1]) == (cut.event.outcome, cut.outcome[1])
    possible(cut)


def test_an_engine_that_makes_up_choices_costs_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "_MAX_CHOICES", 10)
    reader = StreamReader(hide_final=True, hide_each=True, fingerprint=None)
    usage = ',"usage":{"prompt_tokens":1,"completion_tokens":1}'
    for index in range(100):
        reader.feed(f'data: {{"choices":[{{"index":{index}}}]{usage}}}\n\n'.encode())
    long = ',"usage":{"a":"' + "x" * 5_000 + '"}'
    reader.feed(f'data: {{"choices":[{{"index":0}}]{long}}}\n\n'.encode())
    assert len(reader.by_choice) == 10
    assert all(len(kept) < 100 for kept in reader.by_choice.values())
