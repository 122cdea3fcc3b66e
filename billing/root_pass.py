"""The second pass: whether accepted batches have the Merkle root that their seals say.

The root is what a proof of one event leads to, and costs more than all other checks together (about 1.1 µs an event). So
intake recomputes it at once where little has come, and else leaves it to this pass, which takes the batches from the
archive when there is nothing to take in. What it proves besides is that the archive gives back what was put there.

A batch whose root does not hold was accepted and is counted: its events, totals and digest are those that its lane
signed. But nothing can be proven of them, so it is listed with the reason, and no period that it may touch is closed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from billing.intake_ports import BatchStore, Ledger, RootFault, Unchecked
from metering.batch import check_root, peek_seal, read_body, seal_hash
from metering.refusal import Refusal

logger = logging.getLogger(__name__)

#: Batches of one transaction of the pass, and so many that intake checks with everything else.
ROOTS_AT_ONCE = 10


async def check_roots(ledger: Ledger, archive: BatchStore, limit: int = ROOTS_AT_ONCE) -> int:
    """Recomputes the roots of some batches; returns of how many. Raises `Unavailable` where archive or ledger are."""
    async with ledger.unchecked(limit) as roots:
        if not roots.batches:
            return 0
        faults = await asyncio.to_thread(_faults, roots.batches, archive)
        wrong = {fault.batch for fault in faults}
        await roots.settle([batch for batch in roots.batches if batch not in wrong], faults)
    for fault in faults:
        logger.error("the root of batch %s of %s: %s", fault.batch.place, fault.batch.name, fault.what)
    return len(roots.batches)


def _faults(batches: Sequence[Unchecked], archive: BatchStore) -> list[RootFault]:
    found = []
    for batch in batches:
        try:
            _check(batch, archive)
        except Refusal as refused:
            found.append(RootFault(batch, refused.what))
    return found


def _check(batch: Unchecked, archive: BatchStore) -> None:
    stored = archive.get(batch.path)
    if stored is None:
        raise Refusal("not_archived", "it is not in the archive any more")
    if seal_hash(stored.note) != batch.hash:
        raise Refusal("bad_seal", "the seal in the archive is not the one that was accepted")
    seal = peek_seal(stored.note)
    check_root(seal, read_body(seal, stored.body))
