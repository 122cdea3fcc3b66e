"""The shipper over real spools and a Kafka of two lists: what it sends, what it deletes, and what it leaves alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from lane_examples import HandClock, serve
from shipped_lanes import INTAKE, NODE, OPERATOR, START_US, ListOutgoing, SealingLane, acknowledge

from metering.lane import Lane
from metering.one_shipper import spool_held
from metering.refusal import Unavailable
from metering.shipper import Shipped, Shipper, run
from metering.spool import Spool

PUBLIC = INTAKE.public_key().public_bytes_raw()
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(32))


class World:
    """A spool, a Kafka, and the shipper between them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spool = Spool(folder)
        self.kafka = ListOutgoing()
        self.clock = HandClock()
        self.keys: dict[str, bytes] = {OPERATOR: PUBLIC}
        self.lanes: list[SealingLane] = []
        self.start()

    def start(self, sweep_bytes: int = 32_000_000) -> None:
        self.kafka.close()
        self.shipper = Shipper(
            self.spool, self.kafka, self.keys.get, clock=self.clock, sweep_bytes=sweep_bytes
        )

    def lane(self, name: str = "sidecar-0", epoch: str = "00" * 16) -> SealingLane:
        self.lanes.append(SealingLane(self.folder, name, epoch))
        return self.lanes[-1]

    def waiting(self) -> list[int]:
        return [each.ref.number for each in self.spool.pending()]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "spool")
    yield made
    for lane in made.lanes:
        lane.close()


def test_what_is_sealed_goes_over_once_byte_for_byte_and_stays_until_intake_has_it(world: World) -> None:
    lane = world.lane()
    lane.seal(3)
    assert world.shipper.sweep().sent == 3
    assert world.shipper.sweep() == Shipped()
    assert world.kafka.there == [(lane.ref, batch.note, batch.body) for batch in lane.sealed]
    assert world.waiting() == [0, 1, 2]


def test_an_acknowledgement_deletes_its_batch_and_those_before_it(world: World) -> None:
    lane = world.lane()
    batches = lane.seal(4)
    world.shipper.sweep()
    world.kafka.said.append(acknowledge(batches[2]))
    assert world.shipper.sweep().deleted == 3
    assert world.waiting() == [3]
    assert [path.suffix for path in sorted(world.folder.rglob("*-3.*"))] == [".seal"]


def test_lanes_take_turns_and_each_goes_in_the_order_of_its_chain(world: World) -> None:
    long, short = world.lane("a"), world.lane("b")
    long.seal(6)
    short.seal(2)
    world.shipper.sweep()
    assert [lane.lane for lane, _, _ in world.kafka.there] == ["a", "b", "a", "b", "a", "a", "a", "a"]
    for lane in (long, short):
        assert [note for ref, note, _ in world.kafka.there if ref == lane.ref] == [
            each.note for each in lane.sealed
        ]


def test_a_sweep_hands_over_a_bounded_piece_and_says_that_there_is_more(world: World) -> None:
    sealed = world.lane().seal(10)
    world.start(sweep_bytes=3 * len(sealed[0].note))
    swept = [world.shipper.sweep() for _ in range(5)]
    assert [each.more for each in swept] == [True, True, True, False, False]
    assert world.kafka.notes() == [batch.note for batch in sealed]


def test_a_flush_that_fails_promises_nothing_and_everything_goes_again(world: World) -> None:
    sealed = world.lane().seal(3)
    world.kafka.flushes_fail = 1
    with pytest.raises(Unavailable):
        world.shipper.sweep()
    world.shipper.sweep()
    assert world.kafka.notes() == [batch.note for batch in sealed]


def test_after_a_start_all_that_waits_goes_again_and_old_acknowledgements_are_heard_again(
    world: World,
) -> None:
    batches = world.lane().seal(4)
    world.shipper.sweep()
    world.kafka.said += [acknowledge(batches[1]), acknowledge(batches[0])]
    world.start()
    assert world.shipper.sweep() == Shipped(2, sum(len(each.note) for each in batches[2:]), 2)
    assert world.waiting() == [2, 3]


def test_another_topic_than_before_is_sent_everything_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    sealed = world.lane().seal(3)
    world.shipper.sweep()
    world.kafka.at, world.kafka.there = "cluster/2", []
    world.shipper.sweep()
    assert world.kafka.notes() == [batch.note for batch in sealed]
    assert "another one than before" in caplog.text


