"""Site documents in PostgreSQL: the `SiteStore` of the installation, and one operator's facts for billing.

An apply may concern several operators and the installation's parties, and is whole or not at all: so it is
one transaction that looks at one operator after the other (`see`), under a lock that makes applies wait for
each other. Before it asks what issued documents rest on, it takes the books of the operators that it concerns,
in the order in which a close takes them: a close that is under way has read its facts, and what it will issue
rests on them. Whoever only reads takes no lock and waits for nobody.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import date
from itertools import groupby
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres.database import INSTALLATION, Database, see, take_lock
from adapters.postgres.issued import issued_spans
from adapters.postgres.schema import operator as operator_table
from adapters.postgres.schema import period_close, site_document, subject, superseded
from adapters.postgres.schema_base import one_of
from adapters.site_files.store import Span, Subject, Superseded
from billing.facts import Facts, facts_from_documents
from billing.period import Period
from billing.stored import StoredDocument
from metering.identity import new_id

# What a version replaces that `supersedes` it, as it is stored; nothing where there is no such version. Each correction has
# a reason of its own: a version that has its former's is that one with more hours of a series.
_KEEP_FORMER = text("""
    INSERT INTO superseded (operator, kind, id, valid_from, superseded_at, valid_until, body, applied_at, places, reason)
    SELECT operator, kind, id, valid_from, :applied_at, valid_until, body, applied_at, places, :reason
    FROM site_document WHERE (operator, kind, id, valid_from) = (:operator, :kind, :id, CAST(:valid_from AS date))
        AND body ->> 'reason' IS DISTINCT FROM :reason
""")

# Where a version stands is no part of what it says; each row that changes is a leaf of the log, so others are left alone.
_MOVE = text("""
    UPDATE site_document SET places = CAST(:places AS jsonb)
    WHERE (operator, kind, id, valid_from) = (:operator, :kind, :id, CAST(:valid_from AS date))
      AND places <> CAST(:places AS jsonb)
""")


class PostgresSiteStore:
    """`adapters.site_files.store.SiteStore` in one transaction of `tally_app`.

    `alone`: it may save, and takes the locks for that; otherwise it only reads, and takes none.
    """

    def __init__(self, connection: AsyncConnection, *, alone: bool) -> None:
        self._connection = connection
        self._alone = alone

    async def load(self) -> Sequence[StoredDocument]:
        if self._alone:
            await take_lock(self._connection, "apply")
        found: list[StoredDocument] = []
        for operator in await self._operators():
            await see(self._connection, operator)
            found.extend(await site_documents(self._connection, operator))
        return found

    async def load_superseded(self) -> Sequence[Superseded]:
        found: list[Superseded] = []
        for operator in await self._operators():
            await see(self._connection, operator)
            found.extend(await superseded_documents(self._connection, operator))
        return found

    async def issued(self, concerned: Collection[str]) -> Mapping[Subject, Span]:
        everybody = INSTALLATION in concerned
        operators = [each for each in sorted(await self._operators()) if everybody or each in concerned]
        if self._alone:
            for operator in operators:
                await take_lock(self._connection, book_lock(operator))
        return await issued_spans(self._connection, operators)

    async def closed(self, operators: Collection[str]) -> Mapping[str, Sequence[Period]]:
        found: dict[str, Sequence[Period]] = {}
        for operator in sorted(operators):
            await see(self._connection, operator)
            columns = period_close.c
            query = select(columns.period).distinct().where(columns.operator == operator)
            periods = (await self._connection.execute(query.order_by(columns.period))).scalars()
            found[operator] = [Period.parse(period) for period in periods]
        return found

    async def save(self, documents: Sequence[StoredDocument]) -> None:
        by_operator = sorted(documents, key=lambda each: each.operator)
        for operator, group in groupby(by_operator, key=lambda each: each.operator):
            await see(self._connection, operator)
            await self._connection.execute(
                insert(operator_table).values(operator=operator).on_conflict_do_nothing()
            )
            own = list(group)
            await self._save_documents(own)
            await self._ensure_customers(
                operator, sorted({each.id for each in own if each.kind == "customer"})
            )

    async def save_places(self, documents: Sequence[StoredDocument]) -> None:
        by_operator = sorted(documents, key=lambda each: each.operator)
        for operator, group in groupby(by_operator, key=lambda each: each.operator):
            await see(self._connection, operator)
            rows = [
                {
                    "operator": operator,
                    "kind": each.kind,
                    "id": each.id,
                    "valid_from": each.valid_from or date.min,
                    "places": json.dumps(dict(each.places)),
                }
                for each in group
            ]
            await self._connection.execute(_MOVE, rows)

    async def _operators(self) -> list[str]:
        """All of them, the installation itself too; the registry is the one table that needs no setting."""
        return list((await self._connection.execute(select(operator_table.c.operator))).scalars())

    async def _save_documents(self, documents: Iterable[StoredDocument]) -> None:
        new = insert(site_document)
        statement = new.on_conflict_do_update(
            index_elements=["operator", "kind", "id", "valid_from"],
            set_={name: new.excluded[name] for name in ("valid_until", "body", "applied_at", "places")},
        )
        applied_at = (await self._connection.execute(select(func.now()))).scalar_one()
        rows: list[dict[str, Any]] = [
            {
                "operator": document.operator,
                "kind": document.kind,
                "id": document.id,
                "valid_from": document.valid_from or date.min,
                "valid_until": document.valid_until,
                "body": dict(document.body),
                "applied_at": applied_at,
                "places": dict(document.places),
            }
            for document in documents
        ]
        for row in rows:
            if "supersedes" in row["body"]:
                await self._connection.execute(_KEEP_FORMER, {**row, "reason": row["body"]["reason"]})
        await self._connection.execute(statement, rows)

    async def _ensure_customers(self, operator: str, ids: Sequence[str]) -> None:
        """Make a subject for each customer that has none. The lock of `load` keeps others from making it
        too; a slug of another operator's customer would break `subject_customer_slug`, as it must."""
        if not ids:
            return
        known = select(subject.c.slug).where(
            subject.c.operator == operator, subject.c.kind == "customer", one_of(subject.c.slug, ids)
        )
        have = set((await self._connection.execute(known)).scalars())
        rows = [
            {"operator": operator, "id": UUID(bytes=new_id()), "kind": "customer", "slug": slug}
            for slug in ids
            if slug not in have
        ]
        if rows:
            await self._connection.execute(insert(subject), rows)


