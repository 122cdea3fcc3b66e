"""Streams as clients see them: edited back to what the engine would have sent, whatever way the bytes are cut."""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st
from stream_texts import (
    DONE,
    FINGERPRINT,
    asked_stream,
    asked_two_choices,
    chunk,
    last_chunk,
    plain_stream,
    plain_two_choices,
    usage,
)

from metering import sse
from metering.json_answers import UsageAnswer
from metering.sse import StreamReader
from metering.usage import Usage, openai_usage, sum_of_choices

FINGERPRINT_BYTES = FINGERPRINT.encode()


def hiding(*, final: bool = True, each: bool = True, fingerprint: bytes | None = None) -> StreamReader:
    return StreamReader(hide_final=final, hide_each=each, fingerprint=fingerprint)


def passed(reader: StreamReader, data: bytes, cuts: list[int]) -> bytes:
    """What comes out when `data` goes in cut at `cuts`."""
    return b"".join(reader.feed(piece) for piece in pieces(data, cuts)) + reader.flush()


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    return [data[start:end] for start, end in pairwise([0, *sorted(cuts), len(data)]) if start < end]


def cuts_of(data: bytes) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, len(data)), max_size=12)


ASKED = b"".join(asked_stream())
TWO = b"".join(asked_two_choices())


@given(cuts_of(ASKED))
def test_a_client_that_asked_for_nothing_sees_the_plain_stream_however_it_is_cut(cuts: list[int]) -> None:
    reader = hiding()
    assert passed(reader, ASKED, cuts) == b"".join(plain_stream())
    assert openai_usage(reader.final) == Usage(7, 4, 6, 2)
    assert reader.verdict == "finished"


@given(cuts_of(TWO))
def test_every_choice_gets_its_fingerprint_back_once_the_engine_has_shown_it(cuts: list[int]) -> None:
    assert passed(hiding(fingerprint=FINGERPRINT_BYTES), TWO, cuts) == b"".join(plain_two_choices())


def test_a_choice_that_ends_before_the_fingerprint_is_known_goes_without_it() -> None:
    expected = b"".join(plain_two_choices()).replace(FINGERPRINT_BYTES, b"", 1)
    assert passed(hiding(), TWO, []) == expected


@given(cuts_of(ASKED))
def test_a_client_that_asked_for_the_last_chunk_alone_gets_it_as_the_engine_writes_it(
    cuts: list[int],
) -> None:
    assert passed(hiding(final=False), ASKED, cuts) == b"".join(asked_stream(each=False))


@given(cuts_of(ASKED))
def test_a_client_that_asked_for_everything_gets_every_byte_at_once(cuts: list[int]) -> None:
    reader = hiding(final=False, each=False)
    for piece in pieces(ASKED, cuts):
        assert reader.feed(piece) == piece
    assert openai_usage(reader.final) == Usage(7, 4, 6, 2)


def test_each_event_goes_on_as_soon_as_it_is_whole() -> None:
    reader = hiding()
    plain = plain_stream()
    asked = asked_stream()
    assert [reader.feed(event) for event in asked[:-3]] == plain[:-2]
    assert reader.feed(asked[-3]) == b""  # a last token waits for its fingerprint
    assert reader.feed(asked[-2]) == plain[-2]  # which comes with the usage
    assert reader.feed(asked[-1]) == DONE


def test_running_usage_counts_what_was_passed_on_and_no_more() -> None:
    reader = hiding()
    events = asked_two_choices()
    for event in events[:3]:
        reader.feed(event)
    assert sum_of_choices(reader.by_choice, 2) == Usage(5, 0, 2)  # "c" still waits
    reader.feed(events[3])
    assert sum_of_choices(reader.by_choice, 2) == Usage(5, 0, 4)


def test_batched_prompts_count_each_prompt_once() -> None:
    reader = hiding()
    for prompt, index in ((3, 0), (3, 1), (4, 2), (4, 3)):
        reader.feed(chunk("x", index=index, usage=usage(prompt, 2)))
    assert sum_of_choices(reader.by_choice, 2) == Usage(7, 0, 8)


def test_null_usage_of_older_engines_is_taken_out_too() -> None:
    assert hiding().feed(chunk("x", usage=',"usage":null')) == chunk("x")


def test_loose_json_is_read_like_dense_json() -> None:
    event = b'data: {"choices": [ {"index": 0, "text": "x"} ], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}\n\n'
    reader = hiding()
    assert reader.feed(event) == b'data: {"choices": [ {"index": 0, "text": "x"} ]}\n\n'
    assert sum_of_choices(reader.by_choice, 1) == Usage(3, 0, 1)


def test_events_may_end_in_carriage_returns() -> None:
    events = [event.replace(b"\n", b"\r\n") for event in asked_stream() if event != DONE]
    plain = [event.replace(b"\n", b"\r\n") for event in plain_stream() if event != DONE]
    assert hiding().feed(b"".join(events)) == b"".join(plain[:-1]) + plain[-1]


def test_an_error_in_the_place_of_a_chunk_is_seen_and_passed_on() -> None:
    reader = hiding()
    error = b'data: {"error":{"message":"out of memory","code":500}}\n\n'
    assert reader.feed(error) == error
    assert reader.error


