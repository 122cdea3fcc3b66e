"""How far the lanes of an operator are, as a close reads it in its own snapshot."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from intake_world import NODE, OPERATOR, START, World, Writer, make_world, us

from adapters.postgres.books import PostgresBooks
from adapters.postgres.database import Database
from adapters.postgres.decisions import decide
from adapters.postgres.lane_keys import enroll_lane
from adapters.postgres.streams import read_streams
from billing.completeness import LaneEnd, incomplete
from billing.inspection import LaneName
from billing.repair import Decision, LaneNow, retire
from metering.fact import Sibling
from metering.identity import LaneKey

pytestmark = pytest.mark.anyio
OCTOBER = datetime(2026, 9, 30, 21, tzinfo=UTC), datetime(2026, 10, 31, 22, tzinfo=UTC)
ENROLLED_US = us(START - timedelta(days=1))


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> World:
    return await make_world(database, tmp_path)


async def ends(world: World) -> dict[str, LaneEnd]:
    async with PostgresBooks(world.database).read(OPERATOR) as book:
        return {end.lane: end for end in await book.lane_ends()}


async def give_up(world: World, lane: str) -> None:
    async def make(read: LaneNow) -> list[Decision]:
        return retire(read, "it burnt")

    await decide(world.database, LaneName(OPERATOR, NODE, lane), make, world.now)


async def test_each_lane_is_as_complete_as_its_last_accepted_seal_says(world: World) -> None:
    one, other, import_ = Writer(), Writer(lane="sidecar-1"), Writer(lane="import-1", kind="import")
    await world.enrol(one, other, import_)
    last = one.seal(3)
    world.wire.send(last, import_.seal(1, final=True))
    await world.intake().take_pending()
    found = await ends(world)
    assert found["sidecar-0"] == LaneEnd(NODE, "sidecar-0", "sidecar", ENROLLED_US, last.seal.complete_to_us)
    assert found["sidecar-1"] == LaneEnd(NODE, "sidecar-1", "sidecar", ENROLLED_US, None)
    assert not found["import-1"].is_due
    assert [(gap.lane, gap.begins_us) for gap in incomplete(found.values(), *OCTOBER)] == [
        ("sidecar-0", last.seal.complete_to_us),
        ("sidecar-1", ENROLLED_US),
    ]


async def test_a_lane_that_a_sibling_tells_of_and_nobody_enrolled_is_due_from_its_first_word_on(
    world: World,
) -> None:
    writer, stranger = Writer(), Writer(lane="sidecar-7")
    await world.enrol(writer)
    told = [writer.seal(1, facts=[Sibling("sidecar-7", "c" * 32, n, "d" * 64)]) for n in range(3)]
    world.wire.send(*told)
    await world.intake().take_pending()
    assert (await ends(world))["sidecar-7"] == LaneEnd(
        NODE, "sidecar-7", "sidecar", told[0].seal.complete_to_us, None
    )
    await world.enrol(stranger)
    assert (await ends(world))["sidecar-7"].since_us == ENROLLED_US


async def test_a_stranger_that_was_told_of_once_never_vanishes_and_a_sibling_is_one_row(world: World) -> None:
    writer, stranger = Writer(), Sibling("sidecar-7", "c" * 32, 5, "d" * 64)
    await world.enrol(writer)
    world.wire.send(writer.seal(1, facts=[stranger]))
    for n in range(300):
        world.wire.send(writer.seal(0, facts=[Sibling("sidecar-1", "c" * 32, n, "e" * 64)]))
    await world.intake().take_pending()
    assert {"sidecar-1", "sidecar-7"} < set(await ends(world))
    rows = await world.rows("SELECT lane, number, first_told < told FROM sibling ORDER BY lane")
    assert rows == [("sidecar-1", 299, True), ("sidecar-7", 5, False)]


async def test_a_node_that_tells_of_more_lanes_than_it_may_have_fills_no_table(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    for seal in range(2):
        facts = [
            Sibling(f"sidecar-{n}", "c" * 32, 0, "d" * 64) for n in range(seal * 200 + 1, seal * 200 + 201)
        ]
        world.wire.send(writer.seal(0, facts=facts))
    await world.intake().take_pending()
    assert await world.rows("SELECT count(*) FROM sibling") == [(256,)]


async def test_a_lane_that_is_enrolled_after_the_month_is_due_for_what_it_spoke_of_before(
    world: World,
) -> None:
    """Its request was made on 1 October and carried in November; or it is known by its first batch alone."""
    writer, asked = Writer(), Writer(lane="sidecar-1")
    november = datetime(2026, 11, 1, 0, 30, tzinfo=UTC)
    async with world.database.app(OPERATOR) as conn:
        for each, made_at in ((writer, None), (asked, START)):
            public = LaneKey.public_bytes(each.key)
            await enroll_lane(conn, OPERATOR, NODE, each.lane, "sidecar", public, november, made_at)
    found = await ends(world)
    assert [found[each.lane].since_us for each in (writer, asked)] == [us(november), us(START)]
    first = writer.seal(1)
    world.wire.send(first)
    await world.intake().take_pending()
    since_us = (await ends(world))["sidecar-0"].since_us
    assert since_us == first.seal.complete_to_us
    assert [gap.lane for gap in incomplete((await ends(world)).values(), *OCTOBER)] == [
        "sidecar-0",
        "sidecar-1",
    ]


async def test_a_lane_that_was_retired_is_not_due_until_it_seals_again(world: World) -> None:
    writer = Writer()
    await world.enrol(writer, Writer(lane="sidecar-1"))
    world.wire.send(writer.seal(1))
    await world.intake().take_pending()
    await give_up(world, "sidecar-0")
    await give_up(world, "sidecar-1")
    gaps = incomplete((await ends(world)).values(), *OCTOBER)
    assert [(gap.kind, gap.reason, gap.ends_us) for gap in gaps] == [
        ("retired", "it burnt", us(world.now))
    ] * 2
    document = await read_streams(world.database, world.now)
    assert document["operators"] == [{"operator": OPERATOR, "due": 0, "complete_to": None}]

    world.wire.send(writer.seal(1))
    assert (await world.intake().take_pending()).accepted == 1
    assert [end.lane for end in (await ends(world)).values() if end.is_due] == ["sidecar-0"]


async def test_streams_say_which_lanes_are_silent_and_up_to_when_all_are_complete(world: World) -> None:
    near, far = Writer(time_us=us(world.now) - 30_000_000), Writer(lane="sidecar-1")
    await world.enrol(near, far)
    world.wire.send(near.seal(1), far.seal(1))
    await world.intake().take_pending()
    document = await read_streams(world.database, world.now)
    lanes: list[dict[str, object]] = document["lanes"]  # type: ignore[assignment]  # a document's values are objects
    assert [(row["lane"], row["state"], row["due"]) for row in lanes] == [
        ("sidecar-0", "live", True),
        ("sidecar-1", "silent", True),
    ]
    assert document["operators"] == [
        {"operator": OPERATOR, "due": 2, "complete_to": "2026-10-05T08:00:01.000000Z"}
    ]
