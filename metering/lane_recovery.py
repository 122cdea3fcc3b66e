"""What a lane was left as: its state, read from its newest write-ahead segment and its newest seal.

The segment says as well which events were written last, sealed or not: whoever keeps something beside the lane, and
less often, learns there what it has missed (`last_written`).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from metering.canonical import is_usage, is_witnessed, names_of, request_of, sequence_of
from metering.event import Event
from metering.lane_folder import Head
from metering.lane_state import LaneState
from metering.refusal import Refusal
from metering.told import events_of
from metering.write_ahead import Segment, is_event, leaf_of, request_in

#: So many of the events that were written last.
MOST_WRITTEN = 1_000


@dataclass(frozen=True, slots=True)
class LastWritten:
    """Of the newest segment: usage events that have not the engine's figure, in their order, and which requests are
    named by another event, an amendment or a void."""

    unwitnessed: tuple[Event, ...] = ()
    amended: frozenset[bytes] = frozenset()


def last_written(segment: Segment | None) -> LastWritten:
    """What the segment that a lane was left with says of its last events."""
    unwitnessed: OrderedDict[bytes, bytes] = OrderedDict()
    amended: set[bytes] = set()
    for frame in segment.frames if segment else ():
        if not is_event(frame):
            continue
        leaf = leaf_of(frame)
        if not is_usage(leaf):
            amended.add(names_of(leaf))
        elif not is_witnessed(leaf):
            unwitnessed[request_of(leaf)] = leaf
            if len(unwitnessed) > MOST_WRITTEN:
                unwitnessed.popitem(last=False)
    return LastWritten(tuple(events_of(list(unwitnessed.values()))), frozenset(amended))


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
    for frame in segment.frames:
        if not is_event(frame):
            state.take_open(request_in(frame), frame)
        elif sequence_of(leaf := leaf_of(frame)) == state.next_sequence:
            state.take_event(leaf)
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
