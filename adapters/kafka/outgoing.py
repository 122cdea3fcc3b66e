"""The shipper's side of Kafka: `metering.shipper.Outgoing` over kafka-python.

Three clients live and die together: a producer for `<prefix>.batches`, a consumer without a group that reads all of
`<prefix>.accepted` from its beginning, and an admin client that says which cluster and which topics they are. Whatever
fails, all three are closed and the next call begins anew: a producer that met an error has states in which it would
fail for ever (a fatal error of its idempotence, a topic that it knew and that is gone), and what it still held would
arrive out of turn. So a failure costs some batches that go twice, which intake recognises, and nothing else.

The producer is idempotent and waits for all in-sync replicas (acks=all), so a retry within its life neither doubles nor
reorders. Messages are not compressed: bodies are compressed already. Several small messages of a partition share one
record batch of at most 900 kB; a large one has its own, and the largest, a whole batch with its whole seal, is below
LARGEST_MESSAGE_BYTES, which is below what Kafka takes by default (1,048,588). The library's own buffer has no bound, so
what is handed over and not acknowledged is counted here, and `send` flushes before it goes beyond.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition, errors

from adapters.kafka.clients import begin, end
from adapters.kafka.errors import kafka_failures
from adapters.kafka.settings import KafkaSettings
from adapters.kafka.unreadable import DamagedError, pass_over_unreadable
from metering.acknowledgement import MAX_ACKNOWLEDGEMENT_BYTES
from metering.refusal import Unavailable
from metering.seal import MAX_BODY_BYTES, MAX_NOTE_BYTES
from metering.shipper import lane_text
from metering.spool import LaneRef

_log = logging.getLogger(__name__)

#: A message's header that holds the signed seal.
SEAL_HEADER = "seal"
#: One message with everything around it: body, seal, and less than 4 kB for key, names and Kafka's own fields.
LARGEST_MESSAGE_BYTES = MAX_BODY_BYTES + MAX_NOTE_BYTES + 4_096
#: Several messages share a record batch up to here.
RECORD_BATCH_BYTES = 900_000
#: At most so much is handed over and not acknowledged.
IN_FLIGHT_BYTES = 32_000_000
#: So many acknowledgements are read at once, and the rest by the next sweep.
MOST_NOTES = 10_000
#: A message that is not acknowledged within this is given up, and with it the clients.
DELIVER_WITHIN_S = 20


@dataclass(frozen=True, slots=True)
class _Clients:
    """One life of the three clients, in the topics that it was begun with. `topics`: name to topic id."""

    producer: Any
    consumer: Any
    admin: Any
    cluster: str
    topics: dict[str, str]


class KafkaOutgoing:
    """Sends sealed batches and reads acknowledgements. For one thread at a time."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._clients: _Clients | None = None
        self._sent: list[Any] = []  # the library's futures
        #: Bytes that were handed over and are not acknowledged.
        self.in_flight = 0

    def send(self, lane: LaneRef, note: bytes, body: bytes) -> None:
        size = len(note) + len(body)
        if self.in_flight + size > IN_FLIGHT_BYTES:
            self.flush()
        with self._life() as clients:
            future = clients.producer.send(
                self._settings.batches,
                key=lane_text(lane).encode(),
                value=body,
                headers=[(SEAL_HEADER, note)],
            )
            self._sent.append(future)
            self.in_flight += size

    def flush(self) -> None:
        if not self._sent:
            return
        with self._life() as clients:
            clients.producer.flush(timeout=DELIVER_WITHIN_S + 5)
            for future in self._sent:
                if future.failed():
                    raise future.exception
                if not future.succeeded():
                    raise errors.KafkaTimeoutError("a message was not acknowledged in time")
            self._sent, self.in_flight = [], 0

    def place(self) -> str:
        with self._life() as clients:
            now = _topic_ids(clients.admin, self._settings)
            if now != clients.topics:
                # Another topic of the same name: the clients know partitions and offsets that mean nothing there.
                self.close()
        with self._life() as clients:
            return f"{clients.cluster}/{clients.topics[self._settings.batches]}"

    def acknowledgements(self) -> Sequence[bytes]:
        with self._life() as clients:
            found: list[bytes] = []
            while len(found) < MOST_NOTES:
                try:
                    polled = clients.consumer.poll(timeout_ms=0)
                except DamagedError as damaged:
                    _pass_over(clients.consumer, damaged.partition)
                    continue
                if not polled:
                    break
                values = [each.value for messages in polled.values() for each in messages]
                # A longer one is none, and whoever may write to the topic shall not fill the memory with it.
                found += [each for each in values if each and len(each) <= MAX_ACKNOWLEDGEMENT_BYTES]
            return found

    def close(self) -> None:
        clients, self._clients = self._clients, None
        self._sent, self.in_flight = [], 0
        if clients is not None:
            end(clients.producer, clients.consumer, clients.admin)

    @contextlib.contextmanager
    def _life(self) -> Iterator[_Clients]:
        """The clients, begun where there are none; ended with whatever fails within."""
        try:
            with kafka_failures(self._settings):
                if self._clients is None:
                    self._clients = _begin(self._settings)
                yield self._clients
        except Unavailable:
            self.close()
            raise


def _begin(settings: KafkaSettings) -> _Clients:
    begun: list[Any] = []
    try:
        admin = begin(KafkaAdminClient, settings, "tally-shipper")
        begun.append(admin)
        cluster = str(admin.describe_cluster()["cluster_id"])
        topics = _topic_ids(admin, settings)
        consumer = begin(
            KafkaConsumer,
            settings,
            "tally-shipper",
            metrics_enabled=False,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            allow_auto_create_topics=False,
        )
        begun.append(consumer)
        pass_over_unreadable(consumer)
        _read_from_beginning(consumer, settings.accepted)
        producer = begin(
            KafkaProducer,
            settings,
            "tally-shipper",
            metrics_enabled=False,
            acks="all",
            enable_idempotence=True,
            allow_auto_create_topics=False,
            batch_size=RECORD_BATCH_BYTES,
            linger_ms=5,
            max_request_size=4 * LARGEST_MESSAGE_BYTES,
            max_block_ms=5_000,
            delivery_timeout_ms=DELIVER_WITHIN_S * 1_000,
        )
    except BaseException:
        end(*reversed(begun))
        raise
    return _Clients(producer, consumer, admin, cluster, topics)


def _read_from_beginning(consumer: Any, topic: str) -> None:
    partitions = consumer.partitions_for_topic(topic)
    if not partitions:
        raise errors.UnknownTopicOrPartitionError(topic)
    consumer.assign([TopicPartition(topic, each) for each in sorted(partitions)])
    consumer.seek_to_beginning()


def _pass_over(consumer: Any, partition: TopicPartition) -> None:
    """Goes on behind an acknowledgement that its broker's disk has damaged. The lane's next one says the same and more, and
    a batch that waits for it in vain goes over again, which intake answers with another.
    """
    offset = consumer.position(partition)
    _log.error("a damaged acknowledgement is passed over: %s, offset %d", partition.topic, offset)
    consumer.seek(partition, offset + 1)


def _topic_ids(admin: Any, settings: KafkaSettings) -> dict[str, str]:
    names = [settings.batches, settings.accepted]
    ids = {}
    for topic in admin.describe_topics(names):
        if topic["error_code"]:
            raise errors.for_code(topic["error_code"])(topic["name"])
        ids[str(topic["name"])] = str(topic["topic_id"])
    return ids
