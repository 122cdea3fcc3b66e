"""The road over Kafka while its parts are killed: what the ledger says at the end is what the book says."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from intake_world import World, Writer, make_world
from kafka_broker import KafkaBroker, own_broker, unique_prefix
from kafka_road import Road, Sealing, compare, wait_for_an_empty_spool

from adapters.kafka.settings import KafkaSettings
from adapters.postgres.database import Database
from adapters.postgres.embedded import discard
from adapters.postgres.open import APP_URL, INTAKE_URL, open_database

pytestmark = pytest.mark.anyio

LANES = 12
Fault = Callable[[Road, random.Random], None]


@asynccontextmanager
async def running(world: World, road: Road, seed: int, partitions: int) -> AsyncIterator[Sealing]:
    """Shipper and workers run, and each lane has sealed one batch."""
    writers = [Writer(node=f"node-{n:02}") for n in range(LANES)]
    await world.enrol(*writers)
    sealing = Sealing(road.data / "spool", random.Random(seed), writers)
    sealing.open()
    try:
        await asyncio.to_thread(road.create_topics, partitions)
        await asyncio.to_thread(road.start)
        yield sealing
        await asyncio.to_thread(road.stop)
    finally:
        road.end()
        sealing.close()


@asynccontextmanager
async def road_of_its_own(
    folder: Path, seed: int, partitions: int = 4
) -> AsyncIterator[tuple[World, Road, Sealing]]:
    """With a broker and a PostgreSQL that nobody else has."""
    data = folder / "data"
    with own_broker(folder) as broker:
        try:
            async with open_database(data, {}) as database:
                world = await make_world(database, data)
                road = Road(data, KafkaSettings((broker.address,)), broker)
                async with running(world, road, seed, partitions) as sealing:
                    yield world, road, sealing
        finally:
            discard(data)


async def seal_for(sealing: Sealing, seconds: float, a_second: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sealing.seal()
        await asyncio.sleep(1 / a_second)


async def break_for(road: Road, chance: random.Random, seconds: float, faults: list[Fault]) -> None:
    """Something happens every few seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        await asyncio.sleep(chance.uniform(1, 4))
        await asyncio.to_thread(chance.choice(faults), road, chance)


async def test_killed_workers_lose_nothing_and_count_nothing_twice(
    database: Database, kafka: KafkaBroker, tmp_path: Path
) -> None:
    world = await make_world(database, tmp_path / "data")
    urls = database.urls
    assert urls.intake is not None
    environ = {APP_URL: urls.app, INTAKE_URL: urls.intake}
    road = Road(world.data, KafkaSettings((kafka.address,), unique_prefix()), environ=environ)
    async with running(world, road, seed=1, partitions=4) as sealing:
        for _ in range(2):
            await seal_for(sealing, 0.5, a_second=100)
            road.kill_a_worker(sealing.chance)
        await wait_for_an_empty_spool(sealing, within_s=60)
        await compare(world, sealing)


@pytest.mark.proof
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(3))
async def test_kills_of_everything_every_few_seconds(seed: int, tmp_path: Path) -> None:
    faults: list[Fault] = [
        Road.kill_a_worker,
        Road.kill_a_worker,
        Road.kill_intake,
        Road.kill_the_shipper,
        Road.kill_the_broker,
        Road.kill_postgresql,
    ]
    async with road_of_its_own(tmp_path, seed) as (world, road, sealing):
        await asyncio.gather(
            seal_for(sealing, 60, a_second=40), break_for(road, random.Random(seed), 60, faults)
        )
        await wait_for_an_empty_spool(sealing, within_s=300)
        await compare(world, sealing)


@pytest.mark.proof
@pytest.mark.timeout(1_500)
@pytest.mark.parametrize("seed", range(2))
async def test_segments_cut_short_and_topics_made_again(seed: int, tmp_path: Path) -> None:
    faults: list[Fault] = [
        Road.kill_a_worker,
        Road.cut_a_segment,
        Road.cut_a_segment,
        Road.make_the_topic_again,
        Road.kill_postgresql,
    ]
    async with road_of_its_own(tmp_path, 100 + seed) as (world, road, sealing):
        await asyncio.gather(
            seal_for(sealing, 45, a_second=40), break_for(road, random.Random(seed), 45, faults)
        )
        await wait_for_an_empty_spool(sealing, within_s=900)
        await compare(world, sealing)


@pytest.mark.proof
@pytest.mark.timeout(900)
async def test_a_zombie_and_partitions_raised_under_load(tmp_path: Path) -> None:
    async with road_of_its_own(tmp_path, seed=7, partitions=2) as (world, road, sealing):
        await seal_for(sealing, 3, a_second=40)
        wake = road.make_a_zombie(15)
        await seal_for(sealing, 3, a_second=40)
        await asyncio.to_thread(road.add_partitions, 5)
        await asyncio.gather(seal_for(sealing, 20, a_second=40), asyncio.to_thread(wake))
        await wait_for_an_empty_spool(sealing, within_s=300)
        await compare(world, sealing)
