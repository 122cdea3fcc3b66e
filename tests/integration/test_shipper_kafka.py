"""The shipper over a real Kafka: topics of its own for each test, or a broker of its own to kill."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka_broker import KafkaBroker, own_broker, unique_prefix
from shipped_lanes import INTAKE, OPERATOR, SealingLane, acknowledge

from adapters.kafka import settings as kafka_settings_module
from adapters.kafka.outgoing import LARGEST_MESSAGE_BYTES, KafkaOutgoing
from adapters.kafka.settings import KafkaSettings
from adapters.kafka.topics import prepare, wanted_topics
from metering.refusal import Unavailable
from metering.seal import MAX_BODY_BYTES, MAX_NOTE_BYTES
from metering.shipper import Shipped, Shipper
from metering.spool import LaneRef, Spool

PUBLIC = INTAKE.public_key().public_bytes_raw()


@dataclass
class World:
    """A spool, a shipper, and topics."""

    folder: Path
    settings: KafkaSettings
    shipper: Shipper = field(init=False)

    def __post_init__(self) -> None:
        self.create()
        self.start()

    def create(self, partitions: int = 3) -> None:
        wanted = wanted_topics(
            self.settings, partitions=partitions, replication=1, in_sync=1, retention_days=7
        )
        prepare(self.settings, wanted)

    def start(self) -> None:
        keys = {OPERATOR: PUBLIC}
        self.shipper = Shipper(Spool(self.folder), KafkaOutgoing(self.settings), keys.get)

    def sweep(self, within_s: float = 30) -> Shipped:
        """A sweep; while Kafka is away it is tried again, as `run` does."""
        until = time.monotonic() + within_s
        while True:
            try:
                return self.shipper.sweep()
            except Unavailable:
                assert time.monotonic() < until
                time.sleep(0.05)

    def sweep_until(self, holds: Callable[[], bool], within_s: float = 30) -> None:
        until = time.monotonic() + within_s
        while not holds():
            assert time.monotonic() < until
            self.sweep()
            time.sleep(0.02)

    def there(self) -> list[tuple[str, bytes, bytes]]:
        """Every message of the topic of batches: key, seal, body; a lane's in their order."""
        consumer = KafkaConsumer(bootstrap_servers=self.settings.brokers, auto_offset_reset="earliest")
        try:
            numbers = sorted(consumer.partitions_for_topic(self.settings.batches))
            partitions = [TopicPartition(self.settings.batches, each) for each in numbers]
            consumer.assign(partitions)
            consumer.seek_to_beginning()
            ends, found = consumer.end_offsets(partitions), []
            while any(consumer.position(each) < ends[each] for each in partitions):
                for messages in consumer.poll(timeout_ms=200).values():
                    found += [
                        (each.key.decode(), dict(each.headers)["seal"], each.value) for each in messages
                    ]
            return found
        finally:
            consumer.close()

    def says(self, *notes: bytes) -> None:
        producer = KafkaProducer(bootstrap_servers=self.settings.brokers, acks="all")
        for note in notes:
            producer.send(self.settings.accepted, key=b"lane", value=note).get(timeout=10)
        producer.close()

    @contextlib.contextmanager
    def lane(self, name: str = "sidecar-0") -> Iterator[SealingLane]:
        lane = SealingLane(self.folder, name)
        yield lane
        lane.close()

    def waiting(self) -> list[int]:
        return [each.ref.number for each in Spool(self.folder).pending()]


@pytest.fixture
def world(kafka: KafkaBroker, tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "spool", KafkaSettings((kafka.address,), unique_prefix()))
    yield made
    made.shipper.close()


def test_batches_arrive_byte_for_byte_and_leave_the_spool_by_intakes_word_only(world: World) -> None:
    with world.lane() as lane:
        sealed = lane.seal(5)
    assert world.sweep().sent == 5
    assert world.there() == [("telecentras/vilnius-1/sidecar-0", each.note, each.body) for each in sealed]
    assert world.waiting() == [0, 1, 2, 3, 4]
    world.says(acknowledge(sealed[3]), acknowledge(sealed[1]))
    world.sweep_until(lambda: world.waiting() == [4])


