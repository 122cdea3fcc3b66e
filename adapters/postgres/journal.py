"""The journal: entries and their postings, only ever added; and what they sum to.

That debits equal credits is asserted where an entry is made and checked again by the database at the commit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import case, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres.schema import journal_entry, posting
from billing.journal import ACCOUNTS, Balance, Entry, Posting
from billing.period import Period


@dataclass(frozen=True, slots=True)
class PostedEntry:
    """An entry with the number that the journal gave it."""

    id: int
    entry: Entry


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


async def load_journal(
    conn: AsyncConnection, operator: str, *, period: Period | None = None, document: str | None = None
) -> list[PostedEntry]:
    """Entries in the order in which they were posted, of a period or about a document where one is given."""
    conditions = [journal_entry.c.operator == operator]
    if period is not None:
        conditions.append(journal_entry.c.period == str(period))
    if document is not None:
        conditions.append(journal_entry.c.document == document)
    sides: defaultdict[int, list[Posting]] = defaultdict(list)
    entries = (
        await conn.execute(select(journal_entry).where(*conditions).order_by(journal_entry.c.id))
    ).all()
    rows = await conn.execute(
        select(posting).join(journal_entry).where(*conditions).order_by(posting.c.entry, posting.c.number)
    )
    for row in rows:
        sides[row.entry].append(Posting(row.account, row.subject, row.currency, row.amount))
    return [
        PostedEntry(
            row.id,
            Entry(
                posted_at=row.posted_at,
                period=Period.parse(row.period),
                kind=row.kind,
                postings=tuple(sides[row.id]),
                document=row.document,
                settlement=row.settlement,
                reverses=row.reverses,
            ),
        )
        for row in entries
    ]


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
