"""A lane's keys: rotated, revoked, sealed again; what the ledger takes under which of them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from intake_world import ACME, NODE, OPERATOR, START, World, Writer, make_world, us, usage_event
from sqlalchemy import text

from adapters.archive import BatchObjects
from adapters.archive_reading import BatchReader
from adapters.cli.node_ledger import enrol_keys
from adapters.cli.node_side import new_lane_keys, reseal_lane, take_new_keys
from adapters.cli.servers import follow_key
from adapters.data_folder import DataFolder
from adapters.objects import FolderObjects
from adapters.postgres import nodes
from adapters.postgres.closes import held_batches
from adapters.postgres.database import Database
from adapters.postgres.intake import PostgresLedger
from adapters.postgres.lane_keys import add_key, enroll_lane
from adapters.postgres.streams import read_streams
from adapters.repairing import repair_lane
from adapters.spool_source import SpoolSource
from billing.aside import MostAside
from billing.inspection import LaneName
from billing.intake import Intake, Summary
from billing.repair import DROP
from billing.streams import has_difference
from metering.batch import SealedBatch
from metering.enrolment import Request
from metering.identity import LaneKey, new_id
from metering.lane import Lane
from metering.refusal import Refusal
from metering.reseal import chain_behind
from metering.spool import Spool
from metering.write_ahead import Intent

pytestmark = pytest.mark.anyio
LANE = LaneName(OPERATOR, NODE, "sidecar-0")


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> World:
    return await make_world(database, tmp_path)


async def enrol_key(world: World, writer: Writer) -> int:
    async with world.database.app(OPERATOR) as conn:
        return await add_key(conn, LANE, LaneKey.public_bytes(writer.key), world.now)


async def revoke(world: World, last: str = "now", key: str | None = None) -> list[dict[str, Any]]:
    _, _, behind = await nodes.revoke(
        world.database, LANE, last, key, "the machine was broken into", world.now
    )
    return behind


def place(batch: SealedBatch) -> str:
    return f"{batch.seal.epoch}-{batch.seal.number}-{batch.hash}"


async def test_a_chain_goes_on_under_a_new_key_and_the_old_one_is_refused_from_then_on(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    intake = world.intake()
    world.wire.send(writer.seal())
    assert await intake.take_pending() == Summary(accepted=1, events=3)
    old, writer.key = writer.key, Ed25519PrivateKey.generate()
    assert await enrol_key(world, writer) == 1
    assert await enrol_key(world, writer) == 1, "doing it again changes nothing"

    writer.key, new = old, writer.key
    world.wire.send(writer.seal())  # the sidecar has not noticed yet
    writer.key = new
    world.wire.send(writer.seal())
    assert await intake.take_pending() == Summary(accepted=2, events=6), "the running intake knows both"
    writer.key = old
    world.wire.send(writer.seal())
    assert await intake.take_pending() == Summary(held=1)
    assert [code for _, _, code in await world.held()] == ["old_key"]
    async with world.database.app(OPERATOR) as conn:
        with pytest.raises(Refusal) as refused:
            await enroll_lane(
                conn, OPERATOR, NODE, "sidecar-0", "sidecar", LaneKey.public_bytes(old), world.now
            )
    assert refused.value.code == "key_superseded"


async def test_an_older_request_puts_no_key_above_a_newer_ones_and_a_revoked_key_is_refused(
    world: World,
) -> None:
    """Three requests, of three days: the second was never carried, and its key was thrown away."""
    node, lane_keys = Ed25519PrivateKey.generate(), [Ed25519PrivateKey.generate() for _ in range(4)]

    def asked(day: int) -> Request:
        lanes = (("sidecar-0", LaneKey.public_bytes(lane_keys[day])),)
        made_at = START + timedelta(days=day)
        return Request(OPERATOR, NODE, LaneKey.public_bytes(node), us(made_at), lanes)

    async def refused(day: int) -> str:
        with pytest.raises(Refusal) as refusal:
            await enrol_keys(world.database, asked(day), replaces=False)
        return refusal.value.code

    for day in (0, 2, 2):
        document, _ = await enrol_keys(world.database, asked(day), replaces=False)
    assert document["lanes"] == [{"lane": "sidecar-0", "rank": 1}], "the same request again changes nothing"
    assert await refused(1) == "older_request"
    await revoke(world)
    assert await refused(0) == await refused(2) == "key_revoked"
    assert (await enrol_keys(world.database, asked(3), replaces=False))[0]["lanes"][0]["rank"] == 2
    ahead = replace(asked(3), made_at_us=us(datetime.now(UTC)) + 3_600_000_000)
    with pytest.raises(Refusal, match="still to come"):
        await enrol_keys(world.database, ahead, replaces=False)


async def test_who_stole_a_revoked_key_fills_no_disk_and_stops_no_close(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    intake = world.intake()
    intake._most_aside = MostAside(of_a_lane=5)
    world.wire.send(writer.seal())
    await intake.take_pending()
    thief = writer.clone()
    await revoke(world)

    async def waits_for(end_us: int) -> int:
        async with world.database.app(OPERATOR) as conn:
            return await held_batches(conn, OPERATOR, datetime.fromtimestamp(end_us / 1e6, UTC))

    sent = [thief.seal(0) for _ in range(12)]
    world.wire.send(*sent[:8])
    assert await intake.take_pending() == Summary(held=5)
    world.wire.send(sent[0], *sent[8:])
    assert await intake.take_pending() == Summary(held=1), "one that is listed already stays so"
    assert len(await world.held()) == 5
    [counted] = await world.rows("SELECT code, batches FROM set_aside")
    assert counted == ("not_kept", 7)
    assert sum(path.is_file() for path in (world.data / "held").rglob("*.seal")) == 5

    writer.key = Ed25519PrivateKey.generate()
    await enrol_key(world, writer)
    last = writer.seal()
    end_us = last.seal.complete_to_us
    assert await waits_for(end_us) == 5
    world.wire.send(last)
    assert await intake.take_pending() == Summary(accepted=1, events=3)
    assert (await waits_for(end_us), await waits_for(end_us + 1_000_000)) == (0, 5)

    dropped = await repair_lane(
        world.database,
        BatchObjects(FolderObjects(world.data / "held")),
        BatchReader(FolderObjects(world.data / "archive")),
        LANE,
        DROP,
        "revoked",
        "a thief's",
        world.now,
    )
    assert len(dropped) == 5
    assert await waits_for(end_us + 1_000_000) == 0
    world.wire.send(*(thief.seal(0) for _ in range(3)))
    assert await intake.take_pending() == Summary()
    assert await waits_for(end_us + 1_000_000) == 0, "what was dropped counts for the bound"


async def test_a_damaged_batch_under_a_revoked_key_is_refused_for_its_key(world: World) -> None:
    """Else damaged ones would be held without a bound."""
    writer = Writer()
    await world.enrol(writer)
    await revoke(world, "genesis")
    batch = writer.seal(2)
    world.wire.send(replace(batch, body=batch.body[:-1] + b"x"))
    await world.intake().take_pending()
    assert [code for _, _, code in await world.held()] == ["revoked"]


async def test_seals_under_a_key_that_is_enrolled_later_are_taken_up_then(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    intake = world.intake()
    world.wire.send(writer.seal())
    await intake.take_pending()
    writer.key = Ed25519PrivateKey.generate()
    world.wire.send(writer.seal(), writer.seal())
    assert await intake.take_pending() == Summary(set_aside=2)
    assert await world.rows("SELECT DISTINCT code FROM set_aside") == [("unknown_key",)]
    await enrol_key(world, writer)
    assert await intake.take_pending() == Summary(accepted=2, events=6)
    assert await world.rows("SELECT * FROM set_aside") == []


async def test_after_a_revocation_later_seals_are_held_and_what_was_accepted_after_the_last_good_one_is_named(
    world: World,
) -> None:
    writer = Writer()
    await world.enrol(writer)
    good, *doubtful = (writer.seal() for _ in range(3))
    world.wire.send(good, *doubtful)
    intake = world.intake()
    await intake.take_pending()

    behind = await revoke(world, place(good))

    assert [(each["number"], each["requests"]) for each in behind] == [(1, 3), (2, 3)]
    later = writer.seal()
    world.wire.send(later, good)
    assert await intake.take_pending() == Summary(repeats=1, held=1), (
        "known keys may be taken back under a running intake"
    )
    document: dict[str, Any] = await read_streams(world.database, world.now)
    [row] = document["lanes"]
    assert (row["state"], [case["code"] for case in row["cases"]]) == ("revoked", ["revoked"])
    assert row["cases"][0]["commands"][0] == "tally node reseal --node vilnius-1 --lane sidecar-0"
    with pytest.raises(Refusal) as refused:
        await revoke(world)
    assert refused.value.code == "no_key"


async def test_a_last_good_seal_that_was_not_accepted_is_refused(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    with pytest.raises(Refusal) as refused:
        await revoke(world, place(writer.seal()))
    assert refused.value.code == "unknown_seal"
    assert await world.rows("SELECT count(*)::int FROM decision") == [(0,)]
    assert await revoke(world, "genesis") == []


async def test_one_key_of_several_is_revoked_and_the_others_go_on(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    old = writer.key
    [(hash,)] = await world.rows("SELECT key_hash FROM lane_key")
    writer.key = Ed25519PrivateKey.generate()
    await enrol_key(world, writer)
    await revoke(world, key=str(hash))
    thief = writer.clone()
    thief.key = old
    world.wire.send(thief.seal())
    assert await world.intake().take_pending() == Summary(held=1)
    world.wire.send(writer.seal())
    assert await world.intake().take_pending() == Summary(accepted=1, events=3)


async def test_a_revocation_waits_for_intake_and_names_what_it_accepted_meanwhile(world: World) -> None:
    """Two sessions: intake holds the lane's lock when the key is revoked."""
    writer = Writer()
    await world.enrol(writer)
    good, late = writer.seal(), writer.seal()
    world.wire.send(good)
    await world.intake().take_pending()
    async with world.database.intake() as conn:
        await conn.execute(text("SELECT FROM lane WHERE lane = 'sidecar-0' FOR UPDATE"))
        revoking = asyncio.create_task(revoke(world, place(good)))
        await asyncio.sleep(0.3)
        assert not revoking.done()
        assert await world.rows("SELECT revoked_at FROM lane_key") == [(None,)]
    assert await revoking == []
    world.wire.send(late)
    assert await world.intake().take_pending() == Summary(held=1)


