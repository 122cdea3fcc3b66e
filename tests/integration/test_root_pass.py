"""The second pass over accepted batches, on a real PostgreSQL: each root is recomputed once, from the archive."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from intake_world import OPERATOR, START, World, Writer, make_world, us
from sqlalchemy import text

from adapters.archive import BatchObjects
from adapters.archive_compact import compact
from adapters.objects import FolderObjects
from adapters.postgres.closes import gaps
from adapters.postgres.database import Database
from adapters.postgres.intake import PostgresLedger
from adapters.postgres.roots import open_roots, unchecked_hashes
from adapters.postgres.streams import read_streams
from adapters.repairing import repair_root
from billing.gaps import Gap, gap_json, gap_sentence
from billing.intake_ports import StoredBatch
from billing.ports import OpenRoots
from billing.root_pass import AGAIN_AFTER, BEHIND, ROOTS_AT_ONCE, ROOTS_WHEN_BEHIND
from billing.streams import has_difference
from metering.batch import SealedBatch
from metering.refusal import Refusal
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
    async with ledger.unchecked(MANY, world.now) as mine, ledger.unchecked(MANY, world.now) as others:
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


async def test_a_source_that_never_pauses_leaves_no_root_unchecked_for_ever(world: World) -> None:
    """Each sweep brings more than is checked with it; a few of the oldest are, and more once they have waited long."""
    writer = Writer()
    await world.enrol(writer)
    intake = world.intake()

    async def turn(later: timedelta) -> tuple[int, timedelta | None]:
        """How many are unchecked after it, and for how long the oldest of them has waited."""
        world.now += later
        world.wire.send(*(writer.seal(1) for _ in range(MANY)))
        await intake.turn()
        [(oldest,)] = await world.rows("SELECT min(accepted_at) FROM batch WHERE NOT root_checked")
        return await unchecked(world), world.now - oldest if isinstance(oldest, datetime) else None

    second = timedelta(seconds=1)
    assert await turn(second) == (MANY - ROOTS_AT_ONCE, timedelta(0))
    assert await turn(second) == (2 * (MANY - ROOTS_AT_ONCE), timedelta(0))
    assert await turn(2 * BEHIND) == (3 * (MANY - ROOTS_AT_ONCE), timedelta(0))
    assert 3 * (MANY - ROOTS_AT_ONCE) + MANY < ROOTS_WHEN_BEHIND
    assert await turn(second) == (0, None)


async def lost_batch(world: World) -> StoredBatch:
    """A batch of three requests whose objects are gone, which the second pass has noticed."""
    writer = Writer()
    await world.enrol(writer)
    world.wire.send(*(writer.seal() for _ in range(MANY)))
    await world.intake().sweep()
    archive = BatchObjects(FolderObjects(world.data / "archive"))
    [(path,)] = await world.rows("SELECT path FROM batch ORDER BY number LIMIT 1")
    lost = archive.get(str(path))
    assert lost is not None
    archive.remove([lost.path])
    await world.intake().turn()
    await world.intake().turn()
    assert (await of_october(world)).faults == 1
    return lost


async def test_a_file_that_was_restored_in_the_archive_is_found_within_the_hour(world: World) -> None:
    lost = await lost_batch(world)
    archive = BatchObjects(FolderObjects(world.data / "archive"))
    archive.put([lost])
    await world.intake().turn()
    assert (await of_october(world)).faults == 1
    world.now += 2 * AGAIN_AFTER
    await world.intake().turn()
    assert await of_october(world) == OpenRoots(0, 0)
    assert await world.rows("SELECT * FROM root_fault") == []
    assert not has_difference(await read_streams(world.database, world.now, OPERATOR))


async def test_streams_names_the_batch_that_nothing_proves_and_the_command_finds_its_file_at_once(
    world: World,
) -> None:
    lost = await lost_batch(world)
    document: Any = await read_streams(world.database, world.now, OPERATOR)
    assert has_difference(document)
    [named] = document["root_fault_batches"]
    assert (named["node"], named["lane"], named["number"]) == ("vilnius-1", "sidecar-0", 0)
    assert named["what"] == "it is not in the archive any more"

    archive = BatchObjects(FolderObjects(world.data / "archive"))
    archive.put([lost])
    _, made = await repair_root(
        world.database, archive, [OPERATOR], named["hash"][:16], "the bucket's copy", world.now
    )
    assert made is None
    assert await of_october(world) == OpenRoots(0, 0)
    with pytest.raises(Refusal) as refused:
        await repair_root(world.database, archive, [OPERATOR], named["hash"], "again", world.now)
    assert refused.value.code == "unknown_batch"


async def test_what_is_gone_for_good_is_billed_unproven_by_a_decision_that_every_close_prints(
    world: World,
) -> None:
    await lost_batch(world)
    archive = BatchObjects(FolderObjects(world.data / "archive"))
    [(hash_,)] = await world.rows("SELECT hash FROM batch WHERE number = 0")
    fault, made = await repair_root(
        world.database, archive, [OPERATOR], str(hash_)[:8], "the disk of May is lost", world.now
    )
    assert fault.what == "it is not in the archive any more"
    assert made is not None
    assert await of_october(world) == OpenRoots(0, 0)
    assert not has_difference(await read_streams(world.database, world.now, OPERATOR))
    async with world.database.app(OPERATOR) as conn:
        [gap] = await gaps(conn, OPERATOR, *OCTOBER)
    begins, ends = us(START) + 1_000_000, us(START) + 3_000_000
    assert gap == Gap("vilnius-1", "sidecar-0", begins, ends, 3, "the disk of May is lost", kind="unproven")
    assert gap_sentence(gap_json(gap)) == (
        "without proof of what vilnius-1/sidecar-0 sealed (3 requests) from 2026-10-05T08:00:01.000000Z to"
        " 2026-10-05T08:00:03.000000Z: the disk of May is lost"
    )
    # It stays as it was decided, and is billed.
    world.now += 2 * AGAIN_AFTER
    await world.intake().turn()
    assert (await world.usage())["requests"] == 3 * MANY


async def test_compaction_leaves_what_the_second_pass_has_not_seen_and_the_pass_finds_what_is_joined(
    world: World,
) -> None:
    writer = Writer()
    await world.enrol(writer)
    world.wire.send(*(writer.seal() for _ in range(MANY)))
    await world.intake().sweep()
    objects = FolderObjects(world.data / "archive")
    async with world.database.app(OPERATOR) as conn:
        hashes = await unchecked_hashes(conn, OPERATOR)
    assert len(hashes) == MANY
    [kept] = compact(objects, OPERATOR, lambda _node, _lane: world.now, world.now, unchecked=hashes)
    assert kept.batches == 0

    [done] = compact(objects, OPERATOR, lambda _node, _lane: world.now, world.now)
    assert done.batches == MANY
    await world.intake().turn()
    await world.intake().turn()
    assert await of_october(world) == OpenRoots(0, 0)


async def test_a_close_asks_for_the_roots_of_batches_that_may_be_of_its_period(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    world.wire.send(*(writer.seal() for _ in range(MANY)))
    await world.intake().sweep()
    async with world.database.app(OPERATOR) as conn:
        november = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
        assert await open_roots(conn, OPERATOR, *november) == OpenRoots(0, 0)
        await conn.execute(text("SELECT 1"))
