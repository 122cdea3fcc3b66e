"""The second pass over accepted batches, on a real PostgreSQL: each root is recomputed once, from the archive."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from intake_world import OPERATOR, World, Writer, make_world
from sqlalchemy import text

from adapters.postgres.database import Database
from adapters.postgres.intake import PostgresLedger
from adapters.postgres.roots import open_roots
from billing.ports import OpenRoots
from billing.root_pass import ROOTS_AT_ONCE
from metering.batch import SealedBatch
from metering.seal import sign_seal

pytestmark = pytest.mark.anyio

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)
MANY = ROOTS_AT_ONCE + 5


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> World:
    return await make_world(database, tmp_path)


async def unchecked(world: World) -> int:
    [(count,)] = await world.rows("SELECT count(*) FROM batch WHERE NOT root_checked")
    assert isinstance(count, int)
    return count


async def of_october(world: World) -> OpenRoots:
    async with world.database.app(OPERATOR) as conn:
        return await open_roots(conn, OPERATOR, *OCTOBER)


async def test_few_batches_are_checked_with_everything_else(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    world.wire.send(*(writer.seal() for _ in range(ROOTS_AT_ONCE)))
    await world.intake().sweep()
    assert await unchecked(world) == 0


async def test_of_many_batches_the_roots_are_left_to_the_second_pass_but_for_heartbeats(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    world.wire.send(*(writer.seal(n % 2) for n in range(2 * MANY)))
    intake = world.intake()
    await intake.sweep()
    assert await unchecked(world) == MANY
    assert await of_october(world) == OpenRoots(MANY, 0)

    await intake.turn()
    assert await unchecked(world) == MANY - ROOTS_AT_ONCE
    await intake.turn()
    assert await of_october(world) == OpenRoots(0, 0)


async def test_a_command_that_takes_in_what_waits_leaves_no_root_unchecked(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    world.wire.send(*(writer.seal() for _ in range(MANY)))
    await world.intake().take_pending()
    assert await unchecked(world) == 0


async def test_two_workers_check_different_batches(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    world.wire.send(*(writer.seal() for _ in range(MANY)))
    await world.intake().sweep()
    ledger = PostgresLedger(world.database)
    async with ledger.unchecked(MANY) as mine, ledger.unchecked(MANY) as others:
        assert len(mine.batches) == MANY
        assert others.batches == []


async def test_a_root_that_does_not_hold_is_listed_once_and_stays(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    writer = Writer()
    await world.enrol(writer)
    wrong = writer.seal()
    seal = replace(wrong.seal, root="0" * 64)
    wrong = SealedBatch(seal, sign_seal(seal, writer.key), wrong.body)
    writer.previous = wrong.hash
    world.wire.send(wrong, *(writer.seal() for _ in range(MANY)))
    await world.intake().take_pending()
    await world.intake().turn()
    assert await world.rows("SELECT number, what FROM root_fault") == [(0, caplog.records[0].args[2])]  # type: ignore[index]
    assert "the seal says 0000" in caplog.text
    assert len(caplog.records) == 1
    assert await unchecked(world) == 1
    place = f"vilnius-1/sidecar-0 {'a' * 32}-0"
    assert await of_october(world) == OpenRoots(0, 1, place)


async def test_what_the_archive_does_not_give_back_has_no_root(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    world.wire.send(*(writer.seal() for _ in range(MANY)))
    await world.intake().sweep()
    one, other = sorted((world.data / "archive").rglob("*.parquet"))[:2]
    one.unlink()
    one.with_name(f"_{one.stem}.seal").unlink()
    other.write_bytes(b"damaged")
    await world.intake().turn()
    await world.intake().turn()
    whats = {what for (what,) in await world.rows("SELECT what FROM root_fault")}
    assert whats == {
        "it is not in the archive any more",
        "the body has 7 bytes, the seal says " + whats_size(whats),
    }
    assert (await of_october(world)).faults == 2


def whats_size(whats: set[object]) -> str:
    [of_body] = [str(what) for what in whats if "the seal says" in str(what)]
    return of_body.rpartition(" ")[2]


async def test_a_close_asks_for_the_roots_of_batches_that_may_be_of_its_period(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    world.wire.send(*(writer.seal() for _ in range(MANY)))
    await world.intake().sweep()
    async with world.database.app(OPERATOR) as conn:
        november = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
        assert await open_roots(conn, OPERATOR, *november) == OpenRoots(0, 0)
        await conn.execute(text("SELECT 1"))
