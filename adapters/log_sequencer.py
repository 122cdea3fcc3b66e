"""The one sequencer of a log: numbers what is committed, archives it, signs, and only then says so.

    lock → does the database extend the newest archived checkpoint? → contents of what waits into the archive
         → numbers, committed → bundles and tiles → checkpoint → head, committed

Killed at any point it goes on: contents have names of their own and are written again to the same effect; what has a
number keeps it, so the tiles that follow are those that were, or would have been, written; and a checkpoint that is
archived, but not yet known to the database, covers nothing but numbered leaves, which are compared with what it covers.

A tree is never signed unless it begins with the newest archived one. A database that lacks entries which the archive
has (`behind_archive`: it was restored from a backup) or holds others in their place is refused, before anything is
numbered; so are an archive that is not the log's own and a key that did not sign it. Where archive and database were
both put back to an earlier moment, the key's folder remembers what was signed (log_remembered.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from adapters.log_archive import (
    archived_log,
    archived_note,
    growing_log,
    put_checkpoint,
    put_contents,
    put_tiles,
    remove_partial,
)
from adapters.log_remembered import put_back, remember, remembered
from adapters.postgres import log
from adapters.postgres.database import Database
from adapters.postgres.log import ContentsOf, Head, Standing
from billing.log import archive_name, origin
from billing.log_growth import GrowingLog
from billing.log_tiles import WIDTH, TileName
from billing.objects import Objects
from metering.checkpoint import Checkpoint, read_checkpoint, sign_checkpoint, split_checkpoint
from metering.identity import LaneKey
from metering.note import Verifier
from metering.refusal import Refusal
from metering.steps import step

#: Leaves that are numbered, archived and signed together; a transaction with more goes as a whole.
LEAVES_AT_ONCE = 8_192
_RESTORE = "`tally restore` brings the database forward from the archive; until then nothing is signed"


def log_key_path(keys: Path, operator: str) -> Path:
    """The key that signs this operator's log, in the data folder's `keys`."""
    return keys / "log" / f"{archive_name(operator)}.key"


def log_verifier(key: Ed25519PrivateKey, operator: str) -> Verifier:
    """Who a checkpoint must be signed by: the log's origin and its public key."""
    return Verifier(origin(operator), LaneKey.public_bytes(key))


async def sequence(
    database: Database, objects: Objects, keys: Path, operator: str, now: datetime, *, make_key: bool = False
) -> Checkpoint | None:
    """Brings the log up to what is committed and returns its newest checkpoint; None where nothing was to be done.

    Where the log's key is not below `keys`, nothing is done either, unless `make_key`: a log that was never signed
    then gets one. Refusals: behind_archive, log_differs, log_missing, log_key, damaged_log.
    """
    key_path = log_key_path(keys, operator)
    if not make_key and not key_path.exists():
        return None
    async with database.app(operator) as connection:
        if (await log.standing(connection, operator)).is_signed:
            return None
    async with database.exclusively(log.lock_name(operator)):
        sequencer = _Sequencer(database, objects, operator, now, key_path)
        return await sequencer.run()


async def check_extends(database: Database, objects: Objects, operator: str) -> None:
    """That the database's log begins with the newest archived one, as far as that is told without a key.

    Refusals: behind_archive, log_differs, log_missing, damaged_log, bad_checkpoint.
    """
    found = await asyncio.to_thread(archived_note, objects, operator)
    async with database.app(operator) as connection:
        standing = await log.standing(connection, operator)
    if standing.is_being_restored:
        raise unfinished_restore(operator)
    archived = None if found is None else split_checkpoint(found)[0]
    await _check_begins(database, objects, operator, standing, archived)


