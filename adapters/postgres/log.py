"""The log in PostgreSQL: leaves that wait for a number, entries, and the newest head. All of it as `tally_app`.

The database makes the leaves (0001_first.log.sql). The one who holds the advisory lock `lock_name(operator)` numbers
them; `adapters/log_sequencer.py` says in which order that, the archive and the head follow each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import Row, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres.schema import leaf, log_entry, log_head
from billing.log import Content

_STANDING = text("""
    SELECT EXISTS (SELECT FROM leaf_waiting WHERE operator = :operator) AS waits,
        (SELECT coalesce(max(index), -1) + 1 FROM log_entry WHERE operator = :operator) AS numbered,
        EXISTS (SELECT FROM unfinished_restore WHERE operator = :operator) AS being_restored,
        h.size, h.root, h.checkpoint, h.signed_at
    FROM (VALUES (1)) AS one LEFT JOIN log_head h ON h.operator = :operator
""")
# A transaction's leaves are visible all or none, so a transaction is numbered as a whole. One that builds on another's
# rows has a leaf that was made after all of that one's, whichever began first: so the order is that of the last leaves.
_WAITING = text("""
    SELECT transaction, count(*) AS leaves FROM leaf_waiting WHERE operator = :operator
    GROUP BY transaction ORDER BY max(leaf)
""")
_CONTENTS = """
    SELECT w.transaction, l.made_at, l.nonce, l.content
    FROM leaf_waiting w JOIN leaf l ON (l.operator, l.id) = (w.operator, w.leaf)
    WHERE w.operator = :operator AND w.transaction = {which} AND l.content IS NOT NULL
    ORDER BY w.transaction, l.id
"""
_CONTENTS_OF = text(_CONTENTS.format(which="ANY (CAST(:transactions AS bigint[]))"))
_OWN_CONTENTS = text(_CONTENTS.format(which="pg_current_xact_id_if_assigned()::text::bigint"))
_OWN_LEAVES = text("""
    SELECT count(*) FROM leaf_waiting
    WHERE operator = :operator AND transaction = pg_current_xact_id_if_assigned()::text::bigint
""")
_NUMBER = text("""
    WITH taken AS (
        DELETE FROM leaf_waiting
        WHERE operator = :operator AND transaction = ANY (CAST(:transactions AS bigint[])) RETURNING leaf)
    INSERT INTO log_entry (operator, index, leaf)
        SELECT :operator, :size + row_number() OVER (ORDER BY leaf) - 1, leaf FROM taken
""")
# A batch, and what follows it up to the one that has a leaf: as the trigger on `batch` decides (0001_first.log.sql).
_UP_TO_LEAF = text("""
    WITH RECURSIVE chain AS (
        SELECT b.*, 0 AS turn, b.events > 0 OR b.number = 0 OR b.final OR b.adopted
                OR date_trunc('hour', b.complete_to, 'UTC') IS DISTINCT FROM (
                    SELECT date_trunc('hour', a.complete_to, 'UTC') FROM batch a
                    WHERE (a.operator, a.node, a.lane, a.epoch, a.number)
                        = (b.operator, b.node, b.lane, b.epoch, b.number - 1)) AS has_leaf
            FROM batch b WHERE b.operator = :operator AND b.hash = :hash
        UNION ALL
        SELECT b.*, chain.turn + 1, b.events > 0 OR b.number = 0 OR b.final
                OR date_trunc('hour', b.complete_to, 'UTC') <> date_trunc('hour', chain.complete_to, 'UTC')
            FROM chain JOIN batch b ON (b.operator, b.node, b.lane, b.previous)
                = (chain.operator, chain.node, chain.lane, chain.hash) AND NOT b.adopted
            WHERE NOT chain.has_leaf)
    SELECT node, lane, epoch, number, hash, path, accepted_at, complete_to, has_leaf,
        EXISTS (SELECT FROM decision d JOIN batch b USING (operator, node, lane, hash)
            WHERE (d.operator, d.node, d.lane, d.after) = (chain.operator, chain.node, chain.lane, chain.hash)
                AND b.adopted) AS left_behind
    FROM chain ORDER BY turn
""")
_INDEX_OF_BATCH = text("""
    SELECT e.index FROM leaf l JOIN log_entry e ON (e.operator, e.leaf) = (l.operator, l.id)
    WHERE l.operator = :operator AND l.kind = 'batch' AND l.data = :data
        AND l.made_at BETWEEN :begins AND :ends
