"""What is kept stays its owner's, whoever made the backup and wherever it lies; and the log is that of one archive."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from intake_world import NODE
from lost_ledger import new_ledger
from small_books import OPERATOR

from adapters import log_sequencer
from adapters.backup import key_files, take_backup
from adapters.backup_file import BackupWriter, Manifest, verified
from adapters.log_proving import Wanted, log_key, prove
from adapters.log_sequencer import check_extends, log_key_path
from adapters.objects import FolderObjects
from adapters.postgres.database import Database, DatabaseUrls
from adapters.postgres.lane_keys import add_key
from adapters.restoring import restore_files
from billing.inspection import LaneName
from metering.identity import LaneKey
from metering.refusal import Refusal

pytestmark = pytest.mark.anyio


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("name", ["keys/../../owned", "/owned", "keys//owned", "held/./x", "owned"])
async def test_a_backup_writes_nothing_outside_the_data_folder(name: str, tmp_path: Path) -> None:
    """Its digest says that it is whole; anybody can make one."""
    content = b"* * * * * root owned\n"
    with (tmp_path / "evil.tar").open("w+b") as file:
        writer = BackupWriter(file)
        with writer.member(name) as member:
            member.write(content)
        files = {name: hashlib.sha256(content).hexdigest()}
        writer.finish(
            Manifest("2026-01-01T00:00:00.000000Z", "1", "0001", "18", (), {}, (), (), True, (), files)
        )
    data = tmp_path / "victim" / "data"
    with pytest.raises(Refusal) as refused:
        restore_files(verified(tmp_path / "evil.tar"), data, FolderObjects(data / "held"))
    assert refused.value.code == "bad_backup"
    assert not (tmp_path / "victim").exists()


async def test_a_backup_is_its_owners_whatever_lay_under_its_name(database: Database, tmp_path: Path) -> None:
    ledger = await new_ledger(database, tmp_path)
    beside, elsewhere = tmp_path / "b.tar.new", tmp_path / "elsewhere"
    beside.touch()
    beside.chmod(0o666)
    await take_backup(database, tmp_path / "b.tar", files=lambda: iter(()), keys=False, made_at=ledger.now)
    assert mode(tmp_path / "b.tar") == 0o600
    elsewhere.touch()
    (tmp_path / "c.tar.new").symlink_to(elsewhere)
    await take_backup(database, tmp_path / "c.tar", files=lambda: iter(()), keys=False, made_at=ledger.now)
    assert elsewhere.stat().st_size == 0


def test_a_backup_with_keys_has_every_key_whatever_the_operator_is_called(tmp_path: Path) -> None:
    LaneKey.load_or_create(log_key_path(tmp_path / "keys", "snapshot-eu"))
    (tmp_path / "keys" / "snapshot-vilnius-1.json").write_text("{}")
    (tmp_path / "keys" / "log" / "snapshot-eu.signed").write_text("not a key")
    assert [path for path, _ in key_files(tmp_path)] == ["keys/log/snapshot-eu.key"]


async def test_contents_and_what_is_held_are_nobody_elses(database: Database, tmp_path: Path) -> None:
    ledger = await new_ledger(database, tmp_path)
    await ledger.take(1)
    await ledger.sign()
    [content, *more] = (tmp_path / "archive").rglob("*.jsonl")
    assert {mode(path) for path in (content, *more)} == {0o600}
    assert {mode(path) for path in (content.parent, content.parent.parent)} == {0o700}
    [batch] = (tmp_path / "archive").rglob("*.parquet")  # analysts read batches; they name nobody
    assert (mode(batch), mode(batch.parent)) == (0o644, 0o755)
    assert mode(content.parent.parent.parent) == 0o755
    held = FolderObjects(tmp_path / "elsewhere" / "held", private=True)
    held.put([("a/b/c", b"held")])
    assert (mode(held.root / "a/b/c"), mode(held.root / "a"), mode(held.root)) == (0o600, 0o700, 0o700)
    assert mode(tmp_path / "elsewhere") == 0o755


async def test_another_installations_smaller_archive_is_told_from_an_older_one_of_ours(
    database: Database, fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path
) -> None:
    other_database = await Database.open(await asyncio.to_thread(fresh_urls))
    other = await new_ledger(other_database, tmp_path / "other", seed=2)
    await other.sign()
    await other_database.close()
    mine = await new_ledger(database, tmp_path / "mine", seed=1)
    await mine.sign()
    await mine.take(1)
    await mine.sign()
    before = sorted(other.archive.list(""))
    with pytest.raises(Refusal) as refused:
        await check_extends(database, other.archive, OPERATOR)
    assert refused.value.code == "log_differs"
    assert sorted(other.archive.list("")) == before


async def test_what_depends_on_another_transaction_is_numbered_after_it(
    database: Database,
    fresh_urls: Callable[[], DatabaseUrls],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A key is added in a transaction that began before the lane's own; each is numbered in a round of its own."""
    ledger = await new_ledger(database, tmp_path)
    await ledger.sign()
    monkeypatch.setattr(log_sequencer, "LEAVES_AT_ONCE", 1)
    async with database.app(OPERATOR) as began_first:
        await began_first.exec_driver_sql(
            "INSERT INTO number_series VALUES ($1, 'b', 'invoice', 2026, 1)", (OPERATOR,)
        )
        await ledger.enrol("import-7")
        key = LaneKey.public_bytes(Ed25519PrivateKey.generate())
        await add_key(began_first, LaneName(OPERATOR, NODE, "import-7"), key, ledger.now)
    await ledger.sign()
    empty = await Database.open(await asyncio.to_thread(fresh_urls))
    await ledger.on(empty).bring_forward()
    await empty.close()


