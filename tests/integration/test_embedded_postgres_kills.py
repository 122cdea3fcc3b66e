"""SIGKILL of anything at any time: a seeded storm, and after it every row that was committed is there.

Each seed takes a new data folder. First the making of the cluster is cut off at random instants, then a command that
writes rows; the victim is the command, one part of the server, or all of them at once. The next acquire must serve,
whatever is left lying about, and know every row whose commit was told to the command.
"""

from __future__ import annotations

import random
import select
import subprocess
import time
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from embedded_postgres_witness import ask, command, kill, parts

from adapters.postgres.embedded import Embedded, discard

# Writes rows one by one and prints the number of each after its commit, until it is killed.
_WRITER = """
import asyncio, asyncpg
lease = Embedded.acquire(Path(sys.argv[1]))
print("in", flush=True)
async def write():
    server = lease.server
    connection = await asyncpg.connect(user="tally_owner", password=server.passwords["tally_owner"],
        database=server.database, host=str(server.socket_dir), port=server.port)
    await connection.execute("CREATE TABLE IF NOT EXISTS row (number int PRIMARY KEY)")
    number = await connection.fetchval("SELECT coalesce(max(number), 0) FROM row")
    while True:
        number += 1
        await connection.execute("INSERT INTO row VALUES ($1)", number)
        print(number, flush=True)
asyncio.run(write())
"""


@pytest.mark.parametrize("seed", range(2))
def test_what_was_committed_survives_kills_of_anything(seed: int, tmp_path: Path) -> None:
    _storm(seed, tmp_path / "data", kills=1)


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(100, 150))
def test_what_was_committed_survives_fifty_storms(seed: int, tmp_path: Path) -> None:
    _storm(seed, tmp_path / "data", kills=3)


def _storm(seed: int, data: Path, kills: int) -> None:
    """`kills`: how many each of the three scenes has: the first start, beside a lease of ours, and with none."""
    chance = random.Random(seed)
    told = 0
    try:
        for _ in range(kills):
            started = command(_WRITER, data)
            _wait_for_first_part(data, started)
            time.sleep(chance.uniform(0, 0.8))
            _kill_some(chance, data, started)
            told = max(told, _told(started))
        with Embedded.acquire(data) as lease:
            assert _numbers(lease) >= told
            for _ in range(kills):
                # Beside our lease: the writer shares the server, or starts it again where it was killed.
                told = max(told, _write_and_die(chance, data))
                lease.revive()
                assert _numbers(lease) >= told
        for _ in range(kills):
            told = max(told, _write_and_die(chance, data))
        with Embedded.acquire(data) as lease:
            assert _numbers(lease) >= told
        assert parts(data) == []
    finally:
        discard(data)


def _numbers(lease: Embedded) -> int:
    """The largest number, after checking that none below it is missing; 0 where no writer came far enough."""
    if _asked(lease, "SELECT to_regclass('row')::text") is None:
        return 0
    largest, count = _asked(lease, "SELECT array[coalesce(max(number), 0), count(*)] FROM row")
    assert largest == count
    return int(largest)


def _asked(lease: Embedded, statement: str) -> Any:
    """As a client asks: again, for a while, where it meets the server before that has noticed a part's death."""
    give_up = time.monotonic() + 30
    while True:
        try:
            return ask(lease.server, statement)
        except (asyncpg.CannotConnectNowError, asyncpg.PostgresConnectionError, OSError):
            assert time.monotonic() < give_up
            lease.revive()


def _write_and_die(chance: random.Random, data: Path) -> int:
    """Lets a writer work for a moment, kills something, then the writer; returns the last number it was told."""
    started = command(_WRITER, data)
    assert started.stdout is not None
    select.select([started.stdout], [], [], 30)
    time.sleep(chance.uniform(0, 0.3))
    _kill_some(chance, data, started)
    return _told(started)


def _kill_some(chance: random.Random, data: Path, started: subprocess.Popen[str]) -> None:
    victims = parts(data)
    what = chance.choice(("command", "oldest part", "any part", "all parts", "everything"))
    if what in ("command", "everything"):
        kill(started.pid)
    if victims and what == "oldest part":
        kill(victims[0])
    if victims and what == "any part":
        kill(chance.choice(victims))
    if what in ("all parts", "everything"):
        for pid in victims:
            kill(pid)


def _told(started: subprocess.Popen[str]) -> int:
    """Kills the writer and returns the last number that it printed, 0 for none."""
    kill(started.pid)
    out, _ = started.communicate(timeout=60)
    return max((int(line) for line in out.splitlines() if line.isdecimal()), default=0)


def _wait_for_first_part(data: Path, started: subprocess.Popen[str]) -> None:
    give_up = time.monotonic() + 30
    while not parts(data) and started.poll() is None and time.monotonic() < give_up:
        time.sleep(0.005)
