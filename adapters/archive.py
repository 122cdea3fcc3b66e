"""Batches in an object store: the archive of everything accepted, and, apart from it, what is held.

A batch lies at a path FOLDER/NAME as two objects side by side:

    FOLDER/_NAME.seal      the signed note, byte for byte
    FOLDER/NAME.parquet    the body, byte for byte; a heartbeat has none

Readers of data folders (pandas and pyarrow datasets, Spark, Hive, Trino) pass over names that begin with `_`, so the
archive is read as it lies there: `pandas.read_parquet("archive/telecentras/2026-10-05")`.

Names hold a digest of what is in them, so writing the same again changes nothing, and other bytes under such a name
are damage, which is mended: what intake puts has just been checked against its digests.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pyarrow as pa

from adapters.archive_reading import BatchReader
from billing.intake_ports import StoredBatch
from billing.objects import Objects
from metering.batch import peek_seal
from metering.body import encode_body
from metering.refusal import Refusal

logger = logging.getLogger(__name__)


def seal_path(path: str) -> str:
    """The object of a batch's seal."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/_{name}.seal" if folder else f"_{name}.seal"


def body_path(path: str) -> str:
    """The object of a batch's body."""
    return f"{path}.parquet"


class BatchObjects:
    """Batches by path in an object store (`billing.intake_ports.BatchStore`)."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def put(self, batches: Sequence[StoredBatch]) -> None:
        """Stores them, durable when this returns; `Unavailable` if the store does not take them."""
        objects: list[tuple[str, bytes]] = []
        for batch in batches:
            if batch.body:
                objects.append((body_path(batch.path), batch.body))  # a seal that is seen has its body
            objects.append((seal_path(batch.path), batch.note))
        try:
            self._objects.put(objects)
        except Refusal:
            self._mend(objects)

    def _mend(self, objects: Sequence[tuple[str, bytes]]) -> None:
        for path, content in objects:
            there = self._objects.get(path)
            if there is not None and there != content:
                logger.warning("%s was damaged; the same batch came again and mends it", path)
                self._objects.replace(path, content)
        self._objects.put(objects)

    def get(self, path: str) -> StoredBatch | None:
        """The batch at `path`, or None if there is none (any more).

        Of one that lies in a joined file the body is its events written anew: the same bytes only where the same
        version of pyarrow does it, the same events always. b"" where the events are gone.
        """
        note = self._objects.get(seal_path(path))
        if note is not None:
            body = self._objects.get(body_path(path))
            if body is not None or not _has_events(note):
                return StoredBatch(path, note, body or b"")
        # No seal, or a seal whose body has left before it: a joined file has taken their place, or is about to.
        joined = BatchReader(self._objects)
        note = joined.note(path)
        if note is None:
            return None
        return StoredBatch(path, note, _joined_body(joined, path) if _has_events(note) else b"")

    def note(self, path: str) -> bytes | None:
        """The signed seal of the batch at `path`, wherever it lies by now; None if there is none (any more)."""
        return BatchReader(self._objects).note(path)

    def events(self, path: str) -> pa.Table:
        """Its events, checked against the seal, wherever they lie by now. Refusals as `BatchReader.events`."""
        return BatchReader(self._objects).events(path)

    def remove(self, paths: Sequence[str]) -> None:
        """Takes them away; it does not matter whether they are there."""
        self._objects.remove([name for path in paths for name in (seal_path(path), body_path(path))])


def _has_events(note: bytes) -> bool:
    try:
        return peek_seal(note).events > 0
    except Refusal:
        return False  # damaged: who asked gets it as it lies, and sees that


def _joined_body(joined: BatchReader, path: str) -> bytes:
    try:
        return encode_body(joined.events(path))[0]
    except Refusal as refused:
        if refused.code != "archive_incomplete":
            raise
        return b""
