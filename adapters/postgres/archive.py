"""What the archive's commands ask of PostgreSQL: how far lanes stand, what decisions and closes say, legal holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from sqlalchemy import func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres.schema import batch, decision, expiry, lane, legal_hold, period_close, subject
from billing.period import Period

_OWN_LEAF = text("""
    SELECT max(leaf) FROM leaf_waiting
    WHERE operator = :o AND transaction = pg_current_xact_id_if_assigned()::text::bigint
""")
_IS_SIGNED = text("""
    SELECT EXISTS (SELECT FROM log_entry e JOIN log_head h ON h.operator = e.operator AND e.index < h.size
        WHERE (e.operator, e.leaf) = (:o, :leaf))
""")


@dataclass(frozen=True, slots=True)
class LegalHold:
    """What must not expire: of one customer or all, of one month or all time, and why."""

    id: UUID
    customer: UUID | None
    period: Period | None
    reason: str
    added_at: datetime
    removed_at: datetime | None = None
    removed_reason: str | None = None


def lock_name(operator: str) -> str:
    """The advisory lock of whoever moves objects of an operator's archive."""
    return f"archive/{operator}"


async def lanes_complete_to(conn: AsyncConnection, operator: str) -> dict[tuple[str, str], datetime]:
    """(node, lane) -> the instant up to which the lane is complete, of every lane with an accepted batch."""
    rows = await conn.execute(
        select(lane.c.node, lane.c.lane, lane.c.complete_to).where(
            lane.c.operator == operator, lane.c.head.is_not(None)
        )
    )
    return {(row.node, row.lane): row.complete_to for row in rows}


async def heads(conn: AsyncConnection, operator: str) -> dict[tuple[str, str], str]:
    """(node, lane) -> hash of the newest accepted batch."""
    rows = await conn.execute(
        select(lane.c.node, lane.c.lane, lane.c.head).where(
            lane.c.operator == operator, lane.c.head.is_not(None)
        )
    )
    return {(row.node, row.lane): row.head for row in rows}


async def adopted(conn: AsyncConnection, operator: str) -> dict[str, str]:
    """Hash of a batch -> the seal behind which a person's decision put it."""
    rows = await conn.execute(
        select(decision.c.hash, decision.c.after).where(
            decision.c.operator == operator, decision.c.after.is_not(None)
        )
    )
    return {row.hash: row.after for row in rows}


async def straddling(conn: AsyncConnection, operator: str, moment: datetime) -> list[str]:
    """Of each lane the path of the first batch that is complete to `moment` or later: with the events just before it."""
    rows = await conn.execute(
        text(
            "SELECT DISTINCT ON (node, lane) path FROM batch WHERE operator = :o AND complete_to >= :t"
            " ORDER BY node, lane, complete_to, epoch, number"
        ),
        {"o": operator, "t": moment},
    )
    return list(rows.scalars())


async def late_batches(conn: AsyncConnection, operator: str, period: Period) -> set[str]:
    """Hashes of the batches that were accepted too late for this month's usage in them to be billed."""
    rows = await conn.execute(
        text(
            "SELECT hash FROM batch b JOIN late_bound l ON l.operator = b.operator AND l.period = :p"
            " WHERE b.operator = :o AND b.events > 0 AND b.accepted_at > l.late_after"
        ),
        {"o": operator, "p": str(period)},
    )
    return set(rows.scalars())


async def expired_before(conn: AsyncConnection, operator: str) -> date | None:
    """The day before which bodies may have expired; None if nothing ever did."""
    found: date | None = (
        await conn.execute(select(func.max(expiry.c.before)).where(expiry.c.operator == operator))
    ).scalar_one()
    return found


async def expired_lists(conn: AsyncConnection, operator: str) -> list[str]:
    """Of each decision by which bodies went, oldest first: the digest of its list (`archive_expired`)."""
    rows = await conn.execute(
        select(expiry.c.listed)
        .where(expiry.c.operator == operator)
        .order_by(expiry.c.decided_at, expiry.c.id)
    )
    return list(rows.scalars())


