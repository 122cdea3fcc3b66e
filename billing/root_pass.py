"""The second pass: whether accepted batches have the Merkle root that their seals say.

The root is what a proof of one event leads to, and costs more than all other checks together (about 1.1 µs an event). So
intake recomputes it at once where little has come, and else leaves it to this pass, which takes the batches from the
archive, the oldest first. What it proves besides is that the archive gives back what was put there.

Each turn of intake's loop ends with a few of them, so that a source that never pauses starves no close; and with more
once the oldest has waited for some minutes. A turn takes what there is, so the faster batches come, the less of its time
goes into roots: of a sweep of 5 s over full batches 0.18 s, with what it takes to read them, and 0.9 s while behind.

A batch whose root does not hold was accepted and is counted: its events, totals and digest are those that its lane
signed. But nothing can be proven of them, so it is listed with the reason, and no period that it may touch is closed,
until the archive gives it back whole (it is looked at again every hour) or a person decides (billing/repair.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from billing.intake_ports import BatchStore, Ledger, RootFault, Roots, Unchecked
from metering.batch import check_root, peek_seal, seal_hash
from metering.refusal import Refusal

logger = logging.getLogger(__name__)

#: Batches of one transaction of the pass, and so many that intake checks with everything else.
ROOTS_AT_ONCE = 10
#: Batches of one transaction once the oldest of them has waited for so long.
ROOTS_WHEN_BEHIND = 50
BEHIND = timedelta(minutes=5)
#: What did not hold is looked at again after so long: somebody may have restored the archive's file.
AGAIN_AFTER = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Passed:
    """Of how many batches the roots were recomputed, and whether the oldest had waited for too long."""

    batches: int
    is_behind: bool

    @property
    def at_once(self) -> int:
        """How many the next pass takes."""
        return ROOTS_WHEN_BEHIND if self.is_behind else ROOTS_AT_ONCE


async def check_roots(
    ledger: Ledger, archive: BatchStore, now: datetime, limit: int = ROOTS_AT_ONCE
) -> Passed:
    """Recomputes the roots of at most `limit` batches. Raises `Unavailable` where archive or ledger are."""
    async with ledger.unchecked(limit, now - AGAIN_AFTER) as roots:
        if not roots.batches:
            return Passed(0, is_behind=False)
        await settle_roots(roots, archive, now)
        waiting = [batch.accepted_at for batch in roots.batches if batch.fault is None]
    return Passed(len(roots.batches), is_behind=bool(waiting) and now - min(waiting) > BEHIND)


async def settle_roots(roots: Roots, archive: BatchStore, now: datetime) -> Sequence[RootFault]:
    """Recomputes these roots, writes down which hold, and says of the others why they do not."""
    faults = await asyncio.to_thread(_faults, roots.batches, archive)
    wrong = {fault.batch for fault in faults}
    held = [batch for batch in roots.batches if batch not in wrong]
    await roots.settle(held, faults, now)
    for fault in faults:
        if fault.what != fault.batch.fault:
            logger.error("the root of batch %s of %s: %s", fault.batch.place, fault.batch.name, fault.what)
    for batch in held:
        if batch.fault is not None:
            logger.info("the root of batch %s of %s holds again", batch.place, batch.name)
    return faults


def _faults(batches: Sequence[Unchecked], archive: BatchStore) -> list[RootFault]:
    found = []
    for batch in batches:
        try:
            _check(batch, archive)
        except Refusal as refused:
            found.append(RootFault(batch, refused.what))
    return found


def _check(batch: Unchecked, archive: BatchStore) -> None:
    note = archive.note(batch.path)
    if note is None:
        raise Refusal("not_archived", "it is not in the archive any more")
    if seal_hash(note) != batch.hash:
        raise Refusal("bad_seal", "the seal in the archive is not the one that was accepted")
    check_root(peek_seal(note), archive.events(batch.path))
