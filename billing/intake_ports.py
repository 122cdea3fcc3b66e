"""The ports of intake: where batches come from, where they stay, and the ledger that decides.

`adapters/postgres/intake.py` is the ledger, `adapters/archive.py` both stores, `adapters/spool_source.py` the source
that reads the spool folder, `adapters/kafka/source.py` the one that reads Kafka. Sources and stores block, and are
called from a thread.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Protocol
from zoneinfo import ZoneInfo

import pyarrow as pa

from billing.acceptance import UNKNOWN_CUSTOMER, Known, Mark
from billing.inspection import Delivery, Enrolment, Inspected, LaneName, Place
from billing.model_sums import ModelSum
from billing.period import Period
from metering.batch import Seal
from metering.refusal import Refusal


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """A batch as it is stored: a path without suffix, the signed seal, and the body (empty for a heartbeat)."""

    path: str
    note: bytes
    body: bytes


@dataclass(frozen=True, slots=True)
class Position:
    """Where reading goes on: `source` says of what (Kafka: cluster id / topic id / topic name), `next` is the offset
    of the first message of the partition that is not settled."""

    source: str
    partition: int
    next: int


@dataclass(frozen=True, slots=True)
class Lateness:
    """When usage of a period comes too late to be billed (`late_days`), for one operator."""

    zone: ZoneInfo
    late_after: Mapping[Period, datetime]

    def is_late(self, hour: datetime, accepted_at: datetime) -> bool:
        """Whether usage of `hour` that is accepted at `accepted_at` is only reported, not billed."""
        local = hour.astimezone(self.zone)
        bound = self.late_after.get(Period(local.year, local.month))
        return bound is not None and accepted_at > bound


@dataclass(frozen=True, slots=True)
class Accepted:
    """A batch that goes on from its lane's mark, where it stands in the archive, and a sidecar's sums by model."""

    inspected: Inspected
    path: str
    sums: tuple[ModelSum, ...] = ()


@dataclass(frozen=True, slots=True)
class Held:
    """A verified batch that can't be accepted, why, and where it waits; until when, and for which customers."""

    inspected: Inspected
    refusal: Refusal
    path: str
    due_at: datetime | None = None
    missing: frozenset[bytes] = frozenset()

    @property
    def is_whole(self) -> bool:
        """Whether its bytes are those that were sealed; what is wrong is then its place, its time or its customers."""
        return self.inspected.fault is None or self.refusal.code == UNKNOWN_CUSTOMER


@dataclass(frozen=True, slots=True)
class SetAside:
    """Bytes that no enrolled key vouches for. What they claim is not proven; `claimed` is None if nothing readable."""

    delivery: Delivery
    claimed: LaneName | None
    refusal: Refusal
    digest: str
    path: str


@dataclass(frozen=True, slots=True)
class AsideSoFar:
    """How many are kept now, in all and of each claimed lane that was asked for (None: claims nothing readable)."""

    in_all: int
    of_lanes: Mapping[LaneName | None, int]


@dataclass(frozen=True, slots=True)
class StaleSoFar:
    """How many batches of a lane are held under keys that count no more, dropped ones too; `listed`: hashes of those
    among them that were asked for."""

    held: int = 0
    listed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Taking:
    """Everything that one transaction writes."""

    accepted: Sequence[Accepted]
    marks: Mapping[LaneName, Mark]  # of the lanes that went on
    cells: Mapping[str, pa.Table]  # operator -> cells with `late`
    held: Sequence[Held]
    settled: Sequence[tuple[LaneName, Place, str]]  # held before, no longer: lane, place, hash
    positions: Sequence[Position] = ()
    beyond: Mapping[LaneName, int] = field(
        default_factory=dict
    )  # so many of a lane are not held, only counted


class Source(Protocol):
    """What has come and is not acknowledged yet."""

    def deliveries(self) -> Iterator[Delivery]:
        """Every one of them, lane by lane in the lane's order."""
        ...

    def positions(self, tokens: Sequence[object]) -> Sequence[Position]:
        """Where to go on once these are settled too: never beyond a batch that was delivered and is not settled."""
        ...

    def acknowledge(self, tokens: Sequence[object], marks: Mapping[LaneName, Mark]) -> None:
        """These are accepted or safely held: whoever keeps them for us may let them go. `marks` are those of all their
        lanes, as they stand after the commit."""
        ...


