"""Settlements: what each run shared of a period's revenue. Only ever added; the next run settles the difference."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres.schema import settlement
from billing.period import Period
from billing.settlement import Settlement, settlement_from_json, settlement_json


async def load_settlements(
    conn: AsyncConnection, operator: str, *, period: Period | None = None, id: str | None = None
) -> list[Settlement]:
    """Settlements of a period, or the one of that id, or all; oldest first."""
    conditions = [settlement.c.operator == operator]
    if period is not None:
        conditions.append(settlement.c.period == str(period))
    if id is not None:
        conditions.append(settlement.c.id == id)
    rows = await conn.execute(
        select(settlement.c.content).where(*conditions).order_by(settlement.c.period, settlement.c.number)
    )
    return [settlement_from_json(row.content) for row in rows]


async def add_settlement(conn: AsyncConnection, operator: str, made: Settlement, at: datetime) -> None:
    """Adds the period's next settlement."""
    assert made.operator == operator
    await conn.execute(
        insert(settlement).values(
            operator=operator,
            id=made.id,
            period=str(made.period),
            number=made.number,
            content=settlement_json(made),
            made_at=at,
        )
    )
