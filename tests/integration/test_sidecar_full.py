"""When nothing more can be written down: refused, or served unmetered and said so. Several lanes of one node."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from scripted_engine import on_uvloop, until
from test_sidecar_witness import assert_closes, chat
from witnessed_world import Witnessed, outcomes, witnessed

from metering.fact import Span, Unmetered
from metering.refusal import Unavailable

UNMETERED = {"when_full": "serve-unmetered"}


def break_lane(it: Witnessed, monkeypatch: pytest.MonkeyPatch, *methods: str) -> None:
    """Let the lane's disk be full from now on."""

    def full(*_: Any) -> None:
        raise Unavailable("write_ahead_failed", "No space left on device")

    for method in methods:
        monkeypatch.setattr(it.lane, method, full)


@on_uvloop
async def test_a_spool_at_its_limit_refuses_until_intake_has_taken_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metering.capture._SPOOL_LOOK_S", 0.02)
    async with witnessed(tmp_path, sidecar={"spool_limit_bytes": 1}) as it:
        assert (await it.ask(chat()))[0] == 200
        await it.quiet()
        await asyncio.to_thread(it.lane.seal)
        await until(lambda: it.sidecar.refusing)
        status, body = await it.ask(chat())
        assert status == 503
        assert b"spool_full" in body
        assert it.sidecar.capture.faults == ("keep its spool below the limit",)
        for file in (it.lane.path / "sealed").iterdir():
            file.unlink()
        await until(lambda: not it.sidecar.refusing)
        assert (await it.ask(chat()))[0] == 200


@on_uvloop
async def test_what_is_served_unmetered_is_a_sealed_fact_and_its_tokens_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with witnessed(tmp_path, sidecar=UNMETERED) as it:
        assert (await it.ask(chat()))[0] == 200
        await it.quiet()
        break_lane(it, monkeypatch, "intent", "sync")
        for n in range(3):
            body = chat(stream=True) if n else chat()
            assert (await it.ask(body))[0] == 200
        assert it.sidecar.capture.unmetered == 3
        monkeypatch.undo()
        await until(lambda: not it.sidecar.refusing)
        assert (await it.ask(chat()))[0] == 200
        await it.quiet()
        await it.sidecar.drain()
        assert outcomes(it.events()) == {"finished": 2}
        [unmetered] = [fact for _, _, fact in it.facts() if isinstance(fact, Unmetered)]
        assert unmetered.requests == 3
        spans = it.spans()
        assert sum(span.unmetered_prompt for span in spans) == 3 * 31
        assert sum(span.unmetered_generated for span in spans) == 3 * 12
        assert_closes(it)


@on_uvloop
async def test_an_answer_whose_outcome_has_to_wait_is_whole_where_requests_are_served_unmetered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with witnessed(tmp_path, sidecar=UNMETERED) as it:
        break_lane(it, monkeypatch, "told", "outcome", "sync")
        assert (await it.ask(chat()))[0] == 200
        assert it.sidecar.refusing
        monkeypatch.undo()
        await it.quiet()
        await it.sidecar.drain()
        [event] = it.events()
        assert (event["outcome"], event["generated_tokens"]) == ("finished", 12)
        assert_closes(it)


@on_uvloop
async def test_events_that_cannot_be_joined_for_the_disk_are_joined_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with witnessed(tmp_path) as it:
        break_lane(it, monkeypatch, "joined")
        assert (await it.ask(chat()))[0] == 200
        await until(lambda: it.sidecar.refusing)
        assert it.sidecar.capture.faults == ("write joined events",)
        monkeypatch.undo()
        await it.quiet()
        assert (await it.ask(chat()))[0] == 200
        await it.quiet()
        await it.sidecar.drain()
        assert [event["generated_tokens"] for event in it.events()] == [12, 12]
        assert_closes(it)


@on_uvloop
async def test_a_bug_in_the_join_ends_the_sidecar_in_order_and_its_next_start_joins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with witnessed(tmp_path) as it:
        watch = it.sidecar.capture.watch
        assert watch is not None

        def fails(*_: Any, **__: Any) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(watch.joiner, "due", fails)
        assert (await it.ask(chat()))[0] == 200
        await asyncio.wait_for(it.sidecar.failed.wait(), 5)
        await it.sidecar.drain()
        assert it.events() == []
        await it.start_sidecar()
        await it.quiet()
        await it.sidecar.drain()
        assert [event["generated_tokens"] for event in it.events()] == [12]
        assert_closes(it)


@on_uvloop
async def test_a_drain_waits_for_the_lines_of_what_it_ended(tmp_path: Path) -> None:
    async with witnessed(tmp_path, lines={"delay_ms": 300}, tokens_per_second=200) as it:
        await it.leave_after(chat(completion=1000, stream=True), 3)
        assert (await it.ask(chat()))[0] == 200
        await it.sidecar.drain()
        assert all(event["generated_tokens"] for event in it.events())
        assert outcomes(it.events()) == {"finished": 1, "aborted": 1}
        assert_closes(it)


@on_uvloop
async def test_two_sidecars_of_a_node_read_one_engines_lines_and_the_first_says_what_it_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metering.engine_join.PATIENCE_S", 0.3)
    async with witnessed(tmp_path, tokens_per_second=300) as it:
        async with it.beside("sidecar-1") as other:
            for each in (it, other):
                await each.leave_after(chat(completion=100, stream=True), 2)
                assert (await each.ask(chat(n=3)))[0] == 200
            await it.quiet()
            await other.quiet()
            running = asyncio.create_task(other.leave_after(chat(completion=400, stream=True), 500))
            await asyncio.sleep(0.2)
            await it.restart_engine(killed=True)
            await asyncio.gather(running, return_exceptions=True)
            await it.quiet()
            await other.quiet()
            assert (await it.ask(chat()))[0] == 200
            await it.quiet()
            await other.sidecar.drain()
        await it.sidecar.drain()
        assert len(it.events()) == 6
        # Its line is lost with the engine, and only the second lane knows what its client had got.
        [(lane, span)] = [
            (lane, fact) for lane, _, fact in it.facts() if isinstance(fact, Span) and fact.ended == "restart"
        ]
        assert lane == "sidecar-1"
        assert (span.lost_prompt, span.unwitnessed_requests) == (31, 1)
        assert_closes(it)
