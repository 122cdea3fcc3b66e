"""The sequencer against a real PostgreSQL and a folder: what is committed is numbered once, archived, then signed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest
from archived_texts import archived_contents
from operator_rows import insert_of
from sqlalchemy import text

from adapters.log_archive import archived_log, archived_note
from adapters.log_sequencer import check_extends, log_key_path, sequence
from adapters.objects import FolderObjects
from adapters.postgres import log
from adapters.postgres.database import Database, DatabaseUrls
from billing.log import BatchLeaf, ChangeLeaf, checkpoint_path, parse_leaf
from metering import merkle
from metering.checkpoint import Checkpoint, split_checkpoint
from metering.refusal import Refusal, Unavailable

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 10, 5, 8, tzinfo=UTC)


def archived_checkpoint(objects: FolderObjects, operator: str) -> Checkpoint | None:
    found = archived_note(objects, operator)
    return None if found is None else split_checkpoint(found)[0]


class World:
    """A database with the operator a, an archive, and the key's folder."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.objects = FolderObjects(folder / "archive")
        self.keys = folder / "keys"

    async def change(self, count: int = 1, operator: str = "a") -> None:
        """One transaction that begins `count` number series: as many leaves."""
        async with self.database.app(operator) as connection:
            await connection.exec_driver_sql(
                "INSERT INTO number_series SELECT $1, gen_random_uuid()::text, 'invoice', 2026, 1"
                " FROM generate_series(1, CAST($2 AS integer))",
                (operator, count),
            )

    async def sign(self, objects: FolderObjects | None = None) -> int:
        """Sequences; the size of the newest checkpoint."""
        await sequence(self.database, objects or self.objects, self.keys, "a", NOW, make_key=True)
        head = await self.head()
        return 0 if head is None else head.size

    async def head(self) -> log.Head | None:
        async with self.database.app("a") as connection:
            return (await log.standing(connection, "a")).head

    async def leaves(self) -> list[bytes]:
        """Every leaf in its place, as the database tells it."""
        async with self.database.app("a") as connection:
            numbered = (await log.standing(connection, "a")).numbered
            return await log.entries(connection, "a", 0, numbered)

    async def check(self) -> int:
        """The archive holds exactly the log that the database signed; its size."""
        head, archived, leaves = (
            await self.head(),
            archived_checkpoint(self.objects, "a"),
            await self.leaves(),
        )
        assert head is not None
        assert archived is not None
        assert (archived.size, archived.root) == (head.size, head.root) == (len(leaves), merkle.root(leaves))
        tiles = archived_log(self.objects, "a", archived.size)
        assert tiles.root() == archived.root
        assert list(tiles.leaves(0, archived.size)) == leaves
        kept = {content.commitment for content in archived_contents(self.objects, "a")}
        changes = [leaf for leaf in map(parse_leaf, leaves) if isinstance(leaf, ChangeLeaf)]
        assert {change.commitment for change in changes} <= kept
        return archived.size


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> World:
    async with database.app("a") as connection:
        await connection.exec_driver_sql("INSERT INTO operator VALUES ('a')")
    return World(database, tmp_path)


async def test_every_committed_leaf_gets_one_place_and_is_signed(world: World) -> None:
    sizes = []
    for count in (1, 3, 260, 1, 300):
        await world.change(count)
        sizes.append(await world.sign())
        assert await world.check() == sizes[-1]
    assert sizes == [1, 4, 264, 265, 565]
    assert await sequence(world.database, world.objects, world.keys, "a", NOW) is None


async def test_what_rolls_back_leaves_nothing(world: World) -> None:
    async def fail() -> None:
        async with world.database.app("a") as connection:
            await connection.exec_driver_sql(
                "INSERT INTO number_series VALUES ('a', 'x', 'invoice', 2026, 1)"
            )
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await world.sign() == 0


async def test_a_leaf_that_commits_later_than_a_younger_one_is_not_passed_over(world: World) -> None:
    async with world.database.app("a") as slow:
        await slow.exec_driver_sql("INSERT INTO number_series VALUES ('a', 'slow', 'invoice', 2026, 1)")
        await world.change(2)
        assert await world.sign() == 2
    assert await world.sign() == 3
    assert await world.check() == 3


async def test_two_sequencers_at_once_number_each_leaf_once(world: World) -> None:
    for _ in range(3):
        await world.change(40)
        await asyncio.gather(*(world.sign() for _ in range(4)))
    assert await world.check() == 120


async def test_a_transaction_of_many_leaves_goes_with_its_contents_in_a_few_objects(world: World) -> None:
    await world.change(5000)
    assert await world.sign() == 5000
    assert len(list(world.objects.list("a/_log/content/"))) == 2
    assert await world.check() == 5000


async def test_the_installation_has_a_log_of_its_own(world: World) -> None:
    async with world.database.app("*") as connection:
        await connection.exec_driver_sql(
            "INSERT INTO api_key VALUES ('*', gen_random_uuid(), NULL, NULL, 'auditor', sha256('x'), now())"
        )
    signed = await sequence(world.database, world.objects, world.keys, "*", NOW, make_key=True)
    assert signed is not None
    assert (signed.origin, signed.size) == ("_installation.tallygrid/log", 1)
    assert archived_checkpoint(world.objects, "*") == signed


