"""Polls: how arrivals are cut into transactions, and how a fault stays with the operator whose it is.

A poll holds batches of many operators, because one commit for all of them is what makes intake fast. Where such a
transaction fails for a reason that nobody foresaw, its batches are tried again operator by operator: whoever is not
concerned goes on, and whoever is, is named. The fault itself is kept, and raised when the sweep is through.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

from billing.inspection import Delivery, LaneName, claimed_lane
from billing.intake_ports import Held
from metering.refusal import Unavailable

logger = logging.getLogger(__name__)

T = TypeVar("T")


def next_poll(arrivals: Iterator[Delivery], most: int, size_bytes: int) -> list[Delivery]:
    """The next batches of a sweep, at most `most` and about `size_bytes`; empty at its end."""
    poll: list[Delivery] = []
    size = 0
    while len(poll) < most and size < size_bytes:
        delivery = next(arrivals, None)
        if delivery is None:
            break
        poll.append(delivery)
        size += len(delivery.note) + len(delivery.body)
    return poll


def still_going(deliveries: Sequence[Delivery], failed: dict[str, Exception]) -> list[Delivery]:
    """Those of operators that have not failed; what claims nothing readable goes under ''."""
    return [each for each in deliveries if _operator(each) not in failed] if failed else list(deliveries)


async def take_apart(
    take: Callable[[Sequence[Delivery]], Awaitable[T]],
    deliveries: Sequence[Delivery],
    failed: dict[str, Exception],
) -> list[T]:
    """Takes all at once, and where that fails operator by operator; whose fails again is added to `failed`.

    Raises `Unavailable` as `take` does: that is nobody's fault, and nothing else would go on either.
    """
    going = still_going(deliveries, failed)
    if not going:
        return []
    try:
        return [await take(going)]
    except Unavailable:
        raise
    except Exception:
        logger.warning("a transaction of %d batches failed; they are tried operator by operator", len(going))
    shares: dict[str, list[Delivery]] = defaultdict(list)
    for delivery in going:
        shares[_operator(delivery)].append(delivery)
    taken: list[T] = []
    for operator, share in sorted(shares.items()):
        try:
            taken.append(await take(share))
        except Unavailable:
            raise
        except Exception as fault:
            logger.error("usage of operator %s is not taken in: %s", operator, type(fault).__name__)
            failed[operator] = fault
    return taken


class Outages:
    """What of intake's loop is down: said once when it begins, and once when it is over, however often it is tried."""

    def __init__(self) -> None:
        self._down: dict[str, tuple[str, str]] = {}  # part → code and what

    async def survives(self, part: str, work: Callable[[], Awaitable[object]]) -> bool:
        """Does `work`, a `part` of the loop; False where it failed. What is down is logged in one line, a bug with its
        traceback, each time.
        """
        try:
            await work()
        except Unavailable as down:
            if self._down.get(part, ("", ""))[0] != down.code:
                logger.warning("%s; intake tries again, nothing is lost", down.what)
            self._down[part] = (down.code, down.what)
            return False
        except Exception:
            logger.exception("a part of intake failed; the rest goes on, and it is tried again")
            return False
        over = self._down.pop(part, None)
        if over is not None:
            logger.warning("%s: that is over, intake goes on", over[1])
        return True


def _operator(delivery: Delivery) -> str:
    claimed = claimed_lane(delivery)
    return "" if claimed is None else claimed.operator


def say_held(held: Sequence[Held]) -> None:
    """A line a lane and reason: whoever sends a flood of them does not fill the log."""
    of_lanes: dict[tuple[LaneName, str], list[Held]] = defaultdict(list)
    for batch in held:
        of_lanes[batch.inspected.name, batch.refusal.code].append(batch)
    for (name, code), batches in of_lanes.items():
        logger.warning(
            "%d batches of %s are held (%s); the first: %s", len(batches), name, code, batches[0].refusal.what
        )
