"""The journal: entries and their postings, only ever added; and what they sum to.

That debits equal credits is asserted where an entry is made and checked again by the database at the commit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import case, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres.schema import journal_entry, posting
from billing.journal import ACCOUNTS, Balance, Entry


async def post(conn: AsyncConnection, operator: str, entries: Sequence[Entry]) -> list[int]:
    """Adds entries and returns their numbers, in order."""
    if not entries:
        return []
    added = await conn.execute(
        insert(journal_entry).returning(journal_entry.c.id, sort_by_parameter_order=True),
        [
            {
                "operator": operator,
                "posted_at": entry.posted_at,
                "period": str(entry.period),
                "kind": entry.kind,
                "document": entry.document,
                "settlement": entry.settlement,
                "reverses": entry.reverses,
                "postings": len(entry.postings),
            }
            for entry in entries
        ],
    )
    ids = list(added.scalars())
    await conn.execute(
        insert(posting),
        [
            {
                "operator": operator,
                "entry": id_,
                "number": number,
                "account": side.account,
                "subject": side.subject,
                "currency": side.currency,
                "amount": side.amount,
            }
            for id_, entry in zip(ids, entries, strict=True)
            for number, side in enumerate(entry.postings, 1)
        ],
    )
    return ids


async def trial_balance(
    conn: AsyncConnection, operator: str, as_of: datetime | None = None
) -> tuple[tuple[Balance, ...], bool]:
    """Every account's debits and credits, in the order of ACCOUNTS and by currency, and whether they balance.

    `as_of`: only what was posted before that instant.
    """
    amount = posting.c.amount
    conditions = [posting.c.operator == operator]
    if as_of is not None:
        conditions.append(journal_entry.c.posted_at < as_of)
    rows = await conn.execute(
        select(
            posting.c.account,
            posting.c.currency,
            func.sum(case((amount > 0, amount), else_=0)).label("debit"),
            func.sum(case((amount < 0, -amount), else_=0)).label("credit"),
        )
        .join(journal_entry)
        .where(*conditions)
        .group_by(posting.c.account, posting.c.currency)
    )
    balances = [Balance(row.account, row.currency, int(row.debit), int(row.credit)) for row in rows]
    off: defaultdict[str, int] = defaultdict(int)
    for balance in balances:
        off[balance.currency] += balance.balance
    ordered = sorted(balances, key=lambda each: (ACCOUNTS.index(each.account), each.currency))
    return tuple(ordered), not any(off.values())