class BatchStore(Protocol):
    """Batches by path, on disk before `put` returns."""

    def put(self, batches: Sequence[StoredBatch]) -> None: ...

    def get(self, path: str) -> StoredBatch | None: ...

    def note(self, path: str) -> bytes | None:
        """The signed seal alone, wherever it lies by now."""
        ...

    def events(self, path: str) -> pa.Table:
        """The events, checked against their seal, wherever they lie by now. Refusal `archive_incomplete` if nowhere."""
        ...

    def remove(self, paths: Sequence[str]) -> None: ...


class Acceptance(Protocol):
    """One open transaction that holds the locks of its lanes."""

    @property
    def marks(self) -> Mapping[LaneName, Mark]:
        """The high-water marks, read under the locks."""
        ...

    async def known(self, wanted: Sequence[Seal]) -> Mapping[LaneName, Known]:
        """What the archive's list holds of these batches' places, and of the seals that they follow."""
        ...

    async def lateness(self, operators: Collection[str]) -> Mapping[str, Lateness]: ...

    async def stale(self, hashes: Mapping[LaneName, Collection[str]]) -> Mapping[LaneName, StaleSoFar]:
        """What is held of these lanes under keys that count no more, and which of these batches are among it."""
        ...

    async def write(self, taking: Taking, accepted_at: datetime) -> Sequence[str]:
        """Appends all of it; returns the paths of held batches of which nothing has to lie there any more: those that
        were settled, and copies that another one stands for."""
        ...


@dataclass(frozen=True, slots=True)
class Unchecked:
    """An accepted batch whose root is not known to hold, and where it lies in the archive. `fault`: what was wrong when
    it was looked at; None where nobody looked yet."""

    name: LaneName
    place: Place
    hash: str
    path: str
    accepted_at: datetime
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class RootFault:
    """Why a batch's root does not hold."""

    batch: Unchecked
    what: str


class Roots(Protocol):
    """One open transaction that holds some unchecked batches: no other worker takes them meanwhile."""

    @property
    def batches(self) -> Sequence[Unchecked]: ...

    async def settle(self, held: Sequence[Unchecked], faults: Sequence[RootFault], at: datetime) -> None:
        """Writes down whose root held, and whose did not, when that was looked at."""
        ...


class Ledger(Protocol):
    """The database of intake. Raises `Unavailable` while it is down; nothing half-done stays."""

    async def enrolled(self, names: Collection[LaneName]) -> Mapping[LaneName, Enrolment]:
        """Those of the lanes that are enrolled."""
        ...

    async def known_customers(self, operator: str, ids: Collection[bytes]) -> Collection[bytes]:
        """Those of the ids that are customers of the operator."""
        ...

    async def ensure_months(self, months: Collection[tuple[str, date]]) -> None:
        """Makes the partitions of (operator, first day of a UTC month), in transactions of their own."""
        ...

    def accept(self, names: Collection[LaneName]) -> AbstractAsyncContextManager[Acceptance]:
        """Locks the lanes in key order; commits on leaving without an exception."""
        ...

    async def set_aside(self, batches: Sequence[SetAside], at: datetime) -> None:
        """Lists them; one that is listed already stays as it was."""
        ...

    async def aside_so_far(self, claimed: Collection[LaneName | None]) -> AsideSoFar:
        """How many are listed and kept: in all, and of these claimed lanes."""
        ...

    async def count_aside(self, more: Mapping[LaneName | None, int], at: datetime) -> None:
        """Counts what came beyond what is kept; under None what is of no enrolled lane."""
        ...

    async def due(
        self, now: datetime, limit: int, damaged: Collection[str] = (), failed: Collection[str] = ()
    ) -> Sequence[str]:
        """Paths of at most `limit` held batches whose turn has come at `now`: of every operator and every lane the first
        ones, a lane's in its order. Left out are these `damaged` paths, what follows them, and `failed` operators."""
        ...

    async def positions(self, source: str) -> Mapping[int, int]:
        """Where to go on in a source: partition -> next offset; what was never read is not in it."""
        ...

    async def move(self, positions: Sequence[Position]) -> None:
        """Goes on to these, where nothing was accepted or held; never back."""
        ...

    async def forget_set_aside(self, path: str) -> None:
        """Takes a path off the list of what is set aside."""
        ...

    def unchecked(self, limit: int, again_before: datetime) -> AbstractAsyncContextManager[Roots]:
        """At most `limit` of the batches whose root nobody is checking and nobody has checked, or only before that
        instant and with no good outcome; the oldest first. Commits on leaving."""
        ...

    async def roll_up(self, now: datetime) -> int:
        """Makes one row a cell of every whole hour with partial sums; returns how many hours."""
        ...
