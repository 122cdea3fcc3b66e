"""A database that is lost, and made again from yesterday's backup and the archive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from lost_ledger import LostLedger, documents_json, new_ledger, rows
from small_books import OPERATOR

from adapters.backup_file import verified
from adapters.postgres.database import Database, DatabaseUrls
from adapters.postgres.journal import trial_balance
from adapters.restoring import restore_rows

pytestmark = pytest.mark.anyio


@pytest.fixture
async def ledger(database: Database, tmp_path: Path) -> LostLedger:
    return await new_ledger(database, tmp_path)


@pytest.fixture
async def empty(fresh_urls: Callable[[], DatabaseUrls]) -> AsyncIterator[Database]:
    opened = await Database.open(await asyncio.to_thread(fresh_urls))
    yield opened
    await opened.close()


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

    # The day after: late usage, a supplementary invoice, a credit note, a settlement, keys, another tariff.
    await ledger.take(4)
    await ledger.close()
    await ledger.credit()
    await ledger.settle()
    await ledger.create_key()
    await ledger.create_key(role=True)
    await ledger.revoke_key()
    await ledger.apply("kind: customer\nid: gamma\noperator: telecentras\nname: Gamma UAB\ncountry: LT\n")
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
