"""A quiet lane: most of its heartbeats have no leaf of their own, and every one of them is proved and comes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from intake_world import OPERATOR, START, Wire, Writer, us
from lost_ledger import LostLedger, rows
from sqlalchemy import text

from adapters.archive import BatchObjects
from adapters.archive_compact import compact
from adapters.archive_reading import BatchReader
from adapters.backup_file import verified
from adapters.log_archive import archived_log
from adapters.log_proving import Wanted, log_key, prove
from adapters.postgres.database import Database
from adapters.postgres.nodes import revoke
from adapters.repairing import repair_lane
from adapters.restoring import restore_rows
from billing.inspection import LaneName
from billing.log import BatchLeaf, parse_leaf
from billing.log_proof import check_proof, read_proof
from billing.repair import ACCEPT_HOLE, KEEP
from metering.batch import SealedBatch
from metering.checkpoint import split_checkpoint
from metering.refusal import Refusal

pytestmark = pytest.mark.anyio

TEN_SECONDS_US = 10_000_000


async def lane(ledger: LostLedger, name: str = "quiet") -> Writer:
    """A lane that begins at eight o'clock."""
    writer = await ledger.enrol(name)
    writer.time_us = us(START)
    return writer


def heartbeat(writer: Writer, *, after_us: int = TEN_SECONDS_US, final: bool = False) -> SealedBatch:
    writer.time_us += after_us - 1_000_000  # the writer itself goes on by a second
    return writer.seal(0, final=final)


async def accept(ledger: LostLedger, *batches: SealedBatch) -> None:
    ledger.later()
    wire = Wire()
    wire.send(*batches)
    assert (await ledger.intake(wire).take_pending()).accepted == len(batches)


async def quiet(ledger: LostLedger, writer: Writer, count: int) -> list[SealedBatch]:
    """So many heartbeats, ten seconds apart."""
    batches = [heartbeat(writer) for _ in range(count)]
    await accept(ledger, *batches)
    return batches


async def leaves(ledger: LostLedger) -> list[str]:
    """The hashes of the batches that have a leaf, as the archived log has them."""
    note = ledger.archive.get(f"{OPERATOR}/_log/checkpoint")
    assert note is not None
    size = split_checkpoint(note)[0].size
    found = [parse_leaf(data) for data in archived_log(ledger.archive, OPERATOR, size).leaves(0, size)]
    return [leaf.hash for leaf in found if isinstance(leaf, BatchLeaf)]


def hashes(batches: Sequence[SealedBatch]) -> list[str]:
    return [batch.hash for batch in batches]


# -- What is a leaf ----------------------------------------------------------------------------------------------------


async def test_a_heartbeat_is_a_leaf_when_its_epoch_begins_its_lane_ends_or_an_hour_is_new(
    ledger: LostLedger,
) -> None:
    writer = await lane(ledger)
    first, second, third = (heartbeat(writer) for _ in range(3))
    busy = writer.seal(1, customer=ledger.customers["acme"], model="m")
    at_nine = heartbeat(writer, after_us=us(START) + 3_600_000_000 - writer.time_us)
    after_nine = heartbeat(writer)
    writer.new_epoch("b" * 32)
    anew, still = heartbeat(writer), heartbeat(writer)
    last = heartbeat(writer, final=True)
    # In one transaction and in several it is the same.
    await accept(ledger, first, second)
    await accept(ledger, third, busy, at_nine, after_nine, anew)
    await accept(ledger, still, last)
    await ledger.sign()
    assert await leaves(ledger) == hashes([first, busy, at_nine, anew, last])