@dataclass(frozen=True, slots=True)
class _Sequencer:
    """One run for one operator, under its lock."""

    database: Database
    objects: Objects
    operator: str
    now: datetime
    key_path: Path

    async def run(self) -> Checkpoint | None:
        found = await asyncio.to_thread(archived_note, self.objects, self.operator)
        async with self.database.app(self.operator) as connection:
            standing = await log.standing(connection, self.operator)
        if standing.is_signed:
            return None
        if standing.is_being_restored:
            raise unfinished_restore(self.operator)
        key = self._key(first=found is None and standing.head is None)
        archived = None if found is None else self._own(found, key)
        await _check_begins(self.database, self.objects, self.operator, standing, archived)
        grown = await asyncio.to_thread(growing_log, self.objects, self.operator, archived)
        last = await asyncio.to_thread(remembered, self.key_path, log_verifier(key, self.operator))
        await self._check_last(last, grown)
        if standing.head is not None and grown.size < standing.head.size:
            await self._catch_up(grown, standing.head, last)
        signed: Checkpoint | None = None
        numbered = standing.numbered
        while True:
            transactions = await self._waiting()
            if transactions:
                numbered = await self._number(numbered, transactions)
            if numbered == grown.size and signed is not None:
                return signed
            signed = await self._publish(grown, numbered, key, last)

    async def _waiting(self) -> list[int]:
        """Transactions whose leaves wait, with what they commit to archived already."""
        async with self.database.app(self.operator) as connection:
            transactions = await log.waiting_transactions(connection, self.operator, LEAVES_AT_ONCE)
            contents = await log.contents_of(connection, self.operator, transactions)
        await asyncio.to_thread(self._put_contents, contents)
        step("log-contents")
        return transactions

    def _put_contents(self, contents: Sequence[ContentsOf]) -> None:
        for of_transaction in contents:
            put_contents(self.objects, self.operator, of_transaction.day, of_transaction.contents)

    async def _number(self, numbered: int, transactions: Sequence[int]) -> int:
        async with self.database.app(self.operator) as connection:
            numbered = await log.number(connection, self.operator, numbered, transactions)
        step("log-numbers")
        return numbered

    async def _check_last(self, last: Checkpoint | None, grown: GrowingLog) -> None:
        """That the archived log begins with what was signed last, as far as it reaches. Refusal `log_put_back`."""
        if last is None or last.size > grown.size:
            return
        if last.size == grown.size:
            root = grown.root()
        else:
            tiles = archived_log(self.objects, self.operator, grown.size)
            root = await asyncio.to_thread(tiles.root, last.size)
        if root != last.root:
            raise put_back(last, grown.size, self.operator)

    async def _publish(
        self, grown: GrowingLog, size: int, key: Ed25519PrivateKey, last: Checkpoint | None
    ) -> Checkpoint:
        """Archives the leaves up to `size`, signs, and tells the database. Refusal `log_put_back`."""
        full = await self._grow_past(grown, size, last)
        await asyncio.to_thread(put_tiles, self.objects, self.operator, grown.unfinished())
        step("log-tiles")
        checkpoint = Checkpoint(origin(self.operator), grown.size, grown.root())
        signed = sign_checkpoint(checkpoint, key)
        await asyncio.to_thread(put_checkpoint, self.objects, self.operator, signed)
        await asyncio.to_thread(remember, self.key_path, signed)
        step("log-checkpoint")
        async with self.database.app(self.operator) as connection:
            await log.set_head(
                connection, self.operator, Head(checkpoint.size, checkpoint.root, signed, self.now)
            )
        step("log-head")
        await asyncio.to_thread(remove_partial, self.objects, self.operator, full)
        return checkpoint

    async def _grow_past(self, grown: GrowingLog, size: int, last: Checkpoint | None) -> list[TileName]:
        """Grows to `size`, past what was signed last. Refusal `log_put_back` where that was another tree."""
        if last is None or last.size <= grown.size:
            return await self._grow(grown, size)
        if last.size > size:
            raise put_back(last, size, self.operator)
        full = await self._grow(grown, last.size)
        if grown.root() != last.root:
            raise put_back(last, size, self.operator)
        return full + await self._grow(grown, size)

    async def _grow(self, grown: GrowingLog, size: int) -> list[TileName]:
        """Adds the leaves up to `size` from the database and archives what becomes full."""
        full: list[TileName] = []
        while grown.size < size:
            end = min(size, grown.size + LEAVES_AT_ONCE)
            async with self.database.app(self.operator) as connection:
                leaves = await log.entries(connection, self.operator, grown.size, end)
            tiles = grown.add(leaves)
            await asyncio.to_thread(put_tiles, self.objects, self.operator, tiles)
            full += [name for name, _ in tiles]
        assert all(name.width == WIDTH for name in full)
        return full

    async def _catch_up(self, grown: GrowingLog, head: Head, last: Checkpoint | None) -> None:
        """The archive was restored from a backup of its own: what it lacks of what was signed is written again."""
        async with self.database.app(self.operator) as connection:
            contents = await log.numbered_contents(connection, self.operator, grown.size, head.size)
        await asyncio.to_thread(self._put_contents, contents)
        # What was signed behind this head may be numbered, too.
        await self._grow_past(grown, head.size, last if last and last.size <= head.size else None)
        if grown.root() != head.root:
            raise _differs(
                self.operator, f"the newest archived checkpoint and the database's of {head.size} leaves"
            )

    def _key(self, *, first: bool) -> Ed25519PrivateKey:
        if not first and not self.key_path.exists():
            raise Refusal(
                "log_key",
                f"the log of {self.operator} is signed already, and its key is not here",
                where=str(self.key_path),
                remedy="restore the key from its backup, or run where it is",
            )
        return LaneKey.load_or_create(self.key_path)

    def _own(self, found: bytes, key: Ed25519PrivateKey) -> Checkpoint:
        try:
            return read_checkpoint(found, log_verifier(key, self.operator))
        except Refusal as refused:
            raise Refusal(
                "log_key",
                f"the archived checkpoint of {self.operator} is not one that this key signed: {refused.what}",
                where=str(self.key_path),
                remedy="restore key and archive from one backup; a log is never signed by two keys",
            ) from None


