"""What a lane was left as: its state, read from its newest write-ahead segment and its newest seal."""

from __future__ import annotations

from metering.canonical import sequence_of
from metering.lane_folder import Head
from metering.lane_state import LaneState
from metering.refusal import Refusal
from metering.write_ahead import Segment, is_event, leaf_of, request_in


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
