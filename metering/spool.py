"""The spool: sealed batches on their way to intake, on the disk of whoever made them.

A batch is in the spool from the moment that its lane has published it (lane_folder.py) until intake has acknowledged
it. Readers and writers need no lock between them: a batch becomes visible by one rename (of its seal, the body being
there already) and is taken away by another. Deleting goes

    1. NAME.seal → NAME.done     from here on nobody sees the batch
    2. NAME.parquet deleted
    3. NAME.done deleted

and a `.done` that a kill left behind is ended by the next one who lists the lane. An acknowledged batch that comes
back after a power cut is a repeat, which intake knows in O(1). The folder is laid out in lane_folder.py.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from metering.batch import SealedBatch
from metering.lane_folder import BODY_SUFFIX, DONE_SUFFIX, SEAL_SUFFIX, lane_path
from metering.refusal import Unavailable
from metering.seal import MAX_BODY_BYTES, MAX_NOTE_BYTES, peek_seal
from metering.steps import step

_log = logging.getLogger(__name__)

_NAME = re.compile(r"[0-9]+-[0-9a-f]{32}-[0-9]+")


@dataclass(frozen=True, slots=True)
class LaneRef:
    """Whose lane: the names under which its folder lies in the spool."""

    operator: str
    node: str
    lane: str


@dataclass(frozen=True, slots=True)
class BatchRef:
    """Which batch: its lane, epoch and number, learnt from its file's name, and that file (the .seal)."""

    lane: LaneRef
    epoch: str
    number: int
    path: Path


@dataclass(frozen=True, slots=True)
class SpooledBatch:
    """A batch that lies in the spool; nothing of it is read until `batch()`."""

    ref: BatchRef

    def read(self) -> tuple[bytes, bytes] | None:
        """Note and body, byte for byte as they lie there, nothing parsed; None if somebody has taken it away meanwhile.

        Reads no more than a batch may have: a longer file is cut and then fails its checks. A body that is not there is
        empty: the batch is a heartbeat, or its body was lost, and its seal tells which.
        """
        try:
            note = _read(self.ref.path, MAX_NOTE_BYTES)
        except FileNotFoundError:
            return None
        try:
            body = _read(self.ref.path.with_suffix(BODY_SUFFIX), MAX_BODY_BYTES)
        except FileNotFoundError:
            if not self.ref.path.exists():
                return None
            body = b""
        return note, body

    def batch(self) -> SealedBatch:
        """Read it. Its seal is as it claims to be, unverified (Refusal `bad_seal` if it is none at all).

        Unavailable `spool_batch_missing` if it went away meanwhile.
        """
        found = self.read()
        if found is None:
            raise Unavailable(
                "spool_batch_missing", "a sealed batch is no longer in the spool", where=str(self.ref.path)
            )
        note, body = found
        return SealedBatch(peek_seal(note), note, body)


@dataclass(frozen=True, slots=True)
class Backlog:
    """What intake has not acknowledged: batches, their bytes on disk, and since when (µs) the oldest of them waits."""

    batches: int
    bytes: int
    oldest_us: int | None


