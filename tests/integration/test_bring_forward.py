"""A database that is lost, and made again from yesterday's backup and the archive."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
from intake_world import Wire
from lost_ledger import LostLedger, documents_json, new_ledger, rows
from small_books import OPERATOR

from adapters.archive_compact import compact
from adapters.backup_file import verified
from adapters.cli.guard import behind
from adapters.held_again import take_held_again
from adapters.postgres.database import Database
from adapters.postgres.journal import trial_balance
from adapters.restoring import restore_rows
from billing.document import INVOICE
from billing.ports import Series
from metering.refusal import Refusal

pytestmark = pytest.mark.anyio

BETA = "kind: customer\nid: beta\noperator: telecentras\ncountry: LT\n"


async def test_a_ledger_restored_from_yesterday_is_the_one_that_was_lost(
    ledger: LostLedger, empty: Database
) -> None:
    """The whole story: two invoices, a backup, a day's work, the disk dies; the next invoice has the next number."""
    await ledger.take(5)
    await ledger.take(3, customer="beta")
    await ledger.close()
    await ledger.sign()
    backup = await ledger.back_up()
    assert [each.number for each in await ledger.documents()] == ["INV-2026-000001", "INV-2026-000002"]

    # The day after: late usage, a supplementary invoice, a credit note, a settlement, keys, another customer, and a
    # version that was wrong.
    await ledger.take(4)
    await ledger.close()
    await ledger.credit()
    await ledger.settle()
    await ledger.create_key()
    await ledger.create_key(role=True)
    await ledger.revoke_key()
    await ledger.apply("kind: customer\nid: gamma\noperator: telecentras\nname: Gamma UAB\ncountry: LT\n")
    await ledger.apply(f"{BETA}name: Beta MB\nsupersedes: first\nreason: its name\n")
    await ledger.sign()
    lost = await rows(ledger.database)
    issued = documents_json(await ledger.documents())

    # The disk dies. An empty database, the backup and the archive:
    again = ledger.on(empty)
    await restore_rows(empty, verified(backup.backup.path), again.now)
    installation, telecentras = await again.bring_forward()
    assert (installation.leaves, telecentras.batches) == (1, 1)
    assert await rows(empty) == lost
    assert documents_json(await again.documents()) == issued

    # It goes on where it was: no number twice, books balanced, and the log is extended, not forked.
    await again.take(2, customer="beta")
    await again.close()
    await again.sign()
    numbers = [each.number or "" for each in await again.documents()]
    assert sorted(numbers) == [
        "CN-2026-000001",
        "INV-2026-000001",
        "INV-2026-000002",
        "INV-2026-000003",
        "INV-2026-000004",
    ]
    async with empty.app(OPERATOR) as connection:
        balances, balanced = await trial_balance(connection, OPERATOR)
    assert balances
    assert balanced


async def test_the_archive_alone_makes_the_whole_ledger(ledger: LostLedger, empty: Database) -> None:
    await ledger.take(5)
    await ledger.close()
    await ledger.create_key(role=True)
    await ledger.take(2)
    await ledger.close()
    await ledger.sign()
    lost = await rows(ledger.database)

    await ledger.on(empty).bring_forward()
    assert await rows(empty) == lost


async def test_bringing_forward_what_is_complete_changes_nothing(ledger: LostLedger) -> None:
    await ledger.take(5)
    await ledger.close()
    await ledger.sign()
    before = await rows(ledger.database)
    assert [each.leaves for each in await ledger.bring_forward()] == [0, 0]
    assert await rows(ledger.database) == before


async def test_usage_that_came_too_late_to_be_billed_is_late_again(
    ledger: LostLedger, empty: Database
) -> None:
    """Whether it is depends on when it was accepted, which is not when it is accepted again."""
    await ledger.take(5)
    await ledger.close()
    await ledger.take(1)  # in time: a minute after the close
    await ledger.sign()
    await ledger.back_up()
    ledger.later(timedelta(days=91))
    await ledger.take(3)  # too late
    await ledger.sign()
    lost = await rows(ledger.database)

    again = ledger.on(empty)
    again.later(timedelta(days=30))
    await restore_rows(empty, verified(ledger.data / "backup.tar"), again.now)
    await again.bring_forward()
    assert await rows(empty) == lost
    owner = await asyncpg.connect(empty.urls.owner)
    late = await owner.fetch("SELECT late, sum(requests)::int FROM usage_cell GROUP BY late ORDER BY late")
    await owner.close()
    assert [tuple(row) for row in late] == [(False, 6), (True, 3)]


