"""Keys on disk: what a sidecar serves from while the ledger is away."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from metering.identity import hash_secret
from metering.keybook import KeyEntry, SnapshotKeyBook
from metering.refusal import Refusal, Unavailable

DIGEST = hash_secret("tg_secret")
ENTRY = KeyEntry(b"K" * 16, b"C" * 16, None, 1_800_000_000_000_000)
OTHER = KeyEntry(b"L" * 16, b"C" * 16, b"P" * 16, None)


def snapshot(folder: Path) -> Path:
    return folder / "keys" / "snapshot-op.json"


def test_what_was_saved_is_found_after_a_restart(tmp_path: Path) -> None:
    book = SnapshotKeyBook.load(snapshot(tmp_path))
    assert len(book) == 0
    assert book.replace({DIGEST: ENTRY, b"o" * 32: OTHER})
    again = SnapshotKeyBook.load(snapshot(tmp_path))
    assert again.find(DIGEST) == ENTRY
    assert again.find(b"o" * 32) == OTHER
    assert again.find(b"x" * 32) is None


def test_the_file_is_its_owners_alone_and_holds_no_secret(tmp_path: Path) -> None:
    SnapshotKeyBook.load(snapshot(tmp_path)).replace({DIGEST: ENTRY})
    assert stat.S_IMODE(snapshot(tmp_path).stat().st_mode) == 0o600
    assert b"tg_" not in snapshot(tmp_path).read_bytes()


def test_the_same_keys_again_write_nothing(tmp_path: Path) -> None:
    book = SnapshotKeyBook.load(snapshot(tmp_path))
    assert book.replace({DIGEST: ENTRY})
    snapshot(tmp_path).unlink()
    assert not book.replace({DIGEST: ENTRY})
    assert not snapshot(tmp_path).exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"format":"tallygrid/keys/v2","keys":[]}',
        '{"format":"tallygrid/keys/v1","keys":[{}]}',
        '{"format":"tallygrid/keys/v1","keys":[{"id":"x"}]}',
    ],
)
def test_a_file_that_is_no_snapshot_is_refused_and_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "snapshot.json"
    path.write_text(text)
    with pytest.raises(Refusal) as refused:
        SnapshotKeyBook.load(path)
    assert refused.value.code == "bad_key_snapshot"
    assert refused.value.where == str(path)


def test_keys_are_renewed_and_the_last_state_stays_while_the_ledger_is_away(tmp_path: Path) -> None:
    book = SnapshotKeyBook.load(snapshot(tmp_path))
    states: list[Mapping[bytes, KeyEntry] | None] = [{DIGEST: ENTRY}, None, None, {b"o" * 32: OTHER}]
    found: list[bool] = []

    async def source() -> Mapping[bytes, KeyEntry]:
        found.append(book.find(DIGEST) is not None)
        if not states:
            raise asyncio.CancelledError
        state = states.pop(0)
        if state is None:
            raise Unavailable("ledger_down", "no answer")
        return state

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(book.refresh(source, every_s=0))
    assert found == [False, True, True, True, False]
