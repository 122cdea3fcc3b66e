"""Closes: what a close reads of streams, and what it leaves behind."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import func, insert, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres.lane_ends import is_dropped, is_made_up_for, whole_us
from adapters.postgres.schema import decision, held, import_file, lane, late_bound, period_close, seal_fact
from billing.gaps import DROPPED, HOLE, UNPROVEN, Gap, in_order, newest
from billing.period import Period
from billing.ports import PeriodClose

# What is left out, by the kind of the decision.
_GAPS = {"drop": DROPPED, "accept_hole": HOLE, "unproven": UNPROVEN}


async def held_batches(conn: AsyncConnection, operator: str, end: datetime) -> int:
    """How many verified batches a close of what is before `end` waits for. What a key signed that counts no more is none
    of them once its lane is complete to `end` under a newer one: else who stole the old key stops every close."""
    count: int = (
        await conn.execute(
            select(func.count())
            .select_from(held)
            .where(held.c.operator == operator, ~is_dropped(), ~is_made_up_for(end))
        )
    ).scalar_one()
    return count


async def unfinished_imports(
    conn: AsyncConnection, operator: str, start: datetime, end: datetime
) -> list[str]:
    """Ids of imports with events in [start, end) of which only a part is accepted, or taken back; oldest first."""
    rows = await conn.execute(
        select(import_file.c.id)
        .where(
            import_file.c.operator == operator,
            import_file.c.state.in_(("running", "voiding")),
            import_file.c.first < end,
            import_file.c.last >= start,
        )
        .order_by(import_file.c.imported_at, import_file.c.id)
    )
    return list(rows.scalars())


async def gaps(conn: AsyncConnection, operator: str, start: datetime, end: datetime) -> list[Gap]:
    """What nodes served unmetered within [start, end), or partly so, each gap once, and what people decided to do
    without."""
    rows = await conn.execute(
        select(seal_fact.c.node, seal_fact.c.lane, seal_fact.c.content).where(
            seal_fact.c.operator == operator,
            seal_fact.c.kind == "unmetered",
            seal_fact.c.begins < end,
            seal_fact.c.ends >= start,
        )
    )
    unmetered = newest(
        Gap(row.node, row.lane, row.content["start_us"], row.content["end_us"], row.content["requests"])
        for row in rows
    )
    return in_order([*unmetered, *await _decided_gaps(conn, operator, start, end)])


async def _decided_gaps(conn: AsyncConnection, operator: str, start: datetime, end: datetime) -> list[Gap]:
    """Holes, dropped and unproven batches that people decided to do with, and that touch [start, end)."""
    rows = await conn.execute(
        select(decision).where(
            decision.c.operator == operator,
            decision.c.begins < end,
            decision.c.ends >= start,
        )
    )
    return [
        Gap(
            row.node,
            row.lane,
            whole_us(row.begins),
            whole_us(row.ends),
            row.requests,
            row.reason,
            kind=_GAPS[row.kind],
        )
        for row in rows
    ]


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
            checkpoint=row.checkpoint,
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
            checkpoint=close.checkpoint,
        )
    )


async def set_late_bound(conn: AsyncConnection, operator: str, period: Period, late_after: datetime) -> None:
    """Usage of the period accepted after this instant is reported, not billed; only the first call counts."""
    await conn.execute(
        upsert(late_bound)
        .values(operator=operator, period=str(period), late_after=late_after)
        .on_conflict_do_nothing()
    )