async def test_leaves_without_a_number_when_the_backup_was_made_get_the_one_that_they_got(
    ledger: LostLedger, empty: Database
) -> None:
    await ledger.take(5)
    await ledger.sign()
    await ledger.take(2)  # the sequencer has not seen it yet
    await ledger.create_key()
    await ledger.back_up()
    await ledger.sign()
    await ledger.take(1)
    await ledger.sign()
    lost = await rows(ledger.database)

    again = ledger.on(empty)
    await restore_rows(empty, verified(ledger.data / "backup.tar"), again.now)
    _, brought = await again.bring_forward()
    assert (brought.leaves, brought.batches) == (5, 1)  # two batches, a key with its project and its subject
    assert await rows(empty) == lost


async def test_an_archive_that_was_compacted_brings_a_ledger_forward_too(
    ledger: LostLedger, empty: Database
) -> None:
    for count in (3, 0, 4, 2):
        await ledger.take(count)
    await ledger.close()
    await ledger.sign()
    lost = await rows(ledger.database)
    later = datetime(2027, 1, 1, tzinfo=UTC)
    await asyncio.to_thread(
        lambda: list(compact(ledger.archive, OPERATOR, lambda _node, _lane: later, later))
    )
    assert list(ledger.data.glob("archive/*/*/*/*/joined-*.parquet"))
    assert not list(ledger.data.glob(f"archive/*/*/*/*/{'[0-9a-f]' * 32}-*.parquet"))

    await ledger.on(empty).bring_forward()
    assert await rows(empty) == lost


async def test_what_was_held_after_the_backup_is_listed_again(ledger: LostLedger, empty: Database) -> None:
    """Its sender has let it go, and no log tells of it: only the held store has it."""
    await ledger.take(2)
    await ledger.sign()
    await ledger.back_up()
    writer, wire = ledger.writers["import-1"], Wire()
    missing, later = (writer.seal(1, customer=ledger.customers["acme"], model="m") for _ in range(2))
    wire.send(later)
    assert (await ledger.intake(wire).take_pending()).held == 1

    again = ledger.on(empty)
    await restore_rows(empty, verified(ledger.data / "backup.tar"), again.now)
    await again.bring_forward()
    assert await take_held_again(empty, again.archive, again.held, lambda: again.now) == 1
    assert await take_held_again(empty, again.archive, again.held, lambda: again.now) == 0
    wire.send(missing)
    assert (await again.intake(wire).take_pending()).accepted == 2
    assert list(again.held.list("")) == []


# -- What no checkpoint covers ----------------------------------------------------------------------------------------


async def issued_and_not_signed(ledger: LostLedger) -> None:
    """The disk dies a moment after an invoice was issued: its contents are archived, no checkpoint covers them."""
    await ledger.take(5)
    await ledger.close()
    await ledger.sign()
    await ledger.back_up()
    await ledger.take(3)
    await ledger.sign()
    await ledger.close()


async def test_an_invoice_that_no_checkpoint_covers_is_named_and_a_person_decides(
    ledger: LostLedger, empty: Database
) -> None:
    await issued_and_not_signed(ledger)
    again = ledger.on(empty)
    await restore_rows(empty, verified(ledger.data / "backup.tar"), again.now)

    with pytest.raises(Refusal) as refused:
        await again.bring_forward()
    assert refused.value.code == "uncovered_contents"
    assert "insert document INV-2026-000002" in [fault.what for fault in refused.value.faults]
    refusal = await behind(empty, again.archive)
    assert refusal is not None
    assert refusal.code == "behind_archive"


