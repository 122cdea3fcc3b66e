"""Documents: drafts that come and go, issued ones that stay, their numbers, and what people adjusted.

The content is the JSON of docs/commands.md; the columns beside it repeat what is searched for and what the database
checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Select, case, delete, exists, func, insert, or_, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres.schema import adjustment, document, number_series
from adapters.postgres.schema_base import one_of
from billing.adjustment import Adjustment
from billing.document import DRAFT, ISSUED, Document, from_json, to_json
from billing.period import Period
from billing.ports import Series


async def load_documents(
    conn: AsyncConnection,
    operator: str,
    *,
    period: Period | None = None,
    customer: str | None = None,
    state: str | None = None,
    references: Sequence[str] | None = None,
) -> list[Document]:
    """Documents that meet every condition given, oldest first; `references`: ids or numbers."""
    conditions = [document.c.operator == operator]
    if period is not None:
        conditions.append(document.c.period == str(period))
    if customer is not None:
        conditions.append(document.c.customer == customer)
    if state is not None:
        conditions.append(document.c.state == state)
    if references is not None:
        conditions.append(or_(one_of(document.c.id, references), one_of(document.c.number, references)))
    rows = await conn.execute(_oldest_first(select(document.c.content).where(*conditions)))
    return [from_json(row.content) for row in rows]


def _oldest_first(query: Select[Any]) -> Select[Any]:
    # Those of one customer and period that were made at once count upwards: …9 comes before …10.
    return query.order_by(
        document.c.created_at,
        document.c.period,
        document.c.customer,
        func.length(document.c.id),
        document.c.id,
    )


async def replace_drafts(
    conn: AsyncConnection, operator: str, period: Period, drafts: Sequence[Document], now: datetime
) -> None:
    """Removes every draft of the period and adds these."""
    await conn.execute(
        delete(document).where(
            document.c.operator == operator, document.c.period == str(period), document.c.state == DRAFT
        )
    )
    await add_drafts(conn, operator, drafts, now)


async def add_drafts(conn: AsyncConnection, operator: str, drafts: Sequence[Document], now: datetime) -> None:
    """Adds drafts of the operator."""
    assert all(draft.operator == operator and draft.state == DRAFT for draft in drafts)
    if drafts:
        await conn.execute(insert(document), [_row(draft) | {"created_at": now} for draft in drafts])


async def issue_documents(
    conn: AsyncConnection, operator: str, documents: Sequence[Document], at: datetime
) -> None:
    """The drafts of these ids become these documents, for good. All of them must be there as drafts."""
    assert all(issued.operator == operator and issued.state == ISSUED for issued in documents)
    if not documents:
        return
    drafts = await conn.execute(
        delete(document)
        .where(
            document.c.operator == operator,
            one_of(document.c.id, [issued.id for issued in documents]),
            document.c.state == DRAFT,
        )
        .returning(document.c.id, document.c.created_at)
    )
    created_at = {row.id: row.created_at for row in drafts}
    assert len(created_at) == len(documents), "only drafts are issued, each once"
    rows = [_row(issued) | {"created_at": created_at[issued.id], "issued_at": at} for issued in documents]
    await conn.execute(insert(document), rows)


def _row(content: Document) -> dict[str, Any]:
    """A document's columns but for the instants."""
    return {
        "operator": content.operator,
        "id": content.id,
        "kind": content.kind,
        "state": content.state,
        "number": content.number,
        "customer": content.customer,
        "period": str(content.period),
        "currency": content.currency,
        "line_total": content.line_total,
        "net": content.net,
        "tax": content.tax,
        "gross": content.gross,
        "sign": content.sign,
        "issue_date": content.issue_date,
        "content": to_json(content),
    }


async def take_numbers(conn: AsyncConnection, operator: str, series: Series, count: int, start: int) -> int:
    """Takes `count` numbers of a series and returns the first; a new one begins as `Book.take_numbers` says.

    The series' row stays locked until the transaction ends, and a rollback gives the numbers back: no gap opens.
    """
    assert count > 0
    key = {"operator": operator, "entity": series.entity, "kind": series.kind, "year": series.year}
    earlier = exists().where(
        number_series.c.operator == operator,
        number_series.c.entity == series.entity,
        number_series.c.year < series.year,
        or_(number_series.c.year > 0, number_series.c.kind == series.kind),
    )
    taken = await conn.execute(
        upsert(number_series)
        .values(**key, next=case((earlier, 1), else_=start) + count)
        .on_conflict_do_update(constraint="number_series_pkey", set_={"next": number_series.c.next + count})
        .returning(number_series.c.next - count)
    )
    first: int = taken.scalar_one()
    return first


async def add_adjustment(conn: AsyncConnection, operator: str, made: Adjustment) -> None:
    """Adds to a customer's bill of a period; nothing takes it off again but another one."""
    await conn.execute(
        insert(adjustment).values(
            operator=operator,
            id=made.id,
            customer=made.customer,
            period=str(made.period),
            net=made.net,
            reason=made.reason,
            who=made.by,
            document=made.document,
            made_at=made.at,
        )
    )


async def load_adjustments(conn: AsyncConnection, operator: str, period: Period) -> list[Adjustment]:
    """The period's adjustments in the order in which they were made."""
    rows = await conn.execute(
        select(adjustment)
        .where(adjustment.c.operator == operator, adjustment.c.period == str(period))
        .order_by(adjustment.c.made_at, adjustment.c.id)
    )
    return [
        Adjustment(
            id=row.id,
            customer=row.customer,
            period=period,
            net=row.net,
            reason=row.reason,
            by=row.who,
            at=row.made_at,
            document=row.document,
        )
        for row in rows
    ]
