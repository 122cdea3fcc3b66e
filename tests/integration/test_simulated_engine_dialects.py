"""The simulated engine's other dialects: Anthropic's messages and OpenAI's responses, with what is kept and cancelled.

The recordings hold their bodies to the real server's, key by key; here is what they do.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from engine_exchange import Answer, Request, exchange
from simulated_world import as_request, ask, events, hang_up, idle, named, post, read_lines, with_engine

from adapters.simulated_engine.options import EngineOptions, LineOptions
from adapters.simulated_engine.server import RunningEngine
from metering.engine_lines import Freed

KEEPING = EngineOptions(store_responses=True)
ID = "resp_8d7f9c2e51b04c6da2f3e4b5c6d7e8f9_00123456789abcdef"


def message(**more: object) -> Request:
    body = {"messages": [{"role": "user", "content": "Count."}], "max_tokens": 4, **more}
    return post("/v1/messages", **body)


def response(**more: object) -> Request:
    return post("/v1/responses", **{"input": "Count.", "max_output_tokens": 4, **more})


def kinds(answer: Answer) -> list[str]:
    """The names of a stream's events, which each event repeats in its body."""
    names = [piece.split("\n")[0].removeprefix("event: ") for piece in answer.pieces]
    assert names == [event["type"] for event in events(answer)]
    return names


def freed(folder: Path) -> list[Freed]:
    return [each.said for each in read_lines(folder) if isinstance(each.said, Freed)]


def test_a_message_reports_what_was_not_in_the_cache_where_details_are_on() -> None:
    counts = named(538, 9, sim_cached_tokens=512)
    (on,), _ = ask(EngineOptions(prompt_tokens_details=True), message(**counts))
    assert json.loads(on.body)["usage"] == {
        "input_tokens": 26,
        "output_tokens": 4,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 512,
    }
    (off,), _ = ask(EngineOptions(), message(**counts))
    assert json.loads(off.body)["usage"] == {"input_tokens": 538, "output_tokens": 4}


def test_a_message_streams_its_blocks_and_says_its_usage_at_both_ends() -> None:
    counts = named(538, 9, sim_cached_tokens=512, sim_reasoning_tokens=2)
    options = EngineOptions(prompt_tokens_details=True)
    (answer,), running = ask(options, as_request(message(stream=True, **counts), "trace-7"))
    assert kinds(answer) == [
        *("message_start", "content_block_start", "content_block_delta", "content_block_delta"),
        *("content_block_delta", "content_block_stop"),  # the thinking's signature
        *("content_block_start", "content_block_delta", "content_block_delta", "content_block_stop"),
        *("message_delta", "message_stop"),
    ]
    start, *_, delta, _stop = events(answer)
    assert start["message"]["id"] == "chatcmpl-trace-7"
    assert start["message"]["usage"] == {"input_tokens": 538, "output_tokens": 0}
    assert delta["delta"] == {"stop_reason": "max_tokens", "stop_sequence": None}
    assert delta["usage"]["input_tokens"] == 26
    assert running.counters["tiny"].generation_tokens == 4


def test_a_refused_message_has_anthropics_form_and_an_invalid_one_openais() -> None:
    (unknown, invalid), running = ask(
        EngineOptions(), message(model="none"), Request("POST", "/v1/messages", message().headers, "{}")
    )
    assert (unknown.status, json.loads(unknown.body)) == (
        404,
        {
            "type": "error",
            "error": {
                "type": "NotFoundError",
                "message": "The model `none` does not exist. Valid aliases: tiny.",
            },
        },
    )
    error = json.loads(invalid.body)["error"]
    assert error["message"].startswith("3 validation errors:\n  {'type': 'missing', 'loc': 'body.model'")
    assert running.counters["tiny"].prompt_tokens == 0


def test_counting_tokens_generates_nothing() -> None:
    body = {"messages": [{"role": "user", "content": "Count to ten."}]}
    (answer,), running = ask(EngineOptions(), post("/v1/messages/count_tokens", **body))
    counted = json.loads(answer.body)
    assert counted == {
        "input_tokens": counted["input_tokens"],
        "context_management": {"original_input_tokens": counted["input_tokens"]},
    }
    assert running.counters["tiny"].prompt_tokens == 0


def test_a_response_goes_by_the_id_in_its_body_and_counts_under_it(tmp_path: Path) -> None:
    options = EngineOptions(lines=LineOptions(tmp_path))
    (answer,), _ = ask(options, as_request(response(request_id=ID, **named(16, 9)), "trace-7"))
    body = json.loads(answer.body)
    assert (body["id"], body["status"]) == (ID, "incomplete")
    assert body["usage"]["total_tokens"] == 20
    assert [each.external for each in freed(tmp_path)] == [f"{ID}_0"]