def test_a_topic_that_lost_its_end_has_it_back_after_a_minute_and_some_rounds(world: World) -> None:
    sealed = world.lane().seal(50)
    world.shipper.sweep()
    del world.kafka.there[7:]
    world.kafka.said.append(acknowledge(sealed[6]))
    world.shipper.sweep()
    world.clock.pass_s(60)
    for _ in range(7):
        world.shipper.sweep()
        newest = len(world.kafka.there) - 1
        world.kafka.said.append(acknowledge(sealed[newest]))
    world.shipper.sweep()
    assert world.kafka.notes() == [batch.note for batch in sealed]
    assert world.waiting() == []


@pytest.mark.parametrize("strange", ["garbage", "stranger", "other_operator", "other_lane"])
def test_what_is_no_word_of_this_operators_intake_deletes_nothing(world: World, strange: str) -> None:
    batch = world.lane().seal()[0]
    said = {
        "garbage": b"tallygrid/acknowledgement/v1\nall of it\n",
        "stranger": acknowledge(batch, STRANGER),
        "other_operator": acknowledge(batch).replace(OPERATOR.encode(), b"kaunas"),
        "other_lane": acknowledge(batch).replace(b"lane sidecar-0", b"lane sidecar-1"),
    }[strange]
    world.kafka.said += [said, said]
    world.shipper.sweep()
    world.shipper.sweep()
    assert world.waiting() == [0]


def test_a_bad_signature_is_named_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    batch = world.lane().seal()[0]
    for _ in range(3):
        world.kafka.said.append(acknowledge(batch, STRANGER))
        world.shipper.sweep()
    assert [record.message for record in caplog.records] == [
        "an acknowledgement is passed over: no known key signed the note"
    ]


