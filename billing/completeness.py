"""Is a period's usage there? Which lanes are due, and which of them are not complete up to its end. Pure.

A sidecar's lane is due from its enrolment on, until its final seal, or until a person said that it will never seal again
(`tally node retire`). A due lane is complete up to what its last accepted seal says: everything that it wrote down with
an earlier time has come. Imports are complete by declaration. A lane that another lane of its node told of, and that
nobody enrolled, is incomplete from then on: it counts requests that nobody takes in.

What is not complete at the end of a period is a gap of it, from the instant up to which the lane is complete.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from billing.gaps import INCOMPLETE, Gap


@dataclass(frozen=True, slots=True)
class LaneEnd:
    """How far a lane has come. `complete_to_us` is None before its first accepted seal; `enrolled_us` is, of a lane that
    nobody enrolled, when another lane of its node first told of it.
    """

    node: str
    lane: str
    kind: str
    enrolled_us: int
    complete_to_us: int | None
    ended: bool = False
    retired: bool = False

    @property
    def is_due(self) -> bool:
        """Whether it still has to say that it is complete."""
        return self.kind == "sidecar" and not self.ended and not self.retired


def incomplete(lanes: Iterable[LaneEnd], start: datetime, end: datetime) -> list[Gap]:
    """The gaps of [start, end) that due lanes leave at its end, by node and lane."""
    start_us, end_us = _us(start), _us(end)
    return [
        Gap(lane.node, lane.lane, begins_us, end_us, None, kind=INCOMPLETE)
        for lane in sorted(lanes, key=lambda lane: (lane.node, lane.lane))
        if lane.is_due and lane.enrolled_us < end_us
        for begins_us in [
            max(start_us, lane.enrolled_us if lane.complete_to_us is None else lane.complete_to_us)
        ]
        if begins_us < end_us
    ]


def _us(instant: datetime) -> int:
    return int(instant.timestamp()) * 1_000_000 + instant.microsecond
