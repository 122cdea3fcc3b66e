"""Several sidecar lanes before one engine, one after the other or beside each other: the node is reconciled once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from scripted_engine import on_uvloop, until
from witnessed_world import Witnessed, witnessed

from metering import node_word
from metering.engine_state import STATE_FILE
from metering.node_word import Speaker
from metering.sidecar_figures import figures_of

ASK = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "x"}],
    "vllm_xargs": {"sim_prompt_tokens": 31, "sim_completion_tokens": 12},
}


def compared(it: Witnessed) -> tuple[list[tuple[int, int, int]], bool, list[str]]:
    """Requests and what is left of each row, whether anything differs, what is unchecked."""
    found = it.reconciled()
    rows = [(row.requests, row.unaccounted_prompt, row.unaccounted_generated) for row in found.rows]
    return rows, found.differs, [each.why for each in found.unchecked]


@on_uvloop
async def test_two_lanes_of_any_name_count_the_engine_once(tmp_path: Path) -> None:
    async with witnessed(tmp_path, lane="west") as it:
        async with it.beside("east") as other:
            await asyncio.gather(it.ask(ASK), other.ask(ASK))
            await other.quiet()
            await it.quiet()
        await it.sidecar.drain()
        assert compared(it) == ([(2, 0, 0)], False, [])
        assert {lane for lane, _, _ in it.facts()} == {"west"}


@on_uvloop
async def test_what_no_event_has_is_shown_only_where_no_other_lane_served_beside(tmp_path: Path) -> None:
    async with witnessed(tmp_path) as it:
        await it.ask(ASK)
        await it.quiet()
        assert figures_of(it.sidecar).unaccounted == {("tiny", "prompt"): 0, ("tiny", "generated"): 0}
        async with it.beside("sidecar-1") as other:
            await asyncio.gather(it.ask(ASK), other.ask(ASK))
            await other.quiet()
            await it.quiet()
            assert figures_of(it.sidecar).unaccounted == {}
        await it.sidecar.drain()
        assert compared(it) == ([(3, 0, 0)], False, [])


@on_uvloop
async def test_a_state_that_was_moved_away_is_no_difference_for_ever(tmp_path: Path) -> None:
    """As the remedy of `bad_engine_state` says."""
    async with witnessed(tmp_path) as it:
        for _ in range(2):
            await it.ask(ASK)
            await it.quiet()
        await it.sidecar.drain()
        (it.lane.path / STATE_FILE).rename(tmp_path / "moved")
        await it.start_sidecar()
        await it.ask(ASK)
        await it.quiet()
        await it.sidecar.drain()
        assert compared(it) == ([(3, 0, 0)], False, [])
        assert [span.number for span in it.spans()][:2] == [0, 1]


@on_uvloop
async def test_a_new_lane_beside_an_abandoned_one_is_reconciled(tmp_path: Path) -> None:
    async with witnessed(tmp_path) as it:
        await it.ask(ASK)
        await it.quiet()
        await it.sidecar.drain()
        it.lane_name, it.key = "sidecar-1", Ed25519PrivateKey.generate()
        await it.start_sidecar()
        await it.ask(ASK)
        await it.quiet()
        await it.sidecar.drain()
        assert compared(it) == ([(2, 0, 0)], False, [])
        assert len(it.spans()) == 2


@on_uvloop
async def test_while_the_lane_that_speaks_is_away_nothing_is_lost_or_counted_twice(tmp_path: Path) -> None:
    async with witnessed(tmp_path) as it:
        async with it.beside("sidecar-1") as other:
            await asyncio.gather(it.ask(ASK), other.ask(ASK))
            await it.quiet()
            await it.kill_sidecar()
            for _ in range(2):
                await other.ask(ASK)
                await other.quiet()
            await it.start_sidecar()
            await it.ask(ASK)
            await it.quiet()
            await other.ask(ASK)
            await it.quiet()
        await it.sidecar.drain()
        assert compared(it) == ([(6, 0, 0)], False, [])
        assert {lane for lane, _, _ in it.facts()} == {"sidecar-0"}


@on_uvloop
async def test_another_lane_takes_over_with_all_that_was_served_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with witnessed(tmp_path) as it:
        async with it.beside("sidecar-1") as other:
            await asyncio.gather(it.ask(ASK), other.ask(ASK))
            await it.quiet()
            await other.quiet()
            await it.sidecar.drain()
            await other.ask(ASK)
            await other.quiet()
            assert other.lane.speaker() is Speaker.NOBODY
            monkeypatch.setattr(node_word, "SILENT_AFTER_S", -1.0)
            watch = other.sidecar.capture.watch
            assert watch is not None
            await until(lambda: watch.spans.speaker is Speaker.OURS)
            await other.ask(ASK)
            await other.quiet()
        assert compared(it) == ([(4, 0, 0)], False, [])
        assert {lane for lane, _, _ in it.facts()} == {"sidecar-0", "sidecar-1"}