def test_an_acknowledgement_of_another_batch_with_this_number_is_an_alarm_and_no_permission(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    batches = world.lane().seal(3)
    world.kafka.said.append(acknowledge(batches[1], digest="ab" * 32))
    world.shipper.sweep()
    world.shipper.sweep()
    assert world.waiting() == [0, 1, 2]
    assert caplog.text.count("FORK") == 1
    world.kafka.said.append(acknowledge(batches[0]))
    world.shipper.sweep()
    assert world.waiting() == [1, 2]


def test_without_the_intake_key_nothing_is_deleted_until_it_comes(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    batch = world.lane().seal()[0]
    del world.keys[OPERATOR]
    world.kafka.said.append(acknowledge(batch))
    world.shipper.sweep()
    assert world.waiting() == [0]
    assert f"the intake key of {OPERATOR} is not here" in caplog.text
    world.keys[OPERATOR] = PUBLIC
    world.kafka.said.append(acknowledge(batch))  # intake says it again when the batch comes again
    world.shipper.sweep()
    assert world.waiting() == []


def test_a_lane_that_starts_again_beside_its_shipper_goes_on_though_nothing_of_it_was_left(
    world: World,
) -> None:
    lane = world.lane()
    batches = lane.seal(40)
    world.shipper.sweep()
    world.kafka.said.append(acknowledge(batches[-1]))
    assert world.shipper.sweep().deleted == 40
    last = world.spool.spooled(lane.ref, "000000000040-" + "00" * 16 + "-39").ref
    lane.close()
    again = world.lane(epoch="11" * 16)
    [first] = again.seal()
    assert world.spool.waiting(again.ref) > [last.path.stem]
    assert world.shipper.sweep().sent == 1
    world.kafka.said.append(acknowledge(first))
    assert world.shipper.sweep() == Shipped(deleted=1)


def test_a_folder_that_forgot_how_far_its_names_had_risen_is_sent_all_the_same(world: World) -> None:
    lane = world.lane()
    batches = lane.seal(20)
    world.shipper.sweep()
    world.kafka.said.append(acknowledge(batches[-1]))
    world.shipper.sweep()
    lane.close()
    (world.folder / OPERATOR / NODE / "sidecar-0" / "ordinal").unlink()
    world.lane(epoch="11" * 16).seal(3)
    assert world.shipper.sweep().sent == 3


def test_what_somebody_else_took_out_of_the_spool_is_waited_for_no_longer(world: World) -> None:
    lane = world.lane()
    lane.seal(20)
    world.shipper.sweep()
    for batch in list(world.spool.pending()):
        world.spool.acknowledge(batch)
    assert world.shipper.sweep() == Shipped()
    lane.close()
    (world.folder / OPERATOR / NODE / "sidecar-0" / "ordinal").unlink()
    world.lane(epoch="11" * 16).seal(3)
    assert world.shipper.sweep().sent == 3


def test_an_older_word_that_comes_late_and_another_epochs_do_no_harm(world: World) -> None:
    first = world.lane()
    old = first.seal(2)
    first.close()
    new = world.lane(epoch="11" * 16).seal(2)
    world.shipper.sweep()
    world.kafka.said += [acknowledge(new[0]), acknowledge(old[0]), acknowledge(old[1])]
    assert world.shipper.sweep().deleted == 3
    assert [each.batch().hash for each in world.spool.pending()] == [new[1].hash]


def test_a_deletion_that_the_disk_refused_is_made_up_for(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    batches = world.lane().seal(2)
    world.kafka.said.append(acknowledge(batches[1]))

    def refuses(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr(Spool, "acknowledge", refuses)
        world.shipper.sweep()
        world.shipper.sweep()
    assert world.waiting() == [0, 1]
    assert caplog.text.count("Read-only file system") == 1
    assert world.shipper.sweep().deleted == 2


def test_a_lane_that_cannot_be_read_stops_no_other(world: World, caplog: pytest.LogCaptureFixture) -> None:
    broken, well = world.lane("a"), world.lane("b")
    broken.seal(2)
    well.seal(2)
    seal = world.folder / OPERATOR / NODE / "a" / "sealed" / f"{1:012d}-{'00' * 16}-0.seal"
    seal.unlink()
    seal.mkdir()  # what can't be read, also by root
    world.shipper.sweep()
    world.shipper.sweep()
    assert world.kafka.notes() == [batch.note for batch in well.sealed]
    assert "Is a directory" in caplog.text


def test_a_torn_seal_goes_over_as_it_is_and_intake_says_what_it_thinks(world: World) -> None:
    lane = world.lane()
    batch = lane.seal()[0]
    (world.folder / OPERATOR / NODE / "sidecar-0" / "sealed" / f"{1:012d}-{'00' * 16}-0.seal").write_bytes(
        b"torn"
    )
    world.shipper.sweep()
    assert world.kafka.there == [(lane.ref, b"torn", batch.body)]


# -- running -------------------------------------------------------------------------------------------------------


def test_an_hour_without_kafka_loses_nothing_is_said_once_and_is_caught_up_with_at_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """By the lane's own clock: ten requests a second, a seal every half minute, a look at Kafka between them."""
    caplog.set_level(logging.INFO)
    clock = HandClock(wall=START_US)
    lane = Lane.open(world.folder, operator=OPERATOR, node=NODE, lane="sidecar-1", key=INTAKE, clock=clock)

    async def hour() -> None:
        stop = asyncio.Event()
        world.kafka.is_away = True
        shipping = asyncio.create_task(run(world.shipper, stop, poll_every=timedelta(milliseconds=1)))
        for second in range(3_600):
            serve(lane, 10)
            clock.pass_s(1)
            if second % 30 == 29:
                lane.seal()
                await asyncio.sleep(0)
        assert world.kafka.there == []
        world.kafka.is_away = False
        async with asyncio.timeout(30):
            while len(world.kafka.there) < 120:  # noqa: ASYNC110 - the shipper works in a thread
                await asyncio.sleep(0.005)
        stop.set()
        await shipping

    asyncio.run(hour())
    lane.close()
    sealed = [spooled.batch() for spooled in world.spool.pending()]
    assert sum(batch.seal.totals.requests for batch in sealed) == 36_000
    assert world.kafka.notes() == [batch.note for batch in sealed]
    assert [record.message.split(" after")[0] for record in caplog.records] == [
        "Kafka does not answer; batches wait in the spool (is it running?)",
        "Kafka is there again",
    ]


def test_told_to_stop_it_sends_what_was_sealed_last(world: World) -> None:
    async def stopped() -> None:
        stop = asyncio.Event()
        shipping = asyncio.create_task(run(world.shipper, stop, poll_every=timedelta(hours=1)))
        while not world.kafka.there:  # noqa: ASYNC110 - the shipper works in a thread
            await asyncio.sleep(0.005)
        lane.seal()
        stop.set()
        await shipping

    lane = world.lane()
    lane.seal()
    asyncio.run(stopped())
    assert world.kafka.notes() == [batch.note for batch in lane.sealed]


def test_a_second_shipper_of_a_spool_says_so_and_waits_for_the_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    order = []

    async def second(stop: asyncio.Event) -> bool:
        async with spool_held(tmp_path, stop) as held:
            order.append(f"second: {held}")
            return held

    async def both() -> None:
        async with spool_held(tmp_path, asyncio.Event()) as held:
            assert held
            given_up = asyncio.Event()
            waiting, leaving = (
                asyncio.create_task(second(asyncio.Event())),
                asyncio.create_task(second(given_up)),
            )
            await asyncio.sleep(0.05)
            given_up.set()
            assert await leaving is False
            order.append("first ends")
        assert await waiting is True

    asyncio.run(both())
    assert order == ["second: False", "first ends", "second: True"]
    assert caplog.text.count("another shipper empties this spool") == 2
