"""`tally streams`: each lane's completeness as tally_app reads it, and everything that is wrong, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from intake_world import ACME, OPERATOR, World, Writer, make_world
from sqlalchemy import text

from adapters.postgres.database import INSTALLATION, Database
from adapters.postgres.intake import PostgresLedger
from adapters.postgres.strays import dismiss_strays
from adapters.postgres.streams import read_streams
from billing.streams import has_difference

pytestmark = pytest.mark.anyio


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> World:
    return await make_world(database, tmp_path)


async def _streams(world: World) -> dict[str, Any]:
    return await read_streams(world.database, world.now)


async def test_a_lane_that_is_well_has_its_mark_and_its_lag(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    found = await _streams(world)
    assert found["lanes"][0]["complete_to"] is None

    world.wire.send(writer.seal(3), writer.seal(2))
    await world.intake().take_pending()
    found = await _streams(world)
    [lane] = found["lanes"]
    assert {key: lane[key] for key in ("operator", "node", "lane", "kind", "epoch", "number")} == {
        "operator": "telecentras",
        "node": "vilnius-1",
        "lane": "sidecar-0",
        "kind": "sidecar",
        "epoch": "a" * 32,
        "number": 1,
    }
    assert lane["complete_to"] == "2026-10-05T08:00:05.000000Z"
    assert lane["lag_s"] == 15 * 86_400 + 4 * 3_600 - 5
    assert (lane["holes"], lane["forks"], lane["held"]) == (0, 0, 0)
    assert not has_difference(found)


async def test_a_hole_is_counted_in_batches_and_named(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    batches = [writer.seal(1) for _ in range(8)]
    world.wire.send(batches[0], batches[3], batches[4], batches[7])
    await world.intake().take_pending()
    found = await _streams(world)
    [lane] = found["lanes"]
    assert (lane["holes"], lane["forks"], lane["held"]) == (4, 0, 3)
    assert lane["missing"] == [f"{'a' * 32}-1…2", f"{'a' * 32}-5…6"]
    assert [held["number"] for held in lane["held_batches"]] == [3, 4, 7]
    assert has_difference(found)


async def test_a_flipped_bit_is_held_and_no_hole(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    batch, behind = writer.seal(), writer.seal()
    world.wire.send_bytes(batch.note, batch.body[:-1] + b"?")
    world.wire.send(behind)
    await world.intake().take_pending()
    found = await _streams(world)
    [lane] = found["lanes"]
    assert (lane["holes"], lane["held"]) == (0, 2)
    assert [held["code"] for held in lane["held_batches"]] == ["body_digest", "hole"]
    assert has_difference(found)


async def test_the_end_of_an_epoch_that_is_missing_counts_as_one(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    writer.seal()
    writer.new_epoch("b" * 32)
    world.wire.send(writer.seal())
    await world.intake().take_pending()
    [lane] = (await _streams(world))["lanes"]
    assert (lane["holes"], lane["missing"]) == (1, [f"what came before {'b' * 32}-0"])


async def test_a_fork_is_counted(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    clone = writer.clone()
    world.wire.send(writer.seal(), clone.seal())
    await world.intake().take_pending()
    [lane] = (await _streams(world))["lanes"]
    assert (lane["holes"], lane["forks"], lane["held"]) == (0, 1, 1)


async def test_what_is_set_aside_is_counted_with_the_lane_that_it_claims(world: World) -> None:
    writer, stranger = Writer(), Writer()
    await world.enrol(writer)
    world.wire.send(stranger.seal(customer=ACME))
    world.wire.send_bytes(b"junk", b"")
    await world.intake().take_pending()
    found = await _streams(world)
    assert found["set_aside"] == 2
    assert found["lanes"][0]["set_aside"] == 1
    assert found["lanes"][0]["held"] == 0
    assert has_difference(found)


async def test_what_a_person_dismissed_is_off_the_list_and_taken_up_all_the_same_when_its_lane_is_enrolled(
    world: World,
) -> None:
    stranger = Writer(lane="sidecar-7")
    world.wire.send(stranger.seal(customer=ACME))
    world.wire.send_bytes(b"junk", b"")
    await world.intake().take_pending()
    assert (await _streams(world))["set_aside"] == 2

    for operator in (INSTALLATION, OPERATOR):
        async with world.database.app(operator) as conn:
            assert await dismiss_strays(conn, operator, "of a test bench", world.now) == 1
            assert await dismiss_strays(conn, operator, "again", world.now) == 0
            leaf = await conn.execute(text("SELECT content FROM leaf WHERE kind = 'stray_dismissal'"))
            assert '"reason":"of a test bench"' in leaf.scalar_one()
    found = await _streams(world)
    assert (found["set_aside"], found["set_aside_batches"]) == (0, [])
    assert not has_difference(found)

    world.wire.send_bytes(b"other junk", b"")
    await world.enrol(stranger)
    await world.intake().take_pending()
    assert (await _streams(world))["set_aside"] == 1
    assert (await world.usage())["requests"] == 3


async def test_of_what_is_only_counted_a_dismissal_leaves_what_comes_later(world: World) -> None:
    ledger = PostgresLedger(world.database)
    await ledger.count_aside({None: 700}, world.now)
    async with world.database.app(INSTALLATION) as conn:
        assert await dismiss_strays(conn, INSTALLATION, "a flood", world.now) == 700
    assert (await _streams(world))["set_aside"] == 0
    await ledger.count_aside({None: 5}, world.now)
    [more] = (await _streams(world))["set_aside_batches"]
    assert (more["code"], more["batches"]) == ("not_kept", 5)


async def test_a_flood_of_held_batches_is_one_line_a_lane_and_reason(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    writer = Writer()
    await world.enrol(writer)
    writer.seal()
    world.wire.send(*(writer.seal() for _ in range(20)))
    await world.intake().take_pending()
    [line] = [record.getMessage() for record in caplog.records if "held" in record.getMessage()]
    assert line.startswith("20 batches of telecentras/vilnius-1/sidecar-0 are held (hole); the first: ")