@dataclass
class Site:
    """A sidecar's lane on its data folder, and intake from there."""

    world: World
    folder: DataFolder
    now_us: int = us(START)
    lane: Lane | None = None

    def wall_us(self) -> int:
        return self.now_us

    def monotonic_us(self) -> int:
        return self.now_us

    def start(self) -> None:
        self.now_us += 1_000_000
        key = LaneKey.load_or_create(self.folder.lane_key(NODE, "sidecar-0"))
        self.lane = Lane.open(
            self.folder.spool, operator=OPERATOR, node=NODE, lane="sidecar-0", key=key, clock=self
        )

    def serve(self, count: int) -> SealedBatch:
        assert self.lane is not None
        for _ in range(count):
            self.now_us += 1_000_000
            request = new_id()
            self.lane.intent(Intent(request, self.now_us, ACME, None, None, "chat", "qwen3-32b"))
            self.lane.outcome(usage_event(self.now_us)._replace(request=request))
        self.now_us += 11_000_000
        batch = self.lane.seal()
        assert batch is not None
        return batch

    def stop(self) -> None:
        assert self.lane is not None
        self.lane.close()

    def intake(self) -> Intake:
        archive, held = (BatchObjects(FolderObjects(self.world.data / name)) for name in ("archive", "held"))
        source = SpoolSource(Spool(self.folder.spool))
        ledger = PostgresLedger(self.world.database)
        return Intake(source, ledger, archive, held, clock=lambda: self.world.now)


