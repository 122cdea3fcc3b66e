"""A usage event: what one request used, said once, without a price.

Events are facts and never change. A request that reached the engine leaves one event of kind `usage`. The engine's
later figure follows as an `amendment` (quantities are differences, it counts no request), and `void` takes an event
back (quantities negative, requests −1). Both say in `names` which request they are about. So every sum over events is
a plain sum, in any order.

From the seal on, events travel as columns (`EVENT_SCHEMA`), never one by one. Ids of subjects are 16 random bytes;
slugs and names of people are not here. Instants are microseconds since 1970-01-01T00:00Z, in UTC.

`generated_tokens` is what the engine's scheduler saw; null means that nobody witnessed it, and then it counts as
`completion_tokens`. Reasoning within generated tokens is known per event only, as the smaller of the two, so it is a
quantity of its own; and so is the number of requests without a witness, which an amendment takes back.

`whole_prompt` is of amendments, and of voids that take one back: the tokens of the whole prompt of the request, as it is
known now. By them the amendment is priced: its own prompt tokens are a difference, and say nothing of how long it was.

`reason` says why an event's figures are, or may be, incomplete; null for a request that went its ordinary way:

    engine_error         the engine answered with an error and no usage, or said so within its stream
    engine_unreachable   no connection to the engine could be made, or the request could not be sent whole
    engine_closed        the engine closed the connection before its answer was whole
    engine_malformed     the engine's answer was no HTTP, or no body that its endpoint may have
    engine_silent        the engine said nothing for longer than the sidecar waits
    client_stalled       the client took nothing for longer than the sidecar waits
    sidecar_stopped      the sidecar was told to stop, and did not wait for the answer's end
    sidecar_killed       the sidecar was killed while the request ran; its next start wrote the event
    usage_unread         the answer is whole, and nothing in it could be read as its usage; or aborted, and what had not
                         been passed on yet of its stream was only the usage
    background_lost      a response in the background, whose end the engine could not be asked for any more
    lines_late           of an amendment: lines came after those of which the event has its figure already
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from metering.columns import Column, Mask, figures, integers, only_word, whole, word_codes

OUTCOMES = ("finished", "aborted", "failed", "interrupted")
KINDS = ("usage", "amendment", "void")
REASONS = (
    "engine_error",
    "engine_unreachable",
    "engine_closed",
    "engine_malformed",
    "engine_silent",
    "client_stalled",
    "sidecar_stopped",
    "sidecar_killed",
    "usage_unread",
    "background_lost",
    "lines_late",
)

#: Largest absolute value of any quantity of one event. 10,000 of them in a batch stay far below 2^63.
MAX_QUANTITY = 10**12

#: No event is older than the first instant (2020-01-01T00:00Z), or as late as the second (2100-01-01T00:00Z): a clock
#: that says so is wrong. What is between them, every calendar knows.
EARLIEST_TIME_US = 1_577_836_800_000_000
END_OF_TIME_US = 4_102_444_800_000_000

#: Bounds of the prompt bands, in tokens. An event's band is the largest bound below its prompt tokens; an amendment's,
#: below those of its request's whole prompt.
BANDS = (0, 32_000, 128_000, 200_000, 256_000, 512_000, 1_000_000)

#: What is summed: control totals of a seal, partial sums, hourly usage.
QUANTITIES = (
    "requests",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "generated_tokens",
    "generated_reasoning_tokens",
    "audio_seconds",
    "unwitnessed_requests",
)

#: The columns of an event that hold quantities.
QUANTITY_COLUMNS = (
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "generated_tokens",
    "audio_seconds",
)

WORD = pa.dictionary(pa.int32(), pa.string())
ID = pa.binary(16)

EVENT_SCHEMA = pa.schema(
    [
        pa.field("sequence", pa.int64(), nullable=False),
        pa.field("kind", WORD, nullable=False),
        pa.field("time", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("request", ID, nullable=False),
        pa.field("names", ID),
        pa.field("customer", ID, nullable=False),
        pa.field("project", ID),
        pa.field("key", ID),
        pa.field("endpoint", WORD, nullable=False),
        pa.field("model", WORD, nullable=False),
        pa.field("outcome", WORD, nullable=False),
        pa.field("prompt_tokens", pa.int64(), nullable=False),
        pa.field("cached_tokens", pa.int64(), nullable=False),
        pa.field("completion_tokens", pa.int64(), nullable=False),
        pa.field("reasoning_tokens", pa.int64(), nullable=False),
        pa.field("generated_tokens", pa.int64()),
        pa.field("audio_seconds", pa.int64(), nullable=False),
        pa.field("request_digest", ID),
        pa.field("reason", WORD),
        pa.field("whole_prompt", pa.int64()),
    ]
)


# Made for each request: a named tuple is made in 1 µs where a frozen dataclass takes 2.4.
class Event(NamedTuple):
    """One usage event before it has its sequence number (the write-ahead file gives it).

    `request` is minted by the writer: 16 unguessable bytes. `request_digest` is the first 16 bytes of SHA-256 of the
    caller's own request id, of imports only. Token quantities are tokens, `audio_seconds` whole seconds. `reason` is
    one of REASONS, or None.
    """

    kind: str
    time_us: int
    request: bytes
    names: bytes | None
    customer: bytes
    project: bytes | None
    key: bytes | None
    endpoint: str
    model: str
    outcome: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    generated_tokens: int | None
    audio_seconds: int
    request_digest: bytes | None
    reason: str | None = None
    whole_prompt: int | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """The sum of each quantity over a set of events."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    generated_tokens: int = 0
    generated_reasoning_tokens: int = 0
    audio_seconds: int = 0
    unwitnessed_requests: int = 0

    def __add__(self, other: Totals) -> Totals:
        return Totals(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def events_table(events: Sequence[Event], first_sequence: int) -> pa.Table:
    """The events as columns of EVENT_SCHEMA, numbered from `first_sequence` in the given order."""
    columns: list[pa.Array] = []
    for field in EVENT_SCHEMA:
        if field.name == "sequence":
            values: list[object] = list(range(first_sequence, first_sequence + len(events)))
        else:
            name = "time_us" if field.name == "time" else field.name
            values = [getattr(event, name) for event in events]
        if field.type == WORD:
            columns.append(pa.array(values, pa.string()).dictionary_encode())
        else:
            columns.append(pa.array(values, field.type))
    return pa.Table.from_arrays(columns, schema=EVENT_SCHEMA)


def quantities(table: pa.Table) -> dict[str, Column]:
    """Each of QUANTITIES as one int64 a row, in the order of QUANTITIES. Their sums are the control totals.

    `requests` is 1 for usage, 0 for an amendment, −1 for a void. `generated_reasoning_tokens` is the smaller of
    reasoning and generated; where both are negative, the one nearer to zero; where their signs differ (only a
    difference can do that), 0. `unwitnessed_requests` is 1 for usage whose generated tokens are null, −1 for the void
    of such and for the amendment that brings the figure; an amendment whose reason is `lines_late` only completes
    one that was there.
    """
    completion = integers(table, "completion_tokens")
    reasoning = integers(table, "reasoning_tokens")
    generated, witnessed = _generated(table, completion)
    if only_word(table, "kind") == "usage":
        requests = np.ones(table.num_rows, np.int64)
        unwitnessed = (~witnessed).astype(np.int64)
    else:
        codes, words = word_codes(table, "kind")
        requests = _of_each_kind(codes, words, {"usage": 1, "void": -1})
        brought = _of_each_kind(codes, words, {"amendment": -1})
        unwitnessed = np.where(witnessed, np.where(_is_reason(table, "lines_late"), 0, brought), requests)
    return {
        "requests": requests,
        "prompt_tokens": integers(table, "prompt_tokens"),
        "cached_tokens": integers(table, "cached_tokens"),
        "completion_tokens": completion,
        "reasoning_tokens": reasoning,
        "generated_tokens": generated,
        "generated_reasoning_tokens": _smaller(reasoning, generated),
        "audio_seconds": integers(table, "audio_seconds"),
        "unwitnessed_requests": unwitnessed,
    }


def _smaller(one: Column, other: Column) -> Column:
    """The smaller of two where none is negative, the one nearer to zero where both are, 0 where their signs differ."""
    smaller = np.minimum(one, other)
    if not len(smaller) or smaller.min() >= 0:
        return smaller
    return np.asarray(smaller.clip(min=0) + np.maximum(one, other).clip(max=0))


def _of_each_kind(codes: Column, words: list[str], value_of: dict[str, int]) -> Column:
    return np.array([value_of.get(word, 0) for word in words] or [0], dtype=np.int64)[codes]


def _is_reason(table: pa.Table, reason: str) -> Mask:
    array = whole(table, "reason")
    if array.null_count == len(array):
        return np.zeros(len(array), dtype=bool)
    found = pc.fill_null(pc.equal(pc.cast(array, pa.string()), reason), False)
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=bool)


