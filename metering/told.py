"""What HTTP told of a request, kept until the engine's line is there.

It is the canonical bytes of the event to be, with sequence 0: 240 bytes for each request that waits, and no objects.
The event is these bytes with a number, a time and the engine's figures written over; nothing is parsed or packed again.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from metering.canonical import FIXED, GENERATED, SEQUENCE_OFFSET, TIME_OFFSET, table_of
from metering.columns import integers
from metering.event import MAX_QUANTITY, Event
from metering.refusal import Refusal

#: No event has it; so a told one is not taken for an event.
TOLD_SEQUENCE = 0

# Places in the canonical bytes, see canonical.py.
_PRESENT_OFFSET = 3
_LENGTHS_OFFSET = 4
_PROMPT_OFFSET = 104
_COMPLETION_OFFSET = 120
_GENERATED_OFFSET = 136
_ONE = struct.Struct(">q")
_TWO = struct.Struct(">qq")
_LENGTHS = struct.Struct(">HH")
assert SEQUENCE_OFFSET + _ONE.size == TIME_OFFSET


@dataclass(frozen=True, slots=True)
class Joined:
    """What the engine's lines add to a told request. None: as HTTP told it.

    `generated_tokens` is what the scheduler sampled. `prompt_tokens` and `cached_tokens` come together, where HTTP did
    not tell them; `completion_tokens` where the client had all of the answer, and HTTP did not say how much that was;
    `model` where the request named none. `audio_prompt` is what the engine took for the prompt of sound that is charged
    by its seconds: it is in no event.
    """

    request: bytes
    generated_tokens: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    model: str | None = None
    audio_prompt: int = 0


def joined_leaf(told: bytes, sequence: int, time_us: int, joined: Joined | None) -> bytes:
    """The canonical bytes of the event: what was told and what the engine's lines add.

    Refusal `bad_event` for figures that no event may have.
    """
    leaf = bytearray(told)
    _TWO.pack_into(leaf, SEQUENCE_OFFSET, sequence, time_us)
    if joined is None:
        return bytes(leaf)
    generated, prompt, cached = joined.generated_tokens, joined.prompt_tokens, joined.cached_tokens
    if generated is not None:
        if not 0 <= generated <= MAX_QUANTITY:
            raise Refusal("bad_event", f"generated_tokens is {generated} in an event of kind usage")
        leaf[_PRESENT_OFFSET] |= GENERATED
        _ONE.pack_into(leaf, _GENERATED_OFFSET, generated)
    if prompt is not None:
        cached = cached or 0
        if not 0 <= cached <= prompt <= MAX_QUANTITY:
            raise Refusal("bad_event", f"{cached} cached of {prompt} prompt tokens in an event of kind usage")
        _TWO.pack_into(leaf, _PROMPT_OFFSET, prompt, cached)
    if joined.completion_tokens is not None:
        _, reasoning = _TWO.unpack_from(leaf, _COMPLETION_OFFSET)
        if not reasoning <= joined.completion_tokens <= MAX_QUANTITY:
            raise Refusal(
                "bad_event", f"{reasoning} reasoning of {joined.completion_tokens} completion tokens"
            )
        _ONE.pack_into(leaf, _COMPLETION_OFFSET, joined.completion_tokens)
    if joined.model is not None:
        endpoint_bytes, _ = _LENGTHS.unpack_from(leaf, _LENGTHS_OFFSET)
        model = joined.model.encode()
        leaf[FIXED.size + endpoint_bytes :] = model
        _LENGTHS.pack_into(leaf, _LENGTHS_OFFSET, endpoint_bytes, len(model))
    return bytes(leaf)


def events_of(leaves: Sequence[bytes]) -> list[Event]:
    """The events that canonical bytes stand for. For the few of a start, not for a hot path."""
    if not leaves:
        return []
    table = table_of(leaves)
    times = integers(table, "time").tolist()
    rows = table.drop_columns(["sequence", "time"]).to_pylist()
    return [Event(time_us=time_us, **row) for time_us, row in zip(times, rows, strict=True)]
