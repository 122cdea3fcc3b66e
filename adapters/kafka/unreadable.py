"""What kafka-python would stumble over, looked at before it does: messages that are compressed, malformed or damaged.

Anybody who may write to a topic may write what the library can't make a message of, and then it raises from then on at
that place, mostly without saying which:

    compressed      our own messages never are. One megabyte of gzip or zstd may hold gigabytes, which the library unpacks
                    whole; for lz4 and snappy it has no codec. The codec stands in the head of the batch (three bits of
                    its attributes), so nothing is unpacked
    malformed       for instance a header's name that is no UTF-8; its checksum is right, so it was sent like that
    many headers    half a million of them fit in a message, and take fifty times its room once they are objects

The first two come out as one empty message at their batch's last offset, which intake sets aside like others that have
no seal, and are named in the log. What was sent together in one batch was sent by one producer, so nobody else's message
is passed over with it. Of the third kind the headers are dropped, which leaves a message without a seal.

    damaged         its checksum is wrong: by the broker's disk, or on the way here. That is another matter, since it was
                    somebody's batch: `DamagedError` says where, and the reader decides

The library has no place for this, so its class is replaced in the consumer's own fetcher. A batch's format is Kafka's
(https://kafka.apache.org/documentation/#recordbatch).
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord, Fetcher
from kafka.errors import CorruptRecordError, UnsupportedCodecError

_log = logging.getLogger(__name__)

#: More than any message of ours has, several times.
MOST_HEADERS = 16
#: What is passed over in a partition is said at once, and then at most so often.
SAY_EVERY_S = 60.0
_CODECS = {1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}


class DamagedError(CorruptRecordError):  # type: ignore[misc]  # the library has no types
    """What was read next from `partition` is not what was written there."""

    def __init__(self, partition: TopicPartition) -> None:
        super().__init__(f"damaged: {partition}")
        self.partition = partition


def pass_over_unreadable(consumer: Any) -> None:
    """From here on this consumer reads past what it could not read."""
    consumer._fetcher.PartitionRecords = partial(_Readable, said=_Said())


class _Said:
    """What was passed over, in the log."""

    def __init__(self) -> None:
        self._so_far: Counter[TopicPartition] = Counter()
        self._next_at: dict[TopicPartition, float] = {}

    def __call__(self, partition: TopicPartition, offset: int, why: str) -> None:
        self._so_far[partition] += 1
        if time.monotonic() < self._next_at.get(partition, 0.0):
            return
        self._next_at[partition] = time.monotonic() + SAY_EVERY_S
        _log.error(
            "a message that can't be read is passed over: %s, partition %d, offset %d: %s (%d so far)",
            *partition,
            offset,
            why,
            self._so_far[partition],
        )


class _Batches:
    """The library's `MemoryRecords`, each batch looked at before anything of it is made. `now`: the one that is read."""

    def __init__(self, partition: TopicPartition, batches: Any) -> None:
        self._partition = partition
        self._batches = batches
        self.now: Any = None

    def next_batch(self) -> Any:
        self.now = None
        try:
            batch = self._batches.next_batch()
        except CorruptRecordError as damaged:
            raise DamagedError(self._partition) from damaged
        if batch is None:
            return None
        if not batch.validate_crc():
            raise DamagedError(self._partition)
        self.now = batch
        if batch.compression_type:
            codec = _CODECS.get(batch.compression_type, f"codec {batch.compression_type}")
            raise UnsupportedCodecError(codec)
        return batch


class _Readable(Fetcher.PartitionRecords):  # type: ignore[misc]  # the library has no types
    """What a broker's answer holds of one partition."""

    def __init__(self, *args: Any, said: _Said, **options: Any) -> None:
        super().__init__(*args, **options)
        self.check_crcs = False  # `_Batches` has, and says where
        self._said = said

    def _unpack_records(self, tp: TopicPartition, records: Any, *deserializers: Any) -> Iterator[Any]:
        batches = _Batches(tp, records)
        while True:
            try:
                for message in super()._unpack_records(tp, batches, *deserializers):
                    bounded = len(message.headers) <= MOST_HEADERS
                    yield message if bounded else message._replace(headers=[])
                return
            except DamagedError:
                raise
            except Exception as problem:  # whatever the library's parser makes of a stranger's bytes
                if batches.now is None:
                    raise
                yield self._in_place_of(tp, batches.now, problem)

    def _in_place_of(self, tp: TopicPartition, batch: Any, problem: Exception) -> Any:
        """The empty message that stands for what can't be read of a batch."""
        last = batch.last_offset if batch.magic >= 2 else batch.base_offset
        why = f"compressed ({problem.args[0]})" if isinstance(problem, UnsupportedCodecError) else "malformed"
        self._said(tp, last, why)  # never the library's text: it quotes what was sent
        self.next_fetch_offset = last + 1
        empty: dict[str, Any] = dict.fromkeys(ConsumerRecord._fields)
        return ConsumerRecord(
            **empty | {"topic": tp.topic, "partition": tp.partition, "offset": last, "headers": []}
        )
