"""The write-ahead file: what a lane knows and has not sealed yet, in the order in which it learnt it.

A segment, `write-ahead-<number, 8 digits>.wal`, is the line `tallygrid/write-ahead/v1\\n` and then frames:

    bytes  what
        4  length of the payload, big-endian
        4  CRC-32 (zlib's) of type and payload, big-endian
        1  type: `O` opening, `I` intent, `E` event
        …  payload

    opening   epoch (16), previous (32: hash of the lane's newest seal; zeroes: genesis), next sequence number,
              floor (every later time is above it, µs), opened, closed, carried (8 each, signed, big-endian)
    intent    present (1: 2 project, 4 key), length of endpoint, length of model (2 each), time in µs (8),
              request, customer, project, key (16 each), endpoint, model
    event     the canonical bytes of canonical.py; kind usage closes the intent with its request id

The first frame is the opening, and `carried` frames after it belong to it: intents that are open and events that are
unsealed. So every segment stands alone: the newest whole one *is* the state of the lane, and older ones can go. A new
segment begins with each epoch and whenever one has grown beyond 32 MB. It is written aside and renamed, so it is
there with all that it carries, or not. `opened` and `closed` of the opening leave out what it carries: reading the
frames counts them, by the one rule that an intent opens, a usage event closes, and one without an intent does both.

Example: a lane's first segment, epoch `00`…`0f`, floor 0, nothing carried, begins (hex)

    74616c6c79677269642f77726974652d61686561642f76310a  "tallygrid/write-ahead/v1\\n"
    00000058 d84b9bcf 4f                                88 bytes, CRC, `O`
    000102030405060708090a0b0c0d0e0f 00×32 0000000000000001 0000000000000000 0000000000000000
    0000000000000000 0000000000000000

A kill cuts a file at most within its last frame; a power cut may lose or zero what was not fsynced. Reading stops at
the first frame whose length or CRC is wrong and says how many bytes it leaves.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from metering.canonical import FIXED, KEY, PROJECT, is_usage, request_of, sequence_of, time_us_of
from metering.durable import fsync_folder, write_whole
from metering.refusal import Refusal, Unavailable

MAGIC = b"tallygrid/write-ahead/v1\n"
SEGMENT_BYTES = 32 * 1024 * 1024

_FRAME = struct.Struct(">II")
_OPENING = struct.Struct(">16s32sqqqqq")
_INTENT = struct.Struct(">BHHq16s16s16s16s")
_GENESIS = bytes(32)
_NO_ID = bytes(16)
_MAX_PAYLOAD = 16_384


@dataclass(frozen=True, slots=True)
class Intent:
    """A request that is about to be sent to the engine. `request` is the id that its event will carry."""

    request: bytes
    time_us: int
    customer: bytes
    project: bytes | None
    key: bytes | None
    endpoint: str
    model: str


@dataclass(frozen=True, slots=True)
class Opening:
    """The state of a lane where a segment begins; `previous` is None for genesis. See the module's text."""

    epoch: bytes
    previous: bytes | None
    next_sequence: int
    floor_us: int
    opened: int
    closed: int
    carried: int


@dataclass(slots=True)
class Segment:
    """What a segment says when read to its end: `unread` bytes after `whole` make no sense."""

    opening: Opening
    intents: dict[bytes, Intent]
    leaves: list[bytes]
    next_sequence: int
    floor_us: int
    opened: int
    closed: int
    whole: int
    unread: int


def frame(kind: bytes, payload: bytes) -> bytes:
    """A frame's bytes; `kind` is one letter."""
    body = kind + payload
    return _FRAME.pack(len(payload), crc32(body)) + body


def intent_frame(intent: Intent) -> bytes:
    """The frame of an intent."""
    endpoint = intent.endpoint.encode()
    model = intent.model.encode()
    project, key = intent.project, intent.key
    fixed = _INTENT.pack(
        (0 if project is None else PROJECT) | (0 if key is None else KEY),
        len(endpoint),
        len(model),
        intent.time_us,
        intent.request,
        intent.customer,
        project or _NO_ID,
        key or _NO_ID,
    )
    return frame(b"I", fixed + endpoint + model)


def event_frame(leaf: bytes) -> bytes:
    """The frame of an event, from its canonical bytes."""
    return frame(b"E", leaf)


def opening_frame(opening: Opening) -> bytes:
    """The frame of an opening."""
    return frame(
        b"O",
        _OPENING.pack(
            opening.epoch,
            opening.previous or _GENESIS,
            opening.next_sequence,
            opening.floor_us,
            opening.opened,
            opening.closed,
            opening.carried,
        ),
    )


def read_segment(content: bytes) -> Segment | None:
    """A segment's meaning, up to the first frame that is not whole; None if its opening is not whole."""
    at = len(MAGIC)
    first = _payload(content, at) if content[:at] == MAGIC else None
    if first is None or first[:1] != b"O" or len(first) != 1 + _OPENING.size:
        return None
    epoch, previous, *numbers = _OPENING.unpack(first[1:])
    opening = Opening(epoch, None if previous == _GENESIS else previous, *numbers)
    segment = Segment(
        opening, {}, [], opening.next_sequence, opening.floor_us, opening.opened, opening.closed, 0, 0
    )
    at += _FRAME.size + len(first)
    frames = 0
    while (body := _payload(content, at)) is not None and _take(segment, body):
        at += _FRAME.size + len(body)
        frames += 1
    segment.whole, segment.unread = at, len(content) - at
    return segment if frames >= opening.carried else None


