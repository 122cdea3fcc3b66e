"""Batches that were accepted and acknowledged, and of which no checkpoint tells: they come back from the archive."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from intake_world import Wire
from lost_ledger import LostLedger
from small_books import OPERATOR

from adapters.backup_file import verified
from adapters.postgres.database import Database
from adapters.rebuilding import Asked, rebuilt
from adapters.restoring import restore_rows

pytestmark = pytest.mark.anyio


async def usage(database: Database) -> dict[bool, int]:
    """Requests, by whether they came too late to be billed."""
    async with database.app(OPERATOR) as connection:
        found = await connection.exec_driver_sql(
            "SELECT late, sum(requests)::int AS n FROM usage_cell GROUP BY late"
        )
        return {row.late: row.n for row in found}


async def restored(ledger: LostLedger, empty: Database, after: timedelta = timedelta(0)) -> LostLedger:
    again = ledger.on(empty)
    again.later(after)
    await restore_rows(empty, verified(ledger.data / "backup.tar"), again.now)
    return again


async def test_batches_that_no_checkpoint_covers_come_back_and_the_lane_goes_on(
    ledger: LostLedger, empty: Database, tmp_path: Path
) -> None:
    await ledger.take(5)
    await ledger.sign()
    await ledger.back_up()
    await ledger.take(3)  # accepted, archived, acknowledged: its node has let it go, and signing stands still
    await ledger.take(4)
    await ledger.take(2, lane="import-1", customer="beta")
    assert await usage(ledger.database) == {False: 14}

    again = await restored(ledger, empty)
    _, brought = await again.bring_forward()
    assert (brought.leaves, brought.behind_batches, brought.behind_events) == (0, 3, 9)
    assert (brought.left, brought.bound_passed) == ([], [])
    assert await usage(empty) == {False: 14}
    assert (await rebuilt(empty, again.archive, OPERATOR, Asked(), tmp_path / "scratch"))["ok"]
    await again.take(1)
    await again.sign()
    assert [each.behind_batches for each in await again.bring_forward()] == [0, 0]


async def test_a_batch_of_a_customer_whose_creation_was_lost_waits_in_the_archive_until_it_is_back(
    ledger: LostLedger, empty: Database
) -> None:
    await ledger.take(5)
    await ledger.sign()
    await ledger.back_up()
    await ledger.apply("kind: customer\nid: gamma\noperator: telecentras\nname: Gamma UAB\ncountry: LT\n")
    await ledger.take(3)
    await ledger.take(2, customer="gamma")
    await ledger.take(1)
    again = await restored(ledger, empty)
    _, brought = await again.bring_forward()
    [left] = brought.left
    assert "customers of its events are unknown" in left.what
    assert (brought.behind_batches, await usage(empty)) == (1, {False: 8})

    async with empty.app(OPERATOR) as connection:  # the customer, of the id that the node knows it by
        held = await connection.exec_driver_sql("SELECT count(*) FROM held")
        assert held.scalar() == 0
        await connection.exec_driver_sql(
            "INSERT INTO subject (operator, kind, id, slug) VALUES ($1, 'customer', $2, 'gamma')",
            (OPERATOR, UUID(bytes=ledger.customers["gamma"])),
        )
    _, brought = await again.bring_forward()
    assert (brought.behind_batches, brought.left, await usage(empty)) == (2, [], {False: 11})


async def test_lanes_that_are_not_enrolled_any_more_are_named_and_taken_in_once_they_are(
    ledger: LostLedger, empty: Database
) -> None:
    await ledger.take(5)
    await ledger.sign()
    await ledger.back_up()
    await ledger.take(3, lane="import-2")
    again = await restored(ledger, empty)
    _, brought = await again.bring_forward()
    assert [each.where for each in brought.left] == [f"{OPERATOR}/vilnius-1/import-2"]
    assert await usage(empty) == {False: 5}


async def test_whether_usage_came_in_time_is_decided_as_if_it_came_now_and_the_period_is_named(
    ledger: LostLedger, empty: Database
) -> None:
    await ledger.take(5)
    await ledger.close()
    await ledger.sign()
    await ledger.back_up()
    await ledger.take(3)  # in time: a minute after the close
    again = await restored(ledger, empty, timedelta(days=91))
    _, brought = await again.bring_forward()
    assert (brought.behind_events, brought.bound_passed) == (3, ["2026-10"])
    assert await usage(empty) == {False: 5, True: 3}


async def test_what_the_node_sends_again_after_the_restore_is_a_repeat(
    ledger: LostLedger, empty: Database
) -> None:
    await ledger.take(5)
    await ledger.sign()
    await ledger.back_up()
    await ledger.take(3)
    [body] = list((ledger.data / "archive").rglob("*-1-*.parquet"))
    note = body.with_name(f"_{body.stem}.seal").read_bytes()
    again = await restored(ledger, empty)
    await again.bring_forward()
    wire = Wire()
    wire.send_bytes(note, body.read_bytes())
    assert (await again.intake(wire).take_pending()).repeats == 1
    assert await usage(empty) == {False: 8}
