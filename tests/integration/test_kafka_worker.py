"""A worker of the group from its start: the name that it takes, and what it says before it reads anything."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path

import pytest
from intake_world import Writer, make_world
from kafka_broker import KafkaBroker
from kafka_world import kafka_world

from adapters.cli.intake import kafka_intake
from adapters.data_folder import DataFolder
from adapters.kafka.membership import member_name
from adapters.postgres.database import Database

pytestmark = pytest.mark.anyio


async def test_each_worker_has_a_name_that_the_next_one_takes_after_it(tmp_path: Path) -> None:
    with ExitStack() as workers:
        first = workers.enter_context(member_name(tmp_path / "intake"))
        with member_name(tmp_path / "intake") as second:
            assert first.removesuffix("-0") == second.removesuffix("-1")
        third = workers.enter_context(member_name(tmp_path / "intake"))
        assert third == second
        assert first != third
    with member_name(tmp_path / "elsewhere") as other:
        assert other.endswith("-0")
        assert other != first


async def test_a_start_acknowledges_what_a_killed_worker_had_accepted_and_not_said(
    database: Database, kafka: KafkaBroker, tmp_path: Path
) -> None:
    world, writer, silent = await make_world(database, tmp_path), Writer(), Writer(lane="sidecar-1")
    await world.enrol(writer, silent)
    world.wire.send(writer.seal(), writer.seal())
    await world.intake().take_pending()

    with kafka_world(world, kafka.address) as made:
        stop = asyncio.Event()
        async with kafka_intake(DataFolder(tmp_path), database, made.settings, stop) as taking:
            running = asyncio.create_task(taking.run(stop))
            async with asyncio.timeout(20):
                while not (found := await asyncio.to_thread(made.acknowledged)):  # noqa: ASYNC110 - Kafka says when
                    await asyncio.sleep(0.1)
            stop.set()
            await running
        [(name, said)] = found.items()
        assert (name.lane, said.number, said.hash) == ("sidecar-0", 1, writer.previous)
