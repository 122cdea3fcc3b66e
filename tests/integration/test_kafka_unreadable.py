"""Messages of which the library can make nothing, in a real Kafka: passed over by name, and everybody else goes on."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pytest
from intake_world import World, Writer, make_world
from kafka import KafkaProducer
from kafka import codec as codecs
from kafka.record import default_records
from kafka_broker import KafkaBroker
from kafka_world import KafkaWorld, kafka_world

from adapters.kafka import unreadable
from adapters.kafka.outgoing import KafkaOutgoing
from adapters.postgres.database import Database

pytestmark = pytest.mark.anyio


class NoText(str):
    """A header's name that is no UTF-8."""

    def encode(self, *_: object) -> bytes:
        return b"\xff\xfe"


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> World:
    return await make_world(database, tmp_path)


@pytest.fixture
def kafka_intake(world: World, kafka: KafkaBroker) -> Iterator[KafkaWorld]:
    with kafka_world(world, kafka.address, partitions=1) as made:
        yield made


def snappy_stream(content: bytes) -> bytes:
    """As Kafka wants it: https://github.com/xerial/snappy-java, one block of raw snappy."""
    block: bytes = pyarrow.compress(content, codec="snappy", asbytes=True)
    return b"\x82SNAPPY\x00" + struct.pack(">iii", 1, 1, len(block)) + block


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the library unpacks is noted; and it can make snappy, of which it has no codec here."""
    noted: list[str] = []
    for codec in ("gzip", "zstd", "snappy", "lz4"):
        monkeypatch.setattr(default_records, f"{codec}_decode", lambda _, codec=codec: noted.append(codec))
    monkeypatch.setattr(default_records, "snappy_encode", snappy_stream)
    monkeypatch.setattr(codecs, "has_snappy", lambda: True)
    monkeypatch.setitem(KafkaProducer._COMPRESSORS, "snappy", (lambda: True, 2))
    return noted


def send_unreadable(kafka_intake: KafkaWorld, topic: str) -> None:
    """One message each: packed by gzip, by snappy, with a header's name that is no text, with a hundred headers."""
    for codec in ("gzip", "snappy"):
        packing = KafkaProducer(**kafka_intake.settings.client("test"), compression_type=codec)
        packing.send(topic, key=codec.encode(), value=bytes(40_000))
        packing.flush()
        packing.close()
    kafka_intake.producer.send(topic, key=b"no text", value=b"x", headers=[(NoText("zz"), b"1")])
    kafka_intake.producer.flush()
    kafka_intake.producer.send(topic, key=b"many", value=b"x", headers=[("seal", b"1")] * 100)
    kafka_intake.producer.flush()


async def test_what_cannot_be_read_is_set_aside_by_name_unpacked_by_nobody_and_stops_nothing(
    kafka_intake: KafkaWorld,
    unpacked: list[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unreadable, "SAY_EVERY_S", 0.0)
    world, writer = kafka_intake.world, Writer()
    await world.enrol(writer)
    kafka_intake.send(writer.seal())
    await asyncio.to_thread(send_unreadable, kafka_intake, kafka_intake.settings.batches)
    kafka_intake.send(writer.seal())
    kafka_intake.worker()

    async def everything_is_placed() -> bool:
        return await kafka_intake.positions() == {0: 6} == kafka_intake.ends()

    await kafka_intake.sweep(everything_is_placed)
    assert (await world.usage())["requests"] == 6
    assert [row[0] for row in await world.rows("SELECT DISTINCT code FROM set_aside")] == ["bad_seal"]
    said = [line.rpartition("offset ")[2] for line in caplog.messages if "can't be read" in line]
    assert said == [
        "1: compressed (gzip) (1 so far)",
        "2: compressed (snappy) (2 so far)",
        "3: malformed (3 so far)",
    ]
    assert unpacked == []


async def test_messages_before_a_malformed_one_of_their_batch_are_read(
    kafka_intake: KafkaWorld,
) -> None:
    """What is sent together lies in one batch, and what is behind the malformed one is that sender's own loss."""
    world, writer = kafka_intake.world, Writer()
    await world.enrol(writer)
    first, second = writer.seal(), writer.seal()
    together = KafkaProducer(**kafka_intake.settings.client("test"), linger_ms=200, batch_size=900_000)
    for headers, batch in (
        ([("seal", first.note)], first),
        ([(NoText("z"), b"")], first),
        ([("seal", second.note)], second),
    ):
        together.send(kafka_intake.settings.batches, key=b"k", value=batch.body, headers=headers)
    together.flush()
    together.close()
    kafka_intake.worker()
    await kafka_intake.sweep_to(3)
    kafka_intake.send(second)
    await kafka_intake.sweep_to(6)
    assert await kafka_intake.positions() == {0: 4}


async def test_an_acknowledgement_behind_what_cannot_be_read_is_heard(
    kafka_intake: KafkaWorld, unpacked: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    topic = kafka_intake.settings.accepted

    def heard() -> list[bytes]:
        send_unreadable(kafka_intake, topic)
        kafka_intake.producer.send(topic, key=b"lane", value=b"an acknowledgement").get(10)
        outgoing, found = KafkaOutgoing(kafka_intake.settings), list[bytes]()
        until = time.monotonic() + 15
        try:
            while b"an acknowledgement" not in found and time.monotonic() < until:
                outgoing.place()
                found += outgoing.acknowledgements()
                time.sleep(0.05)
        finally:
            outgoing.close()
        return found

    assert await asyncio.to_thread(heard) == [b"x", b"an acknowledgement"]  # x came with a hundred headers
    assert caplog.text.count("can't be read") == 1, "it is said once a minute"
    assert unpacked == []
