"""A worker as a member of the consumer group: under which name it joins, and what the group gives it and takes.

A killed worker is in its group for another session's time, and nobody reads its partitions meanwhile, unless it comes
back under its name: then it simply has them again, and no other member is disturbed. So each worker takes a name that
the next one on this data folder can take after it:

    DATA/intake/installation    32 hex digits, random, made once
    DATA/intake/worker-0 …      the one that a worker holds (flock; the kernel lets go of it when it dies) is its number

The name is INSTALLATION-NUMBER. A worker that is only stopped keeps its name; the next one takes the next number.
"""

from __future__ import annotations

import contextlib
import fcntl
import secrets
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from kafka import TopicPartition
from kafka.consumer.subscription_state import ConsumerRebalanceListener

from adapters.kafka.progress import Progress
from adapters.kafka.settings import KafkaSettings
from metering.durable import create_once, make_folder


def group_of(settings: KafkaSettings) -> str:
    """The consumer group of all intake workers."""
    return f"{settings.prefix}-intake"


@contextmanager
def member_name(folder: Path) -> Iterator[str]:
    """A name in the group that no living worker of this folder has, held until the end."""
    make_folder(folder)
    installation = folder / "installation"
    if not installation.exists():
        create_once(installation, secrets.token_hex(16).encode())
    for number in count():
        with (folder / f"worker-{number}").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield f"{installation.read_text(encoding='ascii')}-{number}"
            return


class Given(ConsumerRebalanceListener):  # type: ignore[misc]  # the library has no types
    """What the group gives and takes. Called in the library's own thread, where nothing may wait: what is given is
    paused before anything of it is read, and the reading thread seeks in it first. Each giving has a number, so that
    one that comes while its partition is being placed is not taken for placed.
    """

    def __init__(self, consumer: Any, progress: Progress) -> None:
        self._consumer = consumer
        self._progress = progress
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._unplaced: dict[TopicPartition, int] = {}

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        with self._lock:
            for partition in revoked:
                self._unplaced.pop(partition, None)
        self._progress.end([partition.partition for partition in revoked])

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self.anew(assigned)

    def anew(self, partitions: Collection[TopicPartition]) -> None:
        """Nothing is read of these before they are placed."""
        for partition in partitions:
            with contextlib.suppress(KeyError, ValueError):  # taken away meanwhile
                self._consumer.pause(partition)
        with self._lock:
            self._unplaced |= {partition: next(self._numbers) for partition in partitions}

    def unplaced(self) -> dict[TopicPartition, int]:
        """What is to be placed, and in which giving."""
        with self._lock:
            return dict(self._unplaced)

    def placed(self, partition: TopicPartition, number: int) -> None:
        with self._lock:
            if self._unplaced.get(partition) == number:
                del self._unplaced[partition]


def identity_of(consumer: Any, topic: str) -> str:
    """The topic as positions name it; '' while nobody knows it. The library has no other word for it."""
    cluster = consumer._cluster
    topic_id = cluster.topic_id(topic)
    return f"{cluster.cluster_id}/{topic_id}/{topic}" if topic_id else ""


def seek(consumer: Any, partition: TopicPartition, offset: int | None) -> None:
    """To the offset that the database knows, or to the earliest. ValueError where the partition was taken away."""
    if offset is None:
        consumer.seek_to_beginning(partition)
    else:
        consumer.seek(partition, offset)
