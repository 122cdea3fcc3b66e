"""The sidecar and the engine's witness: one event a request, whatever happens, and sums that close to the token."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from scripted_engine import on_uvloop, until
from witnessed_world import Witnessed, outcomes, witnessed

from metering.fact import Serves


def chat(prompt: int = 31, completion: int = 12, **more: Any) -> dict[str, Any]:
    """A chat of so many tokens."""
    counts = {"sim_prompt_tokens": prompt, "sim_completion_tokens": completion}
    return {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Count."}],
        "vllm_xargs": counts,
        **more,
    }


def assert_closes(it: Witnessed) -> None:
    """Every token that the engine counted is in an event, or in a cause of its own."""
    found = it.reconciled()
    assert found.rows
    for row in found.rows:
        assert (row.unaccounted_prompt, row.unaccounted_generated, row.lines_missing) == (0, 0, 0), row
    assert not found.unchecked
    assert not found.missing_spans
    assert not found.doubled_spans


@on_uvloop
async def test_a_finished_request_carries_both_witnesses(tmp_path: Path) -> None:
    async with witnessed(tmp_path) as it:
        assert (await it.ask(chat()))[0] == 200
        await it.quiet()
        await it.sidecar.drain()
        [event] = it.events()
        assert (event["outcome"], event["prompt_tokens"], event["completion_tokens"]) == ("finished", 31, 12)
        assert event["generated_tokens"] == 12
        [span] = it.spans()
        assert (span.ended, span.lines, span.engine_prompt, span.engine_generated) == ("quiet", 1, 31, 12)
        assert_closes(it)


@on_uvloop
async def test_what_is_generated_for_a_client_that_left_is_in_its_event(tmp_path: Path) -> None:
    async with witnessed(tmp_path, tokens_per_second=200, abort_lag_tokens=3, late_tokens=2) as it:
        await it.leave_after(chat(completion=1000, stream=True), 4)
        await it.quiet()
        await it.sidecar.drain()
        [event] = it.events()
        assert event["outcome"] == "aborted"
        assert event["prompt_tokens"] == 31
        assert event["generated_tokens"] > event["completion_tokens"] > 0
        assert_closes(it)


@on_uvloop
async def test_a_mixed_load_closes_to_the_token(tmp_path: Path) -> None:
    """300 requests of every kind, a quarter of them left at a random point, errors among them."""
    rng = random.Random(4)
    async with witnessed(tmp_path, tokens_per_second=400, late_tokens=1, after_end_tokens=1) as it:
        refused = 0

        async def one(n: int) -> None:
            nonlocal refused
            body = chat(rng.randint(1, 400), rng.randint(1, 30), n=rng.choice([1, 1, 1, 3]))
            kind = rng.random()
            if kind < 0.25:
                await it.leave_after(body | {"stream": True}, rng.randint(0, 3))
            elif kind < 0.5:
                assert (await it.ask(body | {"stream": True}))[0] == 200
            elif kind < 0.6:
                prompts = {"prompt": ["one", "two"], "max_tokens": 5, "n": rng.choice([1, 2])}
                assert (await it.ask({"model": "tiny", **prompts}, "/v1/completions"))[0] == 200
            elif kind < 0.7:
                refused += 1
                assert (await it.ask({"model": "none", "messages": []}))[0] >= 400
            else:
                assert (await it.ask(body))[0] == 200

        for begin in range(0, 300, 30):
            await asyncio.gather(*(one(n) for n in range(begin, begin + 30)))
        await it.quiet()
        opened = it.lane.opened
        await it.sidecar.drain()
        events = it.events()
        assert len({event["request"] for event in events if event["kind"] == "usage"}) == opened
        assert outcomes(events)["aborted"] > 30
        assert outcomes(events)["failed"] == refused
        # A client that left before the engine took its request up left no line: at the quiet point that is sure.
        alone = {event["request"] for event in events if event["generated_tokens"] is None}
        amendments = [event for event in events if event["kind"] == "amendment"]
        assert alone == {event["names"] for event in amendments}
        assert all(event["generated_tokens"] == 0 for event in amendments)
        counters = it.engine.counters["tiny"]
        assert sum(span.engine_generated for span in it.spans()) == counters.generation_tokens
        assert sum(span.engine_prompt for span in it.spans()) == counters.prompt_tokens
        assert sum(span.late_generated for span in it.spans()) > 0
        assert sum(span.repeated_prompt for span in it.spans()) > 0
        assert_closes(it)


@on_uvloop
async def test_lines_that_come_late_are_an_amendment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metering.engine_join.PATIENCE_S", 0.2)
    async with witnessed(tmp_path, lines={"delay_ms": 700}) as it:
        assert (await it.ask(chat()))[0] == 200
        await until(lambda: it.lane.closed == 1)
        await it.quiet()
        watch = it.sidecar.capture.watch
        assert watch is not None
        await until(lambda: watch.joiner.amended == 1)
        await it.quiet()
        await it.sidecar.drain()
        usage, amendment = it.events()
        assert (usage["kind"], usage["generated_tokens"]) == ("usage", None)
        assert (amendment["kind"], amendment["names"]) == ("amendment", usage["request"])
        assert (amendment["prompt_tokens"], amendment["generated_tokens"]) == (0, 0)
        assert_closes(it)


@on_uvloop
async def test_a_line_that_was_lost_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metering.engine_join.PATIENCE_S", 0.2)
    async with witnessed(tmp_path, lines={"lose_every": 3}, tokens_per_second=100) as it:
        for n in range(4):
            await it.leave_after(chat(completion=500, stream=True), 2 + n)
        await it.quiet()
        await it.sidecar.drain()
        assert sum(event["generated_tokens"] is None for event in it.events()) == 1
        [row] = it.reconciled().rows
        assert (row.lines_missing, row.unwitnessed_requests) == (1, 1)
        assert row.unaccounted_generated > 0
        assert row.differs


@on_uvloop
async def test_a_killed_sidecar_leaves_each_request_one_event_with_the_engines_figure(tmp_path: Path) -> None:
    async with witnessed(tmp_path, tokens_per_second=100) as it:
        for _ in range(3):
            assert (await it.ask(chat()))[0] == 200
        running = [
            asyncio.create_task(it.leave_after(chat(completion=400, stream=True), 500)) for _ in range(4)
        ]
        await asyncio.sleep(0.3)
        await it.kill_sidecar()
        await asyncio.gather(*running, return_exceptions=True)
        await it.start_sidecar()
        await it.quiet()
        assert (await it.ask(chat()))[0] == 200
        await it.quiet()
        await it.sidecar.drain()
        events = it.events()
        assert outcomes(events) == {"finished": 4, "interrupted": 4}
        cut = [event for event in events if event["outcome"] == "interrupted"]
        assert {event["reason"] for event in cut} == {"sidecar_killed"}
        assert all(event["generated_tokens"] > 10 and event["prompt_tokens"] == 31 for event in cut)
        assert_closes(it)


@on_uvloop
async def test_a_sidecar_that_is_killed_again_and_again_counts_every_line_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metering.engine_watch.COMMIT_S", 0.05)
    monkeypatch.setattr("metering.engine_join.PATIENCE_S", 1.0)  # what no line comes of
    rng = random.Random(7)
    async with witnessed(tmp_path, tokens_per_second=300, late_tokens=1, lines={"part_bytes": 4096}) as it:

        async def one() -> None:
            body = chat(rng.randint(1, 99), rng.randint(1, 60), n=rng.choice([1, 1, 3]))
            with suppress(ConnectionError, asyncio.IncompleteReadError, ValueError):
                if rng.random() < 0.4:
                    await it.leave_after(body | {"stream": True}, rng.randint(0, 9))
                else:
                    await it.ask(body)

        for _ in range(8):
            asked = [asyncio.create_task(one()) for _ in range(rng.randint(1, 20))]
            await asyncio.sleep(rng.uniform(0, 0.4))
            await it.kill_sidecar()
            await asyncio.gather(*asked)
            await it.start_sidecar()
        await it.quiet()
        opened = it.lane.opened
        await it.sidecar.drain()
        events = it.events()
        usage = [event["request"] for event in events if event["kind"] == "usage"]
        assert len(usage) == len(set(usage)) == opened
        assert outcomes(events)["interrupted"] > 5
        spans = it.spans()
        assert sum(span.engine_generated for span in spans) == it.engine.counters["tiny"].generation_tokens
        assert_closes(it)


@on_uvloop
async def test_an_engine_that_is_killed_loses_counters_and_lines_and_the_span_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metering.engine_join.PATIENCE_S", 0.3)
    async with witnessed(tmp_path, tokens_per_second=100) as it:
        assert (await it.ask(chat()))[0] == 200
        running = asyncio.create_task(it.leave_after(chat(completion=400, stream=True), 500))
        await asyncio.sleep(0.3)
        await it.restart_engine(killed=True)
        await asyncio.gather(running, return_exceptions=True)
        assert (await it.ask(chat()))[0] == 200
        await it.quiet()
        assert (await it.ask(chat()))[0] == 200
        await it.quiet()
        await it.sidecar.drain()
        assert outcomes(it.events()) == {"finished": 3, "failed": 1}
        assert [span.ended for span in it.spans()] == ["restart", "quiet"]
        assert [event["outcome"] for event in it.events() if event["generated_tokens"] is None] == ["failed"]
        assert_closes(it)


@on_uvloop
async def test_an_engine_without_its_witness_is_billed_as_delivered_and_said_so(tmp_path: Path) -> None:
    async with witnessed(tmp_path, lines={"aside": True}, sidecar={"engine_lines": None}) as it:
        assert (await it.ask(chat()))[0] == 200
        await it.quiet()
        await it.sidecar.drain()
        [event] = it.events()
        assert event["generated_tokens"] is None
        [span] = it.spans()
        assert (span.witness, span.lines, span.engine_generated) == ("no", 0, 12)
        assert span.unwitnessed_requests == 1
        assert_closes(it)


@on_uvloop
async def test_a_witness_that_stepped_aside_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metering.engine_join.PATIENCE_S", 0.2)
    async with witnessed(tmp_path, lines={"aside": True}) as it:
        assert (await it.ask(chat()))[0] == 200
        await it.quiet()
        await it.sidecar.drain()
        assert [span.witness for span in it.spans()] == ["aside"]


@on_uvloop
async def test_a_name_of_the_clients_for_the_engines_model_becomes_a_fact(tmp_path: Path) -> None:
    async with witnessed(tmp_path, aliases=("alias",)) as it:
        assert (await it.ask(chat(model="alias")))[0] == 200
        await it.quiet()
        await it.sidecar.drain()
        assert [event["model"] for event in it.events()] == ["alias"]
        assert Serves("tiny", "alias") in [fact for _, _, fact in it.facts()]
        assert_closes(it)
