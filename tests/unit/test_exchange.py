"""One request's life: every cut, every abort, every order of bytes, without a socket."""

from __future__ import annotations

from itertools import pairwise

import pytest
from exchange_wire import (
    FINGERPRINT,
    KEY,
    REQUEST_ID,
    SECRET,
    Seen,
    Wire,
    chunked,
    read_request,
    request_bytes,
    sized,
)
from hypothesis import given
from hypothesis import strategies as st
from stream_texts import DONE, asked_stream, asked_two_choices, chunk, plain_stream, usage

from metering.event import Event
from metering.exchange import Exchange
from metering.exchange_step import UNKNOWN_MODEL
from metering.http_refusal import Refused
from metering.opening import open_exchange
from metering.usage import NOTHING, Usage
from metering.write_ahead import Intent

ASK = {"model": "tiny", "messages": []}
STREAM = {"model": "tiny", "prompt": "x", "stream": True}
COMPLETIONS = "/v1/completions"
BODY = b'{"id":"chatcmpl-0","model":"tiny","choices":[]' + usage(16, 5, 12, 1).encode() + b',"metrics":null}'
ANSWER = sized(BODY)
ANSWERED = chunked(asked_stream())
PLAIN = b"".join(plain_stream())


def stream_wire(*, fingerprint: bytes | None = None, **more: object) -> Wire:
    return Wire(STREAM | more, path=COMPLETIONS, fingerprint=fingerprint)


def test_the_intent_says_who_asks_for_what_under_a_minted_id() -> None:
    wire = Wire(ASK)
    assert wire.exchange.intent == Intent(
        REQUEST_ID, 1_000, KEY.customer, KEY.project, KEY.id, "chat", "tiny"
    )


def test_the_engine_sees_our_id_and_neither_the_clients_id_nor_its_key() -> None:
    head = "Authorization: Bearer tg_x\r\nX-Request-Id: mine\r\nX-Api-Key: s\r\nAccept-Encoding: gzip\r\nX-Tenant: a\r\n"
    opened = open_exchange(read_request(request_bytes(ASK, head=head)), REQUEST_ID, 1_000, SECRET)
    assert isinstance(opened, Exchange)
    lines = opened.to_engine(b"Host: engine:8000").decode().split("\r\n")
    assert lines == [
        "POST /v1/chat/completions HTTP/1.1",
        "Host: engine:8000",
        "X-Tenant: a",
        f"X-Request-Id: {REQUEST_ID.hex()}",
        "Accept-Encoding: identity",
        f"Content-Length: {len(opened.body)}",
        "",
        "",
    ]


def test_a_whole_answer_passes_byte_for_byte_and_its_outcome_is_written_first() -> None:
    wire = Wire(ASK).engine(ANSWER)
    assert [type(entry) for entry in wire.log] == [Event, bytes]
    assert wire.sent == ANSWER
    assert wire.outcome == ("finished", Usage(16, 12, 5, 1))
    event = wire.event
    assert (event.request, event.customer, event.project, event.key) == (
        REQUEST_ID,
        b"C" * 16,
        b"P" * 16,
        b"K" * 16,
    )
    assert (event.time_us, event.endpoint, event.model, event.generated_tokens) == (
        2_000,
        "chat",
        "tiny",
        None,
    )
    assert wire.steps[-1].over
    assert wire.steps[-1].keep_client


@given(st.lists(st.integers(0, len(ANSWER)), max_size=8))
def test_however_an_answer_is_cut_its_last_byte_goes_out_after_its_outcome(cuts: list[int]) -> None:
    wire = Wire(ASK)
    for start, end in pairwise([0, *sorted(cuts), len(ANSWER)]):
        if start < end:
            wire.engine(ANSWER[start:end])
    assert wire.sent == ANSWER
    assert wire.outcome == ("finished", Usage(16, 12, 5, 1))
    assert isinstance(wire.log[-1], bytes)