""")
_INDEX_OF_DOCUMENT = text("""
    SELECT e.index FROM leaf l JOIN log_entry e ON (e.operator, e.leaf) = (l.operator, l.id)
    WHERE l.operator = :operator AND l.kind = 'document' AND l.content IS NOT NULL
        AND l.made_at BETWEEN :begins AND :ends
        AND CAST(l.content AS json) -> 'row' ->> 'id' = :id
""")
_WIDE = timedelta(days=40_000)


@dataclass(frozen=True, slots=True)
class Head:
    """The newest checkpoint that was archived: what it covers, and the signed note."""

    size: int
    root: bytes
    checkpoint: bytes
    signed_at: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """How a log stands: whether leaves wait for a number, how many have one, what is signed, and whether the ledger was
    restored and is not brought forward yet."""

    waits: bool
    numbered: int
    head: Head | None
    is_being_restored: bool = False

    @property
    def is_signed(self) -> bool:
        """Nothing is to be done."""
        return not self.waits and self.numbered == (self.head.size if self.head else 0)


@dataclass(frozen=True, slots=True)
class ContentsOf:
    """The contents that one transaction's leaves commit to, in the order of their making; its day in UTC."""

    day: date
    contents: tuple[Content, ...]


def lock_name(operator: str) -> str:
    """The advisory lock of whoever numbers and signs."""
    return f"log/{operator}"


async def standing(conn: AsyncConnection, operator: str) -> Standing:
    """One look-up, cheap however long the log."""
    row = (await conn.execute(_STANDING, {"operator": operator})).one()
    head = None
    if row.size is not None:
        head = Head(row.size, bytes(row.root), row.checkpoint.encode(), row.signed_at)
    return Standing(row.waits, row.numbered, head, row.being_restored)


async def newest_checkpoint(conn: AsyncConnection, operator: str) -> str | None:
    """The newest signed checkpoint, the whole note, as this transaction sees it."""
    found: str | None = (
        await conn.execute(select(log_head.c.checkpoint).where(log_head.c.operator == operator))
    ).scalar()
    return found


async def waiting_transactions(conn: AsyncConnection, operator: str, leaves: int) -> list[int]:
    """Committed transactions whose leaves wait, oldest first: as many as have `leaves` together, but at least one."""
    chosen: list[int] = []
    for row in await conn.execute(_WAITING, {"operator": operator}):
        if chosen and row.leaves > leaves:
            break
        chosen.append(row.transaction)
        leaves -= row.leaves
    return chosen


async def contents_of(conn: AsyncConnection, operator: str, transactions: Sequence[int]) -> list[ContentsOf]:
    """What the waiting leaves of these transactions commit to, a transaction each."""
    parameters = {"operator": operator, "transactions": list(transactions)}
    return _by_transaction((await conn.execute(_CONTENTS_OF, parameters)).all())


async def own_contents(conn: AsyncConnection, operator: str) -> list[ContentsOf]:
    """The same of the transaction that asks, before it commits."""
    return _by_transaction((await conn.execute(_OWN_CONTENTS, {"operator": operator})).all())


async def own_leaves(conn: AsyncConnection, operator: str) -> int:
    """How many leaves the transaction that asks has made."""
    found: int = (await conn.execute(_OWN_LEAVES, {"operator": operator})).scalar_one()
    return found


def _by_transaction(rows: Sequence[Any]) -> list[ContentsOf]:
    contents: dict[tuple[int, date], list[Content]] = {}
    for row in rows:
        key = (row.transaction, row.made_at.astimezone(UTC).date())
        contents.setdefault(key, []).append(Content(bytes(row.nonce), row.content))
    return [ContentsOf(day, tuple(found)) for (_, day), found in contents.items()]


async def number(conn: AsyncConnection, operator: str, size: int, transactions: Sequence[int]) -> int:
    """Gives the waiting leaves of these transactions the places from `size` on; returns the new size."""
    parameters = {"operator": operator, "size": size, "transactions": list(transactions)}
    return size + (await conn.execute(_NUMBER, parameters)).rowcount


