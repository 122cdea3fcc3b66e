"""`tally streams`: each lane's completeness as tally_app reads it, and everything that is wrong, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from intake_world import ACME, World, Writer, make_world

from adapters.postgres.database import Database
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
