"""A person decides about what is held of a lane: the held files are read for what is lost, the decision is written down.
Of an accepted batch whose root does not hold the archive is asked once more first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

from adapters.archive import BatchObjects
from adapters.archive_reading import BatchReader
from adapters.postgres.database import Database
from adapters.postgres.decisions import add_decision, decide, paths_of_numbers
from adapters.postgres.roots import faulty_root, faulty_roots, unproven
from billing import repair
from billing.held_cases import HeldBatch, branch_up_to
from billing.inspection import LaneName
from billing.intake_ports import RootFault
from billing.repair import SHORTEST_HASH, Decision, LaneNow, Lost
from billing.root_pass import settle_roots
from metering.batch import Seal, peek_seal, read_body
from metering.refusal import Refusal


async def repair_lane(
    database: Database,
    held: BatchObjects,
    archive: BatchReader,
    name: LaneName,
    kind: str,
    hash: str,
    reason: str,
    at: datetime,
) -> Sequence[Decision]:
    """Decides as `kind` (keep, drop, accept_hole) says about the held batch whose hash begins with `hash`.

    Refusals as `billing.repair` has them; nothing is kept then.
    """

    async def make(lane: LaneNow) -> Sequence[Decision]:
        made = (
            repair.drop(lane, hash, reason)
            if kind == repair.DROP
            else repair.go_on_with(lane, hash, kind, reason)
        )
        wanted = {each.hash for each in made if each.kind == repair.DROP}
        wanted |= {
            branch_up_to(lane.held, each.hash)[0].hash
            for each in made
            if each.kind == repair.ACCEPT_HOLE and each.hash is not None
        }
        seals: dict[str, Seal] = {}
        losses: dict[str, Lost | None] = {}
        for batch in lane.held:
            if batch.hash in wanted:
                seal, losses[batch.hash] = await _lost(database, held, archive, lane, batch)
                if seal is not None:
                    seals[batch.hash] = seal
        return repair.with_losses(lane, made, seals, losses)

    return await decide(database, name, make, at)


async def repair_root(
    database: Database, archive: BatchObjects, operators: Sequence[str], hash: str, reason: str, at: datetime
) -> tuple[RootFault, Decision | None]:
    """What was wrong with the one accepted batch whose hash begins so, and the decision that nothing will prove it; None
    where the archive gives it back whole now: it is proven then, and there is nothing to decide.

    Refusal `unknown_batch`.
    """
    found = []
    for operator in operators if len(hash) >= SHORTEST_HASH else ():
        async with database.app(operator) as conn:
            found += await faulty_roots(conn, hash)
    if len(found) != 1:
        raise Refusal(
            "unknown_batch",
            f"{'several accepted batches' if found else 'no accepted batch'} with the hash {hash[:64]} whose root does"
            " not hold",
            where="--root",
            remedy="`tally streams` names them; at least the first 8 digits, as many as tell them apart",
        )
    [(batch, _)] = found
    async with faulty_root(database, batch) as roots:
        faults = await settle_roots(roots, archive, at)
    if not faults:
        return RootFault(batch, batch.fault or ""), None
    async with database.app(batch.name.operator) as conn:
        made = await unproven(conn, batch, reason)
        await add_decision(conn, made, at)
    return faults[0], made


async def _lost(
    database: Database, held: BatchObjects, archive: BatchReader, lane: LaneNow, batch: HeldBatch
) -> tuple[Seal | None, Lost | None]:
    """The batch's seal, None where its files are gone, and what is lost with it."""
    stored = await asyncio.to_thread(held.get, batch.path)
    if stored is None:
        at_us = lane.complete_to_us
        return None, None if at_us is None else Lost(at_us, at_us, None)
    seal = peek_seal(stored.note)
    try:
        events = read_body(seal, stored.body) if seal.events else None
    except Refusal:  # a damaged body is why some are held
        events = None
    async with database.app(lane.name.operator) as conn:
        paths = await paths_of_numbers(conn, lane.name, seal.epoch, seal.first, seal.last)
    accepted = [await asyncio.to_thread(archive.events, path) for path in paths]
    return seal, repair.lost_of(seal, events, accepted)
