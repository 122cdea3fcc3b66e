"""A message of `<prefix>.batches` as the bytes that intake judges.

    key     OPERATOR/NODE/LANE      chooses the partition: a lane's batches stay in their order; nobody reads it
    header  seal                    the signed note, once
    value                           the body; empty for a heartbeat

Whatever else comes goes to intake as it is, and intake sets it aside by name: no seal (an empty note), two of them (joined
by a byte that no note may hold), no value (an empty body). What is longer than any batch may be is cut behind that
length, as the spool's reader does, and fails its checks.
"""

from __future__ import annotations

from typing import Any

from metering.seal import MAX_BODY_BYTES, MAX_NOTE_BYTES

SEAL = "seal"


def bytes_of(message: Any) -> tuple[int, bytes, bytes]:
    """(offset, note, body) of a message as kafka-python gives it."""
    seals = [value or b"" for name, value in message.headers if name == SEAL]
    note = b"\0".join(seals)[: MAX_NOTE_BYTES + 1]
    return message.offset, note, (message.value or b"")[: MAX_BODY_BYTES + 1]
