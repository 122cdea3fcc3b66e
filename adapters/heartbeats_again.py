"""Heartbeats that have no leaf of their own, taken in again.

Of a quiet lane's heartbeats one an hour is a leaf (migrations/versions/0001_first.log.sql). The others are under it: its
seal names the one before, that the one before it, back to where the lane stands. So whoever replays a leaf takes in what
lies between first, out of the archive, in the order of the chain:

    the lane's mark ◀─ heartbeat ◀─ heartbeat ◀─ the batch of the next leaf

They were accepted, or what follows them would not have been; so a key that was revoked since, or what people decided
about the lane, is not asked again. When each was accepted stands nowhere: they get the instant of the leaf's batch. They
hold no usage, so nothing that is billed depends on it.

What lies in the archive behind a lane's newest leaf is behind_marks.py's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime

from adapters.archived_batches import ArchivedBatches
from adapters.nowhere import Nowhere
from adapters.postgres.dump import Connection
from adapters.postgres.intake import PostgresLedger
from adapters.postgres.locked_lanes import LockedLanes
from adapters.postgres.replay import OneTransaction
from billing.inspection import Delivery, LaneName
from billing.intake import POLL_BATCHES, Intake
from billing.log import BatchLeaf
from metering.batch import GENESIS, Seal, peek_seal
from metering.refusal import Refusal

_HEADS = "SELECT node, lane, coalesce(head, 'genesis') AS head FROM lane WHERE operator = $1"
_ADOPTED_AFTER = """
    SELECT after FROM decision
    WHERE (operator, node, lane, hash) = ($1, $2, $3, $4) AND kind IN ('keep', 'accept_hole')
    ORDER BY decided_at DESC
"""


class AsItWas(PostgresLedger):
    """The ledger for what was accepted once: what was decided about its lanes since is not asked."""

    @asynccontextmanager
    async def accept(self, names: Collection[LaneName]) -> AsyncIterator[LockedLanes]:
        async with super().accept(names) as locked:
            locked.marks = {
                name: replace(mark, revoked=frozenset(), adopts=None, dropped=frozenset())
                for name, mark in locked.marks.items()
            }
            yield locked


class Between:
    """Of one operator's lanes, what lies between their marks and the batches that are replayed."""

    def __init__(self, database: OneTransaction, raw: Connection, operator: str) -> None:
        self._database = database
        self._raw = raw
        self._operator = operator
        self._heads: dict[tuple[str, str], str] | None = None

    async def before(
        self, leaf: BatchLeaf, delivery: Delivery, batches: ArchivedBatches
    ) -> Sequence[Delivery]:
        """The heartbeats that the lane accepted between the last batch that was asked for and this one, in their order.

        None where nothing leads from the one to the other: intake then says what is missing. Refusal
        `archive_incomplete` where a seal on the way is not in the archive.
        """
        if self._heads is None:
            found = await self._raw.fetch(_HEADS, self._operator)
            self._heads = {(row["node"], row["lane"]): row["head"] for row in found}
        name = (leaf.node, leaf.lane)
        last, self._heads[name] = self._heads.get(name, GENESIS), leaf.hash
        seal = peek_seal(delivery.note)
        if seal.previous == last:
            return []
        # Behind what it follows by a person's decision, if there is one, and not behind the seal that it names.
        rows = await self._raw.fetch(_ADOPTED_AFTER, self._operator, *name, leaf.hash)
        ends = [row["after"] for row in rows] or [seal.previous]
        for end in ends:
            chain = await asyncio.to_thread(_back, batches, seal, end, last)
            if chain is not None:
                return chain
        return []

    async def take(self, heartbeats: Sequence[Delivery], at: datetime) -> int:
        """Takes them in as accepted at `at`; returns how many. Refusal `replay_differs`."""
        nothing = Nowhere()
        intake = Intake(nothing, AsItWas(self._database), nothing, nothing, clock=lambda: at)
        for first in range(0, len(heartbeats), POLL_BATCHES):
            some = heartbeats[first : first + POLL_BATCHES]
            if (await intake.take(some)).accepted != len(some):
                seal = peek_seal(some[0].note)
                raise Refusal(
                    "replay_differs",
                    f"heartbeats that were accepted are not accepted again, at or after number {seal.number}",
                    where=f"{seal.node}/{seal.lane}/{seal.epoch}-{seal.number}",
                    remedy="restore the archive from its backup, or take an older backup of the database",
                )
        return len(heartbeats)


def _back(batches: ArchivedBatches, seal: Seal, end: str, last: str) -> list[Delivery] | None:
    """The heartbeats from behind `last` up to `end`, the newest of which `seal` follows; None if none lead there."""
    chain: list[Delivery] = []
    while end != last:
        if end == GENESIS:
            return None
        note = batches.note(end, seal)
        seal = peek_seal(note)
        if seal.events:
            return None
        chain.append(Delivery(note, b""))
        end = seal.previous
    return chain[::-1]
