"""Seeds of the simulated world: nothing lost, nothing double; and bugs that are planted to see that seeds find them.

A failing seed says its number and what happened in it. It runs again, the same, by

    TALLY_SEEDS=17 pytest tests/simulation          one seed; 100-199 is a range

`make test` runs the first 50 seeds, `make proof` 1,000.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from planted import PLANTED, Plant
from seeded import simulate

from adapters.postgres.database import Database, DatabaseUrls

pytestmark = pytest.mark.anyio

Live = Callable[..., Awaitable[list[str]]]


def _seeds(default: str) -> range:
    first, _, last = os.environ.get("TALLY_SEEDS", default).partition("-")
    return range(int(first), int(last or first) + 1)


@pytest.fixture(scope="module")
async def simulated_database(
    fresh_urls: Callable[[], DatabaseUrls],
) -> AsyncIterator[tuple[Database, asyncpg.Connection[Any]]]:
    """One database for all seeds, and a superuser's connection into it: the auditor's, and the sweeper's."""
    urls = await asyncio.to_thread(fresh_urls)
    database = await Database.open(urls)
    connection = await asyncpg.connect(urls.app.replace("tally_app:tally_app-secret", "postgres:"))
    yield database, connection
    await connection.close()
    await database.close()


@pytest.fixture
def live(simulated_database: tuple[Database, asyncpg.Connection[Any]], tmp_path: Path) -> Live:
    """`await live(seed)`: what is wrong at its end."""
    database, connection = simulated_database

    async def one(seed: int, plant: Plant | None = None) -> list[str]:
        folder = tmp_path / str(seed)
        folder.mkdir()
        return await simulate(seed, folder, database, connection, plant=plant)

    return one


@pytest.mark.parametrize("seed", _seeds("0-49"))
async def test_nothing_is_lost_or_double_whatever_happens(live: Live, seed: int) -> None:
    found = await live(seed)
    assert not found, "\n".join(found)


@pytest.mark.proof
@pytest.mark.parametrize("seed", _seeds("0-999"))
async def test_nothing_is_lost_or_double_in_a_thousand_worlds(live: Live, seed: int) -> None:
    found = await live(seed)
    assert not found, "\n".join(found)


async def test_a_seed_does_the_same_again(live: Live, tmp_path: Path) -> None:
    """Down to the bytes: every seal in the archive has the same name, because the same was sealed."""

    def archived() -> set[str]:
        return {path.name for path in (tmp_path / "7").glob("archive/**/*.seal")}

    await live(7)
    first = archived()
    (tmp_path / "7").rename(tmp_path / "before")
    await live(7)
    assert first == archived() != set()


@pytest.mark.parametrize("name", PLANTED)
async def test_a_planted_bug_is_found_within_fifty_seeds(live: Live, name: str) -> None:
    plant, known = PLANTED[name]
    for seed in sorted(
        range(50), key=lambda seed: seed != known
    ):  # the one that found it last is asked first
        if await live(seed, plant):
            print(f"{name}: found by seed {seed}")
            return
    pytest.fail(f"no seed found the planted bug: {name}")
