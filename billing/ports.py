"""The ports of billing: what closing, issuing, crediting and settling ask of storage. The pure parts know
nothing of it; `adapters/postgres` implements it, and tests hold an in-memory twin to the same behaviour.

All of it happens in one operator's `Book`, inside one database transaction. `Books.write` takes the
operator's book lock *before* the transaction's snapshot begins (under REPEATABLE READ a lock taken inside
would wait and then read what stood before the wait), so of two closes at once the second waits and sees
what the first one did. Leaving the block commits, an exception rolls back, and nothing of a refused step
stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import pyarrow as pa

from billing.adjustment import Adjustment
from billing.completeness import LaneEnd
from billing.document import Document
from billing.facts import Facts
from billing.gaps import Gap
from billing.journal import Entry
from billing.period import Period
from billing.settlement import Settlement


@dataclass(frozen=True, slots=True)
class PeriodClose:
    """That a period was closed (for the nth time): over which usage, with which facts, to what effect.

    `heads` maps "node/lane" to the seal hash that its accepted chain ended with; `facts` holds what it rated by, as
    `billing.kept_facts` says; `result` is the JSON row that `period close` printed; `checkpoint` is the newest signed one
    of the operator's log, which its documents name.
    """

    period: Period
    number: int
    closed_at: datetime
    heads: Mapping[str, str]
    facts: Mapping[str, Any]
    result: Mapping[str, Any]
    unfinished: bool
    checkpoint: str | None = None

    @property
    def holidays(self) -> Mapping[str, Sequence[str]]:
        """ISO dates by calendar: what `billing.holiday.with_holidays` takes as fixed whenever the period is rated."""
        found: Mapping[str, Sequence[str]] = self.facts.get("holidays", {})
        return found


@dataclass(frozen=True, slots=True, order=True)
class Series:
    """A number series: gap-free per legal entity and kind, and per year where its pattern holds {yyyy}
    (else 0).
    """

    entity: str
    kind: str
    year: int


@dataclass(frozen=True, slots=True)
class OpenRoots:
    """How many roots the second pass has not recomputed yet, how many do not hold, and one batch of these."""

    unchecked: int
    faults: int
    first_fault: str | None = None


class Book(Protocol):
    """One operator's books inside one transaction. What is read is of one snapshot."""

    async def facts(self) -> Facts:
        """All versions of everything declared for this operator, and the parties."""
        ...

    async def held_batches(self, end: datetime) -> int:
        """How many verified batches a close of what is before `end` waits for: what their lane made up for under a newer
        key, complete to `end`, is none of them."""
        ...

    async def open_roots(self, start: datetime, end: datetime) -> OpenRoots:
        """Accepted batches that may hold events of [start, end) and whose Merkle root is not known to hold."""
        ...

    async def unfinished_imports(self, start: datetime, end: datetime) -> Sequence[str]:
        """Ids of imports with events in [start, end) that a killed command left half accepted, or half taken
        back; a period with any can't close.
        """
        ...

    async def gaps(self, start: datetime, end: datetime) -> Sequence[Gap]:
        """What nodes served unmetered within [start, end), or partly so, as their seals say, and what people decided
        to do without; oldest first.
        """
        ...

    async def lane_ends(self) -> Sequence[LaneEnd]:
        """How far every lane has come, and those that are told of and not enrolled."""
        ...

    async def lane_heads(self) -> Mapping[str, str]:
        """ "node/lane" -> hash of the last accepted seal."""
        ...

    async def checkpoint(self) -> str | None:
        """The newest signed checkpoint of the operator's log, the whole note."""
        ...

    async def archive(self) -> None:
        """Puts what this transaction has added to the log into the archive: nothing of money is visible that is not
        archived. Raises `Unavailable` where the archive is. Leaving `Books.write` does it too.
        """
        ...

    async def usage(self, start: datetime, end: datetime) -> pa.Table:
        """Hourly usage of [start, end), summed over projects and keys or not; columns as `billing.hourly` says."""
        ...

    async def adjustments(self, period: Period) -> Sequence[Adjustment]:
        """In the order in which they were made."""
        ...

    async def documents(
        self, *, period: Period | None = None, references: Sequence[str] | None = None
    ) -> Sequence[Document]:
        """Drafts and issued ones, oldest first: of a period, or those whose id or number is in
        `references`.
        """
        ...

    async def replace_drafts(self, period: Period, drafts: Sequence[Document]) -> None:
        """Remove every draft of the period and add these."""
        ...

    async def add_drafts(self, drafts: Sequence[Document]) -> None: ...

    async def issue(self, documents: Sequence[Document], at: datetime) -> None:
        """The drafts of these ids become these documents, for good."""
        ...

    async def take_numbers(self, series: Series, count: int, start: int) -> int:
        """Advance the series by `count` and return the first of them.

        A series that is not there begins at `start`; but at 1 where the entity numbered something in an earlier
        year, or this kind without years: `start` goes on where another system ended, and that happens once.
        """
        ...

    async def post(self, entries: Sequence[Entry]) -> None: ...

    async def add_adjustment(self, adjustment: Adjustment) -> None: ...

    async def last_close(self, period: Period) -> PeriodClose | None:
        """The newest close of the period, if there is one."""
        ...

    async def add_close(self, close: PeriodClose) -> None: ...

    async def set_late_bound(self, period: Period, late_after: datetime) -> None:
        """Usage of the period accepted after this instant is reported, not billed. Only the first call
        counts.
        """
        ...

    async def settlements(self, period: Period) -> Sequence[Settlement]:
        """Oldest first."""
        ...

    async def add_settlement(self, settlement: Settlement, at: datetime) -> None: ...


class Books(Protocol):
    """Every operator's books."""

    def write(self, operator: str) -> AbstractAsyncContextManager[Book]:
        """The operator's book under its lock: one writer at a time; commits on leaving without an
        exception.
        """
        ...

    def read(self, operator: str) -> AbstractAsyncContextManager[Book]:
        """The operator's book to read only, without waiting."""
        ...
