"""What a lane knows, in memory: open requests, unsealed events, and the numbers that go into seals.

The same rules count an entry when it is written and when it is read back after a kill: an intent opens a request, a
usage event closes one, and a usage event without an intent does both. Nothing here does I/O or looks at a clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from metering.batch import SealedBatch, make_batch
from metering.canonical import is_usage, pack, request_of, sequence_of, table_of, time_us_of
from metering.event import Event
from metering.lane_folder import Head, LaneFolder
from metering.refusal import Refusal
from metering.seal import Seal
from metering.write_ahead import Intent, Opening, Segment, event_frame, intent_frame


@dataclass(slots=True)
class LaneState:
    """`floor_us`: every later time is above it. `number` is the next seal's, `sealed` the last sealed sequence number
    of the epoch, `sealed_closed` the newest seal's `closed`. `unsealed` are canonical bytes, in sequence."""

    epoch: bytes = b""
    next_sequence: int = 1
    floor_us: int = 0
    opened: int = 0
    closed: int = 0
    number: int = 0
    sealed: int = 0
    sealed_closed: int = 0
    open_intents: dict[bytes, Intent] = field(default_factory=dict)
    unsealed: list[bytes] = field(default_factory=list)

    def pack(self, event: Event, time_us: int) -> bytes:
        """The canonical bytes that the event would have as the lane's next one, at that time or just above the last."""
        floor_us = self.floor_us
        return pack(event, self.next_sequence, time_us if time_us > floor_us else floor_us + 1)

    def take_intent(self, intent: Intent) -> None:
        """Count an intent that is written."""
        self.open_intents[intent.request] = intent
        self.opened += 1

    def take_event(self, leaf: bytes) -> None:
        """Count an event that is written."""
        self.next_sequence += 1
        self.floor_us = time_us_of(leaf)
        self.unsealed.append(leaf)
        if is_usage(leaf):
            self.closed += 1
            if self.open_intents.pop(request_of(leaf), None) is None:
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
        """Number from the start again; everything so far is sealed. What fails within leaves the epoch as it was."""
        assert not self.unsealed
        before = self.epoch, self.number, self.sealed, self.next_sequence
        self.epoch, self.number, self.sealed, self.next_sequence = epoch, 0, 0, 1
        try:
            yield
        except BaseException:
            self.epoch, self.number, self.sealed, self.next_sequence = before
            raise

    def interrupt_open(self, wall_us: int) -> None:
        """End each open request with an `interrupted` event."""
        for intent in list(self.open_intents.values()):
            self.take_event(self.pack(interrupted(intent, wall_us), wall_us))

    def opening(self, previous: str | None) -> tuple[Opening, list[bytes]]:
        """The opening of a segment that takes over here, and the frames that it carries."""
        usage_events = sum(map(is_usage, self.unsealed))
        carried = [
            *map(intent_frame, self.open_intents.values()),
            *map(event_frame, self.unsealed),
        ]
        opening = Opening(
            epoch=self.epoch,
            previous=bytes.fromhex(previous) if previous else None,
            next_sequence=self.next_sequence - len(self.unsealed),
            floor_us=time_us_of(self.unsealed[0]) - 1 if self.unsealed else self.floor_us,
            opened=self.opened - len(self.open_intents) - usage_events,
            closed=self.closed - usage_events,
            carried=len(carried),
        )
        return opening, carried


def seal_leaves(
    folder: LaneFolder,
    state: LaneState,
    leaves: list[bytes],
    complete_to_us: int,
    opened: int,
    key: Ed25519PrivateKey,
    *,
    final: bool,
) -> SealedBatch:
    """The lane's next batch, of these events; `opened` counts the requests whose intents are on disk."""
    closed = state.sealed_closed + sum(map(is_usage, leaves))
    return make_batch(
        operator=folder.operator,
        node=folder.node,
        lane=folder.lane,
        kind="sidecar",
        epoch=state.epoch.hex(),
        number=state.number,
        first=state.sealed + 1,
        complete_to_us=complete_to_us,
        opened=max(opened, closed),
        closed=closed,
        previous=folder.previous,
        key=key,
        table=table_of(leaves) if leaves else None,
        leaves=leaves,
        final=final,
    )


def recovered(segment: Segment | None, head: Head | None, where: str) -> LaneState:
    """The state that a lane was left in, from its newest segment and its newest seal.

    Refusals: `lane_ended` after a final seal; `lane_state` if the segment does not follow the head (one of them is
    from another copy of the folder) or has a hole.
    """
    seal = head.seal if head else None
    if seal and seal.final:
        raise Refusal("lane_ended", f"the lane {seal.signer} has ended", remedy="give the sidecar a new lane")
    if segment is None:
        if seal is None:
            return LaneState()
        # The requests that were open when the segment went away are unknown; what the seal says is all there is.
        return LaneState(
            epoch=bytes.fromhex(seal.epoch),
            next_sequence=seal.last + 1,
            floor_us=seal.complete_to_us,
            opened=seal.opened,
            closed=seal.closed,
            number=seal.number + 1,
            sealed=seal.last,
            sealed_closed=seal.closed,
        )
    opening = segment.opening
    same_epoch = seal is not None and seal.epoch == opening.epoch.hex()
    follows = bytes.fromhex(head.hash) if head else None
    if not same_epoch and opening.previous != follows:
        raise _mixed("the write-ahead file does not follow the lane's last seal", where)
    state = LaneState(
        epoch=opening.epoch,
        next_sequence=opening.next_sequence,
        floor_us=opening.floor_us,
        opened=opening.opened,
        closed=opening.closed,
        sealed_closed=seal.closed if seal else 0,
    )
    for entry in segment.entries:
        if isinstance(entry, Intent):
            state.take_intent(entry)
        elif sequence_of(entry) == state.next_sequence:
            state.take_event(entry)
        else:
            raise _mixed("the write-ahead file has a hole in its sequence numbers", where)
    if seal:
        state.floor_us = max(state.floor_us, seal.complete_to_us)
        if same_epoch:
            state.number, state.sealed = seal.number + 1, seal.last
    unsealed = [leaf for leaf in state.unsealed if sequence_of(leaf) > state.sealed]
    if state.next_sequence - len(unsealed) != state.sealed + 1:
        raise _mixed("events that are sealed, or follow a seal, are missing from the write-ahead file", where)
    state.unsealed = unsealed
    return state


def _mixed(what: str, where: str) -> Refusal:
    return Refusal(
        "lane_state",
        what,
        where=where,
        remedy="the folder was mixed from two copies: give the sidecar a new lane, keep this folder for the audit",
    )


def interrupted(intent: Intent, time_us: int) -> Event:
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
    )
