"""Fixtures of every test that needs a real PostgreSQL: one throw-away server a run, one fresh database a test.

    pytestmark = pytest.mark.anyio

    async def test_something(database: Database) -> None:
        async with database.app("telecentras") as connection: ...

The databases are copies of a migrated one (`CREATE DATABASE … TEMPLATE`, some 50 ms), with the three roles of the real
thing. `database` is empty, and so is `empty`; `fresh_urls` makes further ones. The server is started by hand and without
fsync, because tests kill nothing here; the launcher has tests of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest
from hypothesis import settings
from kafka_broker import KafkaBroker, broker

from adapters.postgres.database import Database, DatabaseUrls
from adapters.postgres.migrate import migrate
from adapters.postgres.roles import APP, DATABASE, INTAKE, OWNER, ROLES, role_sql
from adapters.postgres.unprivileged import account_for_server, binaries_for, spawn_options

if TYPE_CHECKING:
    from lost_ledger import LostLedger

# A shell that starts us in the background has us ignore Ctrl-C, and every command that a test starts would inherit that.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A test is right or wrong, not fast or slow: a loaded machine fails nothing.
settings.register_profile("tallygrid", deadline=None)
settings.load_profile("tallygrid")

_PASSWORDS = {role: f"{role}-secret" for role in ROLES}


@dataclass(frozen=True, slots=True)
class Server:
    """A running throw-away server."""

    sockets: Path

    def url(self, role: str, name: str) -> str:
        """How `role` reaches the database `name`; `postgres` is the superuser."""
        return f"postgresql://{role}:{_PASSWORDS.get(role, '')}@/{name}?host={self.sockets}"

    def urls(self, name: str) -> DatabaseUrls:
        return DatabaseUrls(self.url(APP, name), self.url(INTAKE, name), self.url(OWNER, name))

    def run(self, *statements: str, name: str = "postgres") -> None:
        """Runs statements as the superuser, each on its own."""

        async def run() -> None:
            connection = await asyncpg.connect(self.url("postgres", name))
            for statement in statements:
                await connection.execute(statement)
            await connection.close()

        asyncio.run(run())


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio; the fixture is the session's so that fixtures of any scope may be async."""
    return "asyncio"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """The run's server, with the three roles and no database of theirs; gone afterwards, however the tests ended."""
    account = account_for_server()
    # A short path under /tmp: a socket's is at most 107 bytes, and pytest's own folders are closed to other users.
    folder = Path(tempfile.mkdtemp(prefix="tally-pg-", dir="/tmp"))
    cluster, sockets = folder / "cluster", folder / "run"
    sockets.mkdir()
    if account is not None:
        for path in (folder, sockets):
            os.chown(path, account.uid, account.gid)
    folder.chmod(0o755)
    programs = binaries_for(account, folder) / "bin"
    options = spawn_options(account)

    def run(program: str, *arguments: str) -> None:
        command = [str(programs / program), f"--pgdata={cluster}", *arguments]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, **options)
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"

    settings = (
        "--listen_addresses= --fsync=off --synchronous_commit=off --full_page_writes=off --shared_buffers=64MB"
        f" --max_connections=60 --unix_socket_directories={sockets} --unix_socket_permissions=0777"
    )
    try:
        run("initdb", "--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C")
        run("pg_ctl", "start", "--wait", f"--log={folder / 'log'}", f"--options={settings}")
        server = Server(sockets)
        server.run(*(part for part in role_sql(_PASSWORDS).split(";\n\n") if part.strip()))
        yield server
    finally:
        if (cluster / "postmaster.pid").exists():
            run("pg_ctl", "stop", "--wait", "--mode=immediate")
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def fresh_urls(postgres: Server) -> Callable[[], DatabaseUrls]:
    """Makes another empty, migrated database each time it is called."""
    asyncio.run(migrate(postgres.url(OWNER, DATABASE)))
    numbers = itertools.count(1)

    def make() -> DatabaseUrls:
        name = f"{DATABASE}_{next(numbers)}"
        postgres.run(
            f"CREATE DATABASE {name} TEMPLATE {DATABASE} OWNER {OWNER} STRATEGY FILE_COPY",
            f"REVOKE ALL ON DATABASE {name} FROM PUBLIC",
            f"GRANT CONNECT, TEMPORARY ON DATABASE {name} TO {INTAKE}",
            f"GRANT CONNECT ON DATABASE {name} TO {APP}",
        )
        return postgres.urls(name)

    return make


@pytest.fixture
async def database(fresh_urls: Callable[[], DatabaseUrls]) -> AsyncIterator[Database]:
    """A fresh, migrated, empty database of the test's own."""
    urls = await asyncio.to_thread(fresh_urls)
    opened = await Database.open(urls)
    yield opened
    await opened.close()


@pytest.fixture
async def empty(fresh_urls: Callable[[], DatabaseUrls]) -> AsyncIterator[Database]:
    """A second one, in which what `database` held is made again."""
    opened = await Database.open(await asyncio.to_thread(fresh_urls))
    yield opened
    await opened.close()


@pytest.fixture
async def ledger(database: Database, tmp_path: Path) -> LostLedger:
    """A ledger in `database` with its archive beside it, of which the database will be lost."""
    from lost_ledger import new_ledger  # half of the adapters, which most tests can do without

    return await new_ledger(database, tmp_path)


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaBroker]:
    """The machine's shared Apache Kafka; a test's topics have a prefix of their own (kafka_broker.unique_prefix)."""
    with broker() as running:
        yield running