async def add_expiry(
    conn: AsyncConnection,
    operator: str,
    id_: UUID,
    before: date,
    batches: int,
    listed: str,
    reason: str,
    now: datetime,
) -> int:
    """Lists the decision that the bodies of these batches, of days before `before`, go; its leaf.

    `listed`: the digest of the list of what they came to (`archive_expired`).
    """
    await conn.execute(
        insert(expiry).values(
            operator=operator,
            id=id_,
            before=before,
            batches=batches,
            listed=listed,
            reason=reason,
            decided_at=now,
        )
    )
    leaf: int = (await conn.execute(_OWN_LEAF, {"o": operator})).scalar_one()
    return leaf


async def is_signed(conn: AsyncConnection, operator: str, leaf: int) -> bool:
    """Whether an archived checkpoint covers this leaf."""
    found: bool = (await conn.execute(_IS_SIGNED, {"o": operator, "leaf": leaf})).scalar_one()
    return found


async def unlisted(conn: AsyncConnection, operator: str, hashes: Sequence[str]) -> set[str]:
    """Those of the hashes that no accepted batch has."""
    rows = await conn.execute(
        text(
            "SELECT found.hash FROM unnest(CAST(:h AS text[])) AS found(hash)"
            " WHERE NOT EXISTS (SELECT FROM batch b WHERE b.operator = :o AND b.hash = found.hash)"
        ),
        {"o": operator, "h": list(hashes)},
    )
    return set(rows.scalars())


async def closed_heads(conn: AsyncConnection, operator: str) -> dict[Period, Mapping[str, str]]:
    """Of each month that was closed when it was over: the lanes' heads ("node/lane" -> hash) that its last close read."""
    rows = await conn.execute(
        select(period_close.c.period, period_close.c.heads)
        .where(period_close.c.operator == operator, period_close.c.unfinished.is_(False))
        .order_by(period_close.c.period, period_close.c.number)
    )
    return {Period.parse(row.period): row.heads for row in rows}


async def complete_to_of(conn: AsyncConnection, operator: str, hashes: Sequence[str]) -> dict[str, datetime]:
    """Hash -> how far the batch is complete, of those that are accepted."""
    rows = await conn.execute(
        select(batch.c.hash, batch.c.complete_to).where(
            batch.c.operator == operator, batch.c.hash.in_(hashes)
        )
    )
    return {row.hash: row.complete_to for row in rows}


async def holds(conn: AsyncConnection, operator: str, *, standing: bool = False) -> list[LegalHold]:
    """Legal holds, oldest first; `standing`: only those that were not removed."""
    query = select(legal_hold).where(legal_hold.c.operator == operator)
    if standing:
        query = query.where(legal_hold.c.removed_at.is_(None))
    return [
        LegalHold(
            row.id,
            row.customer,
            None if row.period is None else Period.parse(row.period),
            row.reason,
            row.added_at,
            row.removed_at,
            row.removed_reason,
        )
        for row in await conn.execute(query.order_by(legal_hold.c.added_at, legal_hold.c.id))
    ]


async def add_hold(conn: AsyncConnection, operator: str, hold: LegalHold) -> None:
    """Lists a hold."""
    await conn.execute(
        insert(legal_hold).values(
            operator=operator,
            id=hold.id,
            customer=hold.customer,
            period=None if hold.period is None else str(hold.period),
            reason=hold.reason,
            added_at=hold.added_at,
        )
    )


async def remove_hold(conn: AsyncConnection, operator: str, id_: UUID, reason: str, now: datetime) -> bool:
    """Ends a hold; False where no such hold stands."""
    done = await conn.execute(
        update(legal_hold)
        .where(legal_hold.c.operator == operator, legal_hold.c.id == id_, legal_hold.c.removed_at.is_(None))
        .values(removed_at=now, removed_reason=reason)
    )
    return done.rowcount == 1


async def subject_slugs(conn: AsyncConnection, operator: str) -> list[tuple[UUID, str, str]]:
    """(id, kind, slug) of the operator's subjects; of an erased one the slug is what stands there for it."""
    rows = await conn.execute(
        select(subject.c.id, subject.c.kind, subject.c.slug).where(subject.c.operator == operator)
    )
    return [(row.id, row.kind, row.slug) for row in rows]
