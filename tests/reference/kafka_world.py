"""Intake behind a real Kafka, for tests: topics with a prefix of their own, a sender, workers of one process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from intake_world import World
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewPartitions, NewTopic
from kafka_broker import unique_prefix

from adapters.archive import BatchObjects
from adapters.kafka.acknowledging import Acknowledging
from adapters.kafka.settings import KafkaSettings
from adapters.kafka.source import KafkaSource
from adapters.objects import FolderObjects
from adapters.postgres.intake import PostgresLedger
from billing.inspection import LaneName
from billing.intake import Intake
from metering.acknowledgement import Acknowledgement, read_acknowledgement
from metering.batch import SealedBatch
from metering.identity import LaneKey

PARTITIONS = 4


@dataclass
class Worker:
    """An intake worker in this process."""

    source: KafkaSource
    acknowledging: Acknowledging
    intake: Intake

    def close(self) -> None:
        self.source.close()
        self.acknowledging.close()


@dataclass
class KafkaWorld:
    """A world of intake, its topics, and whoever sends there."""

    world: World
    settings: KafkaSettings
    admin: Any
    producer: Any
    workers: list[Worker] = field(default_factory=list)

    def create(self, partitions: int = PARTITIONS) -> None:
        topics = [NewTopic(self.settings.batches, partitions, 1), NewTopic(self.settings.accepted, 1, 1)]
        self.admin.create_topics(topics)

    def create_again(self, partitions: int = PARTITIONS) -> None:
        """The topic of batches is deleted and made anew."""
        self.admin.delete_topics([self.settings.batches])
        until = time.monotonic() + 10
        while self.settings.batches in self.admin.list_topics():
            assert time.monotonic() < until
            time.sleep(0.05)
        self.admin.create_topics([NewTopic(self.settings.batches, partitions, 1)])

    def add_partitions(self, total: int) -> None:
        self.admin.create_partitions({self.settings.batches: NewPartitions(total)})

    def send(self, *batches: SealedBatch) -> None:
        for batch in batches:
            lane = f"{batch.seal.operator}/{batch.seal.node}/{batch.seal.lane}"
            self.send_message(batch.body, [("seal", batch.note)], key=lane.encode())
        self.producer.flush()

    def send_message(self, value: bytes | None, headers: list[tuple[str, bytes]], key: bytes = b"x") -> None:
        self.producer.send(self.settings.batches, value=value, headers=headers, key=key)

    def worker(self, instance: str | None = None) -> Worker:
        loop, ledger = asyncio.get_running_loop(), PostgresLedger(self.world.database)
        keys = self.world.data / "keys" / "intake"
        acknowledging = Acknowledging(
            self.settings, lambda operator: LaneKey.load_or_create(keys / f"{operator}.key")
        )
        source = KafkaSource(
            self.settings,
            lambda at: asyncio.run_coroutine_threadsafe(ledger.positions(at), loop).result(),
            acknowledging.owe,
            instance,
        )
        archive, held = (BatchObjects(FolderObjects(self.world.data / name)) for name in ("archive", "held"))
        intake = Intake(source, ledger, archive, held, clock=lambda: self.world.now)
        self.workers.append(Worker(source, acknowledging, intake))
        return self.workers[-1]

    async def sweep(self, until: Callable[[], Awaitable[bool]], within_s: float = 30) -> None:
        """All workers, each at its own pace (the group waits for each of them), until it is so."""
        enough = asyncio.Event()

        async def at_its_pace(worker: Worker) -> None:
            while not enough.is_set():
                await worker.intake.take_pending()

        async with asyncio.timeout(within_s), asyncio.TaskGroup() as working:
            for worker in self.workers:
                working.create_task(at_its_pace(worker))
            while not await until():  # noqa: ASYNC110 - the database says when
                await asyncio.sleep(0.05)
            enough.set()

    async def sweep_to(self, requests: int) -> None:
        async def is_there() -> bool:
            return (await self.world.usage())["requests"] >= requests

        await self.sweep(is_there)

    async def positions(self) -> dict[object, object]:
        """partition → where the database says that intake goes on, of all sources together."""
        found = await self.world.rows("SELECT partition, max(next) FROM kafka_position GROUP BY partition")
        return {partition: next_ for partition, next_ in found}  # noqa: C416 - tuples of unknown length

    def ends(self) -> dict[int, int]:
        """partition → the offset of the next message, of those that hold any."""
        with self._reader() as reader:
            numbers = reader.partitions_for_topic(self.settings.batches)
            found = reader.end_offsets([TopicPartition(self.settings.batches, n) for n in numbers])
        return {partition.partition: end for partition, end in found.items() if end}

    def acknowledged(self) -> dict[LaneName, Acknowledgement]:
        """The newest acknowledgement of each lane, its signature checked."""
        found = {}
        with self._reader() as reader:
            partition = TopicPartition(self.settings.accepted, 0)
            reader.assign([partition])
            reader.seek_to_beginning(partition)
            end = reader.end_offsets([partition])[partition]
            while reader.position(partition) < end:
                for message in reader.poll(timeout_ms=500).get(partition, []):
                    operator = message.key.decode().partition("/")[0]
                    path = self.world.data / "keys" / "intake" / f"{operator}.key"
                    public = LaneKey.public_bytes(LaneKey.load_or_create(path))
                    said = read_acknowledgement(message.value, public)
                    name = LaneName(said.operator, said.node, said.lane)
                    assert message.key.decode() == str(name)
                    found[name] = said
        return found

    @contextmanager
    def _reader(self) -> Iterator[Any]:
        reader = KafkaConsumer(**self.settings.client("test"), auto_offset_reset="earliest")
        try:
            yield reader
        finally:
            reader.close()


@contextmanager
def kafka_world(world: World, address: str, partitions: int = PARTITIONS) -> Iterator[KafkaWorld]:
    """Topics of its own on the broker; everything is closed at the end."""
    settings = KafkaSettings((address,), unique_prefix())
    admin = KafkaAdminClient(**settings.client("test"))
    producer = KafkaProducer(**settings.client("test"), acks="all", max_request_size=3_000_000)
    made = KafkaWorld(world, settings, admin, producer)
    made.create(partitions)
    try:
        yield made
    finally:
        for worker in made.workers:
            worker.close()
        producer.close(timeout=5)
        admin.close()
