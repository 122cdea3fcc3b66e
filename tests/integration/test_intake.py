"""Intake against a real PostgreSQL, as tally_intake: every batch counts once, and whatever can't be taken
is named.
"""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from pathlib import Path

import pytest
from intake_world import ACME, NOW, OPERATOR, START, World, Writer, make_world, us
from sqlalchemy import text

from adapters.postgres.database import Database
from adapters.postgres.intake import PostgresLedger
from adapters.postgres.lane_keys import enroll_lane
from billing.intake import Summary
from billing.intake_ports import Position
from metering.batch import GENESIS
from metering.refusal import Refusal

pytestmark = pytest.mark.anyio


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> World:
    return await make_world(database, tmp_path)


async def test_a_batch_becomes_usage_and_lies_in_the_archive(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    batch = writer.seal(3)
    world.wire.send(batch)

    assert await world.intake().take_pending() == Summary(accepted=1, events=3)

    assert await world.usage() == {"requests": 3, "prompt_tokens": 300}
    assert not world.wire.sent
    place = world.data / f"archive/telecentras/2026-10-05/vilnius-1/sidecar-0/{'a' * 32}-0-{batch.hash}"
    assert place.with_name(f"_{place.name}.seal").read_bytes() == batch.note
    assert place.with_name(place.name + ".parquet").read_bytes() == batch.body
    [(path, checked, events)] = await world.rows("SELECT path, root_checked, events FROM batch")
    assert (world.data / "archive" / str(path)) == place
    assert (checked, events) == (True, 3)


async def test_heartbeats_move_the_mark_and_have_no_body(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    world.wire.send(writer.seal(2), writer.seal(0), writer.seal(0))
    assert (await world.intake().take_pending()).accepted == 3
    assert await world.rows("SELECT number, last_sequence FROM lane") == [(2, 2)]
    assert len(list((world.data / "archive").rglob("*.parquet"))) == 1


async def test_a_repeat_is_acknowledged_and_adds_nothing(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    first, second, third = writer.seal(), writer.seal(), writer.seal()
    world.wire.send(first, second, third, third)
    assert await world.intake().take_pending() == Summary(accepted=3, repeats=1, events=9)

    world.wire.send(third)  # at the mark
    world.wire.send(first)  # long past it
    assert await world.intake().take_pending() == Summary(repeats=2)
    assert await world.usage() == {"requests": 9, "prompt_tokens": 900}
    assert not world.wire.sent


async def test_positions_move_with_what_is_settled_and_never_back(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    ledger = PostgresLedger(world.database)
    world.wire.send(writer.seal(), writer.seal())
    await world.intake().take_pending()
    assert await ledger.positions("wire") == {0: 2}

    world.wire.send_bytes(b"junk", b"")
    await world.intake().take_pending()
    assert await ledger.positions("wire") == {0: 3}, "what is nobody's is settled when it is set aside"

    await ledger.move([Position("wire", 0, 1), Position("wire", 1, 5), Position("made again", 0, 1)])
    assert await ledger.positions("wire") == {0: 3, 1: 5}
    assert await ledger.positions("made again") == {0: 1}


async def test_an_acknowledgement_says_how_far_the_lane_stands_after_the_commit(world: World) -> None:
    writer, ahead = Writer(), Writer(lane="sidecar-1")
    await world.enrol(writer, ahead)
    first, last = writer.seal(), writer.seal()
    ahead.seal()
    world.wire.send(first, last, ahead.seal())
    await world.intake().take_pending()
    heads = {name.lane: mark.head for name, mark in world.wire.marks.items()}
    assert heads == {"sidecar-0": last.hash, "sidecar-1": GENESIS}, "what is held is not accepted"


async def test_batches_of_one_poll_are_taken_in_their_chain_whatever_their_order(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    batches = [writer.seal() for _ in range(5)]
    writer.new_epoch("b" * 32)
    batches += [writer.seal() for _ in range(2)]
    world.wire.send(*reversed(batches))
    assert await world.intake().take_pending() == Summary(accepted=7, events=21)
    assert await world.held() == []


async def test_a_hole_is_held_and_goes_on_when_the_missing_batch_comes(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    batches = [writer.seal() for _ in range(5)]
    world.wire.send(batches[0], batches[2], batches[3], batches[4])
    intake = world.intake()

    assert await intake.take_pending() == Summary(accepted=1, held=3, events=3)
    assert [(number, code) for _, number, code in await world.held()] == [
        (2, "hole"),
        (3, "hole"),
        (4, "hole"),
    ]
    assert not world.wire.sent, "what is held is safe, and acknowledged"
    assert len(list((world.data / "held").rglob("*.seal"))) == 3

    world.wire.send(batches[1])
    assert await intake.take_pending() == Summary(accepted=4, events=12)
    assert await world.held() == []
    assert list((world.data / "held").rglob("*.seal")) == []
    assert await world.usage() == {"requests": 15, "prompt_tokens": 1500}


async def test_a_hole_behind_a_hole_waits_for_its_own(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    batches = [writer.seal() for _ in range(5)]
    world.wire.send(batches[0], batches[2], batches[4])
    await world.intake().take_pending()
    world.wire.send(batches[1])
    assert (await world.intake().take_pending()).accepted == 2
    assert [(number, code) for _, number, code in await world.held()] == [(4, "hole")]


async def test_a_cloned_machine_is_a_fork_that_names_both(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    world.wire.send(writer.seal())
    clone = writer.clone()
    mine, other = writer.seal(), clone.seal()
    behind = clone.seal()
    world.wire.send(mine, other, behind)

    assert await world.intake().take_pending() == Summary(accepted=2, held=2, events=6)
    found = await world.rows("SELECT code, what FROM held ORDER BY number")
    assert [code for code, _ in found] == ["fork", "hole"]
    assert mine.hash in str(found[0][1])
    assert other.hash in str(found[0][1])
    assert await world.usage() == {"requests": 6, "prompt_tokens": 600}


async def test_what_waited_for_a_seal_that_another_followed_is_told_as_a_fork(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    first = writer.seal()
    clone = writer.clone()
    other, mine = clone.seal(), writer.seal()
    world.wire.send(other)
    await world.intake().take_pending()
    assert [code for _, _, code in await world.held()] == ["hole"]

    world.wire.send(first, mine)
    assert await world.intake().take_pending() == Summary(accepted=2, held=1, events=6)
    assert [code for _, _, code in await world.held()] == ["fork"]


async def test_a_second_successor_in_another_epoch_is_a_fork(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    world.wire.send(writer.seal())
    restored = writer.clone()
    restored.new_epoch("c" * 32)
    world.wire.send(writer.seal())
    await world.intake().take_pending()
    world.wire.send(restored.seal())
    assert await world.intake().take_pending() == Summary(held=1)
    assert await world.held() == [("c" * 32, 0, "fork")]


async def test_a_flipped_bit_in_a_body_is_held_and_the_good_copy_goes_on(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    good, behind = writer.seal(), writer.seal()
    flipped = bytes([good.body[0] ^ 1]) + good.body[1:]
    world.wire.send_bytes(good.note, flipped)
    world.wire.send(behind)

    assert await world.intake().take_pending() == Summary(held=2)
    assert [code for _, _, code in await world.held()] == ["body_digest", "hole"]

    world.wire.send(good)
    assert await world.intake().take_pending() == Summary(accepted=2, events=6)
    assert await world.held() == []


async def test_a_flipped_bit_in_a_seal_is_nobodys_and_what_follows_is_a_hole(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    good, behind = writer.seal(), writer.seal()
    note = good.note.replace(b"events 3", b"events 2")
    for damaged in (note, b"\xff" + good.note[1:], good.note[:-5] + b"AAA=\n"):
        world.wire.send_bytes(damaged, good.body)
    world.wire.send(behind)
    assert await world.intake().take_pending() == Summary(set_aside=3, held=1)
    codes = await world.rows("SELECT code, count(*) FROM set_aside GROUP BY code ORDER BY code")
    assert {str(code) for code, _ in codes} <= {"bad_seal", "bad_signature"}
    world.wire.send(good)
    assert (await world.intake().take_pending()).accepted == 2


async def test_junk_under_another_lanes_key_stops_nobody(world: World) -> None:
    writer, stranger = Writer(), Writer()  # the stranger claims to be the same lane, with a key of its own
    await world.enrol(writer)
    for _ in range(3):
        world.wire.send(stranger.seal())
    world.wire.send_bytes(b"", b"junk")
    world.wire.send(writer.seal())
    assert await world.intake().take_pending() == Summary(accepted=1, set_aside=4, events=3)
    assert await world.held() == []
    assert await world.rows("SELECT DISTINCT operator, lane FROM set_aside ORDER BY 1") == [
        ("*", ""),
        (OPERATOR, "sidecar-0"),
    ]


async def test_batches_of_a_lane_that_is_enrolled_later_are_taken_then(world: World) -> None:
    writer = Writer()
    world.wire.send(*(writer.seal() for _ in range(3)))
    intake = world.intake()
    assert await intake.take_pending() == Summary(set_aside=3)
    assert await intake.take_pending() == Summary()
    await world.enrol(writer)
    assert await intake.take_pending() == Summary(accepted=3, events=9)
    assert await world.rows("SELECT * FROM set_aside") == []
    assert list((world.data / "held").rglob("*.seal")) == []


async def test_batches_of_an_operator_that_is_declared_later_are_taken_then(world: World) -> None:
    writer = Writer(operator="veliau")
    world.wire.send(writer.seal(customer=b"y" * 16))
    intake = world.intake()
    assert await intake.take_pending() == Summary(set_aside=1)
    assert await world.rows("SELECT operator, claimed FROM set_aside") == [("*", "veliau")]

    async with world.database.app("veliau") as conn:
        await conn.execute(text("INSERT INTO operator VALUES ('veliau')"))
        await conn.execute(
            text("INSERT INTO subject VALUES ('veliau', :id, 'customer', 'late', NULL)"),
            {"id": uuid.UUID(bytes=b"y" * 16)},
        )
    await world.enrol(writer)
    assert await intake.take_pending() == Summary(accepted=1, events=3)
    assert await world.rows("SELECT * FROM set_aside") == []


async def test_what_is_taken_up_and_still_nobodys_is_not_taken_up_again(world: World) -> None:
    writer = Writer()
    damaged = writer.seal()
    world.wire.send_bytes(damaged.note.replace(b"events 3", b"events 2"), damaged.body)
    world.wire.send_bytes(damaged.note.replace(b"opened 3", b"opened 4"), damaged.body)
    assert await world.intake().take_pending() == Summary(set_aside=2)
    assert await world.rows("SELECT code FROM set_aside ORDER BY code") == [("bad_seal",), ("unknown_key",)]
    await world.enrol(writer)
    assert await world.intake().take_pending() == Summary(set_aside=1)
    assert await world.intake().take_pending() == Summary()
    assert await world.rows("SELECT code FROM set_aside ORDER BY code") == [("bad_seal",), ("bad_signature",)]


async def test_a_key_that_is_not_enrolled_is_not_asked_for_again_until_it_is(world: World) -> None:
    writer, other = Writer(), Writer()
    world.wire.send(other.seal())
    await world.enrol(writer)
    assert await world.intake().take_pending() == Summary(set_aside=1)
    assert await world.intake().take_pending() == Summary()
    assert await world.rows("SELECT code FROM set_aside") == [("unknown_key",)]


async def test_usage_of_an_unknown_customer_is_held_by_that_name(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    world.wire.send(writer.seal(customer=b"x" * 16))
    assert await world.intake().take_pending() == Summary(held=1)
    assert await world.held() == [("a" * 32, 0, "unknown_customer")]


async def test_a_clock_that_is_ahead_is_held(world: World) -> None:
    writer = Writer(time_us=us(NOW) + 400_000_000)
    await world.enrol(writer)
    world.wire.send(writer.seal())
    assert await world.intake().take_pending() == Summary(held=1)
    assert await world.held() == [("a" * 32, 0, "ahead_of_time")]


async def test_what_is_held_for_intakes_clock_goes_on_when_the_clock_is_mended(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    world.now = START - timedelta(days=1)
    world.wire.send(writer.seal(), writer.seal(), writer.seal(0))
    intake = world.intake()
    assert await intake.take_pending() == Summary(held=3)
    assert [code for _, _, code in await world.held()] == ["ahead_of_time", "hole", "hole"]
    assert await intake.take_pending() == Summary(), "its time has not come, and it is not looked at in vain"

    world.now = NOW
    assert await intake.take_pending() == Summary(accepted=3, events=6)
    assert await world.held() == []
    assert list((world.data / "held").rglob("*.seal")) == []


async def test_usage_of_a_customer_goes_on_when_the_subject_is_restored(world: World) -> None:
    lost = b"x" * 16
    writer = Writer()
    await world.enrol(writer)
    batches = [
        writer.seal(),
        writer.seal(),
        writer.seal(customer=lost),
        writer.seal(),
        writer.seal(customer=lost),
    ]
    world.wire.send(batches[0], *batches[2:])
    intake = world.intake()
    assert await intake.take_pending() == Summary(accepted=1, held=3, events=3)
    world.wire.send(batches[1])
    assert await intake.take_pending() == Summary(accepted=1, held=3, events=3), (
        "taken up, and its customer unknown"
    )
    assert [code for _, _, code in await world.held()] == ["unknown_customer", "hole", "hole"]
    assert await intake.take_pending() == Summary()

    async with world.database.app(OPERATOR) as conn:
        await conn.execute(
            text("INSERT INTO subject VALUES (:operator, :id, 'customer', 'lost', NULL)"),
            {"operator": OPERATOR, "id": uuid.UUID(bytes=lost)},
        )
    assert await intake.take_pending() == Summary(accepted=3, events=9)
    assert await world.held() == []


async def test_a_damaged_and_a_whole_copy_in_one_poll_leave_no_hold(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    good = writer.seal()
    world.wire.send_bytes(good.note, bytes([good.body[0] ^ 1]) + good.body[1:])
    world.wire.send(good)
    assert await world.intake().take_pending() == Summary(accepted=1, repeats=1, events=3)
    assert await world.held() == []
    assert not world.wire.sent


async def test_a_clock_that_stepped_back_is_held(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    world.wire.send(writer.seal())
    writer.time_us -= 3_000_000
    world.wire.send(writer.seal(1))
    assert (await world.intake().take_pending()).held == 1
    assert await world.held() == [("a" * 32, 1, "complete_to")]


async def test_nothing_is_accepted_after_a_final_seal(world: World) -> None:
    writer = Writer(lane="import-0", kind="import")
    await world.enrol(writer)
    world.wire.send(writer.seal(), writer.seal(final=True), writer.seal())
    assert await world.intake().take_pending() == Summary(accepted=2, held=1, events=6)
    assert await world.held() == [("a" * 32, 2, "after_final")]


async def test_two_workers_on_one_source_count_everything_once(world: World) -> None:
    writers = [Writer(lane=f"sidecar-{n}") for n in range(4)]
    await world.enrol(*writers)
    for _ in range(30):
        for writer in writers:
            world.wire.send(writer.seal())
    one, two = world.intake(), world.intake()
    summaries = await asyncio.gather(one.take_pending(), two.take_pending())
    assert sum(summary.accepted for summary in summaries) == 120
    assert sum(summary.held + summary.set_aside for summary in summaries) == 0
    assert await world.usage() == {"requests": 360, "prompt_tokens": 36_000}


async def test_usage_after_the_late_bound_is_marked(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    world.wire.send(writer.seal(2))
    await world.intake().take_pending()
    async with world.database.app(OPERATOR) as conn:
        await conn.execute(
            text("INSERT INTO late_bound VALUES (:operator, '2026-10', :after)"),
            {"operator": OPERATOR, "after": NOW},
        )
    world.now = NOW.replace(hour=13)
    world.wire.send(writer.seal(3))
    await world.intake().take_pending()
    assert await world.rows(
        "SELECT late, sum(requests)::int FROM usage_cell GROUP BY late ORDER BY late"
    ) == [
        (False, 2),
        (True, 3),
    ]


async def test_enrolling_again_changes_nothing_and_another_key_is_refused(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    await world.enrol(writer)
    with pytest.raises(Refusal) as refused:
        async with world.database.app(OPERATOR) as conn:
            await enroll_lane(conn, OPERATOR, writer.node, writer.lane, writer.kind, b"k" * 32, NOW)
    assert refused.value.code == "lane_enrolled"


async def test_running_intake_takes_what_comes_and_stops_after_a_last_look(world: World) -> None:
    writer = Writer()
    await world.enrol(writer)
    stop = asyncio.Event()
    running = asyncio.create_task(world.intake().run(stop, poll_every=timedelta(milliseconds=20)))
    world.wire.send(writer.seal())
    async with asyncio.timeout(10):
        while world.wire.sent:  # noqa: ASYNC110 - the wire is a plain dictionary
            await asyncio.sleep(0.01)
    world.wire.send(writer.seal(customer=ACME))
    stop.set()
    await running
    assert (await world.usage())["requests"] == 6
