"""One operator's books in PostgreSQL: billing's ports over the functions of this folder, one transaction a book.

Before it commits, what its leaves commit to is put into the archive (billing/log.py): a document that is issued is
archived before anybody sees it. A process that dies in between leaves an object that no leaf speaks of, which harms
nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pyarrow as pa
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.log_archive import put_contents
from adapters.postgres import closes, documents, journal, log, settlements
from adapters.postgres.database import Database
from adapters.postgres.lane_ends import lane_ends
from adapters.postgres.roots import open_roots
from adapters.postgres.site import book_lock, operator_facts
from adapters.postgres.usage import usage_table
from billing.adjustment import Adjustment
from billing.completeness import LaneEnd
from billing.document import Document
from billing.facts import Facts
from billing.gaps import Gap
from billing.journal import Entry
from billing.objects import Objects
from billing.period import Period
from billing.ports import OpenRoots, PeriodClose, Series
from billing.settlement import Settlement


def _now() -> datetime:
    return datetime.now(UTC)


class PostgresBooks:
    """`billing.ports.Books`. `clock` says when drafts were made. `objects` is the archive; without it, who writes leaves
    archiving to the sequencer, as tests of the books alone do."""

    def __init__(
        self, database: Database, clock: Callable[[], datetime] = _now, *, objects: Objects | None = None
    ) -> None:
        self._database = database
        self._clock = clock
        self._objects = objects

    @asynccontextmanager
    async def write(self, operator: str) -> AsyncIterator[PostgresBook]:
        """The operator's book under its lock, which is taken before the snapshot and outlasts the commit."""
        async with self._database.alone(operator, book_lock(operator)) as connection:
            book = PostgresBook(connection, operator, self._clock, self._objects)
            yield book
            await book.archive()

    @asynccontextmanager
    async def read(self, operator: str) -> AsyncIterator[PostgresBook]:
        """The operator's book as it stands at one moment; waits for nobody."""
        async with self._database.app(operator, snapshot=True) as connection:
            yield PostgresBook(connection, operator, self._clock)


class PostgresBook:
    """`billing.ports.Book`: each method is the function of the same subject, for this operator and transaction."""

    def __init__(
        self,
        connection: AsyncConnection,
        operator: str,
        clock: Callable[[], datetime] = _now,
        objects: Objects | None = None,
    ) -> None:
        self._connection = connection
        self._operator = operator
        self._clock = clock
        self._objects = objects
        self._archived = 0

    async def facts(self) -> Facts:
        return await operator_facts(self._connection, self._operator)

    async def held_batches(self, end: datetime) -> int:
        return await closes.held_batches(self._connection, self._operator, end)

    async def open_roots(self, start: datetime, end: datetime) -> OpenRoots:
        return await open_roots(self._connection, self._operator, start, end)

    async def unfinished_imports(self, start: datetime, end: datetime) -> Sequence[str]:
        return await closes.unfinished_imports(self._connection, self._operator, start, end)

    async def gaps(self, start: datetime, end: datetime) -> Sequence[Gap]:
        return await closes.gaps(self._connection, self._operator, start, end)

    async def lane_ends(self) -> Sequence[LaneEnd]:
        return await lane_ends(self._connection, self._operator)

    async def lane_heads(self) -> Mapping[str, str]:
        return await closes.lane_heads(self._connection, self._operator)

    async def checkpoint(self) -> str | None:
        return await log.newest_checkpoint(self._connection, self._operator)

    async def archive(self) -> None:
        if self._objects is None or await log.own_leaves(self._connection, self._operator) == self._archived:
            return
        made = await log.own_contents(self._connection, self._operator)
        for of_transaction in made:
            await asyncio.to_thread(
                put_contents, self._objects, self._operator, of_transaction.day, of_transaction.contents
            )
        self._archived = await log.own_leaves(self._connection, self._operator)

    async def usage(self, start: datetime, end: datetime) -> pa.Table:
        return await usage_table(self._connection, self._operator, start, end)

    async def adjustments(self, period: Period) -> Sequence[Adjustment]:
        return await documents.load_adjustments(self._connection, self._operator, period)

    async def documents(
        self, *, period: Period | None = None, references: Sequence[str] | None = None
    ) -> Sequence[Document]:
        return await documents.load_documents(
            self._connection, self._operator, period=period, references=references
        )

    async def replace_drafts(self, period: Period, drafts: Sequence[Document]) -> None:
        await documents.replace_drafts(self._connection, self._operator, period, drafts, self._clock())

    async def add_drafts(self, drafts: Sequence[Document]) -> None:
        await documents.add_drafts(self._connection, self._operator, drafts, self._clock())

    async def issue(self, issued: Sequence[Document], at: datetime) -> None:
        await documents.issue_documents(self._connection, self._operator, issued, at)

    async def take_numbers(self, series: Series, count: int, start: int) -> int:
        return await documents.take_numbers(self._connection, self._operator, series, count, start)

    async def post(self, entries: Sequence[Entry]) -> None:
        await journal.post(self._connection, self._operator, entries)

    async def add_adjustment(self, adjustment: Adjustment) -> None:
        await documents.add_adjustment(self._connection, self._operator, adjustment)

    async def last_close(self, period: Period) -> PeriodClose | None:
        found = await closes.load_closes(self._connection, self._operator, period=period, newest=True)
        return found[0] if found else None

    async def add_close(self, close: PeriodClose) -> None:
        await closes.add_close(self._connection, self._operator, close)

    async def set_late_bound(self, period: Period, late_after: datetime) -> None:
        await closes.set_late_bound(self._connection, self._operator, period, late_after)

    async def settlements(self, period: Period) -> Sequence[Settlement]:
        return await settlements.load_settlements(self._connection, self._operator, period=period)

    async def add_settlement(self, settlement: Settlement, at: datetime) -> None:
        await settlements.add_settlement(self._connection, self._operator, settlement, at)
