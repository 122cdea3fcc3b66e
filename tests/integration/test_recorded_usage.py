"""What real vLLM servers answered, through an exchange: every byte for the client, every figure of the engine's counters."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from engine_recordings import FOLDER, Recording, read_set
from exchange_wire import Wire, read_request, request_bytes

from metering.endpoints import Endpoint, find_endpoint
from metering.http_refusal import Refused, answer_bytes
from metering.opening import open_exchange

# `forced` is left out: an engine told to show usage to everybody shows it to clients that did not ask.
SETS = sorted(folder.name for folder in FOLDER.iterdir() if folder.is_dir() and folder.name != "forced")


def metered(set_name: str) -> Iterator[tuple[str, Recording]]:
    for recording in read_set(set_name).values():
        request = recording.request
        endpoint = find_endpoint(request.method.encode(), request.path.encode())
        if isinstance(endpoint, Endpoint) and endpoint.metered and recording.answer.status:
            yield endpoint.name, recording


RECORDED = {f"{name}/{each.name}": (endpoint, each) for name in SETS for endpoint, each in metered(name)}


def play(recording: Recording, pieces: int | None = None) -> Wire:
    """The recorded request, and its answer as the server framed it: all of it, or its first `pieces`."""
    request, answer = recording.request, recording.answer
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers)
    body = (request.body or "").encode()
    body = body.replace(b'"previous_response_id"', b'"not_ours_to_check"')  # it names one of the recorder's
    wire = Wire(body, path=request.path, head=head, method=request.method)
    lines = [
        f"HTTP/1.1 {answer.status} {answer.reason}",
        *(f"{name}: {value}" for name, value in answer.headers),
    ]
    wire.engine("\r\n".join([*lines, "", ""]).encode())
    chunked = any(name.lower() == "transfer-encoding" for name, _ in answer.headers)
    for piece in answer.pieces[:pieces]:
        data = piece.encode()
        if recording.name == "responses_no_input":  # the engine counts the member that the sidecar puts there
            data = data.replace(b"<dict of 2 items>", b"<dict of 3 items>")
        wire.engine(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
    if chunked and pieces is None and answer.whole:
        wire.engine(b"0\r\n\r\n")
    return wire


def told(recording: Recording) -> dict[str, object]:
    """The last usage object of an answer, as a JSON parser sees it; empty if there is none."""
    found: dict[str, object] = {}
    for line in "".join(recording.answer.pieces).splitlines():
        text = line.removeprefix("data: ")
        if text.startswith("{"):
            value = json.loads(text)
            usage = value.get("usage") or (value.get("response") or {}).get("usage")
            found = usage if isinstance(usage, dict) else found
    for name, value in recording.answer.headers:
        if name == "metadata":
            found = json.loads(value)["usage"]
    return found


@pytest.mark.parametrize("name", RECORDED)
def test_an_answer_reaches_its_client_byte_for_byte(name: str) -> None:
    _, recording = RECORDED[name]
    wire = play(recording)
    assert wire.seen.status == recording.answer.status
    assert wire.seen.body == "".join(recording.answer.pieces).encode()
    assert wire.seen.whole == recording.answer.whole


@pytest.mark.parametrize("name", [name for name, (_, each) in RECORDED.items() if each.answer.whole])
def test_an_answer_leaves_the_event_that_its_own_figures_say(name: str) -> None:
    endpoint, recording = RECORDED[name]
    wire = play(recording)
    if wire.watch is not None:
        assert b'"status":"queued"' in wire.seen.body
        return
    event = wire.event
    assert event.endpoint == endpoint
    usage = told(recording)
    if recording.answer.status != 200:
        assert (event.outcome, event.reason) == ("failed", "engine_error")
        refused = (0, None) if recording.answer.status == 400 else (0,)
        assert wire.steps[-1].lines in refused
        assert not any((event.prompt_tokens, event.completion_tokens, event.audio_seconds))
        return
    assert event.outcome == "finished"
    assert event.reason == (None if usage else "usage_unread")
    assert event.model == ("tiny" if '"model"' in (recording.request.body or "") or usage else event.model)
    cached = usage.get("cache_read_input_tokens", 0)
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    prompt = usage.get("prompt_tokens", usage.get("input_tokens", 0))
    assert isinstance(cached, int)
    assert isinstance(prompt, int)
    assert isinstance(details, dict)
    assert event.prompt_tokens == prompt + cached
    assert event.cached_tokens == cached + (details.get("cached_tokens") or 0)
    assert event.completion_tokens == usage.get("completion_tokens", usage.get("output_tokens", 0))
    assert event.audio_seconds == usage.get("seconds", 0)


def counted(recording: Recording) -> bool:
    """The engine's counters can be held against the answer: several choices count their prompt each in the engine,
    and beams are requests of their own."""
    asked = recording.request.body or ""
    once = not any(word in asked for word in ('"n": 2', "use_beam_search"))
    return once and recording.counters is not None and recording.answer.whole and bool(told(recording))


@pytest.mark.parametrize("name", [name for name, (_, each) in RECORDED.items() if counted(each)])
def test_what_an_answer_tells_is_what_the_engine_counted(name: str) -> None:
    _, recording = RECORDED[name]
    wire = play(recording)
    if wire.watch is not None:
        return
    counters = recording.counters
    assert counters is not None
    assert wire.event.prompt_tokens == counters.get("vllm:prompt_tokens_total", 0)
    assert wire.event.completion_tokens == counters.get("vllm:generation_tokens_total", 0)
    lines = sum(value for key, value in counters.items() if key.startswith("vllm:request_success_total"))
    assert wire.steps[-1].lines in (None, lines)


STREAMS = [
    name
    for name, (endpoint, each) in RECORDED.items()
    if endpoint in ("responses", "messages") and each.answer.status == 200 and len(each.answer.pieces) > 3
]


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_cut_anywhere_counts_the_deltas_passed_on(name: str) -> None:
    endpoint, recording = RECORDED[name]
    pieces = recording.answer.pieces
    for count in range(len(pieces) + 1):
        wire = play(recording, count).gone()
        if wire.watch is not None:
            continue
        deltas = sum(".delta" in piece or "_block_delta" in piece for piece in pieces[:count])
        event = wire.event
        if event.outcome == "aborted" and '"message_delta"' not in "".join(pieces[:count]):
            assert event.completion_tokens == deltas
            assert event.prompt_tokens in ((16, 538) if endpoint == "messages" and count else (0,))
        assert (event.outcome == "finished") == (recording.answer.whole and count == len(pieces))


@pytest.mark.parametrize(
    "name", ["responses_unknown_previous", "response_unknown", "response_cancel_unknown"]
)
def test_a_response_of_somebody_else_is_refused_in_the_engines_own_words(name: str) -> None:
    recording = read_set("dialects")[name]
    asked = recording.request
    request = request_bytes((asked.body or "").encode(), path=asked.path, method=asked.method)
    refused = open_exchange(read_request(request), bytes(16), 0, b"S" * 32)
    assert isinstance(refused, Refused)
    assert refused.status == recording.answer.status
    body = answer_bytes(refused, keep_alive=True).partition(b"\r\n\r\n")[2]
    assert body == "".join(recording.answer.pieces).encode()
