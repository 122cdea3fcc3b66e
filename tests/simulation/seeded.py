"""One seed, from an empty database to the auditor's word: what makes it the same each time.

Ids and epochs come from the seed and not from the system, an fsync costs nothing (what a power cut takes is the recorded
disk's to say), and whoever is to die at a step raises `Killed`. All seeds of a run share one database, which is swept.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from planted import Plant
from turns import Killed
from world import World

from adapters.postgres.database import Database
from metering import identity, steps


async def swept(connection: asyncpg.Connection[Any]) -> None:
    """Empties every table but for the installation's own operator; partitions stay."""
    names = await connection.fetch(
        "SELECT format('%I', relname) AS name FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition"
        " AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'"
    )
    async with connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")  # no trigger, no foreign key
        deletes = [f"DELETE FROM {row['name']}" for row in names if row["name"] != "operator"]
        await connection.execute(";".join([*deletes, "DELETE FROM operator WHERE operator <> '*'"]))


@contextmanager
def by_chance(seed: int) -> Iterator[pytest.MonkeyPatch]:
    """The system's chance comes from the seed, fsync is free, and who is to die at a step raises `Killed`."""
    chance = random.Random(f"system {seed}")

    def die(*_: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(os, "urandom", chance.randbytes)
        monkeypatch.setattr(os, "fsync", lambda _: None)
        monkeypatch.setattr(steps, "os", SimpleNamespace(getpid=os.getpid, kill=die))
        identity._pool.clear()
        yield monkeypatch
        identity._pool.clear()
        steps._kill_at = None


async def simulate(
    seed: int,
    folder: Path,
    database: Database,
    connection: asyncpg.Connection[Any],
    *,
    plant: Plant | None = None,
    steps: int = 120,
    faults: float = 0.12,
) -> list[str]:
    """Lives one seed and returns what is wrong at its end, with what had happened; empty if nothing is."""
    await swept(connection)
    with by_chance(seed) as monkeypatch:
        world = World(seed, folder, database, monkeypatch, connection)
        monkeypatch.setattr(asyncio, "to_thread", world.turns.to_thread)
        if plant is not None:
            plant(monkeypatch, world.turns)
        try:
            await world.begin()
            await world.live(steps, faults)
            await world.rest()
            found = await world.audit()
        except Exception as fault:
            fault.add_note(f"seed {seed}: {', '.join(world.told)}")
            raise
        finally:
            await world.end()
    return [*found, f"seed {seed}: {', '.join(world.told)}"] if found else []
