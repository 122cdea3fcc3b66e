"""Two sessions beside each other, the second forced into the very moment where the first would be wrong.

A late batch beside a roll-up is test_roll_up.py's. Here: two workers on one lane, and a close while intake goes on.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from intake_world import OPERATOR, World, Writer, make_world
from sqlalchemy import select, text
from usage_cells import site_documents

from adapters.archive import BatchObjects
from adapters.objects import FolderObjects
from adapters.postgres.books import PostgresBook, PostgresBooks
from adapters.postgres.database import Database
from adapters.postgres.intake import PostgresLedger
from adapters.postgres.schema import subject
from adapters.postgres.site import site_store
from adapters.rebuilding import Asked, rebuilt
from billing.close import close_period
from billing.inspection import LaneName
from billing.intake import Summary
from billing.period import Period
from billing.root_pass import check_roots

pytestmark = pytest.mark.anyio

OCTOBER = Period(2026, 10)
CLOSED_AT = datetime(2026, 11, 2, 9, tzinfo=UTC)
SITE = (
    (Path(__file__).parent.parent / "vectors" / "rating" / "base.yaml").read_text()
    + """kind: tariff
id: vilnius
operator: telecentras
currency: EUR
prices:
  - {models: ["*"], input: 400.00, output: 1600.00}
"""
)


async def waits_for_a_lock(database: Database) -> bool:
    async with database.intake() as conn:
        query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        return bool((await conn.execute(text(query))).scalar_one())


async def test_a_second_worker_on_a_lane_waits_and_finds_a_repeat(database: Database, tmp_path: Path) -> None:
    world = await make_world(database, tmp_path)
    writer = Writer()
    await world.enrol(writer)
    first, second = writer.seal(3), writer.seal(2)
    one, two = World(database, tmp_path), World(database, tmp_path)
    for each in (one, two):
        each.wire.send(first)
    two.wire.send(second)
    name = LaneName(OPERATOR, writer.node, writer.lane)

    async with PostgresLedger(database).accept([name]) as holding:
        assert holding.marks[name].epoch is None
        workers = [asyncio.create_task(each.intake().take_pending()) for each in (one, two)]
        async with asyncio.timeout(20):
            while not await waits_for_a_lock(database):  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.01)
        assert not any(worker.done() for worker in workers)
    summaries = await asyncio.gather(*workers)

    assert sum(summaries, Summary()) == Summary(accepted=2, repeats=1, events=5)
    assert await world.usage() == {"requests": 5, "prompt_tokens": 500}
    assert not one.wire.sent
    assert not two.wire.sent


async def test_a_close_while_intake_commits_is_what_its_heads_say(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches are committed between the close's reading of usage and of heads; its one snapshot knows none of them."""
    async with site_store(database) as store:
        await store.save(site_documents(SITE))
    async with database.app(OPERATOR) as conn:
        acme = (await conn.execute(select(subject.c.id).where(subject.c.slug == "acme"))).scalar_one().bytes
    world = World(database, tmp_path, now=CLOSED_AT)
    writers = [Writer(lane=f"import-{n}", kind="import") for n in range(3)]
    await world.enrol(*writers)
    intake = world.intake()

    async def commit_more() -> None:
        for writer in writers:
            world.wire.send(writer.seal(4, customer=acme), writer.seal(1, customer=acme))
        assert (await intake.take_pending()).accepted == 6

    def beside(name: str) -> None:
        """Before the close reads this, another session has committed more."""
        read = getattr(PostgresBook, name)

        async def later(book: PostgresBook, *arguments: Any) -> Any:
            await commit_more()
            return await read(book, *arguments)

        monkeypatch.setattr(PostgresBook, name, later)

    await commit_more()
    objects = FolderObjects(tmp_path / "archive")
    await check_roots(PostgresLedger(database), BatchObjects(objects), CLOSED_AT)
    for name in ("usage", "lane_heads"):
        beside(name)
    row = await close_period(
        PostgresBooks(database, lambda: CLOSED_AT, objects=objects), OPERATOR, OCTOBER, CLOSED_AT
    )

    [draft] = row["drafts"]
    assert draft["net"] == "0.84", "15 events of 100 and 10 tokens: those of before the close"
    assert (await world.usage())["requests"] == 45
    made = await rebuilt(database, objects, OPERATOR, Asked(up_to="2026-10"), tmp_path)
    assert made["ok"]
    assert made["rated"] == row["rated"]
    assert (made["rated"]["input"], made["rated"]["output"]) == (1_500, 150)
    assert (await rebuilt(database, objects, OPERATOR, Asked(), tmp_path))["ok"], (
        "and now it is what all heads say"
    )
