"""Kafka as a source of intake: what shippers sent to `<prefix>.batches`, as it came.

Any number of workers share the topic's partitions as one consumer group, `<prefix>-intake`. Kafka decides who reads
what, and nothing else: how far a partition is read stands in the database, by what Kafka calls the topic's identity

    CLUSTER ID / TOPIC ID / TOPIC NAME, partition → next offset

so a topic that was deleted and made again is another source, read from its beginning. Where the database knows no
offset, or one that is not there any more (retention, a log that lost its end), reading goes on at the earliest that
is: repeats cost next to nothing, and whatever a shipper has no acknowledgement for it sends again. The group's own
commit is for tools that show its lag; nobody reads it here.

A worker that the group has given up without its knowing (stopped for a while, or cut off) may still take in what it
has read. The lanes' locks and marks in the database make that a repeat for one of the two. What it says of positions
never leads back, and never passes what is not settled (progress.py).

What a message is, also one that is no batch: messages.py; one of which the library could make none: unreadable.py. One
that its broker's disk has damaged can't be read at all: it is passed over by name, and its shipper sends it again.

kafka-python keeps the membership alive in a thread of its own, so a long transaction loses no partition; one that takes
longer than `MOST_BETWEEN_POLLS_MS` does, and the group goes on without this worker until it asks again.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import (
    FencedInstanceIdError,
    KafkaError,
    NodeNotReadyError,
    UnknownTopicOrPartitionError,
)
from kafka.structs import OffsetAndMetadata

from adapters.kafka.clients import begin
from adapters.kafka.errors import unavailable
from adapters.kafka.membership import Given, group_of, identity_of, seek
from adapters.kafka.messages import bytes_of
from adapters.kafka.progress import Progress
from adapters.kafka.settings import KafkaSettings
from adapters.kafka.unreadable import DamagedError, pass_over_unreadable
from billing.acceptance import Mark
from billing.inspection import Delivery, LaneName
from billing.intake_ports import Position
from metering.refusal import Unavailable

_log = logging.getLogger(__name__)

#: A sweep ends when nothing came for so long, or after so long anyway: roll-up and held batches wait for its end.
QUIET_MS = 200
SWEEP_S = 5.0
#: What one answer of a broker may hold, over all partitions and of one: with what is being read, some 50 MB a worker.
FETCH_BYTES = 16_000_000
PARTITION_FETCH_BYTES = 4_000_000
MESSAGES_A_POLL = 200
#: Without a word from a worker for so long, the group gives its partitions to others.
SESSION_MS = 10_000
HEARTBEAT_MS = 1_000  # by these a worker hears that others come and go, and they wait for it
MOST_BETWEEN_POLLS_MS = 120_000
#: How soon new partitions and a topic that was made again are noticed.
METADATA_EVERY_MS = 5_000
COMMIT_EVERY_S = 5.0
#: So long nobody hears that Kafka is away: brokers are started again, topics are made.
SILENT_FOR_S = 5.0
#: So long a sweep waits for the other workers' part in a rebalance; the next one goes on waiting.
JOIN_WITHIN_S = 3.0
_CONNECT_WITHIN_S = 5.0
_CLOSE_WITHIN_MS = 2_000
_DAMAGED_TRIES = 3


class KafkaSource:
    """`billing.intake_ports.Source` over Kafka. One thread at a time iterates; others may ask and acknowledge meanwhile.

    `positions` asks the database where a source's partitions go on. `accepted` is told how far lanes are accepted, after
    each commit, and is called before each poll too. `instance` makes a worker that comes back within the session its old
    self to the group, which then moves no partition. Raises `Unavailable` where no broker answers; whatever comes next
    starts afresh.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        positions: Callable[[str], Mapping[int, int]],
        accepted: Callable[[Mapping[LaneName, Mark]], None],
        instance: str | None = None,
    ) -> None:
        self._settings = settings
        self._ask = positions
        self._accepted = accepted
        self._instance = instance
        self._progress = Progress()
        self._consumer: Any = None
        self._given: Given
        self._source = ""
        self._moved: dict[int, int] = {}  # partition → where it goes on, for the group to see
        self._committed: dict[int, int] = {}
        self._commit_at = 0.0
        self._damaged: tuple[object, int, int] = (None, 0, 0)
        self._heard_at = time.monotonic()
        self._leaving = threading.Event()

    def deliveries(self) -> Iterator[Delivery]:
        """What was read and is not settled, then what comes: a partition's in its order."""
        until = time.monotonic() + SWEEP_S
        yield from self._still_here(self._progress.again())
        while not self._leaving.is_set() and time.monotonic() < until:
            came: list[Delivery] = []
            with self._translated():
                came = self._poll()
            if not came:
                return
            yield from self._still_here(came)

    def positions(self, tokens: Sequence[object]) -> Sequence[Position]:
        return self._progress.positions(tokens)

    def acknowledge(self, tokens: Sequence[object], marks: Mapping[LaneName, Mark]) -> None:
        self._moved |= self._progress.settle(tokens)
        self._accepted(marks)

    def leave(self) -> None:
        """Ends the sweep that runs, and every one that begins after it, as soon as what it waits for is there."""
        self._leaving.set()

    def close(self) -> None:
        """Leaves the group. Nothing is lost by not being called."""
        self.leave()
        self._drop()

    def _still_here(self, deliveries: Sequence[Delivery]) -> Iterator[Delivery]:
        for delivery in deliveries:
            if self._leaving.is_set():
                return
            if self._progress.holds(delivery.token):
                yield delivery

    def _poll(self) -> list[Delivery]:
        self._accepted({})  # what is still to be said is said, also when nothing comes
        consumer = self._open()
        self._place(consumer)
        try:
            read = self._read(consumer)
        except DamagedError as damaged:
            self._pass_over(consumer, damaged)
            return []
        if not read:
            self._check_answers(consumer)
        elif identity_of(consumer, self._settings.batches) != self._source:
            return []  # of a topic that is gone, or of its successor: it is placed anew, and read again
        came = []
        for partition, messages in read.items():
            came += self._progress.read(partition.partition, [bytes_of(message) for message in messages])
        self._commit(consumer)
        return came

    def _read(self, consumer: Any) -> Mapping[TopicPartition, Sequence[Any]]:
        """What comes within a moment; while the group shares out its partitions anew, that is waited for.

        Waited for, because the library forgets a share that it is given while nobody polls, and asks for another one; and
        said to it, because it forgets why it asked where the reason was a change of the topic.
        """
        until = time.monotonic() + JOIN_WITHIN_S
        while True:
            if consumer._coordinator.need_rejoin():
                consumer._coordinator.request_rejoin()
            read: Mapping[TopicPartition, Sequence[Any]] = consumer.poll(
                timeout_ms=QUIET_MS, max_records=MESSAGES_A_POLL
            )
            is_in = read or not consumer._coordinator.need_rejoin()
            if is_in or self._leaving.is_set() or time.monotonic() > until:
                return read

    def _open(self) -> Any:
        if self._consumer is None:
            consumer = begin(
                KafkaConsumer,
                self._settings,
                "tally-intake",
                group_id=group_of(self._settings),
                group_instance_id=self._instance,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                allow_auto_create_topics=False,
                max_poll_records=MESSAGES_A_POLL,
                fetch_max_bytes=FETCH_BYTES,
                max_partition_fetch_bytes=PARTITION_FETCH_BYTES,
                session_timeout_ms=SESSION_MS,
                heartbeat_interval_ms=HEARTBEAT_MS,
                max_poll_interval_ms=MOST_BETWEEN_POLLS_MS,
                metadata_max_age_ms=METADATA_EVERY_MS,
            )
            pass_over_unreadable(consumer)
            self._given = Given(consumer, self._progress)
            consumer.subscribe([self._settings.batches], listener=self._given)
            self._consumer = consumer
            # Who joins before it knows the topic gets nothing of it, and has all the others join again.
            until = time.monotonic() + _CONNECT_WITHIN_S
            while not (
                identity_of(consumer, self._settings.batches)
                or self._leaving.is_set()
                or time.monotonic() > until
            ):
                time.sleep(0.01)
        return self._consumer

    def _place(self, consumer: Any) -> None:
        """Seeks in what was given to this worker since the last time, in everything if the topic is another one."""
        identity = identity_of(consumer, self._settings.batches)
        if identity != self._source:
            if self._source and identity:
                _log.warning("%s was made again: it is read from its beginning", self._settings.batches)
            self._source = identity
            self._given.anew(consumer.assignment())
        wanted = self._given.unplaced()
        if wanted and identity:
            known = self._ask(identity)
            for partition, giving in wanted.items():
                self._progress.begin(identity, partition.partition)
                self._moved.pop(partition.partition, None)
                with contextlib.suppress(ValueError, KeyError):  # taken away meanwhile
                    seek(consumer, partition, known.get(partition.partition))
                    consumer.resume(partition)
                self._given.placed(partition, giving)
        for number, offset in self._progress.rewind().items():
            with contextlib.suppress(ValueError):
                consumer.seek(TopicPartition(self._settings.batches, number), offset)

    def _check_answers(self, consumer: Any) -> None:
        """Nothing came: because there is nothing, or because nobody answers? The library tries on without a word."""
        answers = not consumer._coordinator.coordinator_unknown()
        if answers and identity_of(consumer, self._settings.batches):
            self._heard_at = time.monotonic()
        elif time.monotonic() - self._heard_at > SILENT_FOR_S:
            silent = UnknownTopicOrPartitionError() if answers else NodeNotReadyError()
            self._drop()  # the next one reads the password anew
            raise unavailable(silent, self._settings)

    def _pass_over(self, consumer: Any, damaged: DamagedError) -> None:
        """Reads what is damaged again, a few times, since it may have been so on the way only; then goes on behind it.

        A new consumer for each try: this one has let go of what it could not read, and would wait for it for ever.
        """
        partition = damaged.partition
        if partition not in consumer.assignment():  # another worker's meanwhile
            self._drop()
            return
        offset = consumer.position(partition, timeout_ms=QUIET_MS)
        before, at, tries = self._damaged
        goes_on = (before, at, tries) == (partition, offset - 1, _DAMAGED_TRIES)  # of one batch
        tries = tries + 1 if (partition, offset) == (before, at) else 1
        self._damaged = partition, offset, _DAMAGED_TRIES if goes_on else tries
        if self._damaged[2] < _DAMAGED_TRIES:
            self._drop()
            return
        what = f"{partition.topic}, partition {partition.partition}, offset {offset}"
        _log.error("a damaged message is passed over; its shipper sends it again: %s", what)
        consumer.seek(partition, offset + 1)

    def _commit(self, consumer: Any) -> None:
        """Tells the group how far it is, now and then."""
        moved = dict(self._moved)
        if moved == self._committed or time.monotonic() < self._commit_at:
            return
        self._committed, self._commit_at = moved, time.monotonic() + COMMIT_EVERY_S
        mine = consumer.assignment()
        at = {TopicPartition(self._settings.batches, number): next_ for number, next_ in moved.items()}
        consumer.commit_async({p: OffsetAndMetadata(next_, "", -1) for p, next_ in at.items() if p in mine})

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Whatever fails, the next try is made by a new member: only the database knows where it goes on."""
        try:
            yield
        except FencedInstanceIdError:
            _log.warning("another worker says that it is this one: this one goes on under no name")
            self._instance = None
            self._drop()
        except KafkaError as error:
            self._drop()
            raise unavailable(error, self._settings) from error
        except Unavailable:
            raise
        except Exception:
            self._drop()
            raise

    def _drop(self) -> None:
        consumer, self._consumer = self._consumer, None
        self._source = ""
        if consumer is not None:
            with contextlib.suppress(Exception):
                consumer.close(autocommit=False, timeout_ms=_CLOSE_WITHIN_MS)