@pytest.fixture
async def site(world: World) -> Site:
    folder = DataFolder(world.data)
    made = new_lane_keys(folder, OPERATOR, NODE, ["sidecar-0"])
    async with world.database.app(OPERATOR) as conn:
        await nodes.enrol_lanes(conn, OPERATOR, NODE, made.lanes, world.now, world.now)
    at = Site(world, folder)
    at.start()
    return at


async def rotate(site: Site) -> None:
    made = new_lane_keys(site.folder, OPERATOR, NODE, ["sidecar-0"], fresh=True)
    async with site.world.database.app(OPERATOR) as conn:
        await nodes.enrol_lanes(conn, OPERATOR, NODE, made.lanes, site.world.now, site.world.now)
    take_new_keys(site.folder, made)


async def test_two_requests_of_one_node_at_once_are_taken_one_after_the_other(world: World) -> None:
    node = bytes(range(32))

    async def enrol(key: bytes) -> list[tuple[str, int]]:
        async with world.database.app(OPERATOR) as conn:
            await nodes.enrol_node(conn, OPERATOR, NODE, node, world.now, replaces=False)
            await asyncio.sleep(0.05)
            return await nodes.enrol_lanes(conn, OPERATOR, NODE, [("sidecar-0", key)], world.now, world.now)

    first, *newer = (LaneKey.public_bytes(Ed25519PrivateKey.generate()) for _ in range(4))
    assert list(await asyncio.gather(enrol(first), enrol(first))) == [[("sidecar-0", 0)]] * 2
    ranks = [rank for [(_, rank)] in await asyncio.gather(*map(enrol, newer))]
    assert sorted(ranks) == [1, 2, 3]


async def test_a_running_lane_takes_up_a_new_key_under_load_and_loses_nothing(site: Site) -> None:
    assert site.lane is not None
    path = site.folder.lane_key(NODE, "sidecar-0")
    following = asyncio.create_task(follow_key(site.lane, path, every_s=0.01))
    intake = site.intake()
    for turn in range(12):
        site.serve(20)
        if turn % 3 == 1:
            await rotate(site)
            await asyncio.sleep(0.05)
        await intake.take_pending()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert await site.world.usage() == {"requests": 240, "prompt_tokens": 24_000}
    assert await site.world.rows("SELECT key_rank FROM lane") == [(4,)]
    assert not has_difference(await read_streams(site.world.database, site.world.now))
    site.stop()


