"""SIGKILL beside a real vLLM: of the sidecar in the midst of every step, and of the engine's core under load."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from capture_world import Base, base_folder
from command import Tally
from engine_load import Heard, generating_load, put
from engine_recorder import settled, vllm_folder
from engine_witness import SYNC, all_lines, core_pid, install_witness, witnessed
from kill_auditor import Findings
from real_engine_world import World, audit, engine_lines, real_world

from adapters.postgres.database import DatabaseUrls

pytestmark = [pytest.mark.vllm, pytest.mark.proof, pytest.mark.timeout(1200)]

# Steps of the road that a request takes (metering/steps.py), each four times, and the latest count that is tried.
STEPS = {"intent": 25, "told": 25, "outcomes": 6, "fsync": 10, "sealed": 2}
REASONS = {
    None,
    "sidecar_killed",
    "sidecar_stopped",
    "engine_closed",
    "engine_error",
    "engine_unreachable",
    "usage_unread",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The witness, built and installed as an operator would."""
    if not (vllm_folder() / "model" / "config.json").exists():
        pytest.skip("no real vLLM here: `make vllm` sets one up")
    return install_witness(tmp_path_factory.mktemp("witness"))


@contextmanager
def copied(base: Base, folder: Path) -> Iterator[Base]:
    """The same site and keys over a data folder of its own."""
    data = folder / "data"
    shutil.copytree(base.tally.data, data)
    try:
        yield Base(Tally(data, environment=base.tally.environment), base.keys)
    finally:
        shutil.rmtree(data)


class Load(threading.Thread):
    """A load that goes on while something is killed."""

    def __init__(self, world: World, seed: int, requests: int) -> None:
        super().__init__()
        self.heard: list[Heard] = []
        self._world, self._load = world, generating_load(seed, requests)
        self.start()

    def run(self) -> None:
        sent = put(self._world.port, self._load, at_once=12, headers=self._world.headers(), may_break=True)
        self.heard = asyncio.run(sent)


def end(world: World, heard: list[Heard], before: set[str]) -> Findings:
    """Stops the sidecar and holds its events against what clients and engine say. `before`: other worlds' requests."""
    asyncio.run(settled(world.engine))
    world.stop()
    lines = engine_lines(world.lines)
    ours = {name: found for name, found in lines.freed.items() if name not in before}
    findings = audit(heard, type(lines)(ours, lines.late), world.events(), killed=True)
    for event in world.events():
        if event["kind"] != "usage":
            continue
        if event["reason"] not in REASONS or (event["outcome"] == "interrupted" and event["reason"] is None):
            findings.wrong.append(
                f"{event['request'].hex()} is {event['outcome']}, its reason {event['reason']}"
            )
    return findings


def test_a_sidecar_killed_at_twenty_points_leaves_every_request_its_one_event(
    site: Path, tmp_path: Path, fresh_urls: Callable[[], DatabaseUrls]
) -> None:
    chance = random.Random(20)
    points = [f"{step}:{chance.randint(1, latest)}" for step, latest in STEPS.items() for _ in range(4)]
    lines = tmp_path / "lines"
    killed = 0
    with base_folder(fresh_urls()) as base, witnessed(site, lines, SYNC) as engine:
        for seed, point in enumerate(points):
            before = set(engine_lines(lines).freed)
            with copied(base, tmp_path) as own, real_world(own, engine, lines, kill_at=point) as world:
                assert world.sidecar is not None
                heard = []
                for round in range(40):  # some points come only with a later seal
                    load = Load(world, 100 * seed + round, 40)
                    load.join()
                    heard += load.heard
                    if not world.sidecar.running:
                        break
                if world.sidecar.running:  # or with its last one
                    world.sidecar.stop()
                killed += world.sidecar.wait() == -signal.SIGKILL
                assert world.start(), world.sidecar.trouble()
                heard += world.send(generating_load(1000 + seed, 10))
                findings = end(world, heard, before)
            assert not findings, (point, findings)
    assert killed == len(points)


@pytest.mark.parametrize("seed", range(5))
def test_an_engine_core_that_is_killed_leaves_every_request_its_one_event(
    site: Path, tmp_path: Path, fresh_urls: Callable[[], DatabaseUrls], seed: int
) -> None:
    lines = tmp_path / "lines"
    with (
        base_folder(fresh_urls()) as base,
        witnessed(site, lines, SYNC) as engine,
        real_world(base, engine, lines) as world,
    ):
        load = Load(world, seed, 400)
        load.join(1 + 0.5 * seed)
        assert load.is_alive()
        os.kill(core_pid(all_lines(lines)), signal.SIGKILL)
        load.join()
        world.stop()
        findings = audit(load.heard, engine_lines(lines), world.events(), killed=True)
        events = [event for event in world.events() if event["kind"] == "usage"]
    assert not findings, findings
    cut = [event for event in events if event["reason"] is not None]
    assert cut, "nothing was under way"
    assert {event["reason"] for event in cut} <= REASONS
