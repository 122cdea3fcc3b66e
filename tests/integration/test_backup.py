"""A backup is every row of every operator, and a database made of it is the one that it was taken of."""

from __future__ import annotations

import asyncio
import json
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from operator_rows import fill

from adapters.backup import Taken, held_files, key_files, take_backup
from adapters.backup_file import verified
from adapters.objects import FolderObjects
from adapters.postgres.database import Database, DatabaseUrls
from adapters.postgres.dump import tables_of
from adapters.restoring import restore_files, restore_rows
from metering.refusal import Refusal

pytestmark = pytest.mark.anyio
NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)
Rows = dict[str, list[str]]


def no_files() -> Iterator[tuple[str, Callable[[], bytes]]]:
    return iter(())


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def owner_of(database: Database) -> asyncpg.Connection[Any]:
    assert database.urls.owner is not None
    return await asyncpg.connect(database.urls.owner)


async def all_rows(database: Database) -> Rows:
    """Every table's rows as JSON text, sorted."""
    owner = await owner_of(database)
    try:
        return {
            table.table: sorted(
                row[0] for row in await owner.fetch(f'SELECT row_to_json(t)::text FROM "{table.table}" t')
            )
            for table in await tables_of(owner)
            if table.table
            != "unfinished_restore"  # a restored database is read-only until it is brought forward
        }
    finally:
        await owner.close()


async def two_operators(database: Database) -> None:
    owner = await owner_of(database)
    await fill(owner, database, "alpha")
    await fill(owner, database, "beta")
    await owner.close()


async def backed_up(database: Database, out: Path) -> Taken:
    return await take_backup(database, out, files=no_files, keys=False, made_at=NOON)


async def test_every_table_of_a_restored_database_holds_the_rows_that_it_held(
    database: Database, empty: Database, tmp_path: Path
) -> None:
    await two_operators(database)
    taken = await backed_up(database, tmp_path / "backup.tar")
    before = await all_rows(database)
    assert {
        table.table: table.rows
        for table in taken.backup.manifest.tables
        if table.table != "unfinished_restore"
    } == {name: len(rows) for name, rows in before.items()}
    assert all(rows for rows in before.values())  # else the comparison says nothing
    await restore_rows(empty, verified(tmp_path / "backup.tar"), NOON)
    assert await all_rows(empty) == before


async def test_a_restored_database_is_guarded_as_every_other(
    database: Database, empty: Database, tmp_path: Path
) -> None:
    await two_operators(database)
    await restore_rows(empty, (await backed_up(database, tmp_path / "backup.tar")).backup, NOON)
    owner = await owner_of(empty)
    unguarded = await owner.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
        " AND NOT (relrowsecurity AND relforcerowsecurity)"
    )
    silent = await owner.fetch("SELECT tgname FROM pg_trigger WHERE tgenabled <> 'O'")
    await owner.close()
    assert (unguarded, silent) == ([], [])


async def test_numbers_that_a_sequence_gives_go_on_after_those_that_it_gave(
    database: Database, empty: Database, tmp_path: Path
) -> None:
    await two_operators(database)
    await restore_rows(empty, (await backed_up(database, tmp_path / "backup.tar")).backup, NOON)
    owner = await owner_of(empty)
    last = await owner.fetchval("SELECT max(id) FROM journal_entry")
    given = await owner.fetchval("SELECT nextval(pg_get_serial_sequence('journal_entry', 'id'))")
    await owner.close()
    assert given == last + 1


async def test_a_backup_goes_into_an_empty_database_only(database: Database, tmp_path: Path) -> None:
    await two_operators(database)
    before = await all_rows(database)
    taken = await backed_up(database, tmp_path / "backup.tar")
    with pytest.raises(Refusal, match="not empty: there are rows in adjustment, api_key") as refused:
        await restore_rows(database, taken.backup, NOON)
    assert refused.value.code == "not_empty"
    assert await all_rows(database) == before