@asynccontextmanager
async def site_store(database: Database) -> AsyncIterator[PostgresSiteStore]:
    """The store for one apply: committed when the block ends, rolled back by an exception."""
    async with database.app(INSTALLATION) as connection:
        yield PostgresSiteStore(connection, alone=True)


@asynccontextmanager
async def site_reader(database: Database) -> AsyncIterator[PostgresSiteStore]:
    """The store as it stands at one moment, for check and get; nothing is saved through it."""
    async with database.app(INSTALLATION, snapshot=True) as connection:
        yield PostgresSiteStore(connection, alone=False)


def book_lock(operator: str) -> str:
    """The name of the lock on an operator's book: whoever issues its documents, or changes its facts, holds it."""
    return f"book/{operator}"


async def site_documents(connection: AsyncConnection, operator: str) -> list[StoredDocument]:
    """Every stored version of one operator (or of the installation, `*`), which the transaction must be
    looking at.
    """
    columns = site_document.c
    query = select(columns.kind, columns.id, columns.valid_from, columns.body, columns.places)
    found = await connection.execute(query.where(columns.operator == operator))
    return [_stored(operator, row) for row in found]


async def superseded_documents(connection: AsyncConnection, operator: str) -> list[Superseded]:
    """Every version of one operator (or of the installation, `*`) whose place another took, in the order in which that
    happened. The transaction must be looking at the operator.
    """
    columns = superseded.c
    query = select(superseded).where(columns.operator == operator).order_by(columns.superseded_at)
    return [
        Superseded(_stored(operator, row), row.superseded_at, row.reason)
        for row in await connection.execute(query)
    ]


def _stored(operator: str, row: Any) -> StoredDocument:
    """A version of `operator` out of its row, which has no day for one that holds from ever."""
    begins = None if row.valid_from == date.min else row.valid_from
    return StoredDocument(row.kind, row.id, operator, begins, row.body, row.places)


async def operator_zone(connection: AsyncConnection, operator: str) -> ZoneInfo:
    """The zone of an operator that is declared; no version of it ever changes it."""
    columns = site_document.c
    query = select(columns.body["timezone"].astext).where(
        columns.operator == operator, columns.kind == "operator", columns.id == operator
    )
    return ZoneInfo((await connection.execute(query.limit(1))).scalar_one())


async def operator_facts(connection: AsyncConnection, operator: str) -> Facts:
    """One operator's facts with the installation's parties. The transaction looks at `operator` before and
    after.
    """
    own = await site_documents(connection, operator)
    await see(connection, INSTALLATION)
    parties = await site_documents(connection, INSTALLATION)
    await see(connection, operator)
    return facts_from_documents([*own, *parties])
