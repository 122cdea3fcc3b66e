"""The power is cut under a sidecar whose engine stands elsewhere: at most a group is lost, and reconciliation names it."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from recorded_disk import RecordedDisk
from scripted_engine import on_uvloop
from test_sidecar_witness import chat
from witnessed_world import Witnessed, witnessed

PROMPT, GENERATED = 31, 12


async def cut_off(
    it: Witnessed, seed: int, monkeypatch: pytest.MonkeyPatch, *, first: int, last: int
) -> None:
    """Requests that a sync covers, `last` ones of which nobody knows, and then darkness."""
    spool = it.folder / "spool"
    await it.kill_sidecar()
    disk = RecordedDisk(spool, cut_at=10**9)
    with monkeypatch.context() as patched:
        disk.plug_in(patched)
        await it.start_sidecar()
        for count in (first, last):
            if count == last:
                await asyncio.to_thread(it.lane.sync)
            for status, _ in await asyncio.gather(*(it.ask(chat(PROMPT, GENERATED)) for _ in range(count))):
                assert status == 200
        await it.kill_sidecar()
    left = it.folder / "left"
    disk.after(random.Random(seed), left)
    spool.rename(it.folder / "before")
    left.rename(spool)


@pytest.mark.parametrize("sync", ["group", "each"])
@on_uvloop
async def test_a_power_cut_is_named_by_reconcile_to_the_token(
    sync: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    for seed in range(3):
        folder = tmp_path / str(seed)
        folder.mkdir()
        async with witnessed(folder, sidecar={"sync_s": 30.0}, opened={"sync": sync}) as it:
            await cut_off(it, seed, monkeypatch, first=4, last=5)
            await it.start_sidecar()
            for _ in range(2):
                assert (await it.ask(chat(PROMPT, GENERATED)))[0] == 200
            await it.quiet()
            await it.sidecar.drain()
            events = [event for event in it.events() if event["kind"] == "usage"]
            lost = 4 + 5 + 2 - len(events)
            assert 0 <= lost <= 5
            found = it.reconciled()
            assert found.differs == (lost > 0)
            assert sum(row.unaccounted_prompt for row in found.rows) == lost * PROMPT
            assert sum(row.unaccounted_generated for row in found.rows) == lost * GENERATED
            seen.add(lost)
    assert seen == {0} if sync == "each" else max(seen) > 0