def test_an_endless_event_is_passed_on_and_not_kept() -> None:
    reader = hiding()
    piece = b"x" * (sse.MAX_EVENT_BYTES // 2 + 1)
    assert reader.feed(piece) == b""
    assert len(reader.feed(piece)) == 2 * len(piece)
    assert reader.flush() == b""


BODY = (
    b'{"id":"chatcmpl-0","choices":[{"message":{"content":"\\"usage\\":{"}}]'
    + usage(16, 5, 12).encode()
    + b',"x":null}'
)


@given(st.lists(st.integers(0, len(BODY)), max_size=40))
def test_the_usage_of_a_whole_answer_is_found_however_it_is_cut(cuts: list[int]) -> None:
    reader = UsageAnswer(openai_usage)
    for piece in pieces(BODY, cuts):
        reader.feed(piece)
    assert reader.usage() == Usage(16, 12, 5)


@given(st.integers(0, 200), st.integers(0, 9000))
def test_usage_is_found_in_front_of_and_behind_megabytes(cut: int, length: int) -> None:
    reader = UsageAnswer(openai_usage)
    body = (
        b'{"a":"'
        + b"y" * 5000
        + b'"'
        + usage(16, 5).encode()
        + b',"prompt_logprobs":"'
        + b"x" * length
        + b'"}'
    )
    reader.feed(body[: 5000 + cut])
    reader.feed(body[5000 + cut :])
    assert reader.usage() == Usage(16, 0, 5)


def test_an_answer_without_usage_has_none() -> None:
    reader = UsageAnswer(openai_usage)
    reader.feed(b'{"choices":[],"usage":null}')
    assert reader.usage() is None


def test_the_last_chunk_shows_the_fingerprint_for_later_streams() -> None:
    reader = hiding()
    reader.feed(last_chunk(1, 1))
    assert reader.fingerprint == FINGERPRINT_BYTES


MULTIMODAL = (
    '"usage":{"prompt_tokens":300,"total_tokens":302,"completion_tokens":2,"prompt_tokens_details":'
    '{"cached_tokens":16,"created_cache_tokens":0,"multimodal_tokens":{"image":256,"audio":9}},'
    '"completion_tokens_details":{"reasoning_tokens":1}}'
)


@given(st.data())
def test_tokens_of_pictures_within_the_usage_are_cut_out_with_it(data: st.DataObject) -> None:
    plain = 'data: {"id":"c","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'
    last = 'data: {"id":"c","choices":[],' + MULTIMODAL + "}\n\n"
    asked = plain.replace("}]}", "}]," + MULTIMODAL + "}")
    stream = (asked + last).encode() + DONE
    reader = hiding()
    assert passed(reader, stream, data.draw(cuts_of(stream))) == plain.encode() + DONE
    assert reader.usage() == Usage(300, 16, 2, 1)


def test_tokens_of_pictures_are_read_in_a_whole_answer() -> None:
    reader = UsageAnswer(openai_usage)
    reader.feed(('{"choices":[],' + MULTIMODAL + ',"metrics":null}').encode())
    assert reader.usage() == Usage(300, 16, 2, 1)


class Slowly(StreamReader):
    """Knows no common event."""

    def _running(self, event: bytes) -> bytes | None:
        return None


def is_sound(event: bytes) -> bool:
    """Whether it holds JSON in which each object has each name once: of anything else no reading is the right one."""

    def once(members: list[tuple[str, object]]) -> dict[str, object]:
        if len(dict(members)) < len(members):
            raise ValueError
        return dict(members)

    try:
        json.loads(event.removeprefix(b"data: "), object_pairs_hook=once)
    except ValueError:
        return False
    return True


PARTS = (
    *(
        b'{"index":0,',
        b'"finish_reason":null',
        b'"finish_reason":"stop"',
        b"}]",
        b',"usage":{',
        b'"usage":null',
    ),
    *(b"}", b"{", b" ", b'"choices":[', b"\n\n", b'\\"', b'"completion_tokens":9', b",", b'"', b"9"),
)


@given(
    st.sampled_from(asked_stream() + asked_two_choices()),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 20), st.sampled_from(PARTS)), max_size=4),
    st.booleans(),
)
@example(b'data: {"choices":[{"index":0,"x":1}],"finish_reason":null,"usage":{"usage":2}}\n\n', [], True)
@example(chunk("x", usage=usage(1, 2), index=1), [], True)
@example(chunk("x", usage=usage(1, 2), finish="stop"), [], False)
def test_the_common_event_is_what_any_event_is(
    event: bytes, changes: list[tuple[int, int, bytes]], each: bool
) -> None:
    for at, length, part in changes:
        place = at % len(event)
        event = event[:place] + part + event[place + length :]
    if not is_sound(event):
        return
    quick, slow = (kind(hide_final=each, hide_each=each, fingerprint=None) for kind in (StreamReader, Slowly))
    for event_or_done in (event, DONE):
        assert quick.feed(event_or_done) == slow.feed(event_or_done)
        assert (quick.by_choice, quick.verdict) == (slow.by_choice, slow.verdict)