async def test_an_invoice_that_a_customer_has_is_taken_and_its_number_is_not_given_again(
    ledger: LostLedger, empty: Database
) -> None:
    await issued_and_not_signed(ledger)
    lost = documents_json(await ledger.documents())
    again = ledger.on(empty)
    await restore_rows(empty, verified(ledger.data / "backup.tar"), again.now)
    await again.bring_forward("take")
    assert documents_json(await again.documents()) == lost
    await again.take(1)
    await again.close()
    await again.sign()
    assert [each.number for each in await again.documents()] == [f"INV-2026-{n:06}" for n in (1, 2, 3)]
    # Its leaves are in the log now, so nobody is asked again.
    assert [each.uncovered_left for each in await again.bring_forward()] == [0, 0]


async def test_an_invoice_that_nobody_has_is_left(ledger: LostLedger, empty: Database) -> None:
    await issued_and_not_signed(ledger)
    again = ledger.on(empty)
    await restore_rows(empty, verified(ledger.data / "backup.tar"), again.now)
    _, brought = await again.bring_forward("leave")
    assert brought.uncovered_left > 0
    assert [each.number for each in await again.documents()] == ["INV-2026-000001"]
    await again.close()
    assert [each.number for each in await again.documents()] == ["INV-2026-000001", "INV-2026-000002"]


async def test_what_a_killed_command_archived_and_another_did_after_it_asks_nobody(
    ledger: LostLedger, empty: Database
) -> None:
    """Killed just before its commit, and run again: the number was taken by the second one."""
    await ledger.take(5)

    async def killed() -> None:
        async with ledger.books.write(OPERATOR) as book:
            assert await book.take_numbers(Series(OPERATOR, INVOICE, 2026), 1, 1) == 1
            await book.archive()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await killed()
    await ledger.close()
    await ledger.sign()
    lost = await rows(ledger.database)
    await ledger.on(empty).bring_forward()
    assert await rows(empty) == lost


# -- Anything, in any order -------------------------------------------------------------------------------------------


async def act(ledger: LostLedger) -> None:
    """One thing that happens to a ledger, by chance."""
    n = ledger.chance.randrange(1_000_000)
    customer = f"kind: customer\nid: c{n}\noperator: telecentras\nname: C{n}\ncountry: LT\n"
    renamed = f"{BETA}name: Beta {n}\n"
    corrected = f"{renamed}supersedes: first\nreason: its name\n"
    acts: list[Callable[[], Awaitable[object]]] = [
        lambda: ledger.take(ledger.chance.randrange(4), f"import-{ledger.chance.randrange(2)}", "beta"),
        lambda: ledger.take(1 + ledger.chance.randrange(4)),
        lambda: ledger.close(issue=ledger.chance.random() < 0.6),
        lambda: ledger.apply(ledger.chance.choice((customer, renamed, corrected))),
        lambda: ledger.create_key(role=ledger.chance.random() < 0.3),
        ledger.revoke_key,
        ledger.settle,
        ledger.credit,
        ledger.sign,
    ]
    with suppress(Refusal):  # nothing to credit any more, an issued document rests on it: as it may happen
        await ledger.chance.choice(acts)()


async def any_ledger_comes_back(database: Database, empty: Database, data: Path, seed: int) -> None:
    ledger = await new_ledger(database, data, seed)
    await ledger.take(3)
    for _ in range(ledger.chance.randrange(12)):
        await act(ledger)
    await ledger.back_up()
    for _ in range(ledger.chance.randrange(12)):
        await act(ledger)
    await ledger.sign()
    lost = await rows(database)

    again = ledger.on(empty)
    if ledger.chance.random() < 0.8:
        await restore_rows(empty, verified(data / "backup.tar"), again.now)
    await again.bring_forward()
    assert await rows(empty) == lost, f"seed {seed}"
    await again.take(1)
    await again.sign()  # the next checkpoint extends the one that is archived
    assert await behind(empty, again.archive) is None


@pytest.mark.parametrize("seed", range(2))
async def test_whatever_happened_comes_back(
    database: Database, empty: Database, tmp_path: Path, seed: int
) -> None:
    await any_ledger_comes_back(database, empty, tmp_path, seed)


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(1000, 1200))
async def test_whatever_happened_comes_back_for_many_seeds(
    database: Database, empty: Database, tmp_path: Path, seed: int
) -> None:
    await any_ledger_comes_back(database, empty, tmp_path, seed)