class Spool:
    """The spool folder, as readers see it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._warned: set[Path] = set()

    def lanes(self) -> list[LaneRef]:
        """Every lane that has a folder here, sorted."""
        found = self.folder.glob("*/*/*/sealed")
        return sorted(
            (LaneRef(*path.parts[-4:-1]) for path in found),
            key=lambda ref: (ref.operator, ref.node, ref.lane),
        )

    def has(self, lane: LaneRef) -> bool:
        """Whether the lane has a folder here. Its names must be checked ones: they become a path."""
        return self._sealed(lane).is_dir()

    def bytes(self) -> int:
        """Bytes of the batches that intake has not acknowledged, of all lanes."""
        return self.backlog().bytes

    def backlog(self) -> Backlog:
        """What intake has not acknowledged, of all lanes: one look at each file, none is opened.

        10,000 batches take some 30 ms: ask now and then, beside what may not wait. A lane whose folder can't be read
        counts as empty, with a warning.
        """
        batches = size = 0
        oldest_ns: int | None = None
        for lane in self.lanes():
            folder = self._sealed(lane)
            try:
                for entry in os.scandir(folder):
                    with contextlib.suppress(FileNotFoundError):  # acknowledged meanwhile
                        said = entry.stat()
                        size += said.st_size
                        if entry.name.endswith(SEAL_SUFFIX):
                            batches += 1
                            oldest_ns = min(oldest_ns or said.st_mtime_ns, said.st_mtime_ns)
            except OSError as error:
                self.warn_once(folder, error.strerror)
        return Backlog(batches, size, None if oldest_ns is None else oldest_ns // 1_000)

    def pending(self) -> Iterator[SpooledBatch]:
        """The batches that wait, lane after lane, each lane in the order of its chain.

        Lists one folder a lane and opens no file. What is published while it runs may or may not be seen. A lane whose
        folder can't be read is passed over with a warning.
        """
        for lane in self.lanes():
            try:
                yield from self.pending_of(lane)
            except OSError as error:
                self.warn_once(lane_path(self.folder, lane.operator, lane.node, lane.lane), error.strerror)

    def pending_of(self, lane: LaneRef) -> Iterator[SpooledBatch]:
        """The batches of one lane that wait, in the order of its chain. OSError where its folder can't be read."""
        return (self.spooled(lane, name) for name in self.waiting(lane))

    def waiting(self, lane: LaneRef) -> list[str]:
        """The names (ORDINAL-EPOCH-NUMBER) of one lane's batches that wait, in the order of its chain: the cheap look,
        2 ms for 1,000. OSError where its folder can't be read.

        A file that ends in `.seal` and is not named as a batch is passed over with a warning.
        """
        sealed = self._sealed(lane)
        names = []
        for file in sorted(os.listdir(sealed)):  # noqa: PTH208 - a Path for each takes eight times as long
            if file.endswith(SEAL_SUFFIX):
                name = file.removesuffix(SEAL_SUFFIX)
                if _NAME.fullmatch(name):
                    names.append(name)
                else:
                    self.warn_once(sealed / file, "its name is not ORDINAL-EPOCH-NUMBER.seal")
            elif file.endswith(DONE_SUFFIX):
                with contextlib.suppress(OSError):  # nobody reads it; it goes when the disk lets it
                    _delete(sealed / file)
        return names

    def spooled(self, lane: LaneRef, name: str) -> SpooledBatch:
        """The batch of that name, which `waiting` said."""
        epoch, number = place_of(name)
        return SpooledBatch(BatchRef(lane, epoch, number, self._sealed(lane) / f"{name}{SEAL_SUFFIX}"))

    def _sealed(self, lane: LaneRef) -> Path:
        return lane_path(self.folder, lane.operator, lane.node, lane.lane) / "sealed"

    def warn_once(self, path: Path, why: str | None) -> None:
        """Says that a path is passed over; a spool is read several times a second, and says it the first time."""
        if path not in self._warned:
            self._warned.add(path)
            _log.warning("%s in the spool is passed over: %s", path.relative_to(self.folder), why)

    def acknowledge(self, spooled: SpooledBatch) -> None:
        """Delete a batch that intake has, durably archived and committed. Twice is once."""
        done = spooled.ref.path.with_suffix(DONE_SUFFIX)
        try:
            spooled.ref.path.replace(done)
        except FileNotFoundError:
            return
        step("acknowledged")
        _delete(done)


def place_of(name: str) -> tuple[str, int]:
    """Epoch and number of the batch that is called ORDINAL-EPOCH-NUMBER in the spool."""
    _, epoch, number = name.split("-")
    return epoch, int(number)


def _delete(done: Path) -> None:
    done.with_suffix(BODY_SUFFIX).unlink(missing_ok=True)
    done.unlink(missing_ok=True)


def _read(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        return file.read(limit + 1)