def _generated(table: pa.Table, completion: Column) -> tuple[Column, Mask]:
    """The engine's figure of each row, the completion tokens where it was no witness; and where it was one."""
    generated, known = figures(table, "generated_tokens")
    if known is None:
        return generated, np.ones(table.num_rows, dtype=bool)
    return np.where(known, generated, completion), known


def totals(table: pa.Table) -> Totals:
    """The control totals of the events in `table`."""
    return Totals(**{name: int(column.sum()) for name, column in quantities(table).items()})


def whole_prompts(table: pa.Table) -> Column:
    """The prompt tokens by which each event is priced: its own, and where it says so its request's."""
    own = integers(table, "prompt_tokens")
    if table.column("whole_prompt").null_count == table.num_rows:
        return own
    said, known = figures(table, "whole_prompt")
    return said if known is None else np.where(known, said, own)


def bands(prompt_tokens: Column) -> Column:
    """The prompt band of each of `whole_prompts`: the largest bound b of BANDS with |prompt tokens| > b, else 0."""
    lengths = np.abs(prompt_tokens)
    found = np.zeros(len(lengths), np.int64)
    if lengths.max(initial=0) <= BANDS[1]:
        return found
    long = np.flatnonzero(lengths > BANDS[1])  # few are
    bounds = np.array(BANDS, dtype=np.int64)
    found[long] = bounds[np.searchsorted(bounds, lengths[long], side="left") - 1]
    return found
