"""Intake while what it depends on is down: it waits, says so, and goes on; and COPY as PostgreSQL reads it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from intake_world import World, Writer, make_world
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.archive import BatchObjects
from adapters.objects import FolderObjects
from adapters.postgres.copying import copy_table
from adapters.postgres.database import Database
from adapters.postgres.intake import PostgresLedger
from billing.intake import Intake, Summary
from billing.intake_ports import StoredBatch
from metering.refusal import Unavailable

pytestmark = pytest.mark.anyio


class FullDisk(BatchObjects):
    """An archive whose disk is full until it is mended."""

    full = True

    def put(self, batches: Sequence[StoredBatch]) -> None:
        if self.full:
            raise Unavailable("archive_unavailable", "no space left")
        super().put(batches)


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> World:
    return await make_world(database, tmp_path)


async def test_a_full_disk_accepts_nothing_and_acknowledges_nothing(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    archive = FullDisk(FolderObjects(world.data / "archive"))
    intake = Intake(
        world.wire,
        PostgresLedger(world.database),
        archive,
        BatchObjects(FolderObjects(world.data / "held")),
        clock=lambda: world.now,
    )
    world.wire.send(writer.seal())
    with pytest.raises(Unavailable):
        await intake.take_pending()
    assert len(world.wire.sent) == 1
    assert await world.usage() == {"requests": 0, "prompt_tokens": 0}

    archive.full = False
    assert await intake.take_pending() == Summary(accepted=1, events=3)


async def test_a_running_intake_outlives_connections_that_are_cut(world: World, postgres: object) -> None:
    writer = Writer()
    await world.enrol(writer)
    stop = asyncio.Event()
    running = asyncio.create_task(world.intake().run(stop, poll_every=timedelta(milliseconds=20)))
    for _ in range(5):
        world.wire.send(writer.seal())
        await asyncio.sleep(0.03)
        async with world.database.intake() as conn:  # a login may end sessions of its own
            await conn.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE usename = current_user AND datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
    async with asyncio.timeout(30):
        while world.wire.sent:  # noqa: ASYNC110 - the wire is a plain dictionary
            await asyncio.sleep(0.01)
    stop.set()
    await running
    assert (await world.usage())["requests"] == 15


async def test_postgresql_reads_every_type_back_as_it_was(world: World) -> None:
    rows = pa.table(
        {
            "id": pa.array([b"a" * 16, None], pa.binary(16)),
            "at": pa.array([datetime(2026, 10, 5, 8, 0, 0, 1, UTC)] * 2, pa.timestamp("us", "UTC")),
            "word": pa.array(["žalias", None]).dictionary_encode(),
            "small": pa.array([-(2**31), 2**31 - 1], pa.int32()),
            "big": pa.array([-(2**63), 2**63 - 1], pa.int64()),
            "yes": pa.array([True, False]),
        }
    )
    async with world.database.intake() as conn:
        await conn.execute(
            text(
                "CREATE TEMP TABLE kinds (id uuid, at timestamptz, word text, small integer, big bigint, yes boolean)"
            )
        )
        await copy_table(conn, "kinds", rows)
        found = (await conn.execute(text("SELECT * FROM kinds ORDER BY big"))).all()
    at = datetime(2026, 10, 5, 8, 0, 0, 1, UTC)
    assert [tuple(row) for row in found] == [
        (uuid.UUID(bytes=b"a" * 16), at, "žalias", -(2**31), -(2**63), True),
        (None, at, None, 2**31 - 1, 2**63 - 1, False),
    ]


class Stumbling(PostgresLedger):
    """A ledger with a bug that shows for one operator."""

    async def known_customers(self, operator: str, ids: Collection[bytes]) -> Collection[bytes]:
        if operator == "veliau":
            raise RuntimeError("a bug")
        return await super().known_customers(operator, ids)


async def test_a_running_intake_outlives_a_fault_that_concerns_one_operator(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    theirs, writer = Writer(operator="veliau"), Writer()
    async with world.database.app("veliau") as conn:
        await conn.execute(text("INSERT INTO operator VALUES ('veliau')"))
    await world.enrol(theirs, writer)
    intake = Intake(
        world.wire,
        Stumbling(world.database),
        BatchObjects(FolderObjects(world.data / "archive")),
        BatchObjects(FolderObjects(world.data / "held")),
        clock=lambda: world.now,
    )
    world.wire.send(theirs.seal(), writer.seal())
    with pytest.raises(RuntimeError, match="a bug"):
        await intake.take_pending()
    assert (await world.usage())["requests"] == 3
    assert len(world.wire.sent) == 1, "what failed is not acknowledged"

    stop = asyncio.Event()
    running = asyncio.create_task(intake.run(stop, poll_every=timedelta(milliseconds=20)))
    world.wire.send(writer.seal())
    async with asyncio.timeout(10):
        while len(world.wire.sent) > 1:  # noqa: ASYNC110 - the wire is a plain dictionary
            await asyncio.sleep(0.01)
    stop.set()
    await running
    assert (await world.usage())["requests"] == 6
    assert "usage of operator veliau is not taken in: RuntimeError" in caplog.text
    assert "Traceback" in caplog.text


async def test_held_batches_whose_files_are_gone_keep_no_other_lane_waiting(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them are due than a poll takes; when the files are back, they are taken up within a minute."""
    monkeypatch.setattr("billing.intake.POLL_BATCHES", 3)
    broken, whole = [Writer(lane=f"a-{n}") for n in range(5)], Writer(lane="b")
    await world.enrol(*broken, whole)
    intake = world.intake()
    firsts = [writer.seal(1) for writer in (*broken, whole)]
    world.wire.send(*(writer.seal(1) for writer in (*broken, whole)))
    assert await intake.take_pending() == Summary(held=6)
    held, away = world.data / "held" / "telecentras" / "vilnius-1", world.data / "away"
    away.mkdir()
    for writer in broken:
        (held / writer.lane).rename(away / writer.lane)
    world.wire.send(*firsts)
    assert await intake.take_pending() == Summary(accepted=7, events=7), "of b both"
    for writer in broken:
        (away / writer.lane).rename(held / writer.lane)
    assert await intake.take_pending() == Summary()
    world.now += timedelta(minutes=1)
    assert await intake.take_pending() == Summary(accepted=5, events=5)


