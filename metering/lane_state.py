"""What a lane knows, in memory: open requests, unsealed events, and the numbers that go into seals.

The same rules count an entry when it is written and when it is read back after a kill: an intent opens a request, a
usage event closes one, and a usage event without an intent does both. Nothing here does I/O or looks at a clock.

Open requests and unsealed events are kept as the bytes that the write-ahead file holds of them: of a request that is in
the air its intent, then what was told of it; some 200 bytes each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields

from metering.canonical import is_usage, pack, request_of, time_us_of
from metering.event import Event
from metering.seal import Seal
from metering.told import Joined, joined_leaf
from metering.write_ahead import (
    Intent,
    Opening,
    event_frame,
    intent_of,
    is_told,
    leaf_of,
)


@dataclass(slots=True)
class LaneState:
    """`floor_us`: every later time is above it. `number` is the next seal's, `sealed` the last sealed sequence number
    of the epoch, `sealed_closed` the newest seal's `closed`. `open` has the frame of each open request (`intent` or
    `told`) by its id; `unsealed` are canonical bytes, in sequence."""

    epoch: bytes = b""
    next_sequence: int = 1
    floor_us: int = 0
    opened: int = 0
    closed: int = 0
    number: int = 0
    sealed: int = 0
    sealed_closed: int = 0
    open: dict[bytes, bytes] = field(default_factory=dict)
    unsealed: list[bytes] = field(default_factory=list)

    def pack(self, event: Event, time_us: int) -> bytes:
        """The canonical bytes that the event would have as the lane's next one, at that time or just above the last."""
        floor_us = self.floor_us
        return pack(event, self.next_sequence, time_us if time_us > floor_us else floor_us + 1)

    def pack_all(self, events: Sequence[Event], believed: Callable[[int], int]) -> list[bytes]:
        """The same for many, each above the one before; `believed` makes the time of the time that an event claims."""
        leaves = []
        floor_us = self.floor_us
        for sequence, event in enumerate(events, self.next_sequence):
            time_us = believed(event.time_us)
            floor_us = time_us if time_us > floor_us else floor_us + 1
            leaves.append(pack(event, sequence, floor_us))
        return leaves

    def join_all(self, joins: Sequence[Joined], believed: Callable[[int], int]) -> list[bytes]:
        """The canonical bytes that told requests would have as the lane's next events, with what the engine adds."""
        leaves = []
        floor_us = self.floor_us
        for sequence, joined in enumerate(joins, self.next_sequence):
            frame = self.open[joined.request]
            assert is_told(frame), "nothing was told of the request"
            told = leaf_of(frame)
            time_us = believed(time_us_of(told))
            floor_us = time_us if time_us > floor_us else floor_us + 1
            leaves.append(joined_leaf(told, sequence, floor_us, joined))
        return leaves

    def take_open(self, request: bytes, frame: bytes) -> None:
        """Count an intent that is written, or what was told."""
        if request not in self.open:
            self.opened += 1
        self.open[request] = frame

    def take_event(self, leaf: bytes) -> None:
        """Count an event that is written."""
        self.next_sequence += 1
        self.floor_us = time_us_of(leaf)
        self.unsealed.append(leaf)
        if is_usage(leaf):
            self.closed += 1
            if self.open.pop(request_of(leaf), None) is None:
                self.opened += 1

    def next_batch(self, count: int, wall_us: int) -> tuple[list[bytes], int]:
        """The next `count` events to seal, and the `complete_to` that may stand in their seal."""
        if count < len(self.unsealed):
            return self.unsealed[:count], time_us_of(self.unsealed[count]) - 1
        # Nothing is left: the lane is complete up to now, because whatever comes later is written above it.
        self.floor_us = max(self.floor_us, wall_us)
        return self.unsealed[:count], self.floor_us

    def take_seal(self, seal: Seal) -> None:
        """Count a seal that is published."""
        del self.unsealed[: seal.events]
        self.number = seal.number + 1
        self.sealed = seal.last
        self.sealed_closed = seal.closed

    @contextmanager
    def beginning_epoch(self, epoch: bytes) -> Iterator[None]:
        """Number from the start again; everything so far is sealed. What fails within leaves all as it was."""
        assert not self.unsealed
        before = {each.name: getattr(self, each.name) for each in fields(self)}
        before["open"] = dict(self.open)
        self.epoch, self.number, self.sealed, self.next_sequence = epoch, 0, 0, 1
        self.unsealed = []
        try:
            yield
        except BaseException:
            for name, value in before.items():
                setattr(self, name, value)
            raise

    def end_open(self, wall_us: int, reason: str) -> None:
        """End each open request: as it was told, else with an `interrupted` event."""
        for frame in list(self.open.values()):
            self.take_event(self.ended(frame, wall_us, reason))

    def ended(self, frame: bytes, wall_us: int, reason: str) -> bytes:
        """The canonical bytes of an open request's event when it has to end now."""
        if is_told(frame):
            told = leaf_of(frame)
            time_us = min(time_us_of(told), wall_us)
            return joined_leaf(told, self.next_sequence, max(time_us, self.floor_us + 1), None)
        return self.pack(interrupted(intent_of(frame), wall_us, reason), wall_us)

    def opening(self, previous: str | None) -> tuple[Opening, list[bytes]]:
        """The opening of a segment that takes over here, and the frames that it carries."""
        usage_events = sum(map(is_usage, self.unsealed))
        carried = [*self.open.values(), *map(event_frame, self.unsealed)]
        opening = Opening(
            epoch=self.epoch,
            previous=bytes.fromhex(previous) if previous else None,
            next_sequence=self.next_sequence - len(self.unsealed),
            floor_us=time_us_of(self.unsealed[0]) - 1 if self.unsealed else self.floor_us,
            opened=self.opened - len(self.open) - usage_events,
            closed=self.closed - usage_events,
            carried=len(carried),
        )
        return opening, carried


def interrupted(intent: Intent, time_us: int, reason: str) -> Event:
    """The event of a request whose end nobody saw."""
    return Event(
        kind="usage",
        time_us=time_us,
        request=intent.request,
        names=None,
        customer=intent.customer,
        project=intent.project,
        key=intent.key,
        endpoint=intent.endpoint,
        model=intent.model,
        outcome="interrupted",
        prompt_tokens=0,
        cached_tokens=0,
        completion_tokens=0,
        reasoning_tokens=0,
        generated_tokens=None,
        audio_seconds=0,
        request_digest=None,
        reason=reason,
    )
