"""A ledger of which something expired is made again all the same: what was stolen, forged or never listed shows."""

from __future__ import annotations

import asyncio
import uuid
from datetime import date
from pathlib import Path
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from intake_world import NODE, OPERATOR
from lost_ledger import LostLedger, new_ledger
from sqlalchemy import text

from adapters import rebuilding
from adapters.archive import BatchObjects
from adapters.archive_expire import Bounds, Hold, expirable, expire
from adapters.archive_expired import put_list
from adapters.postgres import archive as rows
from adapters.postgres.database import Database
from adapters.rebuilding import Asked, rebuilt
from billing.intake_ports import StoredBatch

pytestmark = pytest.mark.anyio


@pytest.fixture
async def ledger(database: Database, tmp_path: Path) -> LostLedger:
    """Acme's batch expired by a decision; beta's is under a hold, and lies there."""
    made = await new_ledger(database, tmp_path)
    await made.take(5)
    await made.take(7, customer="beta")
    await made.close()
    await made.sign()
    bounds = Bounds(
        date(2026, 11, 1),
        ZoneInfo("UTC"),
        lambda _month, _node, _lane: made.now,
        [Hold(made.customers["beta"], None)],
    )
    found = expirable(made.archive, OPERATOR, bounds, keep=True)
    assert found.batches == 1
    listed = put_list(made.archive, OPERATOR, found.cells)
    async with database.app(OPERATOR) as conn:
        leaf = await rows.add_expiry(
            conn, OPERATOR, uuid.uuid4(), bounds.before, 1, listed, "retention", made.now
        )
    await made.sign()
    async with database.app(OPERATOR) as conn:
        assert await rows.is_signed(conn, OPERATOR, leaf)
        assert not await rows.is_signed(conn, OPERATOR, leaf + 1)
    list(expire(made.archive, found.files))
    return made


async def by_hand(database: Database, *statements: str) -> None:
    assert database.urls.owner is not None
    owner = await asyncpg.connect(database.urls.owner)
    for statement in statements:
        await owner.execute(statement)
    await owner.close()


async def test_what_expired_is_compared_and_rated_like_what_is_there(
    ledger: LostLedger, tmp_path: Path
) -> None:
    now = await rebuilt(ledger.database, ledger.archive, OPERATOR, Asked(), tmp_path / "s")
    assert (now["ok"], now["expired"], now["events"], now["findings"]) == (True, 1, 12, [])
    then = await rebuilt(ledger.database, ledger.archive, OPERATOR, Asked(up_to="2026-10"), tmp_path / "s")
    assert (then["ok"], then["rated"]) == (True, then["rated_at_close"])


async def test_a_body_under_a_hold_that_vanishes_is_named(ledger: LostLedger, tmp_path: Path) -> None:
    [body] = (ledger.data / "archive").rglob("*.parquet")
    body.unlink()
    made = await rebuilt(ledger.database, ledger.archive, OPERATOR, Asked(), tmp_path / "s")
    assert (made["ok"], made["expired"]) == (False, 1)
    assert [each["code"] for each in made["findings"]] == ["gone"]
    then = await rebuilt(ledger.database, ledger.archive, OPERATOR, Asked(up_to="2026-10"), tmp_path / "s")
    assert not then["ok"]


async def test_forged_usage_shows_in_hours_of_which_something_expired(
    ledger: LostLedger, tmp_path: Path
) -> None:
    for customer, different in (("beta", 1), ("acme", 2)):
        id_ = uuid.UUID(bytes=ledger.customers[customer])
        cell = f"SELECT * FROM usage_cell WHERE customer = '{id_}' LIMIT 1"
        await by_hand(ledger.database, f"INSERT INTO hourly_usage {cell}")  # its usage once more
        made = await rebuilt(ledger.database, ledger.archive, OPERATOR, Asked(), tmp_path / "s")
        assert (made["ok"], made["different"]) == (False, different)


async def test_a_forged_close_shows_where_something_expired(ledger: LostLedger, tmp_path: Path) -> None:
    await by_hand(
        ledger.database,
        "ALTER TABLE period_close DISABLE TRIGGER USER",
        """UPDATE period_close SET result = jsonb_set(result::jsonb, '{rated}', '{"input": 1}')::json""",
    )
    made = await rebuilt(ledger.database, ledger.archive, OPERATOR, Asked(up_to="2026-10"), tmp_path / "s")
    assert not made["ok"]


async def test_a_batch_after_the_head_that_nobody_lists_is_named_and_one_that_commits_meanwhile_is_not(
    ledger: LostLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuilding, "_COMMITTING_S", (0.1,))
    sealed = ledger.writers["import-1"].seal(3, customer=ledger.customers["acme"])
    path = f"{OPERATOR}/2026-10-05/{NODE}/import-1/{sealed.seal.epoch}-{sealed.seal.number}-{sealed.hash}"
    await asyncio.to_thread(BatchObjects(ledger.archive).put, [StoredBatch(path, sealed.note, sealed.body)])
    made = await rebuilt(ledger.database, ledger.archive, OPERATOR, Asked(), tmp_path / "s")
    assert (made["ok"], made["different"]) == (False, 0)
    assert [(each["code"], each["where"]) for each in made["findings"]] == [("behind", path)]
    async with ledger.database.app(OPERATOR) as conn:
        listed = [each.hash for each in await conn.execute(text("SELECT hash FROM batch"))]
        assert await rows.unlisted(conn, OPERATOR, [*listed, sealed.hash]) == {sealed.hash}
    assert (await rebuilt(ledger.database, ledger.archive, OPERATOR, Asked(up_to="2026-10"), tmp_path / "s"))[
        "ok"
    ]
