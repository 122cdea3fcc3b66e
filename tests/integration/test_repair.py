"""What is held and cannot go on by itself: a person decides, intake acts on it, and nothing is lost unsaid."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from intake_world import NODE, OPERATOR, World, Writer, make_world
from sqlalchemy import text

from adapters.archive import BatchObjects
from adapters.archive_reading import BatchReader
from adapters.objects import FolderObjects
from adapters.postgres import closes
from adapters.postgres.database import Database
from adapters.postgres.streams import read_streams
from adapters.repairing import repair_lane
from billing.gaps import Gap
from billing.inspection import LaneName
from billing.intake import Summary
from billing.repair import ACCEPT_HOLE, DROP, KEEP, Decision
from billing.streams import has_difference
from metering.batch import SealedBatch, make_batch, read_body
from metering.refusal import Refusal

pytestmark = pytest.mark.anyio
LANE = LaneName(OPERATOR, NODE, "sidecar-0")
OCTOBER = datetime(2026, 9, 30, 21, tzinfo=UTC), datetime(2026, 10, 31, 22, tzinfo=UTC)


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> World:
    return await make_world(database, tmp_path)


async def take(world: World, *batches: SealedBatch) -> Summary:
    world.wire.send(*batches)
    return await world.intake().take_pending()


async def decide(world: World, kind: str, batch: SealedBatch, reason: str = "why") -> Sequence[Decision]:
    held = BatchObjects(FolderObjects(world.data / "held"))
    archive = BatchReader(FolderObjects(world.data / "archive"))
    return await repair_lane(world.database, held, archive, LANE, kind, batch.hash[:16], reason, world.now)


async def lane_row(world: World) -> dict[str, Any]:
    document: dict[str, Any] = await read_streams(world.database, world.now)
    [row] = document["lanes"]
    return dict(row)


async def gaps(world: World) -> list[Gap]:
    async with world.database.app(OPERATOR) as conn:
        return await closes.gaps(conn, OPERATOR, *OCTOBER)


async def held_to_a_close(world: World) -> int:
    async with world.database.app(OPERATOR) as conn:
        return await closes.held_batches(conn, OPERATOR, OCTOBER[1])


def sealed_again(batch: SealedBatch, writer: Writer) -> SealedBatch:
    """The events of a batch, sealed by a writer that does not know that it is."""
    seal = batch.seal
    return make_batch(
        operator=seal.operator,
        node=seal.node,
        lane=seal.lane,
        kind=seal.kind,
        epoch=seal.epoch,
        number=seal.number,
        first=seal.first,
        complete_to_us=seal.complete_to_us + 1,
        opened=seal.opened,
        closed=seal.closed,
        previous=seal.previous,
        key=writer.key,
        table=read_body(seal, batch.body),
    )


async def test_of_a_cloned_machine_one_branch_is_dropped_and_every_close_says_what_is_not_billed(
    world: World,
) -> None:
    writer = Writer()
    await world.enrol(writer)
    await take(world, writer.seal(2))
    clone = writer.clone()
    await take(world, writer.seal(3))
    forked, behind = clone.seal(4), clone.seal(1)
    assert await take(world, forked, behind) == Summary(held=2)
    row = await lane_row(world)
    [case] = row["cases"]
    assert (case["code"], case["batches"], row["forks"]) == ("fork", 2, 1)
    assert [command.split(" --reason")[0] for command in case["commands"]] == [
        f"tally intake repair --operator {OPERATOR} --node {NODE} --lane sidecar-0 --drop {forked.hash[:16]}"
    ]

    made = await decide(world, DROP, forked, "the image was started twice")

    assert [(each.kind, each.hash) for each in made] == [(DROP, forked.hash), (DROP, behind.hash)]
    assert not has_difference(await read_streams(world.database, world.now))
    assert await held_to_a_close(world) == 0
    assert [(gap.kind, gap.requests, gap.reason) for gap in await gaps(world)] == [
        ("dropped", 4, "the image was started twice"),
        ("dropped", 1, "the image was started twice"),
    ]
    assert await world.usage() == {"requests": 5, "prompt_tokens": 500}
    assert len(list((world.data / "held").rglob("*.seal"))) == 2, "the files of what is dropped stay"
    assert await take(world, writer.seal(1)) == Summary(accepted=1, events=1), "the lane goes on"


async def test_the_branch_that_was_left_is_no_hole_and_goes_on_by_another_decision_with_nothing_lost(
    world: World,
) -> None:
    """A clone's branch is kept while the original still seals: what it seals next follows an accepted seal."""
    writer = Writer()
    await world.enrol(writer)
    await take(world, writer.seal(2))
    clone = writer.clone()
    clone.epoch, clone.number, clone.sequence = "c" * 32, 0, 0
    await take(world, writer.seal(3))
    kept = clone.seal(4)
    assert await take(world, kept) == Summary(held=1)
    await decide(world, KEEP, kept, "the clone served real requests")
    assert await world.intake().take_pending() == Summary(accepted=1, events=4)

    left = writer.seal(5)
    assert await take(world, left) == Summary(held=1)
    row = await lane_row(world)
    [case] = row["cases"]
    assert (case["code"], row["holes"], row["forks"]) == ("other_branch", 0, 1)
    assert f"--keep {left.hash[:16]}" in case["commands"][0]
    with pytest.raises(Refusal) as refused:
        await decide(world, ACCEPT_HOLE, left)
    assert refused.value.code == "is_a_fork"

    await decide(world, KEEP, left, "the clone is switched off")

    assert await world.intake().take_pending() == Summary(accepted=1, events=5)
    assert await take(world, writer.seal(1)) == Summary(accepted=1, events=1)
    assert await gaps(world) == []
    assert await world.usage() == {"requests": 15, "prompt_tokens": 1500}


