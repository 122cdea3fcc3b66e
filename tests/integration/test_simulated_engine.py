"""The simulated engine's own powers, beyond what recordings show: pace, named counts, aborts, faults, HTTP's edges."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from engine_exchange import Request, exchange
from engine_recordings import usage_counters
from simulated_world import JSON, ask, chat, events, idle, named, with_engine

from adapters.simulated_engine.options import MISCOUNTED_TOKENS, EngineOptions
from adapters.simulated_engine.server import RunningEngine


def test_a_request_names_its_counts_as_numbers_or_text() -> None:
    counts = named(71_234, 512, sim_cached_tokens="70912", sim_reasoning_tokens=100)
    (answer,), running = ask(EngineOptions(prompt_tokens_details=True), chat(**counts))
    assert json.loads(answer.body)["usage"] == {
        "prompt_tokens": 71_234,
        "total_tokens": 71_746,
        "completion_tokens": 512,
        "prompt_tokens_details": {
            "cached_tokens": 70_912,
            "created_cache_tokens": 256,
            "multimodal_tokens": None,
        },
        "completion_tokens_details": {"reasoning_tokens": 100},
    }
    assert running.counters["tiny"].prompt_tokens == 71_234
    assert running.counters["tiny"].cached_tokens == 70_912
    assert running.counters["tiny"].generation_tokens == 512


def test_a_request_without_output_is_answered_and_counted() -> None:
    (answer,), running = ask(
        EngineOptions(), chat(stream=True, stream_options={"include_usage": True}, **named(9, 0))
    )
    *_, last, usage = events(answer)
    assert last["choices"][0]["finish_reason"] == "stop"
    assert usage["usage"] == {"prompt_tokens": 9, "total_tokens": 9, "completion_tokens": 0}
    assert running.counters["tiny"].finished["stop"] == 1


def test_a_million_million_tokens_stream_in_few_chunks() -> None:
    request = chat(stream=True, stream_options={"include_usage": True}, **named(10**12, 10**12))
    (answer,), running = ask(EngineOptions(), request)
    assert len(answer.pieces) == 1 + 64 + 2
    assert len(answer.body) < 100_000
    assert events(answer)[-1]["usage"]["completion_tokens"] == 10**12
    assert running.counters["tiny"].generation_tokens == 10**12


def test_the_metrics_give_large_counts_to_the_token() -> None:
    async def use(running: RunningEngine) -> str:
        for _ in range(3):
            await exchange(running.host, running.port, chat(**named(10**12 - 7, 10**12 - 1)))
        return (await exchange(running.host, running.port, Request("GET", "/metrics"))).body

    counters = usage_counters(with_engine(EngineOptions(), use))
    assert counters["vllm:prompt_tokens_total"] == 3 * (10**12 - 7)
    assert counters["vllm:request_generation_tokens_sum"] == 3 * (10**12 - 1)


def test_without_named_counts_the_same_request_has_the_same_counts() -> None:
    async def use(running: RunningEngine) -> list[Any]:
        answers = [await exchange(running.host, running.port, chat()) for _ in range(2)]
        return [json.loads(answer.body)["usage"] for answer in answers]

    first, second = with_engine(EngineOptions(), use)
    assert first == second
    assert first["prompt_tokens"] > 0
    assert first["completion_tokens"] >= 16


def test_tokens_come_at_the_pace_asked_for() -> None:
    options = EngineOptions(tokens_per_second=200, first_token_ms=50)
    began = time.monotonic()
    (answer,), _ = ask(options, chat(stream=True, **named(5, 21)))
    assert answer.whole
    assert 0.145 <= time.monotonic() - began < 3  # 50 ms, then 20 tokens of 5 ms


def test_after_a_client_left_a_few_tokens_more_are_counted_and_nothing_is_finished() -> None:
    options = EngineOptions(tokens_per_second=100, abort_lag_tokens=3, max_chunks=1000)
    stream = chat(stream=True, **named(7, 1000))

    async def use(running: RunningEngine) -> RunningEngine:
        one = Request(stream.method, stream.path, stream.headers, stream.body, hang_up_after=3)
        await exchange(running.host, running.port, one)
        await idle(running)
        return running

    counters = with_engine(options, use).counters["tiny"]
    assert counters.prompt_tokens == 7
    assert 2 + 3 <= counters.generation_tokens < 300  # the role, two tokens, and the engine's lag
    assert counters.finished == dict.fromkeys(counters.finished, 0)
    assert counters.request_generation_tokens.count == 0


def test_a_client_that_leaves_before_the_first_token_is_not_counted() -> None:
    request = chat(**named(7, 10))

    async def use(running: RunningEngine) -> RunningEngine:
        left = Request(request.method, request.path, request.headers, request.body, hang_up_after=0)
        await exchange(running.host, running.port, left)
        await idle(running)
        return running

    counters = with_engine(EngineOptions(first_token_ms=300), use).counters["tiny"]
    assert (counters.prompt_tokens, counters.generation_tokens) == (0, 0)


def test_tokens_inside_a_large_chunk_are_counted_by_the_clock_when_the_client_leaves() -> None:
    request = chat(**named(7, 64_000))  # chunks of a thousand tokens, ten seconds each

    async def use(running: RunningEngine) -> RunningEngine:
        left = Request(request.method, request.path, request.headers, request.body, hang_up_after=0)
        await exchange(running.host, running.port, left)  # leaves after 50 ms
        await idle(running)
        return running

    counters = with_engine(EngineOptions(tokens_per_second=100), use).counters["tiny"]
    assert 5 <= counters.generation_tokens < 300


@pytest.mark.parametrize("stream", [False, True])
def test_the_miscount_fault_reports_more_than_was_counted(stream: bool) -> None:
    asked = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    (answer,), running = ask(EngineOptions(fault="miscount"), chat(**asked, **named(5, 20)))
    usage = (events(answer)[-1] if stream else json.loads(answer.body))["usage"]
    assert usage["completion_tokens"] == running.counters["tiny"].generation_tokens + MISCOUNTED_TOKENS


def test_the_drop_usage_fault_leaves_usage_out() -> None:
    options = EngineOptions(fault="drop-usage")
    (whole,), _ = ask(options, chat(**named(5, 20)))
    assert json.loads(whole.body)["usage"] is None
    (stream,), _ = ask(options, chat(stream=True, stream_options={"include_usage": True}, **named(5, 20)))
    assert not any("usage" in event for event in events(stream))
    assert stream.pieces[-1] == "data: [DONE]\n\n"


@pytest.mark.parametrize("stream", [False, True])
def test_the_cut_fault_breaks_off_in_the_middle(stream: bool) -> None:
    with pytest.raises(EOFError):
        ask(EngineOptions(fault="cut"), chat(stream=stream, **named(5, 20)))


def test_any_model_is_served_where_that_is_allowed_and_counted_by_its_name() -> None:
    (answer,), running = ask(EngineOptions(any_model=True), chat(**{**named(5, 20), "model": "qwen3-32b"}))
    assert json.loads(answer.body)["model"] == "qwen3-32b"
    assert running.counters["qwen3-32b"].generation_tokens == 20
    assert running.counters["tiny"].generation_tokens == 0


async def raw(running: RunningEngine, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(running.host, running.port)
    writer.write(sent)
    try:
        return await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()


def head(request: Request, *more: str) -> bytes:
    body = (request.body or "").encode()
    lines = [
        f"{request.method} {request.path} HTTP/1.1",
        "Host: engine",
        f"Content-Length: {len(body)}",
        *more,
    ]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in request.headers), "", ""]).encode()


def test_pipelined_requests_are_answered_in_their_order_on_one_connection() -> None:
    requests = [chat(stream=number == 1, request_id=f"r{number}", **named(5, 8)) for number in range(3)]
    sent = b"".join(head(each) + (each.body or "").encode() for each in requests[:-1])
    sent += head(requests[-1], "Connection: close") + (requests[-1].body or "").encode()
    options = EngineOptions(tokens_per_second=1000)
    received = with_engine(options, lambda running: raw(running, sent)).decode()
    assert received.count("HTTP/1.1 200 OK") == 3
    places = [received.index(f'"id":"chatcmpl-r{number}"') for number in range(3)]
    assert places == sorted(places)
    assert "connection: close" in received[places[1] :]


def test_a_client_that_waits_for_continue_gets_it() -> None:
    request = chat(**named(5, 8))
    sent = head(request, "Expect: 100-continue", "Connection: close") + (request.body or "").encode()
    received = with_engine(EngineOptions(), lambda running: raw(running, sent))
    assert received.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


def test_what_is_not_http_is_refused_and_the_connection_closed() -> None:
    received = with_engine(EngineOptions(), lambda running: raw(running, b"\x16\x03\x01 hello\r\n\r\n"))
    assert received.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert received.endswith(b"Invalid HTTP request received.")


def test_a_named_count_that_is_no_count_is_refused() -> None:
    for wrong in ("many", -1, 10**13, 1.5):
        (answer,), running = ask(EngineOptions(), chat(vllm_xargs={"sim_prompt_tokens": wrong}))
        assert answer.status == 400, wrong
        assert running.counters["tiny"].prompt_tokens == 0


def test_strange_bodies_are_refused_or_answered_but_break_nothing() -> None:
    deep = "[" * 100_000
    bodies = [deep, '"text"', '{"messages": [7]}', '{"prompt": {}}', '{"prompt": [1, "x"]}', "\xff", "{}"]
    bodies += [
        '{"prompt": "x", "n": 1000000000}',
        '{"prompt": "x", "stream": "yes"}',
        '{"prompt": "x", "n": true}',
    ]
    bodies += ['{"prompt": "x", "model": 7}', '{"prompt": "x", "stream": true, "stream_options": 7}']

    async def use(running: RunningEngine) -> list[int]:
        requests = [Request("POST", "/v1/completions", JSON, body) for body in bodies]
        requests.append(Request("POST", "/v1/completions", JSON, '{"prompt": "\\ud800", "echo": true}'))
        return [(await exchange(running.host, running.port, request)).status for request in requests]

    *refused, answered = with_engine(EngineOptions(), use)
    assert refused == [400] * len(bodies)
    assert answered == 200
