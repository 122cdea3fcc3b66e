"""Lines that come when their request has its event, and the sidecar was stopped or killed in between."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from scripted_engine import on_uvloop, until
from witnessed_world import Witnessed, witnessed

from metering import engine_amend, engine_join, engine_watch

DELAYED = {"delay_ms": 1_000}
ASK = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "x"}],
    "vllm_xargs": {"sim_prompt_tokens": 31, "sim_completion_tokens": 12},
}


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_join, "PATIENCE_S", 0.1)
    monkeypatch.setattr(engine_amend, "LATE_S", 0.3)


async def unwitnessed(it: Witnessed) -> None:
    """A request has its event before its line is there."""
    status, _ = await it.ask(ASK)
    assert status == 200
    await until(lambda: it.lane.closed == 1)


async def end(it: Witnessed) -> None:
    """The one amendment has come, whatever lines were read again; and lines and counters agree."""
    await it.quiet()
    await it.sidecar.drain()
    usage, amendment = it.events()
    assert (usage["kind"], usage["completion_tokens"], usage["generated_tokens"]) == ("usage", 12, None)
    assert (amendment["kind"], amendment["names"]) == ("amendment", usage["request"])
    assert (amendment["prompt_tokens"], amendment["generated_tokens"]) == (0, 0)
    assert [(row.unaccounted_prompt, row.unaccounted_generated) for row in it.reconciled().rows] == [(0, 0)]


async def amended(it: Witnessed) -> None:
    watch = it.sidecar.capture.watch
    assert watch is not None
    await until(lambda: watch.joiner.amended)


@pytest.mark.parametrize("end_of_it", ["stopped", "killed_later", "killed_at_once"])
@on_uvloop
async def test_they_become_an_amendment_after_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end_of_it: str
) -> None:
    if end_of_it == "killed_later":
        monkeypatch.setattr(engine_watch, "COMMIT_S", 0.05)
    async with witnessed(tmp_path, lines=DELAYED) as it:
        await unwitnessed(it)
        if end_of_it == "stopped":
            await it.sidecar.drain()
        else:
            await asyncio.sleep(0.2 if end_of_it == "killed_later" else 0)
            await it.kill_sidecar()
        await it.start_sidecar()
        await amended(it)
        await end(it)


@on_uvloop
async def test_a_line_that_was_read_before_a_kill_and_not_told_yet_is_told_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_watch, "COMMIT_S", 0.05)
    async with witnessed(tmp_path, lines=DELAYED) as it:
        await unwitnessed(it)
        watch = it.sidecar.capture.watch
        assert watch is not None
        for written, _ in watch.joiner.amender.lacking():
            written.expected = 2  # another one is waited for
        monkeypatch.setattr(engine_amend, "LATE_S", 60.0)
        await until(lambda: len(watch.joiner.amender))
        await asyncio.sleep(0.2)
        await it.kill_sidecar()
        monkeypatch.setattr(engine_amend, "LATE_S", 0.3)
        await it.start_sidecar()
        await amended(it)
        await end(it)


@on_uvloop
async def test_one_that_was_amended_just_before_a_kill_is_not_amended_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with witnessed(tmp_path, lines=DELAYED) as it:
        await unwitnessed(it)
        await asyncio.sleep(0.5)
        watch = it.sidecar.capture.watch
        assert watch is not None
        await watch._commit()  # of the line it knows nothing
        monkeypatch.setattr(engine_watch, "COMMIT_S", 60.0)
        await amended(it)
        await it.kill_sidecar()
        await it.start_sidecar()
        watch = it.sidecar.capture.watch
        assert watch is not None
        await until(lambda: watch.lines_read)  # again
        await end(it)
