"""One contract for the twin of Kafka and the real one: what the simulation does to the twin, Kafka would do too.

The same examples run on `kafka_twin` in memory, and on `adapters/kafka` with a real broker. Only what both promise is
said here; what a broker's death looks like from outside is test_shipper_kafka.py's and test_kafka_road_killed.py's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kafka import KafkaAdminClient
from kafka.admin import NewPartitions, NewTopic
from kafka.partitioner.default import murmur2 as real_murmur2
from kafka_broker import KafkaBroker, unique_prefix
from kafka_twin import BATCHES, KafkaTwin, TwinOutgoing, TwinSource, murmur2

from adapters.kafka.acknowledging import Acknowledging
from adapters.kafka.outgoing import KafkaOutgoing
from adapters.kafka.settings import KafkaSettings
from adapters.kafka.source import KafkaSource
from billing.acceptance import Mark
from billing.inspection import Delivery, LaneName
from billing.intake_ports import Source
from metering.acknowledgement import Acknowledgement, peek_acknowledgement, sign_acknowledgement
from metering.refusal import Unavailable
from metering.shipper import Outgoing, lane_text
from metering.spool import LaneRef

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
PARTITIONS = 4
LANES = [LaneRef("telecentras", "vilnius-1", f"sidecar-{n}") for n in range(8)]


@dataclass
class Positions:
    """In the place of the database: how far each source is read, never back."""

    at: dict[str, dict[int, int]] = field(default_factory=dict)

    def of(self, source: str) -> Mapping[int, int]:
        return self.at.get(source, {})

    def settle(self, source: Source, deliveries: list[Delivery], marks: Mapping[LaneName, Mark] = {}) -> None:
        """What intake does once these are committed."""
        tokens = [each.token for each in deliveries]
        for position in source.positions(tokens):
            known = self.at.setdefault(position.source, {})
            known[position.partition] = max(position.next, known.get(position.partition, 0))
        source.acknowledge(tokens, marks)


class Cluster(Protocol):
    """Kafka, twin or real, with two topics."""

    def outgoing(self) -> Outgoing: ...

    def source(self, name: str, positions: Positions) -> Any:
        """A member of the group; it has `close`."""

    def create_again(self) -> None: ...

    def add_partitions(self, total: int) -> None: ...

    def unreachable(self) -> Outgoing: ...


class Twin:
    def __init__(self) -> None:
        self.kafka = KafkaTwin(PARTITIONS)

    def outgoing(self) -> Outgoing:
        return TwinOutgoing(self.kafka, "site")

    def source(self, name: str, positions: Positions) -> TwinSource:
        return TwinSource(self.kafka, name, positions.of, _signed)

    def create_again(self) -> None:
        self.kafka.create(BATCHES, PARTITIONS)

    def add_partitions(self, total: int) -> None:
        self.kafka.add_partitions(BATCHES, total)

    def unreachable(self) -> Outgoing:
        self.kafka.cut.add("cut off")
        return TwinOutgoing(self.kafka, "cut off")


class Real:
    def __init__(self, address: str) -> None:
        self.settings = KafkaSettings((address,), unique_prefix())
        self.admin: Any = KafkaAdminClient(**self.settings.client("test"))
        self.closing: list[Callable[[], None]] = []
        self.admin.create_topics(
            [NewTopic(self.settings.batches, PARTITIONS, 1), NewTopic(self.settings.accepted, 1, 1)]
        )

    def outgoing(self) -> Outgoing:
        made = KafkaOutgoing(self.settings)
        self.closing.append(made.close)
        return made

    def source(self, name: str, positions: Positions) -> KafkaSource:
        acknowledging = Acknowledging(self.settings, lambda _: KEY)
        made = KafkaSource(self.settings, positions.of, acknowledging.owe)
        self.closing += [made.close, acknowledging.close]
        return made

    def create_again(self) -> None:
        self.admin.delete_topics([self.settings.batches])
        until = time.monotonic() + 10
        while self.settings.batches in self.admin.list_topics():
            assert time.monotonic() < until
            time.sleep(0.05)
        self.admin.create_topics([NewTopic(self.settings.batches, PARTITIONS, 1)])

    def add_partitions(self, total: int) -> None:
        self.admin.create_partitions({self.settings.batches: NewPartitions(total)})

    def unreachable(self) -> Outgoing:
        return KafkaOutgoing(KafkaSettings(("127.0.0.1:1",)))


@contextmanager
def _real(address: str) -> Iterator[Cluster]:
    made = Real(address)
    try:
        yield made
    finally:
        for close in made.closing:
            close()
        made.admin.close()


@pytest.fixture(params=["twin", "real"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    if request.param == "twin":
        yield Twin()
        return
    broker: KafkaBroker = request.getfixturevalue("kafka")
    with _real(broker.address) as made:
        yield made


def _signed(name: LaneName, mark: Mark) -> bytes:
    assert mark.epoch is not None
    return sign_acknowledgement(Acknowledgement(*name, mark.epoch, mark.number, mark.head), KEY)


def send(outgoing: Outgoing, first: int, last: int, lanes: list[LaneRef] = LANES[:2]) -> None:
    """Batches `first` to `last` of each lane, in turn; the first flush may find nobody yet."""
    until = time.monotonic() + 20
    while True:
        try:
            for number in range(first, last + 1):
                for lane in lanes:
                    outgoing.send(lane, f"{lane_text(lane)} {number}".encode(), b"body" * number)
            outgoing.flush()
            return
        except Unavailable:
            assert time.monotonic() < until
            time.sleep(0.05)


def take(
    source: Source, least: int, *, settle: Callable[[list[Delivery]], None] | None = None
) -> list[Delivery]:
    """Sweeps until so many are there; each is settled at once where `settle` is given."""
    found: list[Delivery] = []
    until = time.monotonic() + 30
    while len(found) < least:
        assert time.monotonic() < until, f"{len(found)} of {least}"
        try:
            came = list(source.deliveries())
        except Unavailable:
            continue
        if settle is not None and came:
            settle(came)
        found = [*found, *came] if settle is not None else came
    return found


def of_lane(deliveries: list[Delivery], lane: LaneRef) -> list[int]:
    """The numbers of one lane's batches, as they came."""
    notes = [each.note.decode().rsplit(" ", 1) for each in deliveries]
    return [int(number) for name, number in notes if name == lane_text(lane)]


