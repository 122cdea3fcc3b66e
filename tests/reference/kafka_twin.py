"""Kafka in memory: what Tallygrid relies on, and everything that a real cluster may do to it.

A twin of brokers, two topics and one consumer group, without sockets, threads or time. test_kafka_contract.py holds the
twin and the real adapters against the same examples; `tests/simulation` then does to the twin what nobody wants to wait
for with a real cluster:

    topics       an id, made anew by every creation; partitions by the hash of the key, as the real producer does it;
                 `expire` takes messages from the front (retention), `truncate` from the end (a broker that lost its page
                 cache and was elected all the same: offsets are then given out a second time), `compact` keeps each
                 key's newest; partitions can be added, and keys then move
    brokers      `is_up`, and `cut`: the clients, by name, that reach nobody
    the group    members share the partitions; whoever joins, leaves or is given up by the group changes the shares, but a
                 member hears of it only when it next asks: until then it is a zombie that goes on with what it had
    the wire     `TwinOutgoing.wire` may double, hold back and reorder what is sent, or lose the broker's answer

A client meets what its side of the real library would show it, and nothing more: `TwinOutgoing` is the shipper's side
(`metering.shipper.Outgoing`), `TwinSource` intake's (`billing.intake_ports.Source`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from billing.acceptance import Mark
from billing.inspection import Delivery, LaneName
from billing.intake_ports import Position
from metering.refusal import Unavailable
from metering.shipper import lane_text
from metering.spool import LaneRef

BATCHES, ACCEPTED = "tally.batches", "tally.accepted"


def murmur2(key: bytes) -> int:
    """The hash by which Java's producer and kafka-python's choose a key's partition: Austin Appleby's MurmurHash2, 32 bits,
    with Kafka's seed."""
    mix, mask = 0x5BD1E995, 0xFFFFFFFF
    found = 0x9747B28C ^ len(key)
    whole = len(key) & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(key[at : at + 4], "little") * mix & mask
        found = (found * mix & mask) ^ ((word ^ word >> 24) * mix & mask)
    if rest := key[whole:]:
        found = (found ^ int.from_bytes(rest, "little")) * mix & mask
    found = (found ^ found >> 13) * mix & mask
    return found ^ found >> 15


@dataclass(frozen=True, slots=True)
class Message:
    """What a producer hands over: the lane as key, the signed seal as header, the body."""

    key: bytes
    seal: bytes
    value: bytes


@dataclass(slots=True)
class Partition:
    """Messages from offset `start` on; None where compaction took one away."""

    start: int = 0
    messages: list[Message | None] = field(default_factory=list)

    @property
    def end(self) -> int:
        """The offset of the next message."""
        return self.start + len(self.messages)

    def since(self, offset: int) -> Iterator[tuple[int, Message]]:
        """Messages from `offset` on with their offsets; from the start where it lies outside (`earliest`)."""
        first = offset if self.start <= offset <= self.end else self.start
        for at, message in enumerate(self.messages[first - self.start :], first):
            if message is not None:
                yield at, message


@dataclass(slots=True)
class Topic:
    """One creation of a topic."""

    name: str
    id: str
    partitions: list[Partition]

    def partition_of(self, key: bytes) -> int:
        """Where the producer puts a key: murmur2, as Java's and kafka-python's do."""
        return int((murmur2(key) & 0x7FFFFFFF) % len(self.partitions))

    def append(self, message: Message) -> None:
        self.partitions[self.partition_of(message.key)].messages.append(message)