async def test_what_is_written_beside_a_backup_is_in_it_whole_or_not_at_all(
    database: Database, empty: Database, tmp_path: Path
) -> None:
    """Rows that are committed after the snapshot began, in a table that it reads last, are not in it."""
    await two_operators(database)
    before = await all_rows(database)
    owner = await owner_of(database)

    async def write_then_go_on() -> None:
        await owner.execute("INSERT INTO operator VALUES ('gamma')")
        await owner.execute("INSERT INTO number_series VALUES ('gamma', 'gamma', 'invoice', 2026, 1)")

    first = True

    def beside(_what: str, _done: int, _total: int) -> None:
        nonlocal first
        if first:
            first = False
            writing.append(asyncio.ensure_future(write_then_go_on()))

    writing: list[Any] = []
    out = tmp_path / "backup.tar"
    taken = await take_backup(database, out, files=no_files, keys=False, made_at=NOON, progress=beside)
    await writing[0]
    await owner.close()
    await restore_rows(empty, taken.backup, NOON)
    assert await all_rows(empty) == before


async def test_a_backup_is_its_owners_alone_and_says_nothing_twice(
    database: Database, tmp_path: Path
) -> None:
    await two_operators(database)
    out = tmp_path / "backup.tar"
    await backed_up(database, out)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    with pytest.raises(Refusal) as refused:
        await backed_up(database, out)
    assert refused.value.code == "bad_out"
    assert names(tmp_path) == ["backup.tar"]


async def test_any_tar_reads_a_backup(database: Database, tmp_path: Path) -> None:
    await two_operators(database)
    out = tmp_path / "backup.tar"
    await backed_up(database, out)
    listed = await asyncio.to_thread(
        subprocess.run, ["tar", "-tf", str(out)], capture_output=True, text=True, check=True
    )
    assert listed.stderr == ""
    assert {"tables/posting.copy.zst", "manifest.json", "sha256"} <= set(listed.stdout.split())
    with tarfile.open(out) as tar:
        member = tar.extractfile("manifest.json")
        assert member is not None
        assert json.load(member)["format"] == "tallygrid/backup/v1"


async def test_without_the_owners_login_a_backup_is_refused(database: Database, tmp_path: Path) -> None:
    app_only = Database(DatabaseUrls(database.urls.app, database.urls.intake))
    with pytest.raises(Refusal) as refused:
        await backed_up(app_only, tmp_path / "backup.tar")
    assert refused.value.code == "no_owner_login"
    assert names(tmp_path) == []
    await app_only.close()


async def test_held_batches_and_keys_come_back_as_they_were(database: Database, tmp_path: Path) -> None:
    data, other = tmp_path / "data", tmp_path / "other"
    held = FolderObjects(data / "held")
    path = "telecentras/vilnius-1/sidecar-0/" + "ab" * 16 + "-7-" + "cd" * 32 + ".parquet"
    held.put([(path, b"a body"), (path.removesuffix("parquet") + "seal", b"a seal")])
    (data / "keys" / "log").mkdir(parents=True)
    (data / "keys" / "log" / "telecentras.key").write_bytes(b"a secret")
    (data / "keys" / "snapshot-telecentras.json").write_bytes(b"{}")

    def files() -> Iterator[tuple[str, Callable[[], bytes]]]:
        yield from held_files(held)
        yield from key_files(data)

    taken = await take_backup(database, tmp_path / "b.tar", files=files, keys=True, made_at=NOON)
    other_held = FolderObjects(other / "held")
    assert restore_files(taken.backup, other, other_held) == 3
    assert other_held.get(path) == b"a body"
    key = other / "keys" / "log" / "telecentras.key"
    assert key.read_bytes() == b"a secret"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert not (other / "keys" / "snapshot-telecentras.json").exists()
    assert restore_files(taken.backup, other, other_held) == 0
    key.write_bytes(b"another")
    with pytest.raises(Refusal) as refused:
        restore_files(taken.backup, other, other_held)
    assert refused.value.code == "file_differs"


async def test_a_backup_that_cannot_be_written_leaves_nothing(database: Database, tmp_path: Path) -> None:
    with pytest.raises(Refusal) as refused:
        await backed_up(database, tmp_path / "missing" / "backup.tar")
    assert refused.value.code == "bad_out"
    assert names(tmp_path) == []