async def _check_begins(
    database: Database, objects: Objects, operator: str, standing: Standing, archived: Checkpoint | None
) -> None:
    """That the numbered leaves begin with those that the archived checkpoint covers."""
    known = standing.head.size if standing.head else 0
    if archived is None:
        if standing.head is not None:
            raise Refusal(
                "log_missing",
                f"the database knows a signed log of {known} leaves of {operator}, the archive holds none",
                remedy="name the archive that `tally intake` uses (TALLY_ARCHIVE), or restore it from its backup",
            )
        return
    if archived.size > standing.numbered:
        raise Refusal(
            "behind_archive",
            f"the log of {operator} has {archived.size} leaves in the archive and {standing.numbered} in the database",
            where=operator,
            remedy=_RESTORE,
        )
    if standing.head is not None and archived.size == known:
        if archived.root != standing.head.root:
            raise _differs(operator, f"two trees of {known} leaves")
    elif standing.head is not None and archived.size < known:
        # Ours of earlier, or another's: told before anything is written into it.
        grown = await asyncio.to_thread(growing_log, objects, operator, archived)
        while grown.size < known:
            async with database.app(operator) as connection:
                grown.add(
                    await log.entries(
                        connection, operator, grown.size, min(known, grown.size + LEAVES_AT_ONCE)
                    )
                )
        if grown.root() != standing.head.root:
            raise _differs(operator, f"the newest archived checkpoint and the database's of {known} leaves")
    elif archived.size > known:
        tiles = archived_log(objects, operator, archived.size)
        async with database.app(operator) as connection:
            leaves = await log.entries(connection, operator, known, archived.size)
        if leaves != await asyncio.to_thread(lambda: list(tiles.leaves(known, archived.size))):
            raise _differs(operator, f"the leaves from {known} to {archived.size}")


def unfinished_restore(operator: str) -> Refusal:
    """The refusal where a backup was restored and not brought forward yet."""
    return Refusal(
        "behind_archive",
        f"the ledger of {operator} was restored from a backup and is not brought forward yet",
        where=operator,
        remedy=_RESTORE,
    )


def _differs(operator: str, what: str) -> Refusal:
    return Refusal(
        "log_differs",
        f"archive and database do not tell the same log of {operator}: {what} differ",
        where=operator,
        remedy=f"find out which of the two was changed; {_RESTORE}",
    )