def test_what_is_flushed_is_delivered_byte_for_byte_and_a_lane_in_its_order(cluster: Cluster) -> None:
    send(cluster.outgoing(), 0, 4)
    found = take(cluster.source("a", Positions()), 10)
    assert [of_lane(found, lane) for lane in LANES[:2]] == [[0, 1, 2, 3, 4]] * 2
    assert all(each.body == b"body" * int(each.note[-1:]) for each in found)


def test_a_lane_lies_in_the_partition_of_its_key(cluster: Cluster) -> None:
    send(cluster.outgoing(), 0, 0, LANES)
    source = cluster.source("a", Positions())
    for delivery in take(source, len(LANES)):
        key = delivery.note.rsplit(b" ", 1)[0]
        [position] = source.positions([delivery.token])
        assert position.partition == (murmur2(key) & 0x7FFFFFFF) % PARTITIONS
        assert murmur2(key) == real_murmur2(key)


def test_what_is_not_settled_comes_again_and_what_is_does_not(cluster: Cluster) -> None:
    send(cluster.outgoing(), 0, 2, LANES[:1])
    positions = Positions()
    source = cluster.source("a", positions)
    positions.settle(source, take(source, 3)[:1])
    assert of_lane(take(source, 2), LANES[0]) == [1, 2]


def test_positions_never_pass_what_is_not_settled(cluster: Cluster) -> None:
    send(cluster.outgoing(), 0, 3, LANES[:1])
    positions = Positions()
    source = cluster.source("a", positions)
    first, second, third, fourth = take(source, 4)
    assert [each.next for each in source.positions([second.token, third.token])] == [0]
    assert [each.next for each in source.positions([first.token, second.token])] == [2]
    assert [
        each.next for each in source.positions([each.token for each in (first, second, third, fourth)])
    ] == [4]


def test_another_worker_goes_on_where_the_database_says(cluster: Cluster) -> None:
    outgoing, positions = cluster.outgoing(), Positions()
    send(outgoing, 0, 2)
    source = cluster.source("a", positions)
    positions.settle(source, take(source, 6))
    source.close()
    send(outgoing, 3, 3)
    assert {int(each.note[-1:]) for each in take(cluster.source("b", positions), 2)} == {3}


