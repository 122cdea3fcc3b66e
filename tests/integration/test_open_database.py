"""Opening: the schema is current afterwards, or the command is refused by a name that says what to do."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import asyncpg
import pytest
from alembic import command
from sqlalchemy import text

from adapters.postgres.database import Database, DatabaseUrls, driver
from adapters.postgres.embedded import discard
from adapters.postgres.migrate import HEAD, alembic_config, version
from adapters.postgres.open import APP_URL, INTAKE_URL, OWNER_URL, open_database, outside_urls
from metering.refusal import Refusal, Unavailable

pytestmark = pytest.mark.anyio


class Server(Protocol):
    """What these tests use of tests/conftest.py's server."""

    def run(self, *statements: str, name: str = "postgres") -> None: ...
    def urls(self, name: str) -> DatabaseUrls: ...


def environment(urls: DatabaseUrls) -> dict[str, str]:
    named = {APP_URL: urls.app, INTAKE_URL: urls.intake, OWNER_URL: urls.owner}
    return {name: url for name, url in named.items() if url is not None}


def parent_of(process: int) -> int:
    """The parent's id: of a backend, the postmaster."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def wait_for_the_end_of(backend: int) -> None:
    """A backend outlives its postmaster by a moment, and may still answer a ping."""
    while Path(f"/proc/{backend}").exists():
        time.sleep(0.01)


@pytest.fixture
def bare_urls(postgres: Server, tmp_path: Path) -> DatabaseUrls:
    """An empty database that nobody migrated."""
    name = f"bare_{time.monotonic_ns()}"
    postgres.run(f"CREATE DATABASE {name} OWNER tally_owner")
    return postgres.urls(name)


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """A data folder with a server of its own; as root its cluster lies elsewhere, and would stay."""
    yield tmp_path / "data"
    discard(tmp_path / "data")


async def test_many_commands_open_a_bare_database_at_once_and_one_migrates_it(
    bare_urls: DatabaseUrls, tmp_path: Path
) -> None:
    async def one() -> str | None:
        async with open_database(tmp_path, environment(bare_urls)) as database:
            return await version(database)

    assert await asyncio.gather(*(one() for _ in range(4))) == [HEAD] * 4


async def test_without_the_owners_login_a_bare_database_is_refused(
    bare_urls: DatabaseUrls, tmp_path: Path
) -> None:
    with pytest.raises(Refusal) as refused:
        async with open_database(tmp_path, environment(replace(bare_urls, owner=None))):
            pass
    assert refused.value.code == "database_behind"
    assert OWNER_URL in refused.value.remedy


async def test_the_printed_migrations_make_the_same_database(bare_urls: DatabaseUrls, tmp_path: Path) -> None:
    """For operators who let nobody but themselves change a schema."""
    printed = io.StringIO()
    config = alembic_config()
    config.output_buffer = printed
    command.upgrade(config, "head", sql=True)
    assert bare_urls.owner is not None
    owner = await asyncpg.connect(bare_urls.owner)
    await owner.execute(printed.getvalue())
    await owner.close()
    async with open_database(tmp_path, environment(replace(bare_urls, owner=None))) as database:
        assert await database.operators() == []


async def test_a_migrated_database_opens_without_the_owners_login(
    fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path
) -> None:
    urls = await asyncio.to_thread(fresh_urls)
    began = time.monotonic()
    async with open_database(tmp_path, environment(replace(urls, owner=None))) as database:
        assert await database.operators() == []
        print(f"opened in {time.monotonic() - began:.3f} s")


async def test_a_database_of_a_newer_version_is_refused(
    fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path
) -> None:
    urls = await asyncio.to_thread(fresh_urls)
    assert urls.owner is not None
    owner = await asyncpg.connect(urls.owner)
    await owner.execute("UPDATE alembic_version SET version_num = '9999'")
    await owner.close()
    with pytest.raises(Refusal) as refused:
        async with open_database(tmp_path, environment(urls)):
            pass
    assert refused.value.code == "database_ahead"


async def test_without_a_url_the_data_folder_has_a_database_of_its_own(data: Path) -> None:
    async with open_database(data, {}) as database:
        assert await version(database) == HEAD
        async with database.intake() as connection:
            assert (await connection.execute(text("SELECT count(*) FROM operator"))).scalar_one() == 1
    began = time.monotonic()
    async with open_database(data, {}) as database:
        assert await version(database) == HEAD
    print(f"started, opened and stopped in {time.monotonic() - began:.2f} s")


@pytest.mark.parametrize(
    ("environ", "what"),
    [
        ({APP_URL: "mysql://root@db/tally"}, "not the URL of a PostgreSQL database"),
        ({INTAKE_URL: "postgresql://tally_intake@db/tally"}, f"without {APP_URL}"),
    ],
)
def test_urls_that_make_no_sense_are_refused(environ: dict[str, str], what: str) -> None:
    with pytest.raises(Refusal, match=what) as refused:
        outside_urls(environ)
    assert refused.value.code == "database_url"


def test_no_url_means_embedded() -> None:
    assert outside_urls({}) is None
    assert outside_urls({APP_URL: ""}) is None


async def test_a_missing_database_is_refused_at_once(fresh_urls: Callable[[], DatabaseUrls]) -> None:
    urls = await asyncio.to_thread(fresh_urls)
    with pytest.raises(Refusal) as refused:
        await Database.open(DatabaseUrls(urls.app.replace("/tallygrid_", "/nowhere_")))
    assert refused.value.code == "database_missing"


async def test_nobody_at_the_socket_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.postgres.database._START_PATIENCE_S", 0.2)
    with pytest.raises(Unavailable) as gone:
        await Database.open(DatabaseUrls(f"postgresql://tally_app:x@/tally?host={tmp_path}"))
    assert gone.value.code == "database_down"
    assert "x@" not in str(gone.value)


async def test_without_an_intake_login_nothing_is_taken_in(database: Database) -> None:
    only_app = await Database.open(DatabaseUrls(database.urls.app))
    with pytest.raises(Refusal) as refused:
        async with only_app.intake():
            pass
    assert refused.value.code == "no_intake_login"
    await only_app.close()


async def test_a_connection_that_was_cut_is_unavailable_and_the_next_transaction_is_well(
    database: Database, postgres: Server
) -> None:
    async def cut_in_mid_transaction() -> None:
        async with database.app("a") as connection:
            backend = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
            await asyncio.to_thread(postgres.run, f"SELECT pg_terminate_backend({backend})")
            await asyncio.sleep(0.05)
            await connection.execute(text("SELECT 1"))

    with pytest.raises(Unavailable) as gone:
        await cut_in_mid_transaction()
    assert gone.value.code == "database_down"
    assert await database.operators() == []


async def test_an_embedded_server_that_was_killed_is_up_again_for_the_next_transaction(
    data: Path,
) -> None:
    async with open_database(data, {}) as database:
        for _ in range(2):
            async with database.app("a") as connection:
                backend: int = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
            os.kill(parent_of(backend), signal.SIGKILL)
            await asyncio.to_thread(wait_for_the_end_of, backend)
            assert await database.operators() == []


async def test_a_failure_of_the_callers_own_is_not_taken_for_the_databases(database: Database) -> None:
    async def write_to_a_full_disk() -> None:
        async with database.app("a"):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        await write_to_a_full_disk()


async def test_a_copy_through_the_driver_belongs_to_the_transaction(database: Database) -> None:
    """The driver's BEGIN goes out with the first statement: a COPY that came before it would commit on its own."""

    async def copy_and_fail() -> None:
        async with database.intake() as connection:
            raw = await driver(connection)
            assert raw.is_in_transaction()
            columns = ("operator", "digest", "claimed", "node", "lane", "code", "what", "path", "seen_at")
            row: tuple[Any, ...] = ("*", "digest", "", "n", "0", "code", "what", "path", None)
            await raw.copy_records_to_table("set_aside", records=[row], columns=columns)

    with pytest.raises(asyncpg.NotNullViolationError):
        await copy_and_fail()
    async with database.intake() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM set_aside"))).scalar_one() == 0
