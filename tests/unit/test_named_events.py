"""Streams of responses and messages, read as they pass: in any pieces the same, and nothing is kept."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.dialects import Reader
from metering.json_picks import JsonPicks
from metering.messages_stream import MessagesStream
from metering.named_events import HEAD_BYTES, NamedEvents
from metering.responses_stream import ResponsesStream
from metering.usage import Usage


def event(name: str, data: object, *, end: str = "\n") -> bytes:
    return f"event: {name}{end}data: {json.dumps(data, ensure_ascii=False)}{end}{end}".encode()


def response(status: str, usage: object = None, **more: object) -> dict[str, object]:
    """As vLLM's last event repeats it, with tools of the client's own that talk of usage too."""
    tools = [{"parameters": {"usage": {"input_tokens": 0, "output_tokens": 0}, "status": "failed"}}]
    return {"response": {"model": "tiny", "tools": tools, "status": status, "usage": usage, **more}}


USED = {
    "input_tokens": 538,
    "input_tokens_details": {"cached_tokens": 512, "input_tokens_per_turn": [538]},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 2},
}
ANSWER = [
    event("response.created", response("in_progress")),
    event("response.output_item.added", {"item": {"usage": USED}}),
    event("response.reasoning_text.delta", {"delta": "ž"}),
    event("response.output_text.delta", {"delta": 'data: "usage":{}\n\nevent: response.completed\n\n'}),
    event("response.function_call_arguments.delta", {"delta": "€{"}),
    event("response.output_text.done", {"text": "x" * 300}),
    event("response.completed", response("completed", USED)),
]
MESSAGE = [
    event("message_start", {"message": {"usage": {"input_tokens": 538, "output_tokens": 0}, "content": []}}),
    event("content_block_start", {"index": 0}),
    event("content_block_delta", {"index": 0, "delta": {"type": "thinking_delta", "thinking": "ž"}}),
    event("content_block_delta", {"index": 0, "delta": {"type": "signature_delta", "signature": "a"}}),
    event("content_block_delta", {"delta": {"type": "text_delta", "text": '"signature_delta"'}, "index": 1}),
    event("content_block_delta", {"index": 2, "delta": {"type": "input_json_delta", "partial_json": "{"}}),
    event(
        "message_delta",
        {
            "delta": {"stop_reason": "end_turn", "usage": {"input_tokens": 1, "output_tokens": 1}},
            "usage": {"input_tokens": 26, "output_tokens": 7, "cache_read_input_tokens": 512},
        },
    ),
    event("message_stop", {"type": "message_stop"}),
]


def played(reader: Reader, data: bytes, cuts: list[int]) -> bytes:
    return b"".join(
        reader.feed(data[start:end]) for start, end in pairwise([0, *sorted(cuts), len(data)]) if start < end
    )


def cuts_of(data: bytes) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, len(data)), max_size=12)


@given(cuts_of(b"".join(ANSWER)))
def test_a_response_says_its_usage_at_its_end_however_it_is_cut(cuts: list[int]) -> None:
    reader, data = ResponsesStream(), b"".join(ANSWER)
    assert played(reader, data, cuts) == data
    assert (reader.verdict, reader.fault, reader.model, reader.pending) == ("finished", None, "tiny", False)
    assert reader.usage() == Usage(538, 512, 5, 2)


@given(cuts_of(b"".join(MESSAGE)))
def test_a_message_says_its_usage_at_its_end_however_it_is_cut(cuts: list[int]) -> None:
    reader, data = MessagesStream(), b"".join(MESSAGE)
    assert played(reader, data, cuts) == data
    assert (reader.verdict, reader.fault) == ("finished", None)
    assert reader.usage() == Usage(538, 512, 7)


def test_a_response_cut_off_counts_the_deltas_that_were_whole() -> None:
    data = b"".join(ANSWER)
    ends = [len(b"".join(ANSWER[: count + 1])) for count in range(len(ANSWER))]
    for cut in range(len(data)):
        reader = ResponsesStream()
        reader.feed(data[:cut])
        deltas = sum(end <= cut for end in ends[2:5])
        assert reader.usage() == Usage(0, 0, deltas, int(ends[2] <= cut))
        assert (reader.verdict, reader.fault) == (None, "engine_malformed")


def test_a_message_cut_off_counts_its_prompt_and_the_deltas_that_were_whole() -> None:
    data = b"".join(MESSAGE)
    ends = [len(b"".join(MESSAGE[: count + 1])) for count in range(len(MESSAGE))]
    for cut in range(len(data)):
        reader = MessagesStream()
        reader.feed(data[:cut])
        if cut >= ends[6]:
            assert reader.usage() == Usage(538, 512, 7)
            continue
        deltas = sum(ends[each] <= cut for each in (2, 4, 5))
        assert reader.usage() == Usage(538 if cut >= ends[0] else 0, 0, deltas, int(ends[2] <= cut))
        assert reader.verdict is None


@pytest.mark.parametrize(
    ("last", "verdict", "usage"),
    [
        (event("response.completed", response("incomplete", USED)), "finished", Usage(538, 512, 5, 2)),
        (event("response.incomplete", response("incomplete", USED)), "finished", Usage(538, 512, 5, 2)),
        (event("response.completed", response("completed")), "finished", None),
        (event("response.failed", response("failed")), "failed", Usage(0, 0, 1)),
        (event("response.failed", response("failed", USED)), "failed", Usage(538, 512, 5, 2)),
        (event("response.completed", response("cancelled")), "aborted", Usage(0, 0, 1)),
        (event("response.cancelled", response("cancelled")), "aborted", Usage(0, 0, 1)),
        (event("error", {"message": "gone"}), "failed", Usage(0, 0, 1)),
    ],
)
def test_every_last_event_of_a_response_has_its_outcome(
    last: bytes, verdict: str, usage: Usage | None
) -> None:
    reader = ResponsesStream()
    reader.feed(event("response.output_text.delta", {"delta": "a"}) + last + ANSWER[3])
    assert (reader.verdict, reader.usage()) == (verdict, usage)
    assert reader.fault == ("engine_error" if verdict == "failed" else None)


def test_an_error_ends_a_message_with_what_came_before_it() -> None:
    reader = MessagesStream()
    reader.feed(b"".join(MESSAGE[:5]) + event("error", {"error": {"type": "internal_error"}}))
    assert (reader.verdict, reader.fault) == ("failed", "engine_error")
    assert reader.usage() == Usage(538, 0, 2, 1)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@given(data=st.data())
def test_events_are_those_of_the_lines_however_they_are_cut(end: str, data: st.DataObject) -> None:
    texts = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=8)
    lines = data.draw(
        st.lists(
            st.sampled_from(["", "event: a", "event:b", "data: 1", "data:", "id: 1", ":"]) | texts,
            max_size=12,
        )
    )
    stream = (end.join(lines) + end).encode()
    expected: list[str] = []
    name, some = "", False
    for line in lines:
        if not line:
            if some:
                expected.append(name)
            name, some = "", False
        elif line.startswith("event:"):
            name = name if some else line[6:].strip()
        elif line.startswith("data:"):
            some = True
    seen: list[str] = []
    events = NamedEvents(lambda _: None, lambda name, _, __: seen.append(name.decode()))
    cuts = data.draw(cuts_of(stream))
    for start, stop in pairwise([0, *sorted(cuts), len(stream)]):
        events.feed(stream[start:stop])
    assert seen == expected


def test_an_event_as_long_as_an_answer_is_read_in_passing() -> None:
    reader = ResponsesStream()
    start, _, rest = event("response.completed", response("completed", USED)).partition(b'"tools"')
    reader.feed(start + b'"output":"')
    for _ in range(200):
        reader.feed(b"x\\n\\u20ac" * 2_000)
    reader.feed(b'","tools"' + rest)
    assert reader.usage() == Usage(538, 512, 5, 2)


def test_the_beginning_of_data_is_shown_where_nothing_of_it_is_wanted() -> None:
    heads: list[bytes] = []
    events = NamedEvents(lambda _: None, lambda _, __, head: heads.append(head))
    for at in range(0, 1_000, 7):
        events.feed((b"data:" + b"x" * 990 + b"\n\n")[at : at + 7])
    assert heads == [b"x" * HEAD_BYTES]


def test_a_line_without_end_costs_no_memory() -> None:
    names: list[bytes] = []

    def begins(name: bytes) -> JsonPicks | None:
        names.append(name)
        return None

    events = NamedEvents(begins, lambda _, __, ___: None)
    events.feed(b"event: ")
    for _ in range(100):
        events.feed(b"x" * 1_000)
    events.feed(b"\ndata: 1\n\n")
    assert len(names[0]) < 300
