"""Responses in the background beside the engine's witness: their sidecar goes, they go on."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from scripted_engine import on_uvloop, request, until
from witnessed_world import JSON, Witnessed, witnessed

from metering import background
from metering.sidecar_options import Patience

SIDECAR: dict[str, Any] = {"node_secret": b"s" * 32, "patience": Patience(drain_s=0.2, linger_s=0.1)}
FIGURES = ("outcome", "reason", "prompt_tokens", "completion_tokens", "generated_tokens")


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(background, "MAX_PAUSE_S", 0.1)
    monkeypatch.setattr(background, "READ_PAUSE_S", 0.2)


def asking(**more: object) -> dict[str, object]:
    tokens = {"sim_prompt_tokens": 31, "sim_completion_tokens": 120}
    return {"model": "tiny", "input": "Count.", "background": True, "vllm_xargs": tokens, **more}


async def the_event(it: Witnessed) -> tuple[object, ...]:
    await it.quiet()
    await it.sidecar.drain()
    (event,) = it.events()
    assert [(row.unaccounted_prompt, row.unaccounted_generated) for row in it.reconciled().rows] == [(0, 0)]
    return tuple(event[name] for name in FIGURES)


@pytest.mark.parametrize("killed", [False, True])
@on_uvloop
async def test_its_one_event_has_its_true_figures_after_the_next_start(
    tmp_path: Path, *, killed: bool
) -> None:
    async with witnessed(tmp_path, tokens_per_second=100, store_responses=True, sidecar=SIDECAR) as it:
        status, _ = await it.ask(asking(), "/v1/responses")
        assert status == 200
        await asyncio.sleep(0.1)
        await (it.kill_sidecar() if killed else it.sidecar.drain())
        assert it.events() == []
        await it.start_sidecar()
        assert await the_event(it) == ("finished", None, 31, 120, 120)


@pytest.mark.parametrize("again", [False, True])
@on_uvloop
async def test_what_was_streamed_before_it_was_cancelled_was_delivered(
    tmp_path: Path, *, again: bool
) -> None:
    async with witnessed(tmp_path, tokens_per_second=200, store_responses=True, sidecar=SIDECAR) as it:
        client = await it.client()
        await client.send(request(asking(stream=True), path="/v1/responses", head=JSON))
        await client.reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"resp_\w+", await client.chunk())
        assert found is not None
        response = found[0].decode()
        if again:
            client.leave()
            client = await it.client()
            await client.send(request(path=f"/v1/responses/{response}?stream=true"))
            await client.reader.readuntil(b"\r\n\r\n")
        read = 0
        while read < 30:
            read += (await client.chunk()).count(b'output_text.delta"')
        client.leave()
        status, answer = await it.ask({}, f"/v1/responses/{response}/cancel")
        assert (status, json.loads(answer)["status"]) == (200, "cancelled")
        outcome, reason, prompt, completion, generated = await the_event(it)
        assert (outcome, reason, prompt) == ("aborted", None, 31)
        assert isinstance(completion, int)
        assert isinstance(generated, int)
        assert read <= completion <= generated < 120


@on_uvloop
async def test_one_that_nobody_could_read_before_it_was_cancelled_has_delivered_nothing(
    tmp_path: Path,
) -> None:
    async with witnessed(tmp_path, tokens_per_second=100, store_responses=True, sidecar=SIDECAR) as it:
        _, answer = await it.ask(asking(), "/v1/responses")
        await it.ask({}, f"/v1/responses/{json.loads(answer)['id']}/cancel")
        await until(lambda: it.lane.opened == it.lane.closed)
        outcome, _, prompt, completion, generated = await the_event(it)
        assert (outcome, prompt, completion) == ("aborted", 31, 0)
        assert isinstance(generated, int)