async def test_a_clone_that_still_runs_is_named_after_its_branch_was_dropped(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    await take(world, writer.seal(1))
    clone = writer.clone()
    await take(world, writer.seal(1))
    forked = clone.seal(1)
    await take(world, forked)
    await decide(world, DROP, forked)
    assert await take(world, forked) == Summary(held=1), "it comes again, and changes nothing"
    assert not has_difference(await read_streams(world.database, world.now))
    await take(world, clone.seal(1))
    [case] = (await lane_row(world))["cases"]
    assert case["ends"].endswith("(a clone, a restored disk) still runs")


async def test_of_a_restored_disk_both_branches_count_and_what_it_sealed_again_only_once(
    world: World,
) -> None:
    writer = Writer()
    await world.enrol(writer)
    first = writer.seal(2)
    restored = writer.clone()
    lost_by_the_disk = writer.seal(3)
    await take(world, first, lost_by_the_disk, writer.seal(2))
    again = sealed_again(lost_by_the_disk, writer)
    restored.previous, restored.time_us = again.hash, writer.time_us
    restored.new_epoch("b" * 32)
    fresh = [restored.seal(5), restored.seal(1)]
    assert await take(world, again, *fresh) == Summary(held=3)
    [case] = (await lane_row(world))["cases"]
    assert f"--keep {fresh[0].hash[:16]}" in case["commands"][0]
    with pytest.raises(Refusal) as refused:
        await decide(world, KEEP, again)
    assert refused.value.code == "number_taken"

    made = await decide(world, KEEP, fresh[0], "the disk was restored from Tuesday's backup")

    assert [(each.kind, each.lost) for each in made] == [(DROP, None), (KEEP, None)]
    assert await world.intake().take_pending() == Summary(accepted=2, events=6)
    assert await world.usage() == {"requests": 13, "prompt_tokens": 1_300}
    assert await gaps(world) == []
    assert await take(world, restored.seal(1)) == Summary(accepted=1, events=1)
    assert not has_difference(await read_streams(world.database, world.now))
    assert await world.rows("SELECT epoch, number FROM batch WHERE adopted") == [("b" * 32, 0)]


async def test_numbers_that_will_never_come_are_accepted_as_a_hole_and_the_lane_goes_on(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    batches = [writer.seal(3) for _ in range(5)]
    assert await take(world, batches[0], batches[3], batches[4]) == Summary(accepted=1, held=2, events=3)
    with pytest.raises(Refusal) as refused:
        await decide(world, KEEP, batches[3])
    assert refused.value.code == "not_a_fork"

    await decide(world, ACCEPT_HOLE, batches[3], "the disk burnt")

    assert await world.intake().take_pending() == Summary(accepted=2, events=6)
    [gap] = await gaps(world)
    assert (gap.kind, gap.requests, gap.begins_us, gap.ends_us) == (
        "hole",
        6,
        batches[0].seal.complete_to_us,
        batches[3].seal.complete_to_us,
    )
    assert not has_difference(await read_streams(world.database, world.now))
    assert await take(world, batches[1]) == Summary(held=1), "what comes after all is a fork, not usage twice"


async def test_a_damaged_batch_without_a_whole_copy_is_dropped_and_what_is_behind_it_goes_on(
    world: World,
) -> None:
    writer = Writer()
    await world.enrol(writer)
    batch, behind = writer.seal(3), writer.seal(2)
    world.wire.send_bytes(batch.note, batch.body[:-1] + b"?")
    assert await take(world, behind) == Summary(held=2)
    [case] = (await lane_row(world))["cases"]
    assert f"--accept-hole {behind.hash[:16]}" in case["commands"][0]

    made = await decide(world, ACCEPT_HOLE, behind)

    assert [(each.kind, each.lost.requests if each.lost else None) for each in made] == [
        (DROP, 3),
        (ACCEPT_HOLE, None),
    ]
    assert await world.intake().take_pending() == Summary(accepted=1, events=2)
    assert await take(world, batch) == Summary(held=1), "dropped is dropped: a close may have said so"
    assert await world.usage() == {"requests": 2, "prompt_tokens": 200}


async def test_a_batch_that_turns_out_to_be_damaged_when_its_turn_has_come_stays_held_by_that_name(
    world: World,
) -> None:
    writer = Writer()
    await world.enrol(writer)
    _, damaged, behind = (writer.seal(1) for _ in range(3))
    world.wire.send_bytes(damaged.note, damaged.body[:-1] + b"?")
    await world.intake().take_pending()
    await decide(world, ACCEPT_HOLE, damaged)
    assert await world.intake().take_pending() == Summary(held=1)
    assert [code for _, _, code in await world.held()] == ["body_digest"]
    assert await world.intake().take_pending() == Summary(), "it is not tried over and over"
    await take(world, behind)
    await decide(world, ACCEPT_HOLE, behind)
    assert (await world.intake().take_pending()).accepted == 1
    assert not has_difference(await read_streams(world.database, world.now))


async def test_who_decides_waits_for_intake_and_decides_about_what_is_there_then(world: World) -> None:
    """Two sessions: intake holds the lane, accepts the batch that was missing, and only then the decision is looked at."""
    writer = Writer()
    await world.enrol(writer)
    batches = [writer.seal(1) for _ in range(3)]
    await take(world, batches[0], batches[2])
    lock = "SELECT FROM lane WHERE lane = 'sidecar-0' FOR UPDATE"
    async with world.database.intake() as conn:
        await conn.execute(text(lock))
        deciding = asyncio.create_task(decide(world, ACCEPT_HOLE, batches[2]))
        await asyncio.sleep(0.3)
        assert not deciding.done()
        await conn.execute(text("UPDATE lane SET head = repeat('e', 64) WHERE lane = 'sidecar-0'"))
    [made] = await deciding
    assert made.after == "e" * 64, "it was made anew, about the lane's new end"
    assert await world.rows("SELECT count(*)::int FROM decision") == [(1,)]


async def test_a_batch_that_is_not_held_cannot_be_decided_about(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    batch = writer.seal(1)
    await take(world, batch)
    with pytest.raises(Refusal) as refused:
        await decide(world, DROP, batch)
    assert refused.value.code == "unknown_batch"
    assert await world.rows("SELECT count(*)::int FROM decision") == [(0,)]


async def test_a_decision_stays(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    batches = [writer.seal(1) for _ in range(2)]
    await take(world, batches[1])
    await decide(world, DROP, batches[1])
    for statement in ("UPDATE decision SET reason = 'another'", "DELETE FROM decision"):
        with pytest.raises(Exception, match=r"permission denied|only ever added"):
            async with world.database.app(OPERATOR) as conn:
                await conn.execute(text(statement))