class KafkaTwin:
    """The cluster, and the hands of whoever breaks it."""

    def __init__(self, partitions: int = 4, cluster: str = "twin") -> None:
        self.cluster = cluster
        self.is_up = True
        self.cut: set[str] = set()
        self.topics: dict[str, Topic] = {}
        self.group = Group(self)
        self._created = 0
        self.create(BATCHES, partitions)
        self.create(ACCEPTED, 1)

    def create(self, name: str, partitions: int) -> None:
        """A topic of this name, new and empty; whatever stood under it is gone."""
        self._created += 1
        topic_id = f"{self._created:04d}"
        self.topics[name] = Topic(name, topic_id, [Partition() for _ in range(partitions)])
        self.group.rebalance()

    def add_partitions(self, name: str, total: int) -> None:
        have = self.topics[name].partitions
        assert total >= len(have), "Kafka takes no partition away"
        have.extend(Partition() for _ in range(total - len(have)))
        self.group.rebalance()

    def expire(self, name: str, partition: int, before: int) -> None:
        """Retention: offsets below `before` are gone."""
        at = self.topics[name].partitions[partition]
        gone = max(0, min(before, at.end) - at.start)
        at.start += gone
        del at.messages[:gone]

    def truncate(self, name: str, partition: int, end: int) -> None:
        """What was acknowledged from offset `end` on is lost; the next message takes its offset."""
        at = self.topics[name].partitions[partition]
        del at.messages[max(0, end - at.start) :]

    def compact(self, name: str) -> None:
        """Each key's newest message stays, at its offset."""
        for at in self.topics[name].partitions:
            seen = set()
            for place in reversed(range(len(at.messages))):
                message = at.messages[place]
                if message is not None and message.key in seen:
                    at.messages[place] = None
                elif message is not None:
                    seen.add(message.key)

    def source_of(self, name: str) -> str:
        """A topic by its identity, as positions name it: cluster, topic id, topic name."""
        return f"{self.cluster}/{self.topics[name].id}/{name}"

    def reach(self, client: str) -> None:
        """Unavailable where this client can't talk to the brokers."""
        if not self.is_up or client in self.cut:
            raise Unavailable("kafka_down", "no broker answers", remedy="it is tried again")


class Group:
    """The one consumer group: who has which partitions of `tally.batches`."""

    def __init__(self, kafka: KafkaTwin) -> None:
        self._kafka = kafka
        self.members: list[str] = []
        self.shares: dict[str, tuple[int, ...]] = {}

    def join(self, member: str) -> None:
        if member not in self.members:
            self.members.append(member)
            self.rebalance()

    def leave(self, member: str) -> None:
        """It left, or the group gave it up because it was not heard of: it is not told."""
        if member in self.members:
            self.members.remove(member)
            self.rebalance()

    def rebalance(self) -> None:
        """Partitions dealt out in turn to the members by their names."""
        topic = self._kafka.topics.get(BATCHES)
        partitions = range(len(topic.partitions)) if topic else range(0)
        members = sorted(self.members)
        self.shares = {
            member: tuple(n for n in partitions if n % len(members) == rank)
            for rank, member in enumerate(members)
        }


Wire = Callable[[list[Message]], list[Message]]


class TwinOutgoing:
    """A shipper's side of the twin: `metering.shipper.Outgoing`.

    `wire` is what lies between it and the brokers: it is given what was handed over since the last flush and says what
    arrives, in which order. `answers_lost`: so many flushes put everything there, and hear nothing of it.
    """

    def __init__(self, kafka: KafkaTwin, client: str, *, wire: Wire = list) -> None:
        self._kafka = kafka
        self._client = client
        self.wire = wire
        self.answers_lost = 0
        self._handed_over: list[Message] = []
        self._heard: dict[tuple[str, int], int] = {}

    def send(self, lane: LaneRef, note: bytes, body: bytes) -> None:
        self._handed_over.append(Message(lane_text(lane).encode(), note, body))

    def flush(self) -> None:
        handed_over, self._handed_over = self._handed_over, []
        self._kafka.reach(self._client)
        for message in self.wire(handed_over):
            self._kafka.topics[BATCHES].append(message)
        if self.answers_lost:
            self.answers_lost -= 1
            raise Unavailable("kafka_down", "the broker's answer did not come", remedy="it is tried again")

    def place(self) -> str:
        self._kafka.reach(self._client)
        return self._kafka.source_of(BATCHES)

    def acknowledgements(self) -> Sequence[bytes]:
        self._kafka.reach(self._client)
        topic = self._kafka.topics[ACCEPTED]
        found = []
        for number, partition in enumerate(topic.partitions):
            for offset, message in partition.since(self._heard.get((topic.id, number), 0)):
                found.append(message.value)
                self._heard[topic.id, number] = offset + 1
        return found

    def close(self) -> None:
        self._handed_over = []