async def test_operators_take_turns_with_what_is_due_and_one_that_failed_is_passed_over(world: World) -> None:
    async with world.database.app("aaa") as conn:
        await conn.execute(text("INSERT INTO operator VALUES ('aaa')"))
    many = [Writer(operator="aaa", node="n", lane=f"lane-{n}") for n in range(4)]
    own = Writer()
    await world.enrol(*many, own)
    intake, ledger = world.intake(), PostgresLedger(world.database)
    for writer in (*many, own):
        writer.seal(0)
        world.wire.send(writer.seal(0), writer.seal(0))
    await intake.take_pending()
    async with world.database.app(
        "aaa"
    ) as conn:  # what was missing never comes: the first of each lane is due
        await _go_on_with_the_first(conn, "aaa")
    async with world.database.app("telecentras") as conn:
        await _go_on_with_the_first(conn, "telecentras")

    async def due(**without: Collection[str]) -> list[str]:
        paths = await ledger.due(world.now, 4, **without)
        return ["/".join(path.split("/")[:3]) for path in paths]

    one = "telecentras/vilnius-1/sidecar-0"
    assert await due() == ["aaa/n/lane-0", one, "aaa/n/lane-1", one]
    assert await due(failed=["aaa"]) == [one, one]
    first = (await ledger.due(world.now, 1))[0]
    assert (await due(damaged=[first]))[0] == "aaa/n/lane-1"


async def _go_on_with_the_first(conn: AsyncConnection, operator: str) -> None:
    await conn.execute(
        text("""
            INSERT INTO decision (operator, id, kind, node, lane, epoch, number, hash, after, reason, decided_at)
            SELECT operator, gen_random_uuid(), 'accept_hole', node, lane, epoch, number, hash, 'genesis', 'why', now()
            FROM held WHERE operator = :operator AND number = 1
        """),
        {"operator": operator},
    )
