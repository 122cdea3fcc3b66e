"""What stops a close: a month that is not over, batches that are held, imports half taken in, lanes that are not complete
up to its end, usage that nobody wrote down. Some of it a person may sign for, and that is kept with the close.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from billing.completeness import incomplete
from billing.gaps import INCOMPLETE, AcceptedGaps, Gap, accept, in_order
from billing.period import Period
from billing.ports import Book
from billing.site import Operator
from metering.refusal import Refusal


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a person signs for: a month that is not over, usage that is not there."""

    unfinished: bool
    gaps: AcceptedGaps


async def check_held(book: Book, operator: Operator, period: Period) -> None:
    """Refuses `held_batches`: what is verified and not accepted may be usage of any month."""
    held = await book.held_batches(period.bounds(operator.zone)[1])
    if held:
        raise Refusal(
            "held_batches",
            f"{held} batches of {operator.id} are held, so its usage is not whole",
            where=operator.id,
            remedy="`tally streams` names them, why, and what ends it: the missing batch, the time, the restored subject,"
            " a whole copy; or, by a person's decision, `tally intake repair`",
        )


async def check_roots(book: Book, operator: Operator, period: Period) -> None:
    """Refuses `roots_unchecked` and `root_fault`: what is billed can be proven, event by event."""
    roots = await book.open_roots(*period.bounds(operator.zone))
    if roots.faults:
        raise Refusal(
            "root_fault",
            f"the Merkle roots of {roots.faults} batches of {operator.id} do not hold, so nothing can be proven of"
            f" their events: {roots.first_fault} is one",
            where=operator.id,
            remedy="`tally streams` names them and why; restore the archive's files, and `tally intake` finds them within"
            " the hour, `tally intake repair --root HASH --reason WHY` at once; where they are gone for good, that command"
            " bills them unproven, and the usage report says so",
        )
    if roots.unchecked:
        raise Refusal(
            "roots_unchecked",
            f"the Merkle roots of {roots.unchecked} batches of {operator.id} are not recomputed yet",
            where=operator.id,
            remedy="`tally intake` does it beside what comes in, the oldest first; close again when it is through",
        )


async def check_imports(book: Book, operator: Operator, period: Period) -> None:
    """Refuses `import_unfinished`: what a killed import left is not the file's usage."""
    unfinished = await book.unfinished_imports(*period.bounds(operator.zone))
    if unfinished:
        raise Refusal(
            "import_unfinished",
            f"{', '.join(unfinished)} of {operator.id} is not finished, so the usage of {period} is not whole",
            where=unfinished[0],
            remedy="give its command again to finish it, or take back what was accepted with"
            f" `tally import void {unfinished[0]} --reason …`",
        )


def check_time(operator: Operator, period: Period, now: datetime, accept_unfinished: bool) -> bool:
    """Whether the period is still running, which only `accept_unfinished` allows."""
    start, end = period.bounds(operator.zone)
    if now < start:
        raise Refusal("period_not_begun", f"{period} has not begun", remedy="close it once it is over")
    if now < end and not accept_unfinished:
        raise Refusal(
            "period_not_over",
            f"{period} ends at {end.astimezone(operator.zone).isoformat()}",
            remedy="close it then, or close what there is with --accept-unfinished",
        )
    return now < end


async def accepted_gaps(
    book: Book, operator: Operator, period: Period, accepted: AcceptedGaps, *, unfinished: bool
) -> list[Gap]:
    """The period's gaps, each accepted now or at an earlier close of it; refuses `incomplete_lane`,
    `unmetered_interval` else. No lane can be complete to the end of a month that is `unfinished`, and none is asked.
    """
    bounds = period.bounds(operator.zone)
    found = list(await book.gaps(*bounds))
    lacking = incomplete(await book.lane_ends(), *bounds)
    found = in_order([*found, *(gap for gap in lacking if gap.kind != INCOMPLETE or not unfinished)])
    last = await book.last_close(period)
    return accept(found, [] if last is None else last.result["gaps"], accepted, period)


def check_named_gaps(rows: Sequence[Mapping[str, Any]], accepted: AcceptedGaps) -> None:
    """Refuses `no_gap`: who accepts what is not there has named the wrong node or month."""
    closed = [each for row in rows for each in (row, *row["earlier"])]
    there = {gap["node"] for row in closed for gap in row["gaps"]}
    strangers = sorted(set(accepted.nodes) - there)
    if strangers:
        raise Refusal(
            "no_gap",
            f"{', '.join(strangers)} lacks nothing in this period; whether a lane is complete is asked once the month is"
            " over",
            where="--accept-gap",
            remedy=f"those that do: {', '.join(sorted(there))}" if there else "leave the option out",
        )
