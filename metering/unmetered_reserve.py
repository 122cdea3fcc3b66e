"""Requests served without being written down, counted in a file whose room was taken beforehand.

Where the operator chose `serve unmetered`, requests go through while nothing can be written. That they did must not be
lost: a start, an end and a number are overwritten in place, in the file `unmetered` of the lane's folder, 4,096 bytes
made when the lane was, with an empty slot. That needs no free space on a file system that overwrites in place (ext4,
XFS, tmpfs; not one that copies on write), and a killed process loses none of it. With the next seal that can be
published they become an `unmetered` fact (fact.py).

The file has two slots, at 0 and 2,048, written in turn, so that a power cut within a write leaves the other:

    bytes  what
        8  turn: the slot with the higher one holds. All integers signed, big-endian
       24  counting: start and end (µs), requests; zeroes where nothing was served unmetered
       24  sealing: the same, of what is in a seal that may not be published yet
       16  epoch of that seal
        8  number of that seal
        4  CRC-32 of all before

Moving from counting to sealing is written before the seal is made; a start finds by the lane's newest seal whether it
was published. So each request is in exactly one published fact, whatever is killed when. (Only where the disk refuses
that write may an interval be told twice, which is seen; never left out.)
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from zlib import crc32

from metering.durable import create_once
from metering.fact import Unmetered
from metering.refusal import Refusal, Unavailable
from metering.seal import Seal
from metering.steps import step

FILE_NAME = "unmetered"
_FILE_BYTES = 4_096
_SLOTS = (0, 2_048)
_SLOT = struct.Struct(">qqqqqqq16sq")
_CRC = struct.Struct(">I")
_NO_EPOCH = bytes(16)


@dataclass(slots=True)
class _Served:
    """An interval; nothing while `requests` is 0."""

    start_us: int = 0
    end_us: int = 0
    requests: int = 0

    def add(self, start_us: int, end_us: int, requests: int) -> None:
        self.start_us = min(self.start_us, start_us) if self.requests else start_us
        self.end_us = max(self.end_us, end_us)
        self.requests += requests


@dataclass(frozen=True, slots=True)
class _Slot:
    turn: int
    counting: _Served
    sealing: _Served
    epoch: bytes
    number: int


class UnmeteredReserve:
    """The reserve of one lane. Any thread counts; one seals."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._turn = 0
        self._counting = _Served()
        self._sealing = _Served()
        self._seal = (_NO_EPOCH, 0)
        self._is_synced = True

    @classmethod
    def open(cls, folder: Path, newest: Seal | None) -> UnmeteredReserve:
        """The reserve in a lane's folder, made if there is none. `newest` is the lane's newest published seal.

        Refusal `unmetered_damaged` if the file holds no whole slot.
        """
        path = folder / FILE_NAME
        if not path.exists():
            create_once(
                path, _content(_Slot(0, _Served(), _Served(), _NO_EPOCH, 0)).ljust(_FILE_BYTES, b"\0")
            )
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            reserve = cls(path, descriptor)
            reserve._read(newest)
        except BaseException:
            os.close(descriptor)
            raise
        return reserve

    def __len__(self) -> int:
        """Requests in no published seal yet."""
        return self._counting.requests + self._sealing.requests

    def count(self, time_us: int) -> None:
        """One more request is served unmetered. Unavailable `unmetered_failed` if not even that can be written."""
        with self._lock:
            before = replace(self._counting)
            self._counting.add(time_us, time_us, 1)
            try:
                self._write()
            except Unavailable:
                self._counting = before
                raise
        step("unmetered")

    def sealing(self, epoch: bytes, number: int) -> Unmetered | None:
        """What the seal with that epoch and number has to say; None: nothing. No other seal is under way."""
        with self._lock:
            if self._counting.requests or self._sealing.requests:
                if self._counting.requests:
                    self._sealing.add(self._counting.start_us, self._counting.end_us, self._counting.requests)
                self._counting, self._seal = _Served(), (epoch, number)
                self._write()
                self._fsync()
            served = self._sealing
            return Unmetered(served.start_us, served.end_us, served.requests) if served.requests else None

    def sealed(self) -> None:
        """The seal that `sealing` was asked for last is published."""
        with self._lock:
            if self._sealing.requests:
                self._sealing = _Served()
                with contextlib.suppress(Unavailable):  # then a start tells it again
                    self._write()

    def sync(self) -> None:
        """Put it on disk."""
        with self._lock:
            if not self._is_synced:
                self._fsync()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _fsync(self) -> None:
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise self._failure(error) from error
        self._is_synced = True

    def _write(self) -> None:
        self._turn += 1
        slot = _Slot(self._turn, self._counting, self._sealing, *self._seal)
        try:
            os.pwrite(self._descriptor, _content(slot), _SLOTS[self._turn % 2])
        except OSError as error:
            raise self._failure(error) from error
        self._is_synced = False

    def _read(self, newest: Seal | None) -> None:
        content = os.pread(self._descriptor, _FILE_BYTES, 0)
        slots = [slot for at in _SLOTS if (slot := _slot(content[at:]))]
        if not slots:
            raise Refusal(
                "unmetered_damaged",
                "the count of what was served unmetered cannot be read",
                where=str(self._path),
                remedy="keep the file, and move it away to go on without what it held",
            )
        slot = max(slots, key=lambda each: each.turn)
        self._turn, self._counting, self._sealing = slot.turn, slot.counting, slot.sealing
        self._seal = (slot.epoch, slot.number)
        is_published = newest and newest.epoch == slot.epoch.hex() and newest.number >= slot.number
        if self._sealing.requests and is_published:
            self._sealing = _Served()
            self._write()
        # What a killed process wrote is there to be read, but perhaps not on disk.
        self._is_synced = False

    def _failure(self, error: OSError) -> Unavailable:
        return Unavailable(
            "unmetered_failed",
            f"the count of what is served unmetered cannot be written: {error.strerror}",
            where=str(self._path),
            remedy="see to the spool's disk",
        )


def _slot(content: bytes) -> _Slot | None:
    """The slot with which `content` begins, None if it is not whole."""
    fixed, (checksum,) = content[: _SLOT.size], _CRC.unpack_from(content, _SLOT.size)
    if crc32(fixed) != checksum:
        return None
    turn, a, b, c, d, e, f, epoch, number = _SLOT.unpack(fixed)
    return _Slot(turn, _Served(a, b, c), _Served(d, e, f), epoch, number)


def _content(slot: _Slot) -> bytes:
    """The bytes of a slot."""
    fixed = _SLOT.pack(
        slot.turn,
        slot.counting.start_us,
        slot.counting.end_us,
        slot.counting.requests,
        slot.sealing.start_us,
        slot.sealing.end_us,
        slot.sealing.requests,
        slot.epoch,
        slot.number,
    )
    return fixed + _CRC.pack(crc32(fixed))