@dataclass(frozen=True, slots=True)
class Token:
    """A message that was delivered: what it was read from, and its offset there."""

    source: str
    partition: int
    offset: int


Sign = Callable[[LaneName, Mark], bytes]


class TwinSource:
    """An intake worker's side of the twin: `billing.intake_ports.Source`.

    `positions` asks the database where to go on in a source; it is asked for each partition when the member is given
    it, as the real one seeks on assignment. `sign` makes the acknowledgement of a lane at its mark.
    """

    def __init__(
        self,
        kafka: KafkaTwin,
        member: str,
        positions: Callable[[str], Mapping[int, int]],
        sign: Sign,
    ) -> None:
        self._kafka = kafka
        self.member = member
        self._ask = positions
        self._sign = sign
        self._source = ""
        self._next: dict[int, int] = {}  # partition -> where to go on
        self._delivered: dict[int, set[int]] = {}  # partition -> offsets delivered by this sweep, not settled
        self._beyond: dict[int, int] = {}  # partition -> one beyond the last delivered by this sweep
        kafka.group.join(member)

    def deliveries(self) -> Iterator[Delivery]:
        """Every message of this member's partitions that is not settled; a partition's in its order."""
        self._kafka.reach(self.member)
        self._hear_of_the_group()
        topic, source = self._kafka.topics[BATCHES], self._source
        self._delivered = {n: set() for n in self._next}
        self._beyond = dict(self._next)
        for number in sorted(self._next):
            for offset, message in list(topic.partitions[number].since(self._next[number])):
                if not self._delivered[number]:
                    self._beyond[number] = offset
                self._delivered[number].add(offset)
                self._beyond[number] = offset + 1
                yield Delivery(message.seal, message.value, Token(source, number, offset))

    def positions(self, tokens: Sequence[object]) -> Sequence[Position]:
        return [Position(self._source, n, at) for n, at in sorted(self._after(tokens).items())]

    def acknowledge(self, tokens: Sequence[object], marks: Mapping[LaneName, Mark]) -> None:
        self._next |= self._after(tokens)
        for token in self._mine(tokens):
            self._delivered[token.partition].discard(token.offset)
        self._kafka.reach(self.member)
        for name, mark in sorted(marks.items()):
            if mark.epoch is not None:
                self._kafka.topics[ACCEPTED].append(Message(str(name).encode(), b"", self._sign(name, mark)))

    def close(self) -> None:
        self._kafka.group.leave(self.member)

    def _after(self, tokens: Sequence[object]) -> dict[int, int]:
        """Where each partition goes on once these are settled too: not beyond one that is delivered and is not."""
        settled: dict[int, set[int]] = {}
        for token in self._mine(tokens):
            settled.setdefault(token.partition, set()).add(token.offset)
        return {
            n: min(self._delivered[n] - offsets, default=self._beyond[n]) for n, offsets in settled.items()
        }

    def _mine(self, tokens: Sequence[object]) -> Iterator[Token]:
        for token in tokens:
            assert isinstance(token, Token)
            if token.source == self._source and token.partition in self._delivered:
                yield token

    def _hear_of_the_group(self) -> None:
        """Learns its share, and seeks in what is new to it: also when the topic is another one than before."""
        group, source = self._kafka.group, self._kafka.source_of(BATCHES)
        goes_on = self.member in group.members and source == self._source
        group.join(self.member)
        share = group.shares[self.member]
        had = self._next if goes_on else {}
        self._source = source
        known = self._ask(source) if set(share) - had.keys() else {}
        self._next = {n: had[n] if n in had else known.get(n, 0) for n in share}
