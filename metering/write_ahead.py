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
    00000058 cd8a5107 4f                                88 bytes, CRC, `O`
    000102030405060708090a0b0c0d0e0f 00×32 0000000000000001 0000000000000000 0000000000000000
    0000000000000000 0000000000000000

A kill cuts a file at most within its last frame; a power cut may lose or zero what was not fsynced. Reading stops at
the first frame whose length or CRC is wrong and says how many bytes it leaves.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from zlib import crc32

from metering.canonical import FIXED, KEY, PROJECT

MAGIC = b"tallygrid/write-ahead/v1\n"

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


@dataclass(frozen=True, slots=True)
class Segment:
    """What a segment says when read to its end, in order: intents, and events as their canonical bytes.

    `whole` bytes make sense, `unread` ones after them do not.
    """

    opening: Opening
    entries: list[Intent | bytes]
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
    at += _FRAME.size + len(first)
    entries: list[Intent | bytes] = []
    while (body := _payload(content, at)) is not None and (entry := _entry(body)) is not None:
        entries.append(entry)
        at += _FRAME.size + len(body)
    return Segment(opening, entries, at, len(content) - at) if len(entries) >= opening.carried else None


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


def _entry(body: bytes) -> Intent | bytes | None:
    """The intent or event of a frame, None if it is neither."""
    if body[:1] == b"I":
        return _intent(body[1:])
    if body[:1] == b"E" and len(body) > FIXED.size:
        return body[1:]
    return None


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