async def quiet_day(ledger: LostLedger, every_us: int) -> None:
    """A lane's day of heartbeats and nothing else: its first one is a leaf, and the first after each full hour."""
    writer = await lane(ledger)
    day = [heartbeat(writer, after_us=every_us) for _ in range(24 * 3_600_000_000 // every_us)]
    ledger.now = datetime(2026, 11, 3, tzinfo=UTC)
    await accept(ledger, *day)
    await ledger.sign()
    found = await leaves(ledger)
    assert len(found) == 25
    by_hash = {batch.hash: batch.seal for batch in day}
    assert [by_hash[each].complete_to_us % 3_600_000_000 for each in found[1:]] == [0] * 24


async def test_a_quiet_day_of_a_lane_makes_a_leaf_an_hour(ledger: LostLedger) -> None:
    await quiet_day(ledger, every_us=15 * 60_000_000)


@pytest.mark.proof
async def test_a_quiet_day_of_8640_heartbeats_makes_a_leaf_an_hour(ledger: LostLedger) -> None:
    await quiet_day(ledger, every_us=TEN_SECONDS_US)


# -- How a heartbeat is proved -----------------------------------------------------------------------------------------


async def proof_of(ledger: LostLedger, batch: SealedBatch) -> dict[str, object]:
    key = log_key(ledger.data / "keys", OPERATOR)
    proof = await prove(
        ledger.database, ledger.archive, OPERATOR, Wanted(batch=batch.hash), key=key, seen=None
    )
    return dict(read_proof(json.dumps(proof).encode()))


async def test_a_heartbeat_is_proved_by_the_next_leaf_of_its_lane_and_the_seals_that_lead_to_it(
    ledger: LostLedger,
) -> None:
    writer = await lane(ledger)
    batches = await quiet(ledger, writer, 5)
    busy = writer.seal(2, customer=ledger.customers["acme"], model="m")
    await accept(ledger, busy)
    await ledger.sign()
    key = log_key(ledger.data / "keys", OPERATOR)
    for at in (0, 1, 4):
        proof = await proof_of(ledger, batches[at])
        checked = check_proof(proof, pin=key)
        assert checked.proves
        assert checked.batch == batches[at].hash
        assert checked.seals == (0 if at == 0 else 6 - at)
    await asyncio.to_thread(join_all, ledger)
    assert check_proof(await proof_of(ledger, batches[3]), pin=key).proves


async def test_a_heartbeat_that_no_leaf_follows_yet_is_refused_with_when_there_will_be_one(
    ledger: LostLedger,
) -> None:
    writer = await lane(ledger)
    batches = await quiet(ledger, writer, 3)
    await ledger.sign()
    with pytest.raises(Refusal) as refused:
        await proof_of(ledger, batches[2])
    assert refused.value.code == "no_leaf_yet"
    assert "2026-10-05T09:00:00Z" in refused.value.what


# -- How it comes back -------------------------------------------------------------------------------------------------


def join_all(ledger: LostLedger) -> None:
    later = datetime(2027, 1, 1, tzinfo=UTC)
    done = list(compact(ledger.archive, OPERATOR, lambda _node, _lane: later, later))
    assert sum(each.files for each in done)


@pytest.mark.parametrize("joined", [False, True])
async def test_heartbeats_without_a_leaf_come_back_before_and_behind_the_newest_leaf(
    ledger: LostLedger, empty: Database, joined: bool
) -> None:
    writer = await lane(ledger)
    await quiet(ledger, writer, 4)
    await ledger.sign()
    await ledger.back_up()
    await quiet(ledger, writer, 3)
    writer.new_epoch("b" * 32)  # killed: the last heartbeat of the epoch before has no leaf
    await quiet(ledger, writer, 2)
    await accept(ledger, writer.seal(2, customer=ledger.customers["acme"], model="m"))
    await quiet(ledger, writer, 3)
    await ledger.sign()
    lost = await rows(ledger.database)
    if joined:
        await asyncio.to_thread(join_all, ledger)

    again = ledger.on(empty)
    await restore_rows(empty, verified(ledger.data / "backup.tar"), again.now)
    _, brought = await again.bring_forward()
    assert (brought.batches, brought.heartbeats) == (2, 7)
    assert await rows(empty) == lost
    # The node's spool has let all of that go; what it seals next follows.
    await accept(again, heartbeat(writer))
    assert [each.heartbeats for each in await again.bring_forward()] == [0, 0]


async def test_the_archive_alone_brings_a_quiet_lane_back(ledger: LostLedger, empty: Database) -> None:
    writer = await lane(ledger)
    writer.time_us += 3_000_000_000  # ten minutes to nine
    await quiet(ledger, writer, 100)
    await ledger.sign()
    lost = await rows(ledger.database)
    _, brought = await ledger.on(empty).bring_forward()
    assert (brought.batches, brought.heartbeats) == (2, 98)
    assert await rows(empty) == lost


async def test_a_heartbeat_that_makes_a_leaf_and_was_not_signed_makes_one_again(
    ledger: LostLedger, empty: Database
) -> None:
    writer = await lane(ledger)
    await quiet(ledger, writer, 2)
    await ledger.sign()
    await ledger.back_up()
    await accept(ledger, heartbeat(writer, after_us=2 * 3_600_000_000), heartbeat(writer))
    again = ledger.on(empty)
    await restore_rows(empty, verified(ledger.data / "backup.tar"), again.now)
    _, brought = await again.bring_forward()
    assert brought.heartbeats == 2
    await again.sign()
    assert len(await leaves(again)) == 2


async def test_what_follows_the_newest_leaf_comes_back_up_to_a_fork(
    ledger: LostLedger, empty: Database
) -> None:
    """Which of two successors was accepted, no one knows."""
    writer, forked = await lane(ledger), await lane(ledger, "forked")
    await quiet(ledger, writer, 2)
    await quiet(ledger, forked, 2)
    await ledger.sign()
    await ledger.back_up()
    await quiet(ledger, writer, 1)
    await accept(ledger, writer.seal(1, customer=ledger.customers["acme"], model="m"))
    await quiet(ledger, writer, 1)
    clone = forked.clone()
    [one] = await quiet(ledger, forked, 1)
    other = heartbeat(clone, after_us=2 * TEN_SECONDS_US)
    folder = f"{OPERATOR}/2026-10-05/{other.seal.node}/forked"
    # As a transaction leaves it that was killed before its commit.
    ledger.archive.put([(f"{folder}/_{other.seal.epoch}-2-{other.hash}.seal", other.note)])
    again = ledger.on(empty)
    await restore_rows(empty, verified(ledger.data / "backup.tar"), again.now)
    _, brought = await again.bring_forward()
    assert (brought.heartbeats, brought.behind_batches) == (2, 1)
    [left] = brought.left
    assert left.what.startswith("2 batches follow seal")
    await accept(again, one)  # sent again, it is accepted as ever


async def test_a_seal_on_the_way_that_is_lost_is_named(ledger: LostLedger, empty: Database) -> None:
    writer = await lane(ledger)
    batches = await quiet(ledger, writer, 5)
    await accept(ledger, heartbeat(writer, after_us=3_600_000_000))
    await ledger.sign()
    [path] = ledger.data.glob(f"archive/*/*/*/*/*{batches[2].hash}.seal")
    path.unlink()
    with pytest.raises(Refusal) as refused:
        await ledger.on(empty).bring_forward()
    assert refused.value.code == "archive_incomplete"
    assert batches[2].hash in (refused.value.where or "")


async def test_heartbeats_of_a_key_that_was_revoked_since_come_back(
    ledger: LostLedger, empty: Database
) -> None:
    writer = await lane(ledger)
    await quiet(ledger, writer, 3)
    name = LaneName(OPERATOR, writer.node, writer.lane)
    batches = await quiet(ledger, writer, 2)
    # The last good seal is one that has no leaf, and what was accepted after it stays.
    good = f"{batches[0].seal.epoch}-{batches[0].seal.number}-{batches[0].hash}"
    await revoke(ledger.database, name, good, None, "stolen", ledger.now + timedelta(minutes=1))
    await ledger.sign()
    lost = await rows(ledger.database)
    _, brought = await ledger.on(empty).bring_forward()
    assert (brought.batches, brought.heartbeats) == (1, 4)
    assert await rows(empty) == lost


@pytest.mark.parametrize("kind", [ACCEPT_HOLE, KEEP])
async def test_heartbeats_before_a_batch_that_a_person_adopted_come_back(
    ledger: LostLedger, empty: Database, kind: str
) -> None:
    """It names another seal than the lane's last one, so only the decision leads to that."""
    writer = await lane(ledger)
    await quiet(ledger, writer, 3)
    clone = writer.clone()
    left = await quiet(ledger, writer, 2)
    branch = writer if kind == ACCEPT_HOLE else clone
    if kind == ACCEPT_HOLE:
        heartbeat(writer)  # it never comes
    else:
        clone.new_epoch("c" * 32)
    adopted = heartbeat(branch, after_us=3 * TEN_SECONDS_US)
    wire = Wire()
    wire.send(adopted)
    assert (await ledger.intake(wire).take_pending()).held == 1
    name = LaneName(OPERATOR, writer.node, writer.lane)
    held, archive = BatchObjects(ledger.held), BatchReader(ledger.archive)
    await repair_lane(
        ledger.database, held, archive, name, kind, adopted.hash[:16], "the disk burnt", ledger.now
    )
    ledger.later()
    assert (await ledger.intake(Wire()).take_pending()).accepted == 1
    await quiet(ledger, branch, 2)
    await ledger.sign()
    lost = await rows(ledger.database)
    assert await leaves(ledger) == [await first_of(ledger), adopted.hash]
    with pytest.raises(Refusal) as refused:
        await proof_of(ledger, left[0])
    assert refused.value.code == "no_leaf"

    _, brought = await ledger.on(empty).bring_forward()
    assert (brought.batches, brought.heartbeats) == (2, 6)
    assert await rows(empty) == lost


async def first_of(ledger: LostLedger) -> str:
    async with ledger.database.app(OPERATOR) as connection:
        found = await connection.execute(text("SELECT hash FROM batch WHERE previous = 'genesis'"))
        return str(found.scalar_one())
