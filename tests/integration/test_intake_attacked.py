"""Whoever may write to the topic may write anything: it is named or counted, bounded, and the other lanes flow on."""

from __future__ import annotations

import logging
import random
import resource
from collections.abc import Callable
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from intake_world import World, Writer, make_world

from adapters.archive import BatchObjects
from adapters.objects import FolderObjects
from adapters.postgres.database import Database
from adapters.postgres.intake import PostgresLedger
from adapters.postgres.streams import read_streams
from billing.aside import MostAside
from billing.intake import Intake, Summary
from metering.batch import SealedBatch
from metering.seal import sign_seal

pytestmark = pytest.mark.anyio
MOST = MostAside(of_a_lane=20, in_all=50)


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> World:
    return await make_world(database, tmp_path)


def bounded(world: World) -> Intake:
    """Intake as it reads from Kafka."""
    return Intake(
        world.wire,
        PostgresLedger(world.database),
        BatchObjects(FolderObjects(world.data / "archive")),
        BatchObjects(FolderObjects(world.data / "held")),
        clock=lambda: world.now,
        most_aside=MOST,
    )


def kept(world: World) -> int:
    """Batches whose bytes lie below held/."""
    return len(list((world.data / "held").rglob("*.seal")))


async def test_of_a_flood_of_strays_some_are_kept_and_all_are_counted(world: World) -> None:
    writer, stranger = Writer(), Writer()
    await world.enrol(writer)
    intake = bounded(world)
    for _ in range(4):
        for _ in range(30):
            world.wire.send(stranger.seal(0))
            world.wire.send_bytes(random.Random(world.wire._next).randbytes(100), b"junk")
        world.wire.send(writer.seal(2))
        taken = await intake.take_pending()
        assert (taken.accepted, taken.set_aside) == (1, 60)
    assert kept(world) == 40
    assert await world.rows("SELECT count(*), sum(batches)::int FROM set_aside") == [(42, 240)]
    document: Any = await read_streams(world.database, world.now)
    assert document["set_aside"] == 240
    named = {
        (each["lane"], each["batches"])
        for each in document["set_aside_batches"]
        if each["code"] == "not_kept"
    }
    assert named == {("sidecar-0", 100), ("", 100)}
    assert await world.usage() == {"requests": 8, "prompt_tokens": 800}


async def test_strays_under_names_without_end_are_bounded_in_all(world: World) -> None:
    for n in range(80):
        world.wire.send(Writer(lane=f"made-up-{n}").seal(0))
    assert await bounded(world).take_pending() == Summary(set_aside=80)
    assert kept(world) == 50
    assert await world.rows("SELECT lane, batches::int FROM set_aside WHERE code = 'not_kept'") == [("", 30)]


async def test_what_was_kept_of_a_lane_is_taken_up_when_it_is_enrolled_and_the_rest_comes_again(
    world: World,
) -> None:
    writer = Writer()
    batches = [writer.seal(1) for _ in range(30)]
    world.wire.send(*batches)
    intake = bounded(world)
    assert await intake.take_pending() == Summary(set_aside=30)
    await world.enrol(writer)
    assert (await intake.take_pending()).accepted == 20
    world.wire.send(*batches[20:])  # its shipper had no acknowledgement for them
    assert (await intake.take_pending()).accepted == 10
    assert (await world.usage())["requests"] == 30


async def test_foreign_bodies_under_one_seal_are_kept_once_and_the_whole_batch_goes_on(world: World) -> None:
    """A seal is no secret: whoever reads the topic may send it again with any body, and is vouched for by its key."""
    writer = Writer()
    await world.enrol(writer)
    good = writer.seal()
    intake = bounded(world)
    for n in range(3):
        for m in range(40):
            foreign = b"foreign %d %d" % (n, m)
            world.wire.send_bytes(good.note, foreign.ljust(len(good.body)))
        assert (await intake.take_pending()).accepted == 0
    assert kept(world) == 1
    assert [code for _, _, code in await world.held()] == ["body_digest"]
    world.wire.send(good)
    assert (await intake.take_pending()).accepted == 1
    assert kept(world) == 0


