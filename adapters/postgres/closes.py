"""Closes: what a close reads of streams and site, and what it leaves behind."""

from __future__ import annotations

from datetime import date, datetime

from sqlalchemy import func, insert, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres.database import INSTALLATION, see
from adapters.postgres.schema import held, lane, late_bound, period_close, site_document
from billing.facts import Facts, StoredDocument, facts_from_documents
from billing.period import Period
from billing.ports import PeriodClose


async def load_facts(conn: AsyncConnection, operator: str) -> Facts:
    """All versions of what was declared for this operator, and the installation's parties.

    The parties are the installation's rows; the transaction sees those for a moment, then the operator's again.
    """
    await see(conn, INSTALLATION)
    parties = await _stored(conn, INSTALLATION)
    await see(conn, operator)
    return facts_from_documents([*await _stored(conn, operator), *parties])


async def _stored(conn: AsyncConnection, operator: str) -> list[StoredDocument]:
    rows = await conn.execute(select(site_document).where(site_document.c.operator == operator))
    return [
        StoredDocument(
            kind=row.kind,
            id=row.id,
            operator=row.operator,
            valid_from=None if row.valid_from == date.min else row.valid_from,  # -infinity
            body=row.body,
        )
        for row in rows
    ]


async def held_batches(conn: AsyncConnection, operator: str) -> int:
    """How many verified batches wait for a person's decision."""
    count: int = (
        await conn.execute(select(func.count()).select_from(held).where(held.c.operator == operator))
    ).scalar_one()
    return count


async def lane_heads(conn: AsyncConnection, operator: str) -> dict[str, str]:
    """ "node/lane" -> hash of the last accepted seal, of every lane that has one."""
    rows = await conn.execute(
        select(lane.c.node, lane.c.lane, lane.c.head)
        .where(lane.c.operator == operator, lane.c.head.is_not(None))
        .order_by(lane.c.node, lane.c.lane)
    )
    return {f"{row.node}/{row.lane}": row.head for row in rows}


async def load_closes(
    conn: AsyncConnection, operator: str, *, period: Period | None = None, newest: bool = False
) -> list[PeriodClose]:
    """Closes of a period or of all, oldest first; `newest`: only the last one."""
    conditions = [period_close.c.operator == operator]
    if period is not None:
        conditions.append(period_close.c.period == str(period))
    query = select(period_close).where(*conditions)
    if newest:
        query = query.order_by(period_close.c.period.desc(), period_close.c.number.desc()).limit(1)
    else:
        query = query.order_by(period_close.c.period, period_close.c.number)
    return [
        PeriodClose(
            period=Period.parse(row.period),
            number=row.number,
            closed_at=row.closed_at,
            heads=row.heads,
            facts=row.facts,
            result=row.result,
            unfinished=row.unfinished,
        )
        for row in await conn.execute(query)
    ]


async def add_close(conn: AsyncConnection, operator: str, close: PeriodClose) -> None:
    """Adds the period's next close."""
    await conn.execute(
        insert(period_close).values(
            operator=operator,
            period=str(close.period),
            number=close.number,
            closed_at=close.closed_at,
            heads=dict(close.heads),
            facts=dict(close.facts),
            result=dict(close.result),
            unfinished=close.unfinished,
        )
    )


async def set_late_bound(conn: AsyncConnection, operator: str, period: Period, late_after: datetime) -> None:
    """Usage of the period accepted after this instant is reported, not billed; only the first call counts."""
    await conn.execute(
        upsert(late_bound)
        .values(operator=operator, period=str(period), late_after=late_after)
        .on_conflict_do_nothing()
    )