@given(st.lists(st.integers(0, len(ANSWERED)), max_size=8))
def test_however_a_stream_is_cut_the_client_reads_the_plain_one_and_is_told_of_its_end_last(
    cuts: list[int],
) -> None:
    wire = stream_wire()
    for start, end in pairwise([0, *sorted(cuts), len(ANSWERED)]):
        if start < end:
            wire.engine(ANSWERED[start:end])
    seen = wire.seen
    assert seen.body == PLAIN
    assert seen.whole
    assert wire.outcome == ("finished", Usage(7, 4, 6, 2))
    before = b"".join(entry for entry in wire.log[: wire.log.index(wire.event)] if isinstance(entry, bytes))
    assert not Seen.read(before).body.endswith(DONE)


def delivered(wire: Wire) -> int:
    """How many chunks with a token the client could read. One token each, in these streams."""
    return wire.seen.body.count(b'"choices":[{') if wire.sent else 0


@pytest.mark.parametrize("end", ["gone", "lost", "stop"])
def test_a_stream_cut_at_any_byte_leaves_one_event_with_the_tokens_passed_on(end: str) -> None:
    whole = ANSWERED.index(DONE) + len(DONE)
    for cut in range(len(ANSWERED)):
        wire = stream_wire(fingerprint=FINGERPRINT).engine(ANSWERED[:cut])
        getattr(wire, end)()
        outcome, used = wire.outcome
        if cut >= whole:
            assert (outcome, used) == ("finished", Usage(7, 4, 6, 2))
            continue
        assert outcome == {"gone": "aborted", "lost": "failed", "stop": "interrupted"}[end]
        assert wire.steps[-1].over
        if wire.seen.status == 200:
            assert PLAIN.startswith(wire.seen.body)
            assert not wire.seen.whole
            assert not wire.steps[-1].keep_client
            assert used.completion_tokens == delivered(wire)
            assert used.prompt_tokens == (7 if delivered(wire) else 0)


@pytest.mark.parametrize("end", ["gone", "lost", "stop"])
def test_an_answer_cut_at_any_byte_leaves_one_event(end: str) -> None:
    for cut in range(len(ANSWER)):
        wire = Wire(ASK).engine(ANSWER[:cut])
        getattr(wire, end)()
        assert wire.event.outcome == {"gone": "aborted", "lost": "failed", "stop": "interrupted"}[end]
        assert wire.steps[-1].over


def test_nothing_that_follows_the_end_makes_a_second_event() -> None:
    wire = Wire(ASK).engine(ANSWER).gone().lost().stop()
    assert wire.outcome[0] == "finished"
    wire = stream_wire().engine(ANSWERED[:400]).gone().lost("silent").stop()
    assert wire.outcome[0] == "aborted"


@pytest.mark.parametrize(
    ("cause", "status"), [("unreachable", 503), ("closed", 502), ("malformed", 502), ("silent", 504)]
)
def test_a_client_that_has_seen_nothing_is_told_why_the_engine_was_lost(cause: str, status: int) -> None:
    wire = Wire(ASK).lost(cause)
    assert wire.seen.status == status
    assert b'"code": "engine_' in wire.seen.body
    assert wire.seen.whole
    assert wire.steps[-1].keep_client
    assert wire.outcome == ("failed", NOTHING)


def test_an_unreachable_engine_says_when_to_try_again() -> None:
    assert Wire(ASK).lost("unreachable").seen.headers[b"retry-after"] == b"1"


@pytest.mark.parametrize("status", ["400 Bad Request", "404 Not Found", "500 Internal Server Error"])
def test_an_error_of_the_engine_passes_unchanged_and_counts_no_tokens(status: str) -> None:
    error = sized(
        b'{"error":{"message":"no"},"usage":{"prompt_tokens":9,"completion_tokens":9}}', status=status
    )
    wire = Wire(ASK).engine(error)
    assert wire.sent == error
    assert wire.outcome == ("failed", NOTHING)
    assert wire.steps[-1].keep_client


def test_an_error_within_a_stream_fails_with_the_tokens_before_it() -> None:
    error = b'data: {"error":{"message":"gone","code":500}}\n\n'
    wire = stream_wire().engine(chunked([chunk("a", usage=usage(7, 1)), error, DONE]))
    assert wire.seen.body == chunk("a") + error + DONE
    assert wire.outcome == ("failed", Usage(7, 0, 1))


