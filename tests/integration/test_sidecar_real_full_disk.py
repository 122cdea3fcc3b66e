"""The spool's disk refuses every call that takes room, under a sidecar with real files."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest
from refusing_disk import RefusingDisk
from scripted_engine import Asked, on_uvloop, request, sealed_events, sized, until, usage, world

from metering.fact import Unmetered, parse_fact
from metering.spool import Spool

ASK = {"model": "tiny", "messages": []}
BODY = b'{"choices":[]' + usage(16, 5) + b"}"


async def answers(asked: Asked) -> None:
    await asked.say(sized(BODY))


@on_uvloop
async def test_an_fsync_that_fails_with_outcomes_in_hand_is_got_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = asyncio.Event()

    async def answers_later(asked: Asked) -> None:
        await go_on.wait()
        await asked.say(sized(BODY))

    def fails(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async with world(tmp_path, answers_later, sync_s=0.005) as it:
        monkeypatch.setattr(os, "fsync", fails)
        client = await it.client()
        await client.send(request(ASK))
        await until(lambda: it.sidecar.refusing)  # the file with its intent takes no more
        assert it.lane.opened == 1
        go_on.set()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await client.answer()
        assert (await it.ask(request(ASK)))[0] == 503
        monkeypatch.undo()
        await until(lambda: not it.sidecar.refusing)
        assert (await it.ask(request(ASK)))[0] == 200
        events = await it.events()
        assert [(event["outcome"], event["completion_tokens"]) for event in events] == [("finished", 5)] * 2


@pytest.mark.parametrize("when_full", ["refuse", "serve-unmetered"])
@on_uvloop
async def test_a_disk_that_is_full_under_load_is_got_over(
    when_full: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, answers, sync_s=0.005, when_full=when_full) as it:
        statuses = []
        for number in range(60):
            if number == 20:
                RefusingDisk(tmp_path, 0, 10**9).plug_in(monkeypatch)
            if number == 40:
                monkeypatch.undo()
                await until(lambda: not it.sidecar.refusing)
            statuses.append((await it.ask(request(ASK)))[0])
        assert statuses[:20] == statuses[40:] == [200] * 20
        assert set(statuses[20:40]) == {200 if when_full == "serve-unmetered" else 503}
        await it.events()
    events = sealed_events(tmp_path)
    facts = [parse_fact(line) for each in Spool(tmp_path).pending() for line in each.batch().seal.facts]
    unmetered = sum(fact.requests for fact in facts if isinstance(fact, Unmetered))
    assert len(events) + unmetered == statuses.count(200)
    assert unmetered == (20 if when_full == "serve-unmetered" else 0)


@on_uvloop
async def test_a_sidecar_starts_on_a_full_disk_and_serves_unmetered_until_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, answers) as it:
        assert (await it.ask(request(ASK)))[0] == 200
    disk = RefusingDisk(tmp_path, 0, 10**9)
    disk.plug_in(monkeypatch)
    async with world(
        tmp_path, answers, sync_s=0.005, when_full="serve-unmetered", lane={"wait_for_disk": True}
    ) as it:
        assert disk.refusals
        for _ in range(3):
            assert (await it.ask(request(ASK)))[0] == 200
        assert it.lane.unmetered == 3
        monkeypatch.undo()
        await until(lambda: not it.sidecar.refusing)
        assert (await it.ask(request(ASK)))[0] == 200
        assert len(await it.events()) == 2
