"""Intake from a real Kafka: whatever the topic, the group and the messages do, every batch counts once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from intake_world import World, Writer, make_world
from kafka_broker import KafkaBroker, own_broker
from kafka_world import KafkaWorld, kafka_world

from adapters.kafka import source as kafka_source
from adapters.postgres.database import Database
from billing.inspection import LaneName
from billing.polls import next_poll
from metering.seal import MAX_BODY_BYTES

pytestmark = pytest.mark.anyio


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> World:
    return await make_world(database, tmp_path)


@pytest.fixture
def kafka_intake(world: World, kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch) -> Iterator[KafkaWorld]:
    monkeypatch.setattr(kafka_source, "METADATA_EVERY_MS", 500)
    monkeypatch.setattr(kafka_source, "JOIN_WITHIN_S", 2.0)  # others stop polling when a test has seen enough
    with kafka_world(world, kafka.address) as made:
        yield made


async def test_two_workers_take_every_lane_once_and_acknowledge_it(kafka_intake: KafkaWorld) -> None:
    world = kafka_intake.world
    writers = [Writer(lane=f"sidecar-{n}") for n in range(8)]
    await world.enrol(*writers)
    kafka_intake.worker()
    kafka_intake.worker()
    for _ in range(5):
        kafka_intake.send(*(writer.seal() for writer in writers))
    await kafka_intake.sweep_to(8 * 5 * 3)

    assert await world.usage() == {"requests": 120, "prompt_tokens": 12_000}
    assert await world.rows("SELECT count(*) FROM batch") == [(40,)]
    assert await kafka_intake.positions() == kafka_intake.ends()

    async def all_are_acknowledged() -> bool:
        found = await asyncio.to_thread(kafka_intake.acknowledged)
        return {name.lane: (said.number, said.hash) for name, said in found.items()} == {
            writer.lane: (4, writer.previous) for writer in writers
        }

    await kafka_intake.sweep(all_are_acknowledged)


async def test_a_worker_goes_on_where_the_database_says(kafka_intake: KafkaWorld) -> None:
    world, writer = kafka_intake.world, Writer()
    await world.enrol(writer)
    kafka_intake.worker()
    kafka_intake.send(writer.seal(), writer.seal())
    await kafka_intake.sweep_to(6)
    kafka_intake.workers.pop().close()

    came = kafka_intake.worker()
    kafka_intake.send(writer.seal())
    async with asyncio.timeout(20):
        while not (poll := await asyncio.to_thread(next_poll, came.source.deliveries(), 100, 10**6)):
            pass
    assert len(poll) == 1
    await came.intake.take(poll)
    assert (await world.usage())["requests"] == 9


async def test_messages_that_are_no_batch_are_set_aside_by_name_and_stop_nothing(
    kafka_intake: KafkaWorld,
) -> None:
    world, writer, strange = kafka_intake.world, Writer(), Writer(lane="stranger")
    await world.enrol(writer)
    sealed = writer.seal()
    kafka_intake.send_message(b"no seal at all", [])
    kafka_intake.send_message(sealed.body, [("seal", sealed.note), ("seal", sealed.note)])
    kafka_intake.send_message(None, [])
    kafka_intake.send_message(b"x" * (MAX_BODY_BYTES + 10), [])
    kafka_intake.send(strange.seal())
    kafka_intake.send(sealed)
    kafka_intake.worker()

    async def everything_is_placed() -> bool:
        return await kafka_intake.positions() == kafka_intake.ends()

    await kafka_intake.sweep(everything_is_placed)
    assert await world.usage() == {"requests": 3, "prompt_tokens": 300}
    found = await world.rows("SELECT code, count(*) FROM set_aside GROUP BY code ORDER BY code")
    assert found == [("bad_seal", 4), ("unknown_key", 1)]
    assert LaneName(strange.operator, strange.node, strange.lane) not in kafka_intake.acknowledged()


async def test_a_topic_made_again_is_read_from_its_beginning(kafka_intake: KafkaWorld) -> None:
    world, writer = kafka_intake.world, Writer()
    await world.enrol(writer)
    sent = [writer.seal() for _ in range(10)]
    kafka_intake.worker()
    kafka_intake.send(*sent)
    await kafka_intake.sweep_to(30)

    kafka_intake.create_again()
    kafka_intake.send(*sent, *(writer.seal() for _ in range(10)))
    await kafka_intake.sweep_to(60)

    async def the_new_topic_is_read_whole() -> bool:
        found = await world.rows("SELECT sum(next) FROM kafka_position GROUP BY source ORDER BY source")
        return len(found) == 2 and (20,) in found

    await kafka_intake.sweep(the_new_topic_is_read_whole)
    assert await world.usage() == {"requests": 60, "prompt_tokens": 6_000}


async def test_more_partitions_bring_a_lane_out_of_order_and_it_goes_on_by_itself(
    kafka_intake: KafkaWorld,
) -> None:
    world = kafka_intake.world
    writers = [Writer(lane=f"sidecar-{n}") for n in range(8)]
    await world.enrol(*writers)
    earlier = [writer.seal() for writer in writers]
    kafka_intake.add_partitions(9)
    kafka_intake.worker()
    kafka_intake.worker()
    kafka_intake.send(*(writer.seal() for writer in writers))

    async def all_are_held() -> bool:
        return await world.rows("SELECT count(*) FROM held WHERE code = 'hole'") == [(8,)]

    await kafka_intake.sweep(all_are_held)
    assert kafka_intake.acknowledged() == {}
    kafka_intake.send(*earlier)
    await kafka_intake.sweep_to(48)
    assert await world.held() == []
    assert (await world.usage())["requests"] == 48


async def test_a_worker_that_the_group_gave_up_counts_nothing_twice(kafka_intake: KafkaWorld) -> None:
    world, writer = kafka_intake.world, Writer()
    await world.enrol(writer)
    zombie = kafka_intake.worker()
    kafka_intake.send(writer.seal(), writer.seal())
    async with asyncio.timeout(20):
        while not (read := await asyncio.to_thread(next_poll, zombie.source.deliveries(), 100, 10**6)):
            pass
    kafka_intake.workers.remove(zombie)
    await asyncio.to_thread(zombie.source._drop)
    kafka_intake.worker()
    kafka_intake.send(writer.seal())
    await kafka_intake.sweep_to(9)
    before = await kafka_intake.positions()

    summary = await zombie.intake.take(read)
    assert (summary.accepted, summary.repeats) == (0, 2)
    assert (await world.usage())["requests"] == 9
    assert await kafka_intake.positions() == before
    zombie.close()


async def test_a_second_group_by_mistake_counts_nothing_twice(
    kafka_intake: KafkaWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = kafka_intake.world
    writers = [Writer(lane=f"sidecar-{n}") for n in range(4)]
    await world.enrol(*writers)
    await asyncio.to_thread(kafka_intake.worker().source._open)
    monkeypatch.setattr(kafka_source, "group_of", lambda settings: f"{settings.prefix}-other")
    kafka_intake.worker()
    for _ in range(5):
        kafka_intake.send(*(writer.seal() for writer in writers))
    await kafka_intake.sweep_to(60)

    async def both_have_read_all() -> bool:
        read = [
            {number: turn.beyond for number, turn in worker.source._progress._turns.items() if turn.beyond}
            for worker in kafka_intake.workers
        ]
        return read == [kafka_intake.ends()] * 2

    await kafka_intake.sweep(both_have_read_all)
    assert await world.usage() == {"requests": 60, "prompt_tokens": 6_000}


async def test_two_workers_of_one_name_share_the_work_as_soon_as_they_notice(
    kafka_intake: KafkaWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kafka_source, "COMMIT_EVERY_S", 0.1)
    world = kafka_intake.world
    writers = [Writer(lane=f"sidecar-{n}") for n in range(8)]
    await world.enrol(*writers)
    kafka_intake.worker("a-copied-data-folder-0")
    kafka_intake.send(*(writer.seal() for writer in writers))
    await kafka_intake.sweep_to(24)
    kafka_intake.worker("a-copied-data-folder-0")

    async def it_was_noticed() -> bool:
        kafka_intake.send(*(writer.seal() for writer in writers))
        await asyncio.sleep(0.3)
        return "this one goes on under no name" in caplog.text

    await kafka_intake.sweep(it_was_noticed)
    sent = sum(writer.sequence for writer in writers)
    await kafka_intake.sweep_to(sent)
    assert await world.usage() == {"requests": sent, "prompt_tokens": 100 * sent}


@pytest.mark.proof
async def test_a_message_that_the_brokers_disk_has_damaged_is_passed_over_by_name(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = Writer()
    await world.enrol(writer)
    first, second, third = (writer.seal() for _ in range(3))
    with own_broker(tmp_path) as broker, kafka_world(world, broker.address, partitions=1) as kafka_intake:
        for batch in (first, second, third):
            kafka_intake.send(batch)
        [log] = broker.logs.glob(f"{kafka_intake.settings.batches}-0/*.log")
        content = bytearray(log.read_bytes())
        content[content.index(second.body) + 100] ^= 1
        log.write_bytes(content)
        kafka_intake.worker()

        async def the_third_is_held() -> bool:
            return await world.rows("SELECT number, code FROM held") == [(2, "hole")]

        await kafka_intake.sweep(the_third_is_held)
        assert "passed over" in caplog.text
        kafka_intake.send(second)
        await kafka_intake.sweep_to(9)
        assert await world.held() == []
