"""The write-ahead file: what a lane knows and has not sealed yet, in the order in which it learnt it.

A segment, `write-ahead-<number, 8 digits>.wal`, is the line `tallygrid/write-ahead/v1\\n` and then frames:

    bytes  what
        4  length of the payload, big-endian
        4  CRC-32 (zlib's) of type and payload, big-endian
        1  type: `O` opening, `I` intent, `T` told, `E` event
        …  payload

    opening   epoch (16), previous (32: hash of the lane's newest seal; zeroes: genesis), next sequence number,
              floor (every later time is above it, µs), opened, closed, carried (8 each, signed, big-endian)
    intent    present (1: 2 project, 4 key), length of endpoint, length of model (2 each), time in µs (8),
              request, customer, project, key (16 each), endpoint, model
    told      the canonical bytes (canonical.py) of the event that the request would have by what HTTP said of it,
              with sequence 0; the request stays open, because the engine's figures are not known yet
    event     the canonical bytes; kind usage closes the request with its request id

The first frame is the opening, and `carried` frames after it belong to it: for each open request what was told of it,
or its intent, and the events that are unsealed. A told frame needs no intent before it: it says all that one says. So
every segment stands alone: the newest whole one *is* the state of the lane, and older ones can go. A new segment begins
with each epoch and whenever one has grown beyond 32 MB. It is written aside and renamed, so it is there with all that
it carries, or not. `opened` and `closed` of the opening leave out what it carries: reading the frames counts them, by
the one rule that an intent opens, a usage event closes, and one of a request that is not open does both. (A told frame
of a request that is not open opens it.)

Example: a lane's first segment, epoch `00`…`0f`, floor 0, nothing carried, begins (hex)

    74616c6c79677269642f77726974652d61686561642f76310a  "tallygrid/write-ahead/v1\\n"
    00000058 cd8a5107 4f                                88 bytes, CRC, `O`
    000102030405060708090a0b0c0d0e0f 00×32 0000000000000001 0000000000000000 0000000000000000
    0000000000000000 0000000000000000

A kill cuts a file at most within its last frame; a power cut may lose or zero what was not fsynced. Reading stops at
the first frame whose length or CRC is wrong and says how many bytes it leaves.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple
from zlib import crc32

from metering.canonical import FIXED, KEY, PROJECT, request_of

MAGIC = b"tallygrid/write-ahead/v1\n"

_FRAME = struct.Struct(">II")
_HEAD = struct.Struct(">IIc")
_OPENING = struct.Struct(">16s32sqqqqq")
_INTENT = struct.Struct(">cBHHq16s16s16s16s")
_GENESIS = bytes(32)
_NO_ID = bytes(16)
_MAX_PAYLOAD = 16_384
#: Where type, and so type and payload, begin in a frame.
_BODY = _FRAME.size
#: Where the request's id is in the frame of an intent.
_REQUEST = _BODY + struct.calcsize(">cBHHq")
_INTENT_KIND, _TOLD_KIND, _EVENT_KIND = b"ITE"
#: The checksum goes over the type, then the payload.
_TOLD_CRC, _EVENT_CRC = crc32(b"T"), crc32(b"E")


# Made for each request: a named tuple is made four times as fast as a frozen dataclass.
class Intent(NamedTuple):
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


@dataclass(frozen=True, slots=True)
class Segment:
    """What a segment says when read to its end: its frames in order. `whole` bytes make sense, `unread` ones after
    them do not.
    """

    opening: Opening
    frames: list[bytes]
    whole: int
    unread: int


def intent_frame(intent: Intent) -> bytes:
    """The frame of an intent."""
    request, time_us, customer, project, key, endpoint_text, model_text = intent
    endpoint, model = endpoint_text.encode(), model_text.encode()
    fixed = _INTENT.pack(
        b"I",
        (0 if project is None else PROJECT) | (0 if key is None else KEY),
        len(endpoint),
        len(model),
        time_us,
        request,
        customer,
        project or _NO_ID,
        key or _NO_ID,
    )
    body = fixed + endpoint + model
    return _FRAME.pack(len(body) - 1, crc32(body)) + body


def told_frame(leaf: bytes) -> bytes:
    """The frame of what HTTP told of a request, from the canonical bytes of its event to be."""
    return _HEAD.pack(len(leaf), crc32(leaf, _TOLD_CRC), b"T") + leaf


def event_frame(leaf: bytes) -> bytes:
    """The frame of an event, from its canonical bytes."""
    return _HEAD.pack(len(leaf), crc32(leaf, _EVENT_CRC), b"E") + leaf


def opening_frame(opening: Opening) -> bytes:
    """The frame of an opening."""
    body = b"O" + _OPENING.pack(
        opening.epoch,
        opening.previous or _GENESIS,
        opening.next_sequence,
        opening.floor_us,
        opening.opened,
        opening.closed,
        opening.carried,
    )
    return _FRAME.pack(len(body) - 1, crc32(body)) + body


def is_event(frame: bytes) -> bool:
    """Whether a frame is that of an event."""
    return frame[_BODY] == _EVENT_KIND


def is_told(frame: bytes) -> bool:
    """Whether a frame is that of a told request."""
    return frame[_BODY] == _TOLD_KIND


def leaf_of(frame: bytes) -> bytes:
    """The canonical bytes in the frame of an event or of a told request."""
    return frame[_BODY + 1 :]


def request_in(frame: bytes) -> bytes:
    """The request's id in the frame of an intent or of a told request."""
    return request_of(leaf_of(frame)) if is_told(frame) else frame[_REQUEST : _REQUEST + 16]


def intent_of(frame: bytes) -> Intent:
    """The intent in its frame."""
    _, present, endpoint_bytes, model_bytes, time_us, request, customer, project, key = _INTENT.unpack_from(
        frame, _BODY
    )
    texts = frame[_BODY + _INTENT.size :]
    return Intent(
        request,
        time_us,
        customer,
        project if present & PROJECT else None,
        key if present & KEY else None,
        texts[:endpoint_bytes].decode(),
        texts[endpoint_bytes : endpoint_bytes + model_bytes].decode(),
    )


def read_segment(content: bytes) -> Segment | None:
    """A segment's meaning, up to the first frame that is not whole; None if its opening is not whole."""
    at = len(MAGIC)
    first = _frame(content, at) if content[:at] == MAGIC else None
    if first is None or first[_BODY : _BODY + 1] != b"O" or len(first) != _BODY + 1 + _OPENING.size:
        return None
    epoch, previous, *numbers = _OPENING.unpack_from(first, _BODY + 1)
    opening = Opening(epoch, None if previous == _GENESIS else previous, *numbers)
    at += len(first)
    frames: list[bytes] = []
    while (frame := _frame(content, at)) is not None and _has_sense(frame):
        frames.append(frame)
        at += len(frame)
    return Segment(opening, frames, at, len(content) - at) if len(frames) >= opening.carried else None


def _frame(content: bytes, at: int) -> bytes | None:
    """The frame at `at`, or None if no whole one is there."""
    if at + _BODY + 1 > len(content):
        return None
    length, checksum = _FRAME.unpack_from(content, at)
    frame = content[at : at + _BODY + 1 + length]
    if length > _MAX_PAYLOAD or len(frame) != _BODY + 1 + length or crc32(frame[_BODY:]) != checksum:
        return None
    return frame


def _has_sense(frame: bytes) -> bool:
    kind = frame[_BODY]
    if kind == _INTENT_KIND:
        return len(frame) >= _BODY + _INTENT.size
    return kind in (_TOLD_KIND, _EVENT_KIND) and len(frame) > _BODY + 1 + FIXED.size