async def held_under_a_revoked_key(site: Site) -> list[SealedBatch]:
    """One batch accepted before the key was revoked, two held after it; the lane has a new key and is stopped."""
    intake = site.intake()
    first = site.serve(2)
    await intake.take_pending()
    await revoke(site.world, place(first))
    rest = [site.serve(3), site.serve(1)]
    await intake.take_pending()
    assert [code for _, _, code in await site.world.held()] == ["revoked", "revoked"]
    await rotate(site)
    site.stop()
    return [first, *rest]


async def test_what_is_genuine_is_sealed_again_under_the_new_key_and_counts_once(site: Site) -> None:
    first, *rest = await held_under_a_revoked_key(site)
    world = site.world

    made = reseal_lane(site.folder, LANE, first.hash, [])

    assert [each.seal.number for each in made] == [each.seal.number for each in rest]
    assert [each.body for each in made] == [each.body for each in rest]
    assert (await site.intake().take_pending()).events == 4
    assert await world.usage() == {"requests": 6, "prompt_tokens": 600}
    held = BatchObjects(FolderObjects(world.data / "held"))
    archive = BatchReader(FolderObjects(world.data / "archive"))
    decisions = await repair_lane(
        world.database, held, archive, LANE, DROP, rest[0].hash, "sealed again", world.now
    )
    assert [each.hash for each in decisions] == [each.hash for each in rest]
    assert {each.lost for each in decisions} == {None}, "nothing of it is lost"
    assert not has_difference(await read_streams(world.database, world.now))
    site.start()
    site.serve(5)
    assert (await site.intake().take_pending()).events == 5
    assert await world.usage() == {"requests": 11, "prompt_tokens": 1_100}
    site.stop()


async def test_what_is_held_elsewhere_is_named_when_it_is_sealed_again_without_it(site: Site) -> None:
    first, *_ = await held_under_a_revoked_key(site)
    carried = site.world.data / "carried"
    site.folder.held.rename(carried)
    with pytest.raises(Refusal) as refused:
        reseal_lane(site.folder, LANE, first.hash, [])
    assert refused.value.code == "batch_missing"
    with pytest.raises(Refusal) as refused:
        reseal_lane(site.folder, LANE, "f" * 64, [carried])
    assert refused.value.code in ("not_in_chain", "batch_missing")
    assert len(reseal_lane(site.folder, LANE, first.hash, [carried])) == 2


@pytest.mark.parametrize(
    "step",
    [
        "resealing:1",
        "head:1",
        "sealed:2",
        pytest.param("making:2", marks=pytest.mark.proof),
        pytest.param("sealed:1", marks=pytest.mark.proof),
    ],
)
async def test_sealing_again_that_is_killed_leads_to_the_same_place(site: Site, step: str) -> None:
    first, *_ = await held_under_a_revoked_key(site)
    program = (
        "import sys; from pathlib import Path; from adapters.cli.node_side import reseal_lane;"
        "from adapters.cli.wiring import DataFolder; from billing.inspection import LaneName;"
        "reseal_lane(DataFolder(Path(sys.argv[1])), LaneName(*sys.argv[2].split('/')), sys.argv[3], [])"
    )
    arguments = (sys.executable, "-c", program, str(site.folder.root), str(LANE), first.hash)
    killed = await asyncio.create_subprocess_exec(*arguments, env={**os.environ, "TALLY_KILL_AT": step})
    assert await killed.wait() == -signal.SIGKILL
    with pytest.raises(Refusal) as refused:
        site.start()
    assert refused.value.code == "reseal_unfinished"

    made = reseal_lane(site.folder, LANE, "nothing is asked of it now", [])

    assert [each.seal.number for each in made] == [1, 2]
    assert (await site.intake().take_pending()).events == 4
    assert await site.world.rows("SELECT number::int FROM batch ORDER BY number") == [(0,), (1,), (2,)]
    assert list(Spool(site.folder.spool).pending()) == []
    site.start()
    site.stop()


def test_a_seal_that_is_not_the_nodes_own_is_refused_with_the_way_on() -> None:
    """A thief's seal was accepted last: the node's chain does not lead to it, however far back it goes."""
    writer = Writer()
    own = {batch.hash: batch for batch in (writer.seal(1) for _ in range(3))}
    head, *behind = reversed(own)
    for found, code in ((own, "not_in_chain"), ({head: own[head]}, "batch_missing")):
        with pytest.raises(Refusal) as refused:
            chain_behind("f" * 64, head, found)
        assert (refused.value.code, "`last_good`" in refused.value.remedy) == (code, True)
    assert [batch.hash for batch in chain_behind(behind[-1], head, own)] == [behind[0], head]