async def test_an_accepted_batch_is_a_leaf_that_names_its_seal(world: World) -> None:
    assert world.database.urls.owner is not None
    owner = await asyncpg.connect(world.database.urls.owner)
    async with owner.transaction():
        for table in ("lane", "batch"):
            await owner.execute(insert_of(table, "a"))
    await owner.close()
    assert await world.sign() == 2
    lane, batch = map(parse_leaf, await world.leaves())
    assert isinstance(lane, ChangeLeaf)
    assert lane.table == "lane"
    assert isinstance(batch, BatchLeaf)
    assert batch == BatchLeaf("n1", "0", "cd" * 16, 0, "ab" * 32, batch.accepted_at)


class Killed(Exception):
    """The sequencer's process is gone."""


class DyingObjects(FolderObjects):
    """A folder whose user is killed at the n-th write, before it or right after it."""

    def __init__(self, root: Path, writes: int, *, after: bool) -> None:
        super().__init__(root)
        self.left = writes
        self.after = after

    def put(self, objects: Sequence[tuple[str, bytes]]) -> None:
        for each in objects:
            with self._one():
                super().put([each])

    def replace(self, path: str, content: bytes) -> None:
        with self._one():
            super().replace(path, content)

    def _one(self) -> _Write:
        return _Write(self)


class _Write:
    def __init__(self, objects: DyingObjects) -> None:
        self.objects = objects

    def __enter__(self) -> None:
        self.objects.left -= 1
        if self.objects.left == 0 and not self.objects.after:
            raise Killed

    def __exit__(self, *_: object) -> None:
        if self.objects.left == 0 and self.objects.after:
            raise Killed


@pytest.mark.parametrize("after", [False, True])
async def test_killed_at_any_write_it_goes_on_to_the_same_log(world: World, after: bool) -> None:
    killed = 0
    for _ in range(30):
        before = world.objects.get(checkpoint_path("a"))
        await world.change(150)
        for write in range(1, 20):
            try:
                await world.sign(DyingObjects(world.objects.root, write, after=after))
                break
            except Killed:
                killed += 1
                head, archived = await world.head(), archived_checkpoint(world.objects, "a")
                assert (head.size if head else 0) <= (archived.size if archived else 0)
        assert world.objects.get(checkpoint_path("a")) != before
        if killed > 20:
            break
    assert killed > 20
    await world.check()


async def test_partial_tiles_go_when_their_tile_is_full(world: World) -> None:
    for count in (100, 100, 100):
        await world.change(count)
        await world.sign()
    assert list(world.objects.list("a/_log/tile/")) == [
        "a/_log/tile/0/000",
        "a/_log/tile/0/001.p/44",
        "a/_log/tile/1/000.p/1",
        "a/_log/tile/entries/000",
        "a/_log/tile/entries/001.p/44",
    ]


async def restored(world: World, folder: Path, fresh: Database) -> World:
    """Another world with the same archive and keys, and an empty database with operator a."""
    async with fresh.app("a") as connection:
        await connection.exec_driver_sql("INSERT INTO operator VALUES ('a')")
    other = World(fresh, folder)
    other.objects, other.keys = world.objects, world.keys
    return other


@pytest.fixture
async def second(fresh_urls: Callable[[], DatabaseUrls]) -> AsyncIterator[Database]:
    urls = await asyncio.to_thread(fresh_urls)
    opened = await Database.open(urls)
    yield opened
    await opened.close()


async def refusal(world: World) -> str:
    with pytest.raises(Refusal) as refused:
        await world.sign()
    return refused.value.code


async def test_a_database_that_lacks_what_is_archived_never_signs(
    world: World, second: Database, tmp_path: Path
) -> None:
    await world.change(5)
    await world.sign()
    signed = world.objects.get(checkpoint_path("a"))
    old = await restored(world, tmp_path, second)
    await old.change(3)
    assert await refusal(old) == "behind_archive"
    with pytest.raises(Refusal, match="5 leaves in the archive and 0 in the database"):
        await check_extends(second, world.objects, "a")
    await old.change(4)  # as many leaves, and more: nothing of them is numbered
    assert await refusal(old) == "behind_archive"
    assert await old.leaves() == []
    assert world.objects.get(checkpoint_path("a")) == signed
    await check_extends(world.database, world.objects, "a")


async def test_other_leaves_in_the_places_of_archived_ones_are_never_signed(
    world: World, second: Database, tmp_path: Path
) -> None:
    await world.change(5)
    await world.sign()
    other = await restored(world, tmp_path, second)
    await other.change(6)
    async with second.app("a") as connection:
        transactions = await log.waiting_transactions(connection, "a", 100)
        await log.number(connection, "a", 0, transactions)
    assert await refusal(other) == "log_differs"


async def test_an_archive_without_the_log_is_not_the_logs_archive(world: World, tmp_path: Path) -> None:
    await world.change()
    await world.sign()
    await world.change()
    world.objects = FolderObjects(tmp_path / "another")
    assert await refusal(world) == "log_missing"