async def test_a_whole_batch_that_has_to_wait_takes_the_place_of_a_damaged_one(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    first, second = writer.seal(), writer.seal()
    world.wire.send_bytes(second.note, b"foreign")
    intake = bounded(world)
    await intake.take_pending()
    world.wire.send(second)
    await intake.take_pending()
    assert [code for _, _, code in await world.held()] == ["hole"]
    assert kept(world) == 1
    world.wire.send(first)
    assert (await intake.take_pending()).accepted == 2, "the one that was held is the whole one"
    assert kept(world) == 0


async def test_a_hole_that_another_batch_fills_is_named_a_fork_when_it_comes_again(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    world.wire.send(writer.seal())
    clone = writer.clone()
    mine, other = [writer.seal(), writer.seal()], [clone.seal(), clone.seal()]
    world.wire.send(other[1])
    intake = world.intake()
    await intake.take_pending()
    assert [code for _, _, code in await world.held()] == ["hole"]
    world.wire.send(*mine, *other)
    await intake.take_pending()
    assert [code for _, _, code in await world.held()] == ["fork", "fork"]


def bombs(writer: Writer) -> dict[str, Callable[[], SealedBatch]]:
    """Batches that their lane's own key signed, and that want to be large when they are opened."""

    def of(body: bytes, **changes: Any) -> SealedBatch:
        honest = writer.clone().seal(2)
        seal = honest.seal
        said = {"body_sha256": sha256(body).hexdigest(), "body_bytes": len(body)} | changes
        seal = type(seal)(**{name: getattr(seal, name) for name in seal.__slots__} | said)
        return SealedBatch(seal, sign_seal(seal, writer.key), body)

    def parquet(rows: int, width: int) -> bytes:
        sink = BytesIO()
        zeros = pa.table({"model": pa.array([b"0" * width] * rows)})
        pq.write_table(zeros, sink, compression="zstd", use_dictionary=False, write_statistics=False)
        return sink.getvalue()

    def zstd() -> bytes:
        return bytes(pa.compress(bytes(100_000_000), codec="zstd", asbytes=True))

    return {
        "100 MB of zeros as zstd": lambda: of(zstd()),
        "a column of 150 MB": lambda: of(parquet(150_000, 1_000)),
        "… that says to be small": lambda: of(parquet(150_000, 1_000), rows_bytes=10_000),
        "two values of 75 MB": lambda: of(parquet(2, 75_000_000)),
        "a footer of 800 kB": lambda: of(
            b"PAR1" + bytes(800_000) + (799_990).to_bytes(4, "little") + b"PAR1"
        ),
        "not even Parquet": lambda: of(bytes(800_000)),
    }


async def test_bombs_are_held_by_name_and_memory_stays_bounded(world: World) -> None:
    writer, other = Writer(), Writer(lane="sidecar-1")
    await world.enrol(writer, other)
    made = [make() for make in bombs(writer).values()]
    intake = bounded(world)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for bomb in made:
        world.wire.send(bomb, other.seal(1))
        taken = await intake.take_pending()
        assert (taken.accepted, taken.held) == (1, 1)
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1_000
    assert grown_mb < 100, "none of the 150 MB were ever unpacked"
    assert {code for _, _, code in await world.held()} <= {"body_format", "body_digest", "rows_bytes"}


async def fuzz(world: World, messages: int, seed: int) -> None:
    """Damaged, spliced, foreign and invented messages, and an honest lane among them that misses nothing."""
    chance = random.Random(seed)
    names = f"honest-{seed}", f"victim-{seed}"
    honest, victim, stranger = Writer(lane=names[0]), Writer(lane=names[1]), Writer(lane=names[1])
    await world.enrol(honest, victim)
    samples = [victim.clone().seal(chance.randint(0, 3)) for _ in range(20)]
    samples += [stranger.seal(1) for _ in range(5)]
    intake, sent = bounded(world), 0
    while sent < messages:
        world.wire.send(honest.seal(1))
        for _ in range(200):
            world.wire.send_bytes(*fuzzed(chance, samples))
        sent += 201
        await intake.take_pending()
    lanes = await world.rows(f"SELECT count(*)::int FROM batch WHERE lane = '{names[0]}'")
    assert lanes == [(sent // 201,)]
    [(listed, waiting)] = await world.rows(
        "SELECT (SELECT count(*) FROM set_aside), (SELECT count(*) FROM held)"
    )
    assert isinstance(listed, int)
    assert isinstance(waiting, int)
    assert listed <= MOST.in_all + 3 * (seed + 1)
    assert kept(world) <= listed + waiting, "nothing lies there that is not listed"


def fuzzed(chance: random.Random, samples: list[SealedBatch]) -> tuple[bytes, bytes]:
    one, two = chance.choice(samples), chance.choice(samples)
    note, body = one.note, two.body if chance.random() < 0.3 else one.body
    for _ in range(chance.randint(0, 2)):
        at = chance.randrange(len(note))
        match chance.randrange(6):
            case 0:
                note = note[:at] + chance.randbytes(chance.randint(0, 8)) + note[at + chance.randint(0, 8) :]
            case 1:
                note = note[:at]
            case 2:
                note = note[:at] + two.note[at:]
            case 3:
                note = chance.randbytes(chance.randint(0, 300))
            case 4:
                body = body[: chance.randint(0, len(body))] + chance.randbytes(chance.randint(0, 30))
            case _:
                note = note.replace(
                    chance.choice((b"0", b"1", b"\n", b" ")), chance.choice((b"9", b"", b"\0")), 1
                )
        if not note:
            break
    return note, body


async def test_two_thousand_fuzzed_messages_are_named_and_stop_nobody(world: World) -> None:
    await fuzz(world, 2_000, seed=1)


@pytest.mark.proof
@pytest.mark.timeout(3_600)
async def test_a_hundred_thousand_fuzzed_messages_are_named_and_memory_stays_flat(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)  # pytest would keep every line, and that is what would grow
    peaks = []
    for seed in range(10):  # each part under lanes of its own
        await fuzz(world, 10_000, seed=100 + seed)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_000)
    assert peaks[-1] - peaks[1] < 50, peaks