async def test_a_key_never_signs_another_tree_where_archive_and_database_were_both_put_back(
    database: Database, fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path
) -> None:
    ledger = await new_ledger(database, tmp_path)
    await ledger.take(1)
    await ledger.sign()
    await asyncio.to_thread(shutil.copytree, tmp_path / "archive", tmp_path / "earlier")
    await ledger.take(2)
    await ledger.sign()  # somebody may hold this checkpoint
    await asyncio.to_thread(shutil.rmtree, tmp_path / "archive")
    await asyncio.to_thread((tmp_path / "earlier").rename, tmp_path / "archive")
    empty = await Database.open(await asyncio.to_thread(fresh_urls))
    again = ledger.on(empty)
    await again.bring_forward()
    await again.create_key()  # a leaf in the place of the one that is lost
    for _ in range(2):
        with pytest.raises(Refusal) as refused:
            await again.sign()
        assert refused.value.code == "log_put_back"
    await again.create_key()
    with pytest.raises(Refusal) as refused:
        await again.sign()
    assert refused.value.code == "log_put_back"
    (tmp_path / "keys" / "log" / f"{OPERATOR}.signed").unlink()  # a person's decision
    await again.sign()
    await empty.close()


async def test_the_newest_archive_is_signed_on_whatever_the_key_remembers_of_it(
    database: Database, tmp_path: Path
) -> None:
    ledger = await new_ledger(database, tmp_path)
    await ledger.take(1)
    await ledger.sign()
    kept = tmp_path / "keys" / "log" / f"{OPERATOR}.signed"
    old = kept.read_bytes()
    assert mode(kept) == 0o600
    for count in (300, 3):
        async with database.app(OPERATOR) as connection:
            await connection.exec_driver_sql(
                "INSERT INTO number_series SELECT $1, gen_random_uuid()::text, 'invoice', 2026, 1"
                " FROM generate_series(1, CAST($2 AS integer))",
                (OPERATOR, count),
            )
        await ledger.sign()
        kept.write_bytes(old)  # killed between the two, or copied from another machine
    await ledger.create_key()
    await ledger.sign()
    assert kept.read_bytes() != old


async def test_a_document_whose_content_was_erased_is_named_as_that(
    database: Database, tmp_path: Path
) -> None:
    ledger = await new_ledger(database, tmp_path)
    await ledger.take(1)
    await ledger.close()
    await ledger.sign()
    [invoice] = await ledger.documents()
    key = log_key(tmp_path / "keys", OPERATOR)
    wanted = Wanted(document=invoice.number)
    proof = await prove(database, ledger.archive, OPERATOR, wanted, key=key, seen=None)
    async with database.app(OPERATOR) as connection:
        await connection.exec_driver_sql(
            "UPDATE leaf SET nonce = NULL, content = NULL WHERE kind = 'document'"
        )
    with pytest.raises(Refusal) as refused:
        await prove(database, ledger.archive, OPERATOR, wanted, key=key, seen=None)
    assert refused.value.code == "content_erased"
    at_its_place = Wanted(leaf=proof["index"])
    assert (await prove(database, ledger.archive, OPERATOR, at_its_place, key=key, seen=None))[
        "content"
    ] is None