def _payload(content: bytes, at: int) -> bytes | None:
    """Type and payload of the frame at `at`, or None if no whole frame is there."""
    if at + _FRAME.size + 1 > len(content):
        return None
    length, checksum = _FRAME.unpack_from(content, at)
    start = at + _FRAME.size
    body = content[start : start + 1 + length]
    if length > _MAX_PAYLOAD or len(body) != 1 + length or crc32(body) != checksum:
        return None
    return body


def _take(segment: Segment, body: bytes) -> bool:
    """Count one frame into the segment; False if it cannot follow what came before."""
    payload = body[1:]
    if body[:1] == b"I":
        intent = _intent(payload)
        segment.intents[intent.request] = intent
        segment.opened += 1
        return True
    if body[:1] != b"E" or len(payload) < FIXED.size or sequence_of(payload) != segment.next_sequence:
        return False
    segment.leaves.append(payload)
    segment.next_sequence += 1
    segment.floor_us = max(segment.floor_us, time_us_of(payload))
    if is_usage(payload):
        segment.closed += 1
        if segment.intents.pop(request_of(payload), None) is None:
            segment.opened += 1
    return True


def _intent(payload: bytes) -> Intent:
    present, endpoint_bytes, model_bytes, time_us, request, customer, project, key = _INTENT.unpack_from(
        payload
    )
    texts = payload[_INTENT.size :]
    return Intent(
        request,
        time_us,
        customer,
        project if present & PROJECT else None,
        key if present & KEY else None,
        texts[:endpoint_bytes].decode(),
        texts[endpoint_bytes : endpoint_bytes + model_bytes].decode(),
    )


class WriteAheadFile:
    """A segment that is being written."""

    def __init__(self, path: Path, number: int, descriptor: int, size: int) -> None:
        self.path = path
        self.number = number
        self.size = size
        self._descriptor = descriptor
        self._broken = False

    @classmethod
    def create(
        cls, folder: Path, number: int, opening: Opening, carried: Iterable[bytes], *, durable: bool
    ) -> WriteAheadFile:
        """Begin segment `number` with its opening and what it carries, whole or not at all.

        With `durable` it is on disk when this returns; without, when `fsync` and an fsync of the folder have returned.
        """
        path = segment_path(folder, number)
        beside = path.with_suffix(".new")
        content = b"".join([MAGIC, opening_frame(opening), *carried])
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(beside, flags, 0o644)
        try:
            write_whole(descriptor, content)
            if durable:
                os.fsync(descriptor)
            beside.replace(path)
            if durable:
                fsync_folder(folder)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, number, descriptor, len(content))

    def append(self, content: bytes) -> None:
        """write(2) one frame: a killed process loses nothing of it. Unavailable `write_ahead_failed` if it fails.

        What a failing write left is cut off again, so that the frames before and after it stay readable.
        """
        if self._broken:
            raise self._failure("an earlier write or fsync failed")
        try:
            written = os.write(self._descriptor, content)
        except OSError as error:
            self._cut()
            raise self._failure(str(error)) from error
        if written != len(content):
            self._cut()
            raise self._failure("the disk is full")
        self.size += written

    def fsync(self) -> None:
        """Put it on disk. Once this has failed nobody knows what is there, so the file takes no more."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            self._broken = True
            raise self._failure(str(error)) from error

    def close(self) -> None:
        os.close(self._descriptor)

    def _cut(self) -> None:
        try:
            os.ftruncate(self._descriptor, self.size)
        except OSError:
            self._broken = True

    def _failure(self, what: str) -> Unavailable:
        return Unavailable(
            "write_ahead_failed",
            f"the write-ahead file cannot be written: {what}",
            where=str(self.path),
            remedy="free space on the spool's disk, or restart the sidecar if the disk failed",
        )


def segment_path(folder: Path, number: int) -> Path:
    """Where segment `number` lies."""
    return folder / f"write-ahead-{number:08d}.wal"


def segments(folder: Path) -> list[tuple[int, Path]]:
    """The segments in a lane's folder, oldest first."""
    return sorted((int(path.stem.rpartition("-")[2]), path) for path in folder.glob("write-ahead-*.wal"))


def newest_segment(folder: Path) -> tuple[int, Segment | None]:
    """The number of the newest segment and the meaning of the newest whole one.

    Older and torn ones stay where they are: they go once the lane has a new one. (0, None) if there is none at all.
    Refusal `write_ahead_damaged` if there are segments but not one is whole: a person must look.
    """
    found = segments(folder)
    for _, path in reversed(found):
        segment = read_segment(path.read_bytes())
        if segment is not None:
            return found[-1][0], segment
    if found:
        raise Refusal(
            "write_ahead_damaged",
            "no write-ahead segment has a whole opening",
            where=str(found[-1][1]),
            remedy="keep the file, and move it away to go on without what it held",
        )
    return 0, None
