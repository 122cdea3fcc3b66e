"""Roll-up beside late batches, with two sessions, and as tally_intake: nothing is lost and nothing is counted twice."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from intake_world import HOUR_US, NOW, OPERATOR, START, World, Writer, make_world, us
from sqlalchemy import text

from adapters.postgres.database import Database
from adapters.postgres.roll_up import roll_up_hours

pytestmark = pytest.mark.anyio


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> World:
    return await make_world(database, tmp_path)


async def _sizes(world: World) -> tuple[object, object]:
    """Rows of partial_sum and of hourly_usage."""
    [found] = await world.rows(
        "SELECT (SELECT count(*) FROM partial_sum), (SELECT count(*) FROM hourly_usage)"
    )
    return found[0], found[1]


async def test_a_whole_hour_becomes_one_row_a_cell(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    intake = world.intake()
    for _ in range(4):
        world.wire.send(writer.seal(2))
        await intake.take_pending()
    assert await _sizes(world) == (4, 0)
    assert await intake.roll_up() == 0, "the lane is not complete beyond the hour"

    writer.time_us += HOUR_US
    world.wire.send(writer.seal(1))
    await intake.take_pending()
    assert await intake.roll_up() == 1
    assert await _sizes(world) == (1, 1)
    assert await world.usage() == {"requests": 9, "prompt_tokens": 900}
    assert await intake.roll_up() == 0


async def test_a_late_batch_marks_its_hour_again(world: World) -> None:
    early, late = Writer(), Writer(lane="sidecar-1")
    await world.enrol(early, late)
    intake = world.intake()
    early.time_us += HOUR_US
    world.wire.send(early.seal(2))
    await intake.take_pending()
    early.time_us += HOUR_US
    world.wire.send(early.seal(0))
    await intake.take_pending()
    assert await intake.roll_up() == 1

    late.time_us += HOUR_US  # the same cell of the same hour
    world.wire.send(late.seal(3))
    await intake.take_pending()
    assert await intake.roll_up() == 0, "the late lane still speaks of that hour"
    late.time_us += HOUR_US
    world.wire.send(late.seal(0, final=True))
    await intake.take_pending()
    assert await intake.roll_up() == 1
    assert await _sizes(world) == (0, 1)
    assert await world.usage() == {"requests": 5, "prompt_tokens": 500}


async def test_a_silent_lane_is_not_waited_for(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    intake = world.intake()
    world.wire.send(writer.seal(2))
    await intake.take_pending()
    world.now = NOW + timedelta(minutes=59)
    assert await intake.roll_up() == 0
    world.now = NOW + timedelta(minutes=61)
    assert await intake.roll_up() == 1


async def test_a_late_batch_committed_beside_a_roll_up_is_kept(world: World) -> None:
    """What two statements would lose: 30 are there, 5 are committed while the roll-up runs, and 35 must be left."""
    writer = Writer()
    await world.enrol(writer)
    intake = world.intake()
    world.wire.send(writer.seal(30))
    await intake.take_pending()

    async with world.database.intake() as rolling:
        # The roll-up's transaction has begun and read; the late batch is committed before its statement.
        await rolling.execute(text("SELECT count(*) FROM partial_sum"))
        world.wire.send(writer.seal(2))
        await intake.take_pending()
        await roll_up_hours(rolling, OPERATOR, [START])
        # And another one after its statement, before its commit.
        world.wire.send(writer.seal(3))
        await intake.take_pending()
    assert await _sizes(world) == (1, 1)
    assert (await world.usage())["requests"] == 35


async def test_readers_beside_a_roll_up_see_the_hour_whole(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    intake = world.intake()
    for _ in range(3):
        world.wire.send(writer.seal(5))
        await intake.take_pending()
    async with world.database.intake() as rolling:
        await roll_up_hours(rolling, OPERATOR, [START])
        assert (await world.usage())["requests"] == 15
    assert (await world.usage())["requests"] == 15


async def test_two_workers_roll_up_one_after_the_other(world: World) -> None:
    writer = Writer(time_us=us(START))
    await world.enrol(writer)
    intake = world.intake()
    for _ in range(20):
        world.wire.send(writer.seal(2))
        writer.time_us += HOUR_US
    world.wire.send(writer.seal(0, final=True))
    await intake.take_pending()
    await asyncio.gather(*(world.intake().roll_up() for _ in range(3)))
    assert await _sizes(world) == (0, 20)
    assert (await world.usage())["requests"] == 40


async def test_sums_that_the_database_refuses_stay_and_stop_no_other_operator(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    writer = Writer()
    await world.enrol(writer)
    world.wire.send(writer.seal(2))
    await world.intake().take_pending()
    async with world.database.app("aukstis") as conn:
        await conn.execute(text("INSERT INTO operator VALUES ('aukstis')"))
    async with world.database.intake() as conn:
        await conn.execute(text("SELECT ensure_usage_partitions('aukstis', '2026-10-01')"))
        await conn.execute(
            text(
                "INSERT INTO partial_sum (operator, hour, node, model, outcome, band, late, customer, prompt_tokens)"
                " SELECT 'aukstis', :hour, node, model, outcome, band, late, customer[1:1], '{1000000000000000000}'"
                " FROM partial_sum, generate_series(1, 10)"
            ),
            {"hour": START},
        )
        await conn.execute(text("INSERT INTO partial_hour VALUES ('aukstis', :hour)"), {"hour": START})
    world.now = NOW + timedelta(hours=2)
    assert await world.intake().roll_up() == 1, "telecentras comes after aukstis, and is rolled up"
    assert await _sizes(world) == (10, 1)
    assert "hours of operator aukstis are not rolled up" in caplog.text
