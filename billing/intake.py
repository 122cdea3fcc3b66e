"""Intake: sealed batches in, hourly usage out, exactly once.

    source ─▶ inspect (signature, body, totals, root) ─▶ one transaction, the lanes locked in key order:
                  follow each lane's chain ─▶ archive the accepted, store the held, on disk
                                           ─▶ list of batches, marks, partial sums by COPY ─▶ commit ─▶ acknowledge

Nothing is incremented, and nothing is acknowledged before it is committed, so a kill at any moment leaves
either a batch that will come again and is then a repeat, or one that is accepted whole. Files that a killed
transaction left in the archive are the same bytes under the same name when it is tried again. Several
workers may run on one source: the lane's row lock and its mark decide, whoever comes second finds a repeat.

What can't be accepted is stored and listed before it is acknowledged. What is held for a missing batch, a time
still to come or a customer that nobody knows is a source of its own: once that is there, it is delivered again
from where it is held. So is what was set aside because its lane was not enrolled yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime, timedelta
from itertools import chain

import pyarrow as pa

from billing import taking_of
from billing.acceptance import AHEAD, Mark, Verdicts, follow, settle
from billing.aside import MostAside, counts, hold_within, is_stale, keep_within
from billing.batch_paths import aside_path
from billing.cells import mark_late, merged
from billing.inspection import Delivery, Inspected, LaneName
from billing.inspector import Inspector
from billing.intake_ports import (
    Acceptance,
    BatchStore,
    Ledger,
    Position,
    SetAside,
    Source,
    StoredBatch,
    Taking,
)
from billing.polls import Outages, next_poll, say_held, still_going, take_apart
from billing.root_pass import ROOTS_AT_ONCE, check_roots
from metering.refusal import Unavailable
from metering.steps import step

logger = logging.getLogger(__name__)

#: One transaction takes at most so many batches, and about so many bytes. Of their events only the cells are kept: some
#: ten MB where customers stay on few nodes and models, 200 bytes an event where each is a cell of its own.
POLL_BATCHES = 200
POLL_BYTES = 64_000_000
#: How often the running loop looks for new batches, and for whole hours.
POLL_EVERY = timedelta(milliseconds=200)
ROLL_UP_EVERY = timedelta(seconds=10)
_LONGEST_WAIT = timedelta(seconds=5)
#: After so long a held batch that was damaged or gone is looked at again: a person may have put it back.
_DAMAGED_FOR = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Summary:
    """How many batches became what; `events` are those of the accepted."""

    accepted: int = 0
    repeats: int = 0
    held: int = 0
    set_aside: int = 0
    events: int = 0

    def __add__(self, other: Summary) -> Summary:
        return Summary(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


class Intake:
    """Takes batches from a source into the ledger. Many, each in a process of its own, may share both."""

    def __init__(
        self,
        source: Source,
        ledger: Ledger,
        archive: BatchStore,
        held: BatchStore,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        most_aside: MostAside | None = None,
        leave_roots: bool = False,
    ) -> None:
        """`most_aside` bounds what is kept of batches that nobody's key vouches for, or only one that counts no more; None
        where the source is the only place that holds them. `leave_roots`: `run` leaves the second pass to another one.
        """
        self._most_aside = most_aside
        self._leave_roots = leave_roots
        self._source = source
        self._ledger = ledger
        self._archive = archive
        self._held = held
        self._clock = clock
        self._goes_on = False
        self._roots_at_once = ROOTS_AT_ONCE
        self._forget()

    def _forget(self) -> None:
        """Drops what was learnt from the database: it only spared questions, and another one may know less."""
        self._inspector = Inspector(self._ledger)
        self._months: set[tuple[str, date]] = set()
        self._damaged: dict[str, datetime] = {}

    async def run(self, stop: asyncio.Event, poll_every: timedelta = POLL_EVERY) -> None:
        """Takes what comes until `stop` is set, then once more; waits for a database or disk that is down, and goes
        on beside whatever else fails.
        """
        loop = asyncio.get_running_loop()
        wait, roll_up_at, outages = poll_every, loop.time(), Outages()
        while not stop.is_set():
            well = await outages.survives("turn", self.turn)
            if loop.time() >= roll_up_at:
                well = await outages.survives("roll-up", self.roll_up) and well
                roll_up_at = loop.time() + ROLL_UP_EVERY.total_seconds()
            wait = poll_every if well else min(max(2 * wait, poll_every), _LONGEST_WAIT)
            if self._goes_on:
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), wait.total_seconds())
        await outages.survives("turn", self.sweep)

    async def turn(self) -> None:
        """Takes what has come, then checks some roots: also while batches come without a pause."""
        self._goes_on = False
        if self._leave_roots:
            await self.sweep()
            return
        try:
            await self.sweep()
        finally:
            passed = await check_roots(self._ledger, self._archive, self._clock(), self._roots_at_once)
        self._roots_at_once, self._goes_on = passed.at_once, passed.batches > 0

    async def take_pending(self) -> Summary:
        """One sweep, and the second pass over as many batches as it took: for a command, which has no time without work."""
        taken = await self.sweep()
        left = taken.accepted
        while left > 0 and (passed := await check_roots(self._ledger, self._archive, self._clock())).batches:
            left -= passed.batches
        return taken

    async def sweep(self) -> Summary:
        """Takes whatever the source has, and what goes on with it, until nothing is left.

        Raises `Unavailable` when database or disk are down; what is not committed then comes again. What else fails is
        raised at the end, when the other operators' batches are taken.
        """
        taken, failed = Summary(), dict[str, Exception]()
        try:
            arrivals = await asyncio.to_thread(self._source.deliveries)
            while poll := await asyncio.to_thread(next_poll, arrivals, POLL_BATCHES, POLL_BYTES):
                taken = sum(await take_apart(self.take, poll, failed), taken)
            tried: set[str | None] = set()
            while due := still_going(await self._due(failed), failed):
                # What is due and stays where it is would be due for ever: it has its turn again in the next sweep.
                if tried.issuperset(each.held_path for each in due):
                    break
                tried.update(each.held_path for each in due)
                taken = sum(await take_apart(self.take, due, failed), taken)
        except Unavailable:
            self._forget()
            raise
        for fault in failed.values():
            raise fault
        return taken

    async def roll_up(self) -> int:
        """Makes one row a cell of every whole hour that has partial sums; returns how many hours."""
        return await self._ledger.roll_up(self._clock())

    async def take(self, deliveries: Sequence[Delivery]) -> Summary:
        """Takes these batches, all of them in one transaction, and acknowledges them when it is committed."""
        inspected, aside = await self._inspector.inspect(deliveries)
        if aside:
            await self._set_aside(aside)
        summary, marks = Summary(set_aside=len(aside)), dict[LaneName, Mark]()
        tokens = [delivery.token for delivery in deliveries if delivery.token is not None]
        positions = await asyncio.to_thread(self._source.positions, tokens)
        if inspected:
            taken, marks = await self._accept(inspected, positions)
            summary += taken
        elif positions:
            await self._ledger.move(positions)
        await asyncio.to_thread(self._source.acknowledge, tokens, marks)
        return summary

    async def _due(self, failed: Collection[str]) -> list[Delivery]:
        """Held batches whose turn has come. What is damaged is passed over for a while, and keeps nobody waiting."""
        found: list[Delivery] = []
        now = self._clock()
        while not found:
            damaged = [path for path, seen_at in self._damaged.items() if now - seen_at < _DAMAGED_FOR]
            paths = await self._ledger.due(now, POLL_BATCHES, damaged, failed)
            if not paths:
                break
            for path in paths:
                stored = await asyncio.to_thread(self._held.get, path)
                delivery = None if stored is None else Delivery(stored.note, stored.body, held_path=path)
                if delivery is not None and path.endswith(delivery.digest):
                    found.append(delivery)
                    continue
                if path not in self._damaged:
                    logger.error("the held batch %s is damaged or gone; it stays listed", path)
                self._damaged[path] = now
        return found

    async def _set_aside(self, aside: Sequence[SetAside]) -> None:
        logger.warning(
            "%d batches are set aside, nobody's key vouches for them; the first: %s",
            len(aside),
            aside[0].refusal.what,
        )
        if self._most_aside is not None:
            so_far = await self._ledger.aside_so_far({batch.claimed for batch in aside})
            aside, counted = keep_within(aside, so_far, self._most_aside)
            if counted:
                claimed = {batch.claimed for batch in counted if batch.claimed is not None}
                enrolled = await self._ledger.enrolled(claimed) if claimed else {}
                await self._ledger.count_aside(counts(counted, enrolled), self._clock())
        if not aside:
            return
        stored = [StoredBatch(batch.path, batch.delivery.note, batch.delivery.body) for batch in aside]
        await asyncio.to_thread(self._held.put, stored)
        await self._ledger.set_aside(aside, self._clock())

    async def _accept(
        self, inspected: Sequence[Inspected], positions: Sequence[Position]
    ) -> tuple[Summary, dict[LaneName, Mark]]:
        """What became of them, and the marks of all their lanes after it."""
        now = self._clock()
        lanes: dict[LaneName, list[Inspected]] = defaultdict(list)
        for batch in inspected:
            lanes[batch.name].append(batch)
        await self._ensure_months(inspected, now)
        async with self._ledger.accept(lanes.keys()) as transaction:
            verdicts = {
                name: follow(transaction.marks[name], arrivals, now) for name, arrivals in lanes.items()
            }
            left = [batch.seal for verdict in verdicts.values() for batch in verdict.open]
            if left:
                known = await transaction.known(left)
                for name, verdict in verdicts.items():
                    settle(verdict, known[name])
            taking = replace(await self._taking(verdicts, transaction, now), positions=positions)
            await asyncio.to_thread(self._store, taking)
            settled = await transaction.write(taking, now)
            step("in-transaction")
        step("committed")
        await asyncio.to_thread(self._held.remove, settled)
        marks = {name: verdict.mark for name, verdict in verdicts.items()}
        return await self._after(taking, verdicts, inspected), marks

    async def _ensure_months(self, inspected: Sequence[Inspected], now: datetime) -> None:
        """Partitions, before any lane is locked: who waits for another's months holds nothing that others wait for."""
        coming = (now + AHEAD).date()  # later ones are refused as ahead of time
        spans = {(batch.seal.operator, month) for batch in inspected for month in batch.months}
        months = {(operator, month) for operator, month in spans - self._months if month <= coming}
        if months:
            await self._ledger.ensure_months(months)
            self._months |= months

    async def _taking(
        self, verdicts: Mapping[LaneName, Verdicts], transaction: Acceptance, now: datetime
    ) -> Taking:
        followed = [batch for verdict in verdicts.values() for batch in verdict.accepted]
        accepted = [taking_of.accepted(batch) for batch in followed]
        refused = [pair for verdict in verdicts.values() for pair in verdict.refused]
        repeats = [batch for verdict in verdicts.values() for batch in verdict.repeats]
        again = [batch for batch, _ in refused if batch.delivery.held_path is not None]
        beyond: dict[LaneName, int] = {}
        if self._most_aside is not None and any(map(is_stale, refused)):
            stale: dict[LaneName, set[str]] = defaultdict(set)
            for batch, _ in filter(is_stale, refused):
                stale[batch.name].add(batch.hash)
            refused, beyond = hold_within(refused, await transaction.stale(stale), self._most_aside)
        return Taking(
            accepted=accepted,
            marks={name: verdict.mark for name, verdict in verdicts.items() if verdict.accepted},
            cells=await self._cells([entry.inspected for entry in accepted], transaction, now),
            held=[taking_of.held(batch, refusal) for batch, refusal in refused],
            settled=[
                (batch.name, batch.place, batch.hash)
                for batch in chain((entry.inspected for entry in accepted), repeats, again)
            ],
            beyond=beyond,
        )

    async def _cells(
        self, accepted: Sequence[Inspected], transaction: Acceptance, now: datetime
    ) -> dict[str, pa.Table]:
        """Each operator's cells of the accepted batches, marked where they come too late to be billed."""
        cells: dict[str, list[pa.Table]] = defaultdict(list)
        for batch in accepted:
            if batch.usage is not None and batch.usage.cells.num_rows:
                cells[batch.seal.operator].append(batch.usage.cells)
        lateness = await transaction.lateness(cells.keys()) if cells else {}

        def summed(operator: str) -> pa.Table:
            late = lateness[operator]
            return mark_late(merged(cells[operator]), lambda hour: late.is_late(hour, now))

        return {operator: await asyncio.to_thread(summed, operator) for operator in cells}

    def _store(self, taking: Taking) -> None:
        """Everything on disk, under the lanes' locks and before the commit that lists it."""
        for store, batches in ((self._archive, taking.accepted), (self._held, taking.held)):
            if batches:
                store.put([taking_of.stored(batch.path, batch.inspected.delivery) for batch in batches])

    async def _after(
        self, taking: Taking, verdicts: Mapping[LaneName, Verdicts], inspected: Sequence[Inspected]
    ) -> Summary:
        """What is left to do and to say when the transaction is committed."""
        say_held(taking.held)
        for batch in inspected:
            path = batch.delivery.held_path
            if path is not None and path == aside_path(batch.delivery):
                await self._ledger.forget_set_aside(path)
                await asyncio.to_thread(self._held.remove, [path])
        return Summary(
            accepted=len(taking.accepted),
            repeats=sum(len(verdict.repeats) for verdict in verdicts.values()),
            held=len(taking.held),
            events=sum(entry.inspected.seal.events for entry in taking.accepted),
        )
