"""What a money transaction adds to the log is in the archive before anybody can see it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from archived_texts import archived_contents

from adapters.log_sequencer import sequence
from adapters.objects import FolderObjects
from adapters.postgres.books import PostgresBooks
from adapters.postgres.database import Database
from billing.adjustment import Adjustment
from billing.period import Period
from metering.refusal import Unavailable

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 11, 1, 8, tzinfo=UTC)
OCTOBER = Period(2026, 10)


def adjustment(number: int) -> Adjustment:
    return Adjustment(f"2026-10.{number}", "acme", OCTOBER, -100 * number, "goodwill", "finance", NOW, None)


@pytest.fixture
async def objects(database: Database, tmp_path: Path) -> FolderObjects:
    for operator in ("a", "b"):
        async with database.app(operator) as connection:
            await connection.exec_driver_sql(f"INSERT INTO operator VALUES ('{operator}')")
    return FolderObjects(tmp_path / "archive")


def archived(objects: FolderObjects, operator: str = "a") -> list[str]:
    return [content.content for content in archived_contents(objects, operator)]


async def test_what_a_book_writes_is_archived_before_it_commits(
    database: Database, objects: FolderObjects
) -> None:
    books = PostgresBooks(database, lambda: NOW, objects=objects)
    async with books.write("a") as book:
        await book.add_adjustment(adjustment(1))
        await book.archive()
        async with books.read("a") as other:
            assert await other.adjustments(OCTOBER) == []
        [content] = archived(objects)
        assert '"table":"adjustment","op":"insert"' in content
        await book.add_adjustment(adjustment(2))  # whatever comes later is archived on leaving
    assert sum('"id":"2026-10.2"' in content for content in archived(objects)) == 1


async def test_an_archive_that_is_away_refuses_the_whole(database: Database, objects: FolderObjects) -> None:
    class Away(FolderObjects):
        def put(self, objects: Sequence[tuple[str, bytes]]) -> None:
            raise Unavailable("archive_unavailable", "the disk is full")

    books = PostgresBooks(database, lambda: NOW, objects=Away(objects.root))

    async def write() -> None:
        async with AsyncExitStack() as stack:
            opened = [await stack.enter_async_context(books.write(operator)) for operator in ("a", "b")]
            for book in opened:
                await book.add_adjustment(adjustment(1))
            for book in opened:
                await book.archive()

    with pytest.raises(Unavailable, match="the disk is full"):
        await write()
    for operator in ("a", "b"):
        async with books.read(operator) as book:
            assert await book.adjustments(OCTOBER) == []


async def test_the_sequencer_archives_the_same_object_again(
    database: Database, objects: FolderObjects, tmp_path: Path
) -> None:
    books = PostgresBooks(database, lambda: NOW, objects=objects)
    async with books.write("a") as book:
        assert await book.checkpoint() is None
        await book.add_adjustment(adjustment(1))
    before = list(objects.list("a/_log/content/"))
    signed = await sequence(database, objects, tmp_path / "keys", "a", NOW, make_key=True)
    assert signed is not None
    assert list(objects.list("a/_log/content/")) == before
    async with books.read("a") as book:
        checkpoint = await book.checkpoint()
    assert checkpoint is not None
    assert checkpoint.startswith("a.tallygrid/log\n1\n")


async def test_what_is_rolled_back_harms_nobody(
    database: Database, objects: FolderObjects, tmp_path: Path
) -> None:
    books = PostgresBooks(database, lambda: NOW, objects=objects)

    async def die() -> None:
        async with books.write("a") as book:
            await book.add_adjustment(adjustment(1))
            await book.archive()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await die()
    assert len(archived(objects)) == 1
    async with books.write("a") as book:
        await book.add_adjustment(adjustment(2))
    signed = await sequence(database, objects, tmp_path / "keys", "a", NOW, make_key=True)
    assert signed is not None
    assert signed.size == 1