async def test_an_archive_from_an_older_backup_is_brought_forward(world: World) -> None:
    await world.change(300)
    await world.sign()
    older = world.objects.get(checkpoint_path("a"))
    assert older is not None
    there = {name: world.objects.get(name) for name in world.objects.list("a/_log/")}
    await world.change(300)
    await world.sign()
    newer = set(world.objects.list("a/_log/")) - set(there)
    world.objects.remove(sorted(newer))
    lost = {name: content for name, content in there.items() if world.objects.get(name) is None}
    world.objects.put([(name, content) for name, content in lost.items() if content is not None])
    world.objects.replace(checkpoint_path("a"), older)
    await world.change(1)
    assert await world.sign() == 601
    assert await world.check() == 601


async def test_a_lost_key_is_not_made_anew(world: World) -> None:
    await world.change()
    await world.sign()
    key = log_key_path(world.keys, "a")
    assert key.stat().st_mode & 0o777 == 0o600
    kept = key.read_bytes()
    key.unlink()
    await world.change()
    assert await refusal(world) == "log_key"
    assert not key.exists()
    assert await sequence(world.database, world.objects, world.keys, "a", NOW) is None
    key.write_bytes(kept)
    assert await world.sign() == 2


async def test_another_key_signs_nothing(world: World) -> None:
    await world.change()
    await world.sign()
    log_key_path(world.keys, "a").unlink()
    await sequence_of_b(world)
    log_key_path(world.keys, "b").rename(log_key_path(world.keys, "a"))
    await world.change()
    assert await refusal(world) == "log_key"


async def sequence_of_b(world: World) -> None:
    async with world.database.app("b") as connection:
        await connection.exec_driver_sql("INSERT INTO operator VALUES ('b')")
    await world.change(1, "b")
    await sequence(world.database, world.objects, world.keys, "b", NOW, make_key=True)


async def test_a_damaged_tile_is_named_and_nothing_is_signed_over_it(world: World) -> None:
    await world.change(10)
    await world.sign()
    tile = world.objects.root / "a/_log/tile/0/000.p/10"
    tile.write_bytes(bytes(320))
    await world.change()
    assert await refusal(world) == "damaged_log"


class FailingObjects(FolderObjects):
    def put(self, objects: Sequence[tuple[str, bytes]]) -> None:
        raise Unavailable("archive_unavailable", "the disk is full")

    def list(self, prefix: str) -> Iterator[str]:
        raise AssertionError


async def test_while_the_archive_is_away_nothing_is_numbered(world: World) -> None:
    await world.change(3)
    with pytest.raises(Unavailable):
        await world.sign(FailingObjects(world.objects.root))
    assert await world.leaves() == []
    assert await world.sign() == 3


async def test_only_a_content_can_be_erased_from_a_leaf(world: World) -> None:
    await world.change(2)
    await world.sign()

    async def refused(statement: str) -> bool:
        assert world.database.urls.owner is not None
        owner = await asyncpg.connect(world.database.urls.owner)
        try:
            await owner.execute(statement)
        except asyncpg.PostgresError:
            return True
        finally:
            await owner.close()
        return False

    for statement in (
        "UPDATE leaf SET data = 'x'",
        "UPDATE leaf SET content = 'x'",
        "UPDATE leaf SET nonce = NULL",
        "UPDATE leaf SET nonce = NULL, content = NULL, kind = 'batch'",
        "DELETE FROM leaf",
        "TRUNCATE leaf CASCADE",
        "UPDATE log_entry SET index = 7",
        "DELETE FROM log_entry",
        "DELETE FROM log_head",
        "UPDATE log_head SET size = 1",
        "UPDATE log_head SET root = sha256('x')",
        "UPDATE log_head SET size = 3",
        "INSERT INTO leaf (operator, kind, data, nonce, content, made_at)"
        " VALUES ('a', 'x', 'x', sha256('n'), 'another content', now())",
    ):
        assert await refused(statement), statement
    assert not await refused(
        "UPDATE leaf SET nonce = NULL, content = NULL WHERE id = (SELECT min(id) FROM leaf)"
    )
    assert await world.check() == 2
    await world.change()
    assert await refused("DELETE FROM leaf_waiting")
    assert await refused("UPDATE leaf_waiting SET transaction = 1")


async def test_contents_are_the_very_bytes_that_were_hashed(world: World) -> None:
    body = '{"name": "Čia\\u0020\\"kabutės\\"", "z": 1.50, "a": []}'
    async with world.database.app("a") as connection:
        await connection.execute(
            text(
                "INSERT INTO site_document VALUES ('a', 'node', 'n', '-infinity', NULL, CAST(:body AS json), now())"
            ),
            {"body": body},
        )
    await world.sign()
    [leaf] = map(parse_leaf, await world.leaves())
    assert isinstance(leaf, ChangeLeaf)
    [content] = archived_contents(world.objects, "a")
    assert content.commitment == leaf.commitment
    assert f'"body":{body}' in content.content  # scalars and order of the keys as they were applied
    assert content.content.startswith('{"table":"site_document","op":"insert","at":"')