async def entries(conn: AsyncConnection, operator: str, start: int, end: int) -> list[bytes]:
    """The leaves at the places [start, end)."""
    found = await conn.execute(
        select(leaf.c.data)
        .join(log_entry, (log_entry.c.operator == leaf.c.operator) & (log_entry.c.leaf == leaf.c.id))
        .where(log_entry.c.operator == operator, log_entry.c.index >= start, log_entry.c.index < end)
        .order_by(log_entry.c.index)
    )
    leaves = [bytes(data) for data in found.scalars()]
    assert len(leaves) == end - start, "places are dense, and every one holds a leaf"
    return leaves


async def numbered_contents(conn: AsyncConnection, operator: str, start: int, end: int) -> list[ContentsOf]:
    """What the leaves at the places [start, end) commit to and was not erased, a day each."""
    found = await conn.execute(
        select(leaf.c.made_at, leaf.c.nonce, leaf.c.content)
        .join(log_entry, (log_entry.c.operator == leaf.c.operator) & (log_entry.c.leaf == leaf.c.id))
        .where(log_entry.c.operator == operator, log_entry.c.index >= start, log_entry.c.index < end)
        .where(leaf.c.content.is_not(None))
        .order_by(log_entry.c.index)
    )
    contents: dict[date, list[Content]] = {}
    for row in found:
        day = row.made_at.astimezone(UTC).date()
        contents.setdefault(day, []).append(Content(bytes(row.nonce), row.content))
    return [ContentsOf(day, tuple(of_day)) for day, of_day in contents.items()]


async def set_head(conn: AsyncConnection, operator: str, head: Head) -> None:
    """This checkpoint is archived: it may be seen."""
    values = {
        "size": head.size,
        "root": head.root,
        "checkpoint": head.checkpoint.decode(),
        "signed_at": head.signed_at,
    }
    await conn.execute(
        upsert(log_head)
        .values(operator=operator, **values)
        .on_conflict_do_update(index_elements=[log_head.c.operator], set_=values)
    )


async def content_at(conn: AsyncConnection, operator: str, index: int) -> Content | None:
    """What the leaf at this place commits to; None for a batch, or where it was erased."""
    found = await conn.execute(
        select(leaf.c.nonce, leaf.c.content)
        .join(log_entry, (log_entry.c.operator == leaf.c.operator) & (log_entry.c.leaf == leaf.c.id))
        .where(log_entry.c.operator == operator, log_entry.c.index == index)
    )
    row = found.one_or_none()
    return None if row is None or row.content is None else Content(bytes(row.nonce), row.content)


async def up_to_leaf(conn: AsyncConnection, operator: str, seal_hash: str) -> Sequence[Row[Any]]:
    """The batch of this hash and those that follow it, up to the first with a leaf (`has_leaf`); nothing if there is no
    such batch. `left_behind`: the lane went on with another batch than one that follows it."""
    return (await conn.execute(_UP_TO_LEAF, {"operator": operator, "hash": seal_hash})).all()


async def index_of_batch(
    conn: AsyncConnection, operator: str, data: bytes, accepted_at: datetime
) -> int | None:
    """Where the leaf of a batch stands; looked for around the instant of its acceptance first."""
    return await _index(conn, _INDEX_OF_BATCH, {"operator": operator, "data": data}, accepted_at)


async def index_of_document(
    conn: AsyncConnection, operator: str, id_: str, issued_at: datetime
) -> int | None:
    """Where the leaf of an issued document stands, with its content not erased."""
    return await _index(conn, _INDEX_OF_DOCUMENT, {"operator": operator, "id": id_}, issued_at)


async def document_without_content(conn: AsyncConnection, operator: str) -> bool:
    """Whether a document's leaf has lost its content, so that it no longer says which document's it is."""
    found = await conn.execute(
        select(leaf.c.id)
        .where(leaf.c.operator == operator, leaf.c.kind == "document", leaf.c.content.is_(None))
        .limit(1)
    )
    return found.first() is not None


async def _index(
    conn: AsyncConnection, query: Any, parameters: dict[str, Any], about: datetime
) -> int | None:
    """The leaf's time is its transaction's beginning, by the database's clock; after a restore it may be any."""
    for near in (timedelta(minutes=1), timedelta(hours=1), _WIDE):
        window = {"begins": about - near, "ends": about + near}
        found: int | None = (await conn.execute(query, {**parameters, **window})).scalar()
        if found is not None:
            return found
    return None