def test_whatever_else_stands_in_the_topic_of_acknowledgements_does_no_harm(world: World) -> None:
    with world.lane() as lane:
        sealed = lane.seal(2)
    world.says(b"", b"x" * 500_000, b"no acknowledgement", acknowledge(sealed[1], digest="ab" * 32))
    world.says(*[acknowledge(sealed[0])] * 3)
    world.sweep_until(lambda: world.waiting() == [1])


def test_what_was_said_before_a_start_is_heard_after_it(world: World) -> None:
    with world.lane() as lane:
        sealed = lane.seal(3)
    world.sweep()
    world.says(acknowledge(sealed[2]))
    world.shipper.close()
    world.start()
    world.sweep_until(lambda: world.waiting() == [])


def test_a_topic_that_is_deleted_and_made_again_has_everything_again(world: World) -> None:
    with world.lane() as lane:
        sealed = lane.seal(4)
        world.sweep()
        with KafkaAdminClient(bootstrap_servers=world.settings.brokers) as admin:
            admin.delete_topics([world.settings.batches])
            until = time.monotonic() + 20
            while world.settings.batches in admin.list_topics():
                assert time.monotonic() < until
                time.sleep(0.05)
        with pytest.raises(Unavailable) as missing:
            world.shipper.sweep()
        assert missing.value.code == "kafka_topic_missing"
        world.create()
        sealed += lane.seal(1)
    world.sweep_until(lambda: len(world.there()) == 5)
    assert [note for _, note, _ in world.there()] == [each.note for each in sealed]


def test_the_largest_batch_fits_and_so_do_many_small_ones(world: World) -> None:
    outgoing = KafkaOutgoing(world.settings)
    lane = LaneRef("o" * 63, "n" * 63, "l" * 63)
    body, note = (
        os.urandom(MAX_BODY_BYTES + 1),
        os.urandom(MAX_NOTE_BYTES + 1),
    )  # one more: cut off, and refused later
    assert len(body) + len(note) + 4_000 < LARGEST_MESSAGE_BYTES
    for _ in range(3):
        outgoing.send(lane, note, body)
        outgoing.send(lane, b"small", b"")
    outgoing.flush()
    outgoing.close()
    assert [(seal, value) for _, seal, value in world.there()] == [(note, body), (b"small", b"")] * 3


def test_what_is_in_flight_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.kafka.outgoing.IN_FLIGHT_BYTES", 2_000_000)
    outgoing, most = KafkaOutgoing(world.settings), 0
    for _ in range(20):
        outgoing.send(LaneRef("o", "n", "l"), b"", bytes(500_000))
        most = max(most, outgoing.in_flight)
    outgoing.flush()
    assert (most, outgoing.in_flight) == (2_000_000, 0)
    outgoing.close()
    assert len(world.there()) == 20


@pytest.mark.proof
def test_a_broker_that_restarts_while_batches_are_sent_has_each_of_them_and_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_settings_module, "FOUND_WITHIN_MS", 500)
    with own_broker(tmp_path) as kafka:
        world = World(tmp_path / "spool", KafkaSettings((kafka.address,), unique_prefix()))
        is_over, before = threading.Event(), threading.active_count()

        def ship() -> None:
            while not is_over.is_set():
                with contextlib.suppress(Unavailable):
                    world.shipper.sweep()

        shipping = threading.Thread(target=ship)
        with world.lane("a") as first, world.lane("b") as second:
            shipping.start()
            for number in range(60):
                first.seal()
                second.seal(2)
                if number == 20:
                    kafka.kill()
                if number == 40:
                    kafka.start()
            is_over.set()
            shipping.join()
            world.sweep()
            sealed = {lane.ref.lane: [each.note for each in lane.sealed] for lane in (first, second)}
        found = world.there()
        for lane, notes in sealed.items():
            arrived = [note for key, note, _ in found if key.endswith(f"/{lane}")]
            assert list(dict.fromkeys(arrived)) == notes  # each of them; some twice, the first time in order
        world.shipper.close()
        assert threading.active_count() <= before
