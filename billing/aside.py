"""What is set aside, bounded: pure.

Anybody who may write to a topic may write anything, and as much as he likes. What no enrolled key vouches for is kept,
because it may be of a lane that is enrolled tomorrow; but of one claimed lane only so much, and so much in all. What is
beyond that is counted, under the lane's name where that lane is enrolled and under nobody's where not, so that the list
of what is set aside is bounded too. Nothing honest is lost by it: its shipper has no acknowledgement, and sends it again.

Where the spool itself is the source everything is kept: an acknowledged batch would be gone, and who writes there sits
on this machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from billing.inspection import LaneName
from billing.intake_ports import AsideSoFar, SetAside

#: The code under which what is not kept is counted.
NOT_KEPT = "not_kept"


@dataclass(frozen=True, slots=True)
class MostAside:
    """How many batches are kept: of one claimed lane, and in all. A batch has at most 1 MB."""

    of_a_lane: int = 100
    in_all: int = 1_000


def keep_within(
    batches: Sequence[SetAside], so_far: AsideSoFar, most: MostAside
) -> tuple[list[SetAside], list[SetAside]]:
    """Which of them are kept, and which are only counted. One that lies among the kept already stays there."""
    kept: list[SetAside] = []
    counted: list[SetAside] = []
    in_all, of_lanes = so_far.in_all, Counter(so_far.of_lanes)
    for batch in batches:
        if batch.delivery.held_path is not None:
            kept.append(batch)
        elif in_all < most.in_all and of_lanes[batch.claimed] < most.of_a_lane:
            kept.append(batch)
            in_all += 1
            of_lanes[batch.claimed] += 1
        else:
            counted.append(batch)
    return kept, counted


def counts(batches: Sequence[SetAside], enrolled: Collection[LaneName]) -> dict[LaneName | None, int]:
    """How many are to be counted under which lane: those that are enrolled have a name here, all others have none."""
    return dict(Counter(batch.claimed if batch.claimed in enrolled else None for batch in batches))
