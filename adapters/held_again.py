"""What is held and not listed, taken up again: after a restore.

Which batches are held is in no log. What was held after the backup was made lies in the held store all the same, and its
sender may have let it go. So it is delivered once more: intake lists it again, or accepts it, or knows it already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from sqlalchemy import select

from adapters.archive import BatchObjects
from adapters.nowhere import Nowhere
from adapters.postgres.database import Database
from adapters.postgres.intake import PostgresLedger
from adapters.postgres.schema import held, set_aside
from billing.inspection import Delivery
from billing.intake import Intake
from billing.objects import Objects

_SEAL = ".seal"


async def take_held_again(
    database: Database, archive: Objects, store: Objects, clock: Callable[[], datetime]
) -> int:
    """Delivers what is held and listed nowhere; returns how many batches that were. One that intake does not hold again
    is taken away: it is accepted, in the archive."""
    lying = await asyncio.to_thread(lambda: sorted(_paths(store)))
    known = await _listed(database) if lying else set()
    unlisted = [path for path in lying if path not in known]
    batches = BatchObjects(store)
    intake = Intake(Nowhere(), PostgresLedger(database), BatchObjects(archive), batches, clock=clock)
    for path in unlisted:
        stored = await asyncio.to_thread(batches.get, path)
        if stored is not None:
            await intake.take([Delivery(stored.note, stored.body)])
    listed = await _listed(database) if unlisted else set()
    await asyncio.to_thread(batches.remove, [path for path in unlisted if path not in listed])
    return len(unlisted)


def _paths(store: Objects) -> set[str]:
    """The batches in a store, by path."""
    found = set()
    for name in store.list(""):
        folder, _, last = name.rpartition("/")
        if last.startswith("_") and last.endswith(_SEAL):
            found.add(f"{folder}/{last[1:].removesuffix(_SEAL)}")
    return found


async def _listed(database: Database) -> set[str]:
    async with database.intake() as connection:
        return {
            path
            for table in (held, set_aside)
            for path in (await connection.execute(select(table.c.path))).scalars()
        }
