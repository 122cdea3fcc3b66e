"""The ports of billing in memory: what `billing.ports` promises, as plainly as it can be said.

A writer works on a copy, which becomes the books when its block ends without an exception; one at a time.
"""

from __future__ import annotations

import asyncio
import copy
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from billing.adjustment import Adjustment
from billing.completeness import LaneEnd
from billing.document import DRAFT, Document
from billing.facts import Facts
from billing.gaps import Gap
from billing.journal import Entry
from billing.period import Period
from billing.ports import OpenRoots, PeriodClose, Series
from billing.settlement import Settlement


def _us(instant: datetime) -> int:
    return int(instant.timestamp()) * 1_000_000


@dataclass
class BookInMemory:
    """One operator's book. Fields are what a test looks at; methods are the port."""

    stated: Facts
    rows: pa.Table
    held: int = 0
    unfinished: dict[str, tuple[datetime, datetime]] = field(
        default_factory=dict
    )  # first and last event by id
    unmetered: list[Gap] = field(default_factory=list)
    lanes: list[LaneEnd] = field(default_factory=list)
    heads: dict[str, str] = field(default_factory=dict)
    signed: str | None = None
    papers: dict[str, Document] = field(default_factory=dict)
    made_adjustments: list[Adjustment] = field(default_factory=list)
    roots: OpenRoots = field(default_factory=lambda: OpenRoots(0, 0))
    entries: list[Entry] = field(default_factory=list)
    closes: list[PeriodClose] = field(default_factory=list)
    next_numbers: dict[Series, int] = field(default_factory=dict)
    late_bounds: dict[Period, datetime] = field(default_factory=dict)
    made_settlements: list[Settlement] = field(default_factory=list)

    async def facts(self) -> Facts:
        return self.stated

    async def held_batches(self, end: datetime) -> int:
        return self.held

    async def open_roots(self, start: datetime, end: datetime) -> OpenRoots:
        return self.roots

    async def unfinished_imports(self, start: datetime, end: datetime) -> Sequence[str]:
        return [id for id, (first, last) in self.unfinished.items() if first < end and last >= start]

    async def gaps(self, start: datetime, end: datetime) -> Sequence[Gap]:
        return [gap for gap in self.unmetered if gap.begins_us < _us(end) and gap.ends_us >= _us(start)]

    async def lane_ends(self) -> Sequence[LaneEnd]:
        return list(self.lanes)

    async def checkpoint(self) -> str | None:
        return self.signed

    async def archive(self) -> None:
        """Nothing is kept here that could be lost."""

    async def lane_heads(self) -> Mapping[str, str]:
        return dict(self.heads)

    async def usage(self, start: datetime, end: datetime) -> pa.Table:
        hours = self.rows["hour"]
        kind = pa.timestamp("us", "UTC")
        inside = pc.and_(
            pc.greater_equal(hours, pa.scalar(start, kind)), pc.less(hours, pa.scalar(end, kind))
        )
        return self.rows.filter(inside)

    async def adjustments(self, period: Period) -> Sequence[Adjustment]:
        return [each for each in self.made_adjustments if each.period == period]

    async def documents(
        self, *, period: Period | None = None, references: Sequence[str] | None = None
    ) -> Sequence[Document]:
        return [
            each
            for each in self.papers.values()
            if (period is None or each.period == period)
            and (references is None or each.id in references or each.number in references)
        ]

    async def replace_drafts(self, period: Period, drafts: Sequence[Document]) -> None:
        self.papers = {
            name: each for name, each in self.papers.items() if each.period != period or each.state != DRAFT
        }
        await self.add_drafts(drafts)

    async def add_drafts(self, drafts: Sequence[Document]) -> None:
        for draft in drafts:
            assert draft.id not in self.papers, draft.id
            self.papers[draft.id] = draft

    async def issue(self, documents: Sequence[Document], at: datetime) -> None:
        numbers = {each.number for each in self.papers.values()}
        for document in documents:
            assert self.papers[document.id].state == DRAFT
            assert document.number not in numbers
            self.papers[document.id] = document

    async def take_numbers(self, series: Series, count: int, start: int) -> int:
        before = any(
            each.entity == series.entity
            and each.year < series.year
            and (each.year > 0 or each.kind == series.kind)
            for each in self.next_numbers
        )
        first = self.next_numbers.get(series, 1 if before else start)
        self.next_numbers[series] = first + count
        return first

    async def post(self, entries: Sequence[Entry]) -> None:
        self.entries = [*self.entries, *entries]

    async def add_adjustment(self, adjustment: Adjustment) -> None:
        self.made_adjustments = [*self.made_adjustments, adjustment]

    async def last_close(self, period: Period) -> PeriodClose | None:
        return max(
            (each for each in self.closes if each.period == period),
            key=lambda each: each.number,
            default=None,
        )

    async def add_close(self, close: PeriodClose) -> None:
        self.closes = [*self.closes, close]

    async def set_late_bound(self, period: Period, late_after: datetime) -> None:
        self.late_bounds.setdefault(period, late_after)

    async def settlements(self, period: Period) -> Sequence[Settlement]:
        return [each for each in self.made_settlements if each.period == period]

    async def add_settlement(self, settlement: Settlement, at: datetime) -> None:
        self.made_settlements = [*self.made_settlements, settlement]

    def balance(self, account: str) -> int:
        """Debits less credits of an account, minor units."""
        sums: Counter[str] = Counter()
        for entry in self.entries:
            for posting in entry.postings:
                sums[posting.account] += posting.amount
        return sums[account]


class BooksInMemory:
    """Every operator's books."""

    def __init__(self, books: Mapping[str, BookInMemory]) -> None:
        self.books = dict(books)
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @asynccontextmanager
    async def write(self, operator: str) -> AsyncIterator[BookInMemory]:
        async with self._locks[operator]:
            working = copy.copy(self.books[operator])
            working.papers = dict(working.papers)
            working.next_numbers = dict(working.next_numbers)
            working.late_bounds = dict(working.late_bounds)
            yield working
            self.books[operator] = working

    @asynccontextmanager
    async def read(self, operator: str) -> AsyncIterator[BookInMemory]:
        yield copy.copy(self.books[operator])
