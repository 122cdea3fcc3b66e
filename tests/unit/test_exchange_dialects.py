"""One request's life on the endpoints beside chat and completions: ids, owners, reasons, lines, the background."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import pytest
from exchange_wire import KEY, REQUEST_ID, SECRET, Wire, chunked, read_request, request_bytes, sized
from hypothesis import given
from hypothesis import strategies as st

from metering.exchange import Exchange
from metering.http_refusal import Refused, answer_bytes
from metering.opening import open_exchange
from metering.response_id import engine_of_response, make_response_id
from metering.usage import NOTHING, Usage

RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
ASK = {"model": "tiny", "input": "a"}
USAGE = {"input_tokens": 16, "input_tokens_details": {"cached_tokens": 8}, "output_tokens": 4}
OWN_ID = make_response_id(SECRET, REQUEST_ID, KEY.customer, 3).decode()


def answer(status: str = "completed", **more: object) -> bytes:
    body = {
        "id": OWN_ID,
        "tools": [{"usage": 1, "status": "failed"}],
        "status": status,
        "usage": USAGE,
    } | more
    return sized(json.dumps(body).encode())


def stream(*events: tuple[str, object]) -> bytes:
    return chunked(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode() for name, data in events)


DELTA = ("response.output_text.delta", {"delta": "a"})
COMPLETED = ("response.completed", {"response": {"status": "completed", "usage": USAGE}})


# -- ids and owners -----------------------------------------------------------------------------------------------------


def test_a_response_gets_an_id_that_says_whose_it_is_and_where_it_lies() -> None:
    wire = Wire(ASK | {"request_id": "mine"}, path=RESPONSES, ordinal=3)
    sent = json.loads(wire.exchange.body)
    assert sent == ASK | {"request_id": OWN_ID}
    assert wire.exchange.to_engine(b"Host: e").endswith(
        b"Content-Length: %d\r\n\r\n" % len(wire.exchange.body)
    )
    assert engine_of_response(SECRET, OWN_ID, KEY.customer) == 3


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", f"/v1/responses/{OWN_ID}?stream=true"), ("POST", f"/v1/responses/{OWN_ID}/cancel")],
)
def test_a_response_is_asked_for_at_the_engine_that_keeps_it(method: str, path: str) -> None:
    wire = Wire(b"", path=path, method=method)
    assert wire.exchange.route == (None, 3)
    assert wire.exchange.intent is None
    told = answer("queued")
    assert wire.engine(told).sent == told
    assert wire.events == []


def test_a_response_that_goes_on_from_another_goes_to_the_same_engine() -> None:
    assert Wire(ASK | {"previous_response_id": OWN_ID}, path=RESPONSES).exchange.route == ("tiny", 3)


def somebody_elses(customer: bytes = KEY.customer, secret: bytes = SECRET) -> str:
    return make_response_id(secret, REQUEST_ID, customer, 3).decode()


@pytest.mark.parametrize(
    "response",
    [
        OWN_ID[:-1] + ("0" if OWN_ID[-1] != "0" else "1"),
        OWN_ID.replace("_03", "_04") + "0",
        OWN_ID.upper(),
        "resp_" + "0" * 32,
        OWN_ID.replace(REQUEST_ID.hex(), bytes(16).hex()),
        somebody_elses(customer=b"D" * 16),
        somebody_elses(secret=b"another node's"),
        "",
        "../health",
        "resp_" + "\u0661" * 32 + OWN_ID[37:],
    ],
)
def test_any_other_response_is_as_one_that_never_was(response: str) -> None:
    request = read_request(request_bytes(ASK | {"previous_response_id": response}, path=RESPONSES))
    refused = open_exchange(request, REQUEST_ID, 0, SECRET)
    assert isinstance(refused, Refused)
    assert refused.status == 404
    error = json.loads(answer_bytes(refused, keep_alive=True).partition(b"\r\n\r\n")[2])["error"]
    assert error == {
        "message": f"Response with id '{response}' not found.",
        "type": "invalid_request_error",
        "param": "response_id",
        "code": 404,
    }


def test_another_customer_does_not_get_it() -> None:
    request = read_request(request_bytes(b"", path=f"/v1/responses/{OWN_ID}", method="GET"))
    request.key = replace(KEY, customer=b"D" * 16)
    assert isinstance(open_exchange(request, REQUEST_ID, 0, SECRET), Refused)


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize", "/v1/messages/count_tokens"])
def test_what_is_free_leaves_no_event_and_goes_to_an_engine_of_its_model(path: str) -> None:
    wire = Wire({"model": "tiny", "prompt": "a"}, path=path)
    assert (wire.exchange.route, wire.exchange.intent) == (("tiny", None), None)
    told = sized(b'{"tokens":[1],"usage":{"prompt_tokens":5}}')
    assert wire.engine(told).sent == told
    assert wire.events == []


# -- what is told --------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, len(answer())), max_size=8))
def test_a_response_counts_its_own_usage_and_not_one_of_its_tools(cuts: list[int]) -> None:
    wire, told = Wire(ASK, path=RESPONSES), answer()
    for start, end in pairwise([0, *sorted(cuts), len(told)]):
        if start < end:
            wire.engine(told[start:end])
    assert wire.sent == told
    assert wire.outcome == ("finished", Usage(16, 8, 4))
    assert isinstance(wire.log[-1], bytes)


def test_a_response_names_its_model_itself_whatever_its_metadata_say() -> None:
    told = answer(metadata={"model": "cheap"}, model="dear")
    assert Wire({"input": "a"}, path=RESPONSES).engine(told).event.model == "dear"
    created = ("response.created", {"response": {"metadata": {"model": "cheap"}, "model": "dear"}})
    assert Wire({"input": "a", "stream": True}, path=RESPONSES).engine(stream(created)).event.model == "dear"


@pytest.mark.parametrize(
    ("status", "outcome", "reason"),
    [
        ("completed", "finished", None),
        ("incomplete", "finished", None),
        ("failed", "failed", "engine_error"),
        ("cancelled", "aborted", None),
    ],
)
def test_the_status_of_a_response_is_its_outcome(status: str, outcome: str, reason: str | None) -> None:
    event = Wire(ASK, path=RESPONSES).engine(answer(status)).event
    assert (event.outcome, event.reason, event.prompt_tokens) == (outcome, reason, 16)


def test_the_outcome_of_a_stream_is_written_before_its_last_event_goes_out() -> None:
    wire = Wire(ASK | {"stream": True}, path=RESPONSES).engine(stream(DELTA, COMPLETED))
    before = b"".join(entry for entry in wire.log[: wire.log.index(wire.event)] if isinstance(entry, bytes))
    assert b"response.completed" not in before
    assert wire.outcome == ("finished", Usage(16, 8, 4))


def test_a_stream_that_ends_without_its_last_event_was_cut_off() -> None:
    event = Wire(ASK | {"stream": True}, path=RESPONSES).engine(stream(DELTA, DELTA)).event
    assert (event.outcome, event.reason, event.completion_tokens) == ("failed", "engine_malformed", 2)


def test_a_document_that_talks_of_usage_is_not_counted() -> None:
    document = {"multi_modal": [{"text": "a", "usage": {"prompt_tokens": 0, "total_tokens": 0}}]}
    body = {
        "id": "r",
        "model": "tiny",
        "usage": {"prompt_tokens": 9, "total_tokens": 9},
        "results": [document],
    }
    wire = Wire({"query": "a", "documents": ["b"]}, path="/rerank").engine(sized(json.dumps(body).encode()))
    assert wire.outcome == ("finished", Usage(9))


def test_embeddings_in_binary_say_their_usage_in_a_header() -> None:
    body = b'\x00"usage":{"prompt_tokens":99,"total_tokens":99}\xff'
    told = sized(body, kind="application/octet-stream")
    metadata = b'metadata: {"data": [], "usage": {"prompt_tokens": 9, "total_tokens": 9}}\r\n'
    wire = Wire({"input": "a"}, path="/v1/embeddings").engine(told.replace(b"server: uvicorn\r\n", metadata))
    assert wire.seen.body == body
    assert wire.outcome == ("finished", Usage(9))
    assert Wire({"input": "a"}, path="/v1/embeddings").engine(told).event.reason == "usage_unread"


# -- reasons and lines ----------------------------------------------------------------------------------------------------


def test_a_reason_says_why_figures_may_be_incomplete() -> None:
    assert Wire(ASK, path=RESPONSES).gone().event.reason is None
    stalled = Wire(ASK, path=RESPONSES)
    stalled.exchange.client_gone(stalled=True)
    assert stalled.due().event.reason == "client_stalled"
    assert Wire(ASK, path=RESPONSES).stop().event.reason == "sidecar_stopped"
    for cause in ("unreachable", "closed", "malformed", "silent"):
        assert Wire(ASK, path=RESPONSES).lost(cause).event.reason == f"engine_{cause}"
    assert Wire(ASK, path=RESPONSES).engine(sized(b"{}", status="500 X")).event.reason == "engine_error"
    assert Wire(ASK, path=RESPONSES).engine(answer(usage=None)).event.reason == "usage_unread"


DONE: tuple[str, object] = ("response.output_text.done", {"text": "aa"})
PART_DONE: tuple[str, object] = ("response.content_part.done", {"part": {}})
ITEM: tuple[str, object] = ("response.output_item.added", {"item": {}})


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ([DELTA, DELTA], None),
        ([DELTA, DELTA, DONE], "usage_unread"),
        ([DELTA, DELTA, DONE, PART_DONE, ("response.output_item.done", {})], "usage_unread"),
        ([DELTA, DONE, PART_DONE, ITEM, DELTA], None),
        ([DELTA, DELTA, ("response.reasoning_text.done", {})], None),
    ],
)
def test_who_leaves_a_response_after_its_last_content_had_all_but_the_usage(
    events: list[tuple[str, object]], reason: str | None
) -> None:
    wire = Wire(ASK | {"stream": True}, path=RESPONSES).engine(stream(*events)[:-5]).gone()
    assert wire.outcome == ("aborted", Usage(completion_tokens=2))
    assert wire.event.reason == reason


def test_who_leaves_a_message_after_its_last_content_had_all_but_the_usage() -> None:
    start = ("message_start", {"message": {"usage": {"input_tokens": 9, "output_tokens": 0}}})
    block = ("content_block_start", {"index": 0})
    delta = ("content_block_delta", {"delta": {"type": "text_delta", "text": "a"}})
    stop = ("content_block_stop", {"index": 0})
    told = ("message_delta", {"usage": {"input_tokens": 9, "output_tokens": 4}})
    for events, reason, tokens in (
        ([start, block, delta], None, 1),
        ([start, block, delta, stop], "usage_unread", 1),
        ([start, block, delta, stop, block], None, 1),
        ([start, block, delta, stop, told], None, 4),
    ):
        wire = Wire({"model": "tiny"}, path=MESSAGES).engine(stream(*events)[:-5]).gone()
        assert wire.outcome == ("aborted", Usage(9, 0, tokens))
        assert wire.event.reason == reason


def test_an_answer_that_has_no_place_for_its_usage_is_served_only_beside_a_witness() -> None:
    body = {"model": "tiny", "input": "a", "encoding_format": "bytes_only"}
    request = read_request(request_bytes(body, path="/v1/embeddings"))
    refused = open_exchange(request, REQUEST_ID, 0, SECRET, witness=False)
    assert isinstance(refused, Refused)
    assert (refused.status, refused.code) == (400, "usage_not_told")
    assert isinstance(open_exchange(request, REQUEST_ID, 0, SECRET, witness=True), Exchange)


def test_lines_are_expected_of_what_reached_the_engines_scheduler() -> None:
    completions = {"model": "tiny", "prompt": ["a", "b"], "n": 2}
    path = "/v1/completions"
    assert Wire(completions, path=path).gone().steps[-1].lines == 4
    assert Wire(completions, path=path, ordinal=None).lost("unreachable").steps[-1].lines == 0
    assert Wire(completions, path=path).engine(sized(b"{}", status="404 X")).steps[-1].lines == 0
    assert Wire(completions, path=path).engine(sized(b"{}", status="500 X")).steps[-1].lines == 4
    # One prompt is refused; what has become of the others, only the engine knows.
    assert Wire(completions, path=path).engine(sized(b"{}", status="400 X")).steps[-1].lines is None
    one = completions | {"prompt": "a", "n": 1}
    assert Wire(one, path=path).engine(sized(b"{}", status="400 X")).steps[-1].lines == 0
    assert Wire({"query": "a", "documents": ["b"]}, path="/rerank").gone().steps[-1].lines is None


def test_what_is_served_unmetered_leaves_no_event_and_shows_in_the_engines_lines() -> None:
    for path in (RESPONSES, MESSAGES):
        wire = Wire(ASK, path=path, ordinal=None)
        wire.exchange.serve_unmetered()
        wire.exchange.aim(0, None)
        assert b"X-Request-Id: unmetered-" + REQUEST_ID.hex().encode() in wire.exchange.to_engine(b"Host: e")
        assert path == MESSAGES or b"resp_unmetered-" + REQUEST_ID.hex().encode() in wire.exchange.body
        assert wire.engine(answer()).sent == answer()
        assert wire.events == []
        assert wire.steps[-1].over
    kept = make_response_id(SECRET, REQUEST_ID, KEY.customer, 7, unmetered=True).decode()
    assert engine_of_response(SECRET, kept, KEY.customer) == 7


# -- the background -------------------------------------------------------------------------------------------------------

BACKGROUND = ASK | {"background": True}


def test_a_response_in_the_background_is_watched_and_has_no_event_yet() -> None:
    told = answer("queued", usage=None)
    wire = Wire(BACKGROUND, path=RESPONSES, ordinal=3).engine(told)
    assert wire.sent == told
    assert wire.events == []
    assert wire.steps[-1].over
    assert wire.watch is not None
    assert (wire.watch.places, wire.watch.lines) == (((3, OWN_ID),), 1)
    assert wire.watch.absent.outcome == "finished"


@pytest.mark.parametrize("end", ["gone", "lost"])
def test_a_response_in_the_background_goes_on_without_its_client(end: str) -> None:
    parts: list[bytes] = [b"", answer("queued", usage=None)[:-9], stream(DELTA)[:-5]]
    for before in parts:
        wire = Wire(
            BACKGROUND | {"stream": before.startswith(b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type")},
            path=RESPONSES,
        )
        wire.engine(before)
        getattr(wire, end)()
        assert wire.events == []
        assert wire.watch is not None
        assert wire.watch.absent.outcome == {"gone": "aborted", "lost": "failed"}[end]


def test_what_is_known_of_a_response_in_the_background_is_not_asked_for() -> None:
    streamed = Wire(BACKGROUND | {"stream": True}, path=RESPONSES).engine(stream(DELTA, COMPLETED))
    assert (streamed.watch, streamed.outcome) == (None, ("finished", Usage(16, 8, 4)))
    done = Wire(BACKGROUND, path=RESPONSES).engine(answer("completed"))
    assert (done.watch, done.outcome) == (None, ("finished", Usage(16, 8, 4)))
    refused = Wire(BACKGROUND, path=RESPONSES).engine(sized(b"{}", status="400 Bad Request"))
    assert (refused.watch, refused.outcome) == (None, ("failed", NOTHING))
    unsent = Wire(BACKGROUND, path=RESPONSES, ordinal=None).lost("unreachable")
    assert (unsent.watch, unsent.outcome) == (None, ("failed", NOTHING))


def test_a_response_in_the_background_outlives_a_sidecar_that_stops() -> None:
    stopped = Wire(BACKGROUND, path=RESPONSES).stop()
    assert stopped.watch is not None
    assert (stopped.events, stopped.watch.absent.outcome) == ([], "interrupted")


# -- Anthropic's clients --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cause", "status", "kind"),
    [
        ("unreachable", 503, "overloaded_error"),
        ("closed", 502, "api_error"),
        ("silent", 504, "timeout_error"),
    ],
)
def test_clients_of_messages_are_told_in_anthropics_shape(cause: str, status: int, kind: str) -> None:
    seen = Wire({"model": "tiny", "max_tokens": 1, "messages": []}, path=MESSAGES).lost(cause).seen
    assert seen.status == status
    error = json.loads(seen.body)
    assert (error["type"], error["error"]["type"]) == ("error", kind)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (413, "request_too_large"),
        (405, "invalid_request_error"),
    ],
)
def test_every_refusal_has_its_type_in_anthropics_shape(status: int, kind: str) -> None:
    body = answer_bytes(Refused(status, "x", "why"), keep_alive=True, anthropic=True).partition(b"\r\n\r\n")[
        2
    ]
    assert json.loads(body) == {"type": "error", "error": {"type": kind, "message": "why"}}


def test_a_message_that_its_client_left_counts_its_prompt_and_deltas() -> None:
    start = ("message_start", {"message": {"usage": {"input_tokens": 16, "output_tokens": 0}}})
    delta = ("content_block_delta", {"delta": {"type": "text_delta", "text": "a"}})
    wire = Wire({"model": "tiny", "stream": True}, path=MESSAGES)
    wire.engine(stream(start, delta, delta)[:-5]).gone()
    assert wire.outcome == ("aborted", Usage(16, 0, 2))


# -- audio ----------------------------------------------------------------------------------------------------------------


def form(**fields: str) -> bytes:
    parts = "".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    return (
        parts + '--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nRIFF\r\n--b--\r\n'
    ).encode()


FORM = "Content-Type: multipart/form-data; boundary=b\r\n"


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        (b'{"text":"\\"usage\\":{}","usage":{"type":"duration","seconds":11}}', 11),
        (
            b'{"duration":10.416,"language":"lt","text":"a","segments":[{"usage":{"type":"duration","seconds":1}}]}',
            11,
        ),
    ],
)
def test_a_transcription_counts_seconds(body: bytes, seconds: int) -> None:
    wire = Wire(form(model="whisper"), path="/v1/audio/transcriptions", head=FORM).engine(sized(body))
    assert wire.outcome == ("finished", Usage(audio_seconds=seconds))
    assert (wire.event.model, wire.event.endpoint) == ("whisper", "transcriptions")


def test_a_translation_says_nothing_of_its_usage() -> None:
    wire = Wire(form(model="whisper"), path="/v1/audio/translations", head=FORM).engine(
        sized(b'{"text":"a"}')
    )
    assert (wire.event.outcome, wire.event.reason) == ("finished", "usage_unread")


CHUNKS = [
    b'data: {"id":"t","choices":[{"delta":{"content":" The"}}],"usage":{"prompt_tokens":7,"completion_tokens":1}}\n\n',
    b'data: {"id":"t","choices":[{"delta":{"content":"."},"finish_reason":"stop","stop_reason":null}],'
    b'"usage":{"prompt_tokens":7,"completion_tokens":2}}\n\n',
    b'data: {"id":"t","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}\n\n',
    b"data: [DONE]\n\n",
]


def test_a_transcription_as_a_stream_shows_what_was_asked_for_and_nothing_waits() -> None:
    wire = Wire(
        form(stream="true"),
        path="/v1/audio/transcriptions",
        head=FORM,
        fingerprint=b',"system_fingerprint":"x"',
    )
    assert wire.exchange.body.count(b"\r\n\r\ntrue\r\n") == 3
    wire.engine(chunked(CHUNKS[:2])[:-5])
    plain = [
        b'data: {"id":"t","choices":[{"delta":{"content":" The"}}]}\n\n',
        b'data: {"id":"t","choices":[{"delta":{"content":"."},"finish_reason":"stop","stop_reason":null}]}\n\n',
    ]
    assert wire.seen.body == b"".join(plain)
    for piece in CHUNKS[2:]:
        wire.engine(b"%x\r\n%b\r\n" % (len(piece), piece))
    wire.engine(b"0\r\n\r\n")
    assert wire.seen.body == b"".join(plain) + CHUNKS[3]
    assert wire.outcome == ("finished", Usage(7, 0, 2))
    assert wire.exchange.fingerprint == b',"system_fingerprint":"x"'


def test_a_form_that_cannot_be_read_for_certain_is_refused() -> None:
    request = read_request(request_bytes(b"x", path="/v1/audio/transcriptions", head=FORM))
    refused = open_exchange(request, REQUEST_ID, 0, SECRET)
    assert isinstance(refused, Refused)
    assert refused.code == "bad_multipart"


def test_a_body_of_another_kind_goes_on_as_it_is() -> None:
    request = read_request(request_bytes(b"x", path="/v1/audio/transcriptions"))
    opened = open_exchange(request, REQUEST_ID, 0, SECRET)
    assert isinstance(opened, Exchange)
    assert opened.body == b"x"
