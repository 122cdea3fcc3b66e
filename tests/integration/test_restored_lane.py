"""A data folder that is copied, run on and restored is a fork: intake names both sides, holds one, drops nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from intake_world import ACME, NODE, NOW, OPERATOR, START, World, make_world, us, usage_event

from adapters.archive import BatchObjects
from adapters.objects import FolderObjects
from adapters.postgres.database import Database
from adapters.postgres.intake import PostgresLedger
from adapters.postgres.lane_keys import enroll_lane
from adapters.postgres.streams import read_streams
from adapters.spool_source import SpoolSource
from billing.intake import Intake, Summary
from billing.streams import has_difference
from metering.batch import SealedBatch
from metering.identity import LaneKey, new_id
from metering.lane import Lane
from metering.spool import Spool
from metering.write_ahead import Intent

pytestmark = pytest.mark.anyio
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


class Machine:
    """A sidecar's lane on a data folder, with a clock of its own."""

    def __init__(self, world: World, folder: str) -> None:
        self.world = world
        self.folder = world.data / folder
        self.now_us = us(START)
        self.lane: Lane | None = None
        self.sealed: list[SealedBatch] = []

    def wall_us(self) -> int:
        return self.now_us

    def monotonic_us(self) -> int:
        return self.now_us

    def start(self) -> None:
        self.now_us += 1_000_000
        self.lane = Lane.open(
            self.folder, operator=OPERATOR, node=NODE, lane="sidecar-0", key=KEY, clock=self, warn=no_word
        )

    def serve(self, count: int, *, seal: bool = True) -> list[bytes]:
        assert self.lane is not None
        requests = [new_id() for _ in range(count)]
        for request in requests:
            self.now_us += 1_000_000
            self.lane.intent(Intent(request, self.now_us, ACME, None, None, "chat", "qwen3-32b"))
            self.lane.outcome(usage_event(self.now_us)._replace(request=request))
        if seal:
            self.now_us += 11_000_000
            batch = self.lane.seal()
            assert batch is not None
            self.sealed.append(batch)
        return requests

    def stop(self) -> None:
        assert self.lane is not None
        self.lane.close()

    def copy(self, folder: str) -> Machine:
        """What a backup, or an image of the machine, has of it now."""
        shutil.copytree(self.folder, self.world.data / folder)
        other = Machine(self.world, folder)
        other.now_us = self.now_us
        return other

    async def hand_over(self) -> Summary:
        """Intake takes what lies in this folder."""
        source = SpoolSource(Spool(self.folder))
        ledger = PostgresLedger(self.world.database)
        archive, held = (
            BatchObjects(FolderObjects(self.world.data / "archive")),
            BatchObjects(FolderObjects(self.world.data / "held")),
        )
        return await Intake(source, ledger, archive, held, clock=lambda: self.world.now).take_pending()


def no_word(code: str, what: str) -> None:
    """Warnings are another test's."""


@pytest.fixture
async def machine(database: Database, tmp_path: Path) -> Machine:
    world = await make_world(database, tmp_path)
    async with world.database.app(OPERATOR) as conn:
        await enroll_lane(conn, OPERATOR, NODE, "sidecar-0", "sidecar", LaneKey.public_bytes(KEY), NOW)
    machine = Machine(world, "spool")
    machine.start()
    machine.serve(4)
    return machine


async def lane_row(machine: Machine) -> dict[str, Any]:
    document: dict[str, Any] = await read_streams(machine.world.database, machine.world.now)
    assert has_difference(document)
    [row] = document["lanes"]
    return dict(row)


def names_both(row: dict[str, Any], mine: SealedBatch, other: SealedBatch) -> bool:
    [fork] = [held for held in row["held_batches"] if held["code"] == "fork"]
    return mine.hash in fork["what"] and other.hash in fork["what"]


async def test_a_restored_backup_is_a_fork_that_names_both_sides(machine: Machine) -> None:
    backup = machine.copy("backup")
    machine.serve(3)
    await machine.hand_over()
    backup.start()
    backup.serve(2)
    assert (await backup.hand_over()).held == 1  # what it had sealed before is a repeat
    row = await lane_row(machine)
    assert (row["forks"], row["held"]) == (1, 1)
    assert names_both(row, machine.sealed[-1], backup.sealed[-1])
    assert await machine.world.usage() == {"requests": 7, "prompt_tokens": 700}


async def test_a_restored_backup_that_seals_the_same_events_again_is_a_fork(machine: Machine) -> None:
    machine.serve(2, seal=False)
    backup = machine.copy("backup")  # the two are in its write-ahead file
    machine.serve(1)
    await machine.hand_over()
    backup.now_us += 60_000_000
    backup.start()
    backup.serve(2)
    assert (await backup.hand_over()).held == 2
    row = await lane_row(machine)
    assert (row["forks"], row["held"]) == (1, 2)
    assert await machine.world.usage() == {"requests": 7, "prompt_tokens": 700}  # none of them twice


async def test_the_side_that_reaches_intake_first_goes_on_and_the_other_is_held_whole(
    machine: Machine,
) -> None:
    backup = machine.copy("backup")
    backup.start()
    backup.serve(2)
    await backup.hand_over()
    for _ in range(3):
        machine.serve(3)
    assert (await machine.hand_over()).held == 3
    row = await lane_row(machine)
    assert (row["forks"], row["held"]) == (1, 3)
    assert names_both(row, backup.sealed[0], machine.sealed[1])
    held = sorted((machine.world.data / "held").rglob("*.parquet"))
    assert len(held) == 3  # the events of the other side are all there, to be judged by a person
    assert list(Spool(machine.folder).pending()) == []


async def test_an_idle_restored_machine_is_a_fork_by_its_first_heartbeat(machine: Machine) -> None:
    backup = machine.copy("backup")
    machine.serve(1)
    await machine.hand_over()
    backup.start()
    backup.now_us += 11_000_000
    assert backup.lane is not None
    backup.lane.seal()
    assert (await backup.hand_over()).held == 1
    assert (await lane_row(machine))["forks"] == 1


async def test_a_backup_that_nobody_ran_past_goes_on_without_a_fork(machine: Machine) -> None:
    in_the_air = Intent(new_id(), machine.now_us, ACME, None, None, "chat", "qwen3-32b")
    assert machine.lane is not None
    machine.lane.intent(in_the_air)
    backup = machine.copy("backup")  # and the machine is lost at that moment
    await machine.hand_over()
    backup.start()
    backup.serve(2)
    assert (await backup.hand_over()).held == 0
    assert (await machine.world.usage())["requests"] == 7
    document: dict[str, Any] = await read_streams(machine.world.database, backup.world.now)
    assert not has_difference(document)
