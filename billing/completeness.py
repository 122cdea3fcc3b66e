"""Is a period's usage there? Which lanes are due, and which of them are not complete up to its end. Pure.

A sidecar's lane is due from its enrolment on, until its final seal, or until a person said that it will never seal again
(`tally node retire`). A due lane is complete up to what its last accepted seal says: everything that it wrote down with
an earlier time has come. Imports are complete by declaration. A lane that another lane of its node told of, and that
nobody enrolled, is incomplete from then on: it counts requests that nobody takes in. So is one that was enrolled after
the period's end, where it spoke of the period: its first seal, the request to enrol it, another lane's word of it.

What is not complete at the end of a period is a gap of it, from the instant up to which the lane is complete. So is what
a lane may have served between its last accepted seal and the moment when a person retired it; that one has its reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from billing.gaps import INCOMPLETE, RETIRED, Gap


@dataclass(frozen=True, slots=True)
class LaneEnd:
    """How far a lane has come. `complete_to_us` is None before its first accepted seal. `since_us`: the earliest instant
    that anything tells of it: its enrolment or the request for that, its first accepted seal, another lane of its node.
    `retired_us`, `reason`: when and why a person said that it will never seal again.
    """

    node: str
    lane: str
    kind: str
    since_us: int
    complete_to_us: int | None
    ended: bool = False
    retired_us: int | None = None
    reason: str | None = None

    @property
    def is_due(self) -> bool:
        """Whether it still has to say that it is complete."""
        return self.kind == "sidecar" and not self.ended and self.retired_us is None


def incomplete(lanes: Iterable[LaneEnd], start: datetime, end: datetime) -> list[Gap]:
    """The gaps of [start, end) that due and retired lanes leave, by node and lane."""
    start_us, end_us = _us(start), _us(end)
    gaps = [_gap(lane, start_us, end_us) for lane in sorted(lanes, key=lambda lane: (lane.node, lane.lane))]
    return [gap for gap in gaps if gap.begins_us < gap.ends_us]


def _gap(lane: LaneEnd, start_us: int, end_us: int) -> Gap:
    """What the lane lacks of the period; empty where that is nothing."""
    begins_us = max(start_us, lane.since_us if lane.complete_to_us is None else lane.complete_to_us)
    if lane.is_due:
        return Gap(lane.node, lane.lane, begins_us, end_us, None, kind=INCOMPLETE)
    ends_us = begins_us if lane.ended or lane.retired_us is None else min(end_us, lane.retired_us)
    return Gap(lane.node, lane.lane, begins_us, ends_us, None, lane.reason, RETIRED)


def _us(instant: datetime) -> int:
    return int(instant.timestamp()) * 1_000_000 + instant.microsecond
