"""What is set aside, bounded: pure.

Anybody who may write to a topic may write anything, and as much as he likes. What no enrolled key vouches for is kept,
because it may be of a lane that is enrolled tomorrow; but of one claimed lane only so much, and so much in all. What is
beyond that is counted, under the lane's name where that lane is enrolled and under nobody's where not, so that the list
of what is set aside is bounded too. Nothing honest is lost by it: its shipper has no acknowledgement, and sends it again.

What a key signed that was revoked, or that has a newer one, is verified, and held; but whoever stole it may sign without
end. So of these too a lane's first are kept and what comes beyond is counted: what is genuine lies in its node's spool,
for nothing acknowledged it, and is sealed again there.

Where the spool itself is the source everything is kept: an acknowledged batch would be gone, and who writes there sits
on this machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from billing.acceptance import OF_A_STALE_KEY
from billing.inspection import Inspected, LaneName
from billing.intake_ports import AsideSoFar, SetAside, StaleSoFar
from metering.refusal import Refusal

#: The code under which what is not kept is counted.
NOT_KEPT = "not_kept"


@dataclass(frozen=True, slots=True)
class MostAside:
    """How many batches are kept: of one claimed lane, or of one lane under keys that count no more, and in all of what is
    set aside. A batch has at most 1 MB."""

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


def is_stale(pair: tuple[Inspected, Refusal]) -> bool:
    """Whether it is a batch that has just come, and is refused for its key."""
    return pair[1].code in OF_A_STALE_KEY and pair[0].delivery.held_path is None


def hold_within(
    refused: Sequence[tuple[Inspected, Refusal]], so_far: Mapping[LaneName, StaleSoFar], most: MostAside
) -> tuple[list[tuple[Inspected, Refusal]], dict[LaneName, int]]:
    """What is held of the refused, and how many of each lane are only counted. One that is listed already stays so."""
    held: list[tuple[Inspected, Refusal]] = []
    beyond = Counter[LaneName]()
    kept = Counter({name: found.held for name, found in so_far.items()})
    for pair in refused:
        batch = pair[0]
        if not is_stale(pair) or batch.hash in so_far[batch.name].listed:
            held.append(pair)
        elif kept[batch.name] < most.of_a_lane:
            held.append(pair)
            kept[batch.name] += 1
        else:
            beyond[batch.name] += 1
    return held, dict(beyond)


def counts(batches: Sequence[SetAside], enrolled: Collection[LaneName]) -> dict[LaneName | None, int]:
    """How many are to be counted under which lane: those that are enrolled have a name here, all others have none."""
    return dict(Counter(batch.claimed if batch.claimed in enrolled else None for batch in batches))
