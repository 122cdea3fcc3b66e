"""Intake killed at each of its steps, and two processes at once: after a restart every batch counts once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from intake_world import HOUR_US, NODE, OPERATOR, World, Writer, make_world

from adapters.postgres.database import Database
from adapters.postgres.streams import read_streams
from billing.streams import has_difference
from metering.lane_folder import LaneFolder

pytestmark = pytest.mark.anyio

WORKER = Path(__file__).with_name("intake_worker.py")
BATCHES = 8


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> World:
    """Two lanes with eight batches each, over eight hours, in a real spool."""
    world = await make_world(database, tmp_path)
    for name in ("sidecar-0", "sidecar-1"):
        writer = Writer(lane=name)
        await world.enrol(writer)
        folder = LaneFolder.open(tmp_path / "spool", OPERATOR, NODE, name)
        for number in range(BATCHES):
            folder.publish(writer.seal(5, final=number == BATCHES - 1))
            writer.time_us += HOUR_US
        folder.close()
    return world


async def _work(world: World, kill_at: str | None = None) -> int:
    """Runs a worker to its end; its exit code, negative where a signal ended it."""
    environ = {name: value for name, value in os.environ.items() if name != "TALLY_KILL_AT"}
    if kill_at is not None:
        environ["TALLY_KILL_AT"] = kill_at
    urls = world.database.urls
    assert urls.intake is not None
    worker = await asyncio.create_subprocess_exec(
        sys.executable, str(WORKER), urls.app, urls.intake, str(world.data), env=environ
    )
    return await worker.wait()


async def _check_all_is_there(world: World) -> None:
    events = 2 * BATCHES * 5
    assert await world.usage() == {"requests": events, "prompt_tokens": events * 100}
    assert not list((world.data / "spool").rglob("*.seal.done"))
    assert not list((world.data / "spool" / OPERATOR).glob("*/*/sealed/*"))
    listed = {str(path) for (path,) in await world.rows("SELECT path FROM batch")}
    archive = world.data / "archive"
    seals = {seal.relative_to(archive) for seal in archive.rglob("_*.seal")}
    assert {str(seal.with_name(seal.stem[1:])) for seal in seals} == listed
    assert len(listed) == 2 * BATCHES
    assert not has_difference(await read_streams(world.database, world.now))


@pytest.mark.parametrize(
    "kill_at",
    ["in-transaction:1", "in-transaction:3", "committed:2", "acknowledged:1", "acknowledged:8", "roll-up:1"],
)
async def test_a_killed_worker_loses_nothing_and_counts_nothing_twice(world: World, kill_at: str) -> None:
    assert await _work(world, kill_at) == -signal.SIGKILL
    assert await _work(world) == 0
    await _check_all_is_there(world)
    [(partial, rolled)] = await world.rows(
        "SELECT (SELECT count(*) FROM partial_sum), (SELECT count(*) FROM hourly_usage)"
    )
    assert (partial, rolled) == (0, BATCHES)


async def test_two_worker_processes_on_one_spool_count_everything_once(world: World) -> None:
    assert list(await asyncio.gather(_work(world), _work(world))) == [0, 0]
    await _check_all_is_there(world)