def test_a_response_streams_numbered_events_and_its_usage_in_the_last() -> None:
    (answer,), _ = ask(EngineOptions(), response(stream=True, **named(16, 3, sim_reasoning_tokens=1)))
    assert kinds(answer) == [
        *("response.created", "response.in_progress"),
        *("response.output_item.added", "response.content_part.added", "response.reasoning_text.delta"),
        *("response.reasoning_text.done", "response.content_part.done", "response.output_item.done"),
        *("response.output_item.added", "response.content_part.added", "response.output_text.delta"),
        *("response.output_text.done", "response.content_part.done", "response.output_item.done"),
        "response.completed",
    ]
    found = events(answer)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert found[-1]["response"]["usage"]["output_tokens"] == 3
    assert all(event["response"]["usage"] is None for event in found[:2])


def test_without_a_store_there_is_no_background_and_nothing_to_read_again() -> None:
    (refused, answer, gone), _ = ask(
        EngineOptions(),
        response(background=True),
        response(request_id=ID),
        Request("GET", f"/v1/responses/{ID}"),
    )
    assert (refused.status, json.loads(refused.body)["error"]["param"]) == (400, "background")
    assert answer.status == 200
    assert (gone.status, json.loads(gone.body)["error"]["message"]) == (
        404,
        f"Response with id '{ID}' not found.",
    )


async def get(running: RunningEngine, query: str = "") -> Any:
    answer = await exchange(running.host, running.port, Request("GET", f"/v1/responses/{ID}{query}"))
    return json.loads(answer.body)


def test_a_background_response_is_queued_until_it_is_whole_whoever_waits() -> None:
    async def use(running: RunningEngine) -> list[Any]:
        request = hang_up(response(background=True, request_id=ID, **named(16, 9)), 0)
        await exchange(running.host, running.port, request)
        bodies = [await get(running)]
        await idle(running)
        return [*bodies, await get(running)]

    options = EngineOptions(store_responses=True, tokens_per_second=20)
    queued, ended = with_engine(options, use)
    assert (queued["status"], queued["usage"]) == ("queued", None)
    assert (ended["status"], ended["usage"]["output_tokens"]) == ("incomplete", 4)


def test_a_background_stream_goes_on_without_its_client_and_can_be_streamed_again() -> None:
    async def use(running: RunningEngine) -> tuple[Answer, Answer]:
        request = response(background=True, stream=True, request_id=ID, **named(16, 9))
        first = await exchange(running.host, running.port, hang_up(request, 3))
        again = Request("GET", f"/v1/responses/{ID}?stream=true&starting_after=2")
        return first, await exchange(running.host, running.port, again)

    first, again = with_engine(EngineOptions(store_responses=True, tokens_per_second=50), use)
    assert kinds(first)[:2] == ["response.created", "response.in_progress"]
    assert [event["sequence_number"] for event in events(again)] == list(range(3, 12))
    assert events(again)[-1]["response"]["usage"]["output_tokens"] == 4


def test_what_was_not_asked_for_as_a_stream_cannot_be_streamed_again() -> None:
    again = Request("GET", f"/v1/responses/{ID}?stream=true")
    with pytest.raises(EOFError):
        ask(KEEPING, response(background=True, request_id=ID), again)


def test_a_cancelled_response_is_aborted_in_the_engine(tmp_path: Path) -> None:
    cancel = Request("POST", f"/v1/responses/{ID}/cancel")

    async def use(running: RunningEngine) -> list[Any]:
        request = response(background=True, request_id=ID, max_output_tokens=900, **named(16, 900))
        await exchange(running.host, running.port, request)
        await asyncio.sleep(0.1)
        answers = [await exchange(running.host, running.port, cancel) for _ in range(2)]
        await idle(running)
        return [json.loads(each.body) for each in answers] + [await get(running)]

    options = EngineOptions(store_responses=True, tokens_per_second=100, lines=LineOptions(tmp_path))
    cancelled, again, read = with_engine(options, use)
    assert (cancelled["status"], cancelled["usage"]) == ("cancelled", None)
    assert again["error"]["message"] == "Cannot cancel a synchronous response."
    assert read["status"] == "cancelled"
    (line,) = freed(tmp_path)
    assert line.status == "aborted"
    assert 0 < line.output_tokens < 900


def test_a_response_that_goes_on_from_another_has_its_tokens_in_the_prompt() -> None:
    first = response(request_id=ID, **named(16, 9))
    (_, on, unknown), _ = ask(
        KEEPING, first, response(previous_response_id=ID), response(previous_response_id="resp_none")
    )
    plain = ask(KEEPING, response())[0][0]
    tokens = [json.loads(each.body)["usage"]["input_tokens"] for each in (plain, on)]
    assert tokens[1] == tokens[0] + 20
    assert unknown.status == 404