def test_garbage_from_the_engine_is_never_passed_on() -> None:
    wire = Wire(ASK).engine(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd")
    assert wire.seen.status == 502
    assert wire.outcome == ("failed", NOTHING)


def test_an_answer_without_a_length_is_refused() -> None:
    wire = Wire(ASK).engine(b"HTTP/1.1 200 OK\r\n\r\n" + BODY)
    assert wire.seen.status == 502


def test_a_second_answer_to_one_request_reaches_nobody() -> None:
    wire = Wire(ASK).engine(ANSWER + sized(b'{"secret":1}'))
    assert wire.sent == ANSWER
    assert wire.outcome[0] == "finished"
    assert not wire.reader.reusable


def test_provisional_answers_are_kept_from_the_client() -> None:
    wire = Wire(ASK).engine(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + ANSWER)
    assert wire.sent == ANSWER


def test_headers_of_the_engines_connection_stay_there() -> None:
    head = b"Connection: close, X-Hop\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\nX-Kept: 2\r\n"
    answer = ANSWER.replace(b"server: uvicorn\r\n", head)
    wire = Wire(ASK).engine(answer)
    assert wire.sent == ANSWER.replace(b"server: uvicorn\r\n", b"X-Kept: 2\r\n")
    assert not wire.reader.reusable


def test_a_client_of_http_1_0_gets_a_stream_without_chunks_and_then_the_end() -> None:
    wire = Wire(STREAM, path=COMPLETIONS, version="1.0").engine(ANSWERED)
    head, _, body = wire.sent.partition(b"\r\n\r\n")
    assert body == PLAIN
    assert b"transfer-encoding" not in head.lower()
    assert b"connection: close" in head
    assert not wire.steps[-1].keep_client


def test_a_chunked_answer_in_one_body_stays_chunked() -> None:
    answer = chunked([BODY]).replace(b"text/event-stream; charset=utf-8", b"application/json")
    wire = Wire(ASK).engine(answer)
    assert wire.sent == answer
    assert wire.outcome == ("finished", Usage(16, 12, 5, 1))


def test_the_model_of_a_request_that_names_none_is_read_from_the_answer() -> None:
    assert Wire({"messages": []}).engine(ANSWER).event.model == "tiny"
    assert Wire({"messages": []}).lost().event.model == UNKNOWN_MODEL


def test_a_finished_answer_without_usage_says_that_it_could_not_be_read() -> None:
    wire = Wire(ASK).engine(sized(b'{"choices":[]}'))
    assert wire.outcome == ("finished", NOTHING)
    assert wire.steps[-1].unread_usage


def test_several_choices_are_counted_as_the_engine_sums_them_or_as_far_as_they_came() -> None:
    events = asked_two_choices()
    assert stream_wire(n=2).engine(chunked(events)).outcome == ("finished", Usage(5, 0, 5))
    aborted = stream_wire(n=2).engine(chunked(events[:4])[:-5]).gone()
    assert aborted.outcome == ("aborted", Usage(5, 0, 4))


def test_the_fingerprint_of_one_stream_is_known_to_the_next() -> None:
    assert stream_wire().engine(ANSWERED).exchange.fingerprint == FINGERPRINT
    assert Wire(ASK, fingerprint=FINGERPRINT).engine(ANSWER).exchange.fingerprint == FINGERPRINT


def test_a_body_that_cannot_be_read_safely_is_refused_before_the_engine() -> None:
    opened = open_exchange(read_request(request_bytes(b'{"a":' + b"[" * 100_000)), REQUEST_ID, 0, SECRET)
    assert isinstance(opened, Refused)
    assert opened.code == "nested_too_deep"


def test_what_is_not_metered_leaves_no_event() -> None:
    request = read_request(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
    opened = open_exchange(request, REQUEST_ID, 0, SECRET)
    assert isinstance(opened, Exchange)
    assert opened.intent is None
    assert (
        opened.to_engine(b"Host: e")
        == b"GET /v1/models HTTP/1.1\r\nHost: e\r\nAccept-Encoding: identity\r\n\r\n"
    )
    opened.client_gone()
    assert opened.step(1).event is None
