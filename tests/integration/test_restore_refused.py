"""What does not fit is refused by name and nothing is changed: archives that lack something, backups that are damaged."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from lost_ledger import LostLedger, new_ledger, rows
from small_books import OPERATOR
from sqlalchemy.exc import DBAPIError

from adapters import backup_file
from adapters.backup_file import BackupWriter, Manifest, RowsWriter, TableRows, verified
from adapters.cli.guard import behind, guard
from adapters.cli.signing import signing
from adapters.objects import FolderObjects
from adapters.postgres.database import Database, DatabaseUrls
from adapters.restoring import restore_rows
from metering.refusal import Refusal, Unavailable

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Lost:
    """A backup, and the archive of a ledger that went on after it."""

    backup: Path
    data: Path
    last: LostLedger


@pytest.fixture(scope="module")
def lost(fresh_urls: Callable[[], DatabaseUrls], tmp_path_factory: pytest.TempPathFactory) -> Lost:
    """Made once: each test takes a copy of the archive, and spoils it."""
    urls, data = fresh_urls(), tmp_path_factory.mktemp("lost")

    async def make() -> LostLedger:
        database = await Database.open(urls)
        ledger = await new_ledger(database, data)
        await ledger.take(3)
        await ledger.sign()
        await ledger.back_up()
        await ledger.take(2)
        await ledger.close()
        await ledger.sign()
        await database.close()
        return ledger

    ledger = asyncio.run(make())
    return Lost(data / "backup.tar", data, ledger)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to be")


def flip(path: Path, byte: int = -5) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 1
    path.write_bytes(content)


def newest(archive: Path, pattern: str) -> Path:
    return max(archive.glob(pattern), key=lambda path: path.stat().st_mtime_ns)


def without_batch(archive: Path) -> None:
    newest(archive, f"{OPERATOR}/2*/*/*/*.parquet").unlink()
    newest(archive, f"{OPERATOR}/2*/*/*/_*.seal").unlink()


def without_body(archive: Path) -> None:
    newest(archive, f"{OPERATOR}/2*/*/*/*.parquet").unlink()


def another_body(archive: Path) -> None:
    flip(newest(archive, f"{OPERATOR}/2*/*/*/*.parquet"))


def another_seal(archive: Path) -> None:
    seal = newest(archive, f"{OPERATOR}/2*/*/*/_*.seal")
    seal.write_bytes(seal.read_bytes().replace(b"\nbody_bytes ", b"\nbody_bytes 1"))


def without_contents(archive: Path) -> None:
    newest(archive, f"{OPERATOR}/_log/content/*/*.jsonl").unlink()


def another_content(archive: Path) -> None:
    flip(newest(archive, f"{OPERATOR}/_log/content/*/*.jsonl"), 200)


def without_leaves(archive: Path) -> None:
    shutil.rmtree(archive / OPERATOR / "_log" / "tile" / "entries")


def another_leaf(archive: Path) -> None:
    for path in archive.glob(f"{OPERATOR}/_log/tile/entries/**/*"):
        if path.is_file():
            flip(path)


def another_checkpoint(archive: Path) -> None:
    flip(archive / OPERATOR / "_log" / "checkpoint", 40)


def without_log(archive: Path) -> None:
    shutil.rmtree(archive / OPERATOR / "_log")


SPOILT: dict[Callable[[Path], None], str] = {
    without_batch: "archive_incomplete",
    without_body: "archive_incomplete",
    another_body: "replay_differs",
    another_seal: "replay_differs",
    without_contents: "content_missing",
    another_content: "bad_content",
    without_leaves: "damaged_log",
    another_leaf: "damaged_log",
    another_checkpoint: "log_key",
    without_log: "log_missing",
}


async def test_an_archive_that_lacks_something_is_named_and_the_database_stays_read_only(
    lost: Lost, empty: Database, tmp_path: Path
) -> None:
    again = lost.last.on(empty)
    await restore_rows(empty, verified(lost.backup), again.now)
    before = await rows(empty)
    for spoil, code in SPOILT.items():
        data = tmp_path / spoil.__name__
        await asyncio.to_thread(shutil.copytree, lost.data, data)
        spoil(data / "archive")
        with pytest.raises(Refusal) as refused:
            await lost.last.on(empty, data).bring_forward()
        assert (refused.value.code, bool(refused.value.remedy)) == (code, True), spoil
        refusal = await behind(empty, FolderObjects(data / "archive"))
        assert refusal is not None, spoil
        assert refusal.code == "behind_archive", spoil
    assert await rows(empty) == before

    await again.apply("kind: customer\nid: delta\noperator: telecentras\nname: Delta\ncountry: LT\n")
    with pytest.raises(Refusal) as unsigned:  # what somebody wrote by passing the guard
        await again.sign()
    assert unsigned.value.code == "behind_archive"


async def test_another_installations_archive_is_refused(
    lost: Lost, database: Database, empty: Database, tmp_path: Path
) -> None:
    """The same operator, the same customers, another ledger."""
    other = await new_ledger(database, tmp_path, seed=2)
    await other.take(9)
    await other.sign()
    await restore_rows(empty, verified(lost.backup), other.now)
    before = await rows(empty)
    with pytest.raises(Refusal) as refused:
        await lost.last.on(empty, tmp_path).bring_forward()
    assert refused.value.code == "log_differs"
    assert await rows(empty) == before


async def test_a_clone_is_read_only_once_the_other_went_on(
    lost: Lost, database: Database, empty: Database, tmp_path: Path
) -> None:
    """Two databases of one ledger beside one archive: whoever signs next makes the other one old."""
    data = tmp_path / "data"
    await asyncio.to_thread(shutil.copytree, lost.data, data)
    one, other = lost.last.on(database, data), lost.last.on(empty, data)
    await one.bring_forward()
    await other.bring_forward()
    assert (await behind(database, one.archive), await behind(empty, one.archive)) == (None, None)
    await one.take(1)
    await one.sign()
    assert await behind(database, one.archive) is None
    refusal = await behind(empty, one.archive)
    assert refusal is not None
    assert refusal.code == "behind_archive"
    await other.bring_forward()
    assert await behind(empty, one.archive) is None
    assert await rows(empty) == await rows(database)


async def test_a_database_that_is_behind_is_read_only_for_postgresql_too_and_away_for_a_sidecar(
    lost: Lost, empty: Database, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    await asyncio.to_thread(shutil.copytree, lost.data, data)
    again = lost.last.on(empty, data)
    await restore_rows(empty, verified(lost.backup), again.now)
    with pytest.raises(Unavailable) as away:  # it starts with the keys that it knew
        await guard("sidecar", data, empty)
    assert away.value.code == "behind_archive"
    with pytest.raises(Refusal):
        await guard("a command that nobody has listed", data, empty)
    assert empty.read_only is None
    warning = await guard("usage", data, empty)
    assert warning is not None
    assert "tally restore" in warning
    with pytest.raises(DBAPIError, match="read-only transaction"):
        await again.create_key()


async def test_an_intake_that_runs_while_its_database_is_put_back_takes_nothing_until_it_is_brought_forward(
    lost: Lost, empty: Database, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    await asyncio.to_thread(shutil.copytree, lost.data, data)
    again = lost.last.on(empty, data)
    await restore_rows(empty, verified(lost.backup), again.now)
    async with signing(data, empty, again.archive):
        await until(lambda: empty.read_only is not None)
        with pytest.raises(Refusal) as refused:
            await again.take(1)
        assert refused.value.code == "behind_archive"
        await lost.last.on(empty, data).bring_forward()
        await until(lambda: empty.read_only is None)
        await lost.last.on(empty, data).take(1)


async def test_a_database_written_to_after_its_restore_is_not_brought_forward(
    lost: Lost, empty: Database, tmp_path: Path
) -> None:
    """Somebody took the numbers that the archive has given already; nothing is mixed."""
    data = tmp_path / "data"
    await asyncio.to_thread(shutil.copytree, lost.data, data)
    again = lost.last.on(empty, data)
    await restore_rows(empty, verified(lost.backup), again.now)
    await again.close()  # by passing the guard
    before = await rows(empty)
    with pytest.raises(Refusal) as refused:
        await again.bring_forward()
    assert refused.value.code == "replay_differs"
    assert await rows(empty) == before


@pytest.mark.parametrize("every", [997, pytest.param(7, marks=pytest.mark.proof)])
def test_every_flipped_bit_of_a_backup_is_noticed(lost: Lost, tmp_path: Path, every: int) -> None:
    whole = lost.backup.read_bytes()
    spoilt = tmp_path / "backup.tar"
    for place in (*range(0, len(whole), every), *range(len(whole) - 2048, len(whole), 64)):
        content = bytearray(whole)
        content[place] ^= 1 << (place % 8)
        spoilt.write_bytes(content)
        with pytest.raises(Refusal) as refused:
            verified(spoilt)
        assert refused.value.code == "bad_backup", place


def test_a_backup_that_is_cut_short_is_noticed(lost: Lost, tmp_path: Path) -> None:
    whole = lost.backup.read_bytes()
    spoilt = tmp_path / "backup.tar"
    for size in (0, 1, 511, 2048, len(whole) // 2, len(whole) - 1024, len(whole) - 1):
        spoilt.write_bytes(whole[:size])
        with pytest.raises(Refusal) as refused:
            verified(spoilt)
        assert refused.value.code == "bad_backup", size
    spoilt.write_bytes(whole + b"\0")
    with pytest.raises(Refusal, match="digest"):
        verified(spoilt)


def test_a_file_that_is_not_there_is_no_backup(tmp_path: Path) -> None:
    with pytest.raises(Refusal) as refused:
        verified(tmp_path / "backup.tar")
    assert refused.value.code == "no_backup"


def made_by_hand(path: Path, manifest: Manifest, rows: bytes) -> Path:
    with path.open("w+b") as file:
        writer = BackupWriter(file)
        with writer.member("tables/operator.copy.zst") as member:
            wrote = RowsWriter(member)
            asyncio.run(wrote.write(rows))
            wrote.finish(manifest.tables[0], 1)
        writer.finish(manifest)
    return path


MANIFEST = Manifest(
    made_at="2026-11-02T12:00:00.000000Z",
    tallygrid="0.1.0",
    schema="0001",
    server="18.0",
    operators=(),
    logs={},
    partitions=(),
    sequences=(),
    keys=False,
    tables=(TableRows("operator", (("operator", "text"),), 1, 4, "00" * 32),),
)


def test_rows_that_are_not_those_of_the_manifest_are_refused(tmp_path: Path) -> None:
    backup = verified(made_by_hand(tmp_path / "backup.tar", MANIFEST, b"rows"))
    with pytest.raises(Refusal, match="the rows of operator are not those of its manifest") as refused:
        backup.check()
    assert refused.value.code == "bad_backup"


def test_a_backup_of_another_format_is_refused_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as later:
        later.setattr(backup_file, "FORMAT", "tallygrid/backup/v2")
        made_by_hand(tmp_path / "backup.tar", MANIFEST, b"rows")
    with pytest.raises(Refusal, match="tallygrid/backup/v2") as refused:
        verified(tmp_path / "backup.tar")
    assert refused.value.code == "backup_version"


async def test_a_backup_of_another_schema_is_refused_and_changes_nothing(lost: Lost, empty: Database) -> None:
    backup = verified(lost.backup)
    before = await rows(empty)
    newer = replace(backup.manifest, schema="0002")
    fewer = replace(backup.manifest, tables=backup.manifest.tables[1:])
    for manifest in (newer, fewer):
        other = replace(backup, manifest=manifest)
        with pytest.raises(Refusal) as refused:
            await restore_rows(empty, other, lost.last.now)
        assert refused.value.code == "backup_version"
    assert await rows(empty) == before