def test_a_position_that_is_not_there_any_more_begins_at_the_earliest(cluster: Cluster) -> None:
    """A log that lost its end, as after an unclean election."""
    send(cluster.outgoing(), 0, 2, LANES[:1])
    positions = Positions()
    source = cluster.source("a", positions)
    [delivery, *_] = take(source, 3)
    [position] = source.positions([delivery.token])
    source.close()
    positions.at[position.source] = {position.partition: 1_000}
    assert of_lane(take(cluster.source("b", positions), 3), LANES[0]) == [0, 1, 2]


def test_two_workers_share_the_lanes_and_one_that_leaves_gives_its_share_back(cluster: Cluster) -> None:
    outgoing, positions = cluster.outgoing(), Positions()
    one, two = cluster.source("a", positions), cluster.source("b", positions)
    send(outgoing, 0, 0, LANES)
    seen: list[set[bytes]] = [set(), set()]
    number, until = 0, time.monotonic() + 30
    with ThreadPoolExecutor(2) as beside:  # a real member waits for the other while the shares change
        while not all(seen):
            assert time.monotonic() < until
            number += 1
            send(outgoing, number, number, LANES)
            sweeps = beside.map(lambda source: list(source.deliveries()), (one, two))
            for source, came, noted in zip((one, two), sweeps, seen, strict=True):
                noted |= {each.note for each in came}
                positions.settle(source, came)
    two.close()
    send(outgoing, 99, 99, LANES)
    wanted, found = {f"{lane_text(lane)} 99".encode() for lane in LANES}, set[bytes]()
    while not wanted <= found:
        found |= {each.note for each in take(one, 1, settle=lambda came: positions.settle(one, came))}


def test_a_topic_that_is_made_again_is_another_place_and_is_read_from_its_beginning(cluster: Cluster) -> None:
    outgoing, positions = cluster.outgoing(), Positions()
    send(outgoing, 0, 1)
    source = cluster.source("a", positions)
    positions.settle(source, take(source, 4))
    before = outgoing.place()
    assert outgoing.place() == before
    cluster.create_again()
    until = time.monotonic() + 20
    while True:
        try:
            if outgoing.place() != before:
                break
        except Unavailable:
            pass
        assert time.monotonic() < until
    send(outgoing, 0, 1)
    assert of_lane(take(source, 4), LANES[0]) == [0, 1]


def test_partitions_that_are_added_are_read(cluster: Cluster) -> None:
    outgoing, positions = cluster.outgoing(), Positions()
    send(outgoing, 0, 0, LANES)
    source = cluster.source("a", positions)
    take(source, len(LANES), settle=lambda came: positions.settle(source, came))
    cluster.add_partitions(2 * PARTITIONS + 1)
    outgoing.close()  # a producer learns of them when it begins, or by and by
    outgoing = cluster.outgoing()
    send(outgoing, 1, 1, LANES)
    found = take(source, len(LANES), settle=lambda came: positions.settle(source, came))
    assert {each.note for each in found} == {f"{lane_text(lane)} 1".encode() for lane in LANES}


def test_acknowledgements_reach_every_shipper_and_one_that_starts_later(cluster: Cluster) -> None:
    outgoing, positions = cluster.outgoing(), Positions()
    send(outgoing, 0, 0, LANES[:1])
    source = cluster.source("a", positions)
    name = LaneName(LANES[0].operator, LANES[0].node, LANES[0].lane)
    mark = Mark("sidecar", epoch="a" * 32, number=0, head="b" * 64)
    positions.settle(source, take(source, 1), {name: mark, name._replace(lane="new"): Mark("sidecar")})
    for hearer in (outgoing, cluster.outgoing()):
        heard: list[bytes] = []
        until = time.monotonic() + 20
        while not heard:
            assert time.monotonic() < until
            list(source.deliveries())  # what is owed is said with the next sweep at the latest
            heard += hearer.acknowledgements()
        said = peek_acknowledgement(heard[-1])
        assert (said.lane, said.number, said.hash) == ("sidecar-0", 0, "b" * 64)
        assert hearer.acknowledgements() == []


def test_nobody_there_is_unavailable(cluster: Cluster) -> None:
    outgoing = cluster.unreachable()
    with pytest.raises(Unavailable):
        outgoing.place()
    outgoing.close()
