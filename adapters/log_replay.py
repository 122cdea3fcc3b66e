"""What one operator's archived log holds beyond the database's, done again in its order.

A batch goes through intake at the instant of its acceptance; what intake accepted together it takes together, and the
heartbeats that lie before it and have no leaf first (heartbeats_again.py). A change is its row. Each leaf comes as it was.
See bring_forward.py for what that is for.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from adapters.archived_batches import ArchivedBatches
from adapters.archived_contents import ArchivedContents
from adapters.archived_logs import ArchivedLog
from adapters.behind_marks import Left, take_behind_marks
from adapters.further_leaves import Further, Lacks
from adapters.heartbeats_again import Between
from adapters.nowhere import Nowhere
from adapters.postgres import replay, replayed
from adapters.postgres.dump import Connection
from adapters.postgres.intake import PostgresLedger
from adapters.postgres.replay import OneTransaction, Replay
from adapters.uncovered import Uncovered, decide
from billing.inspection import Delivery
from billing.intake import Intake
from billing.log import BatchLeaf, ChangeLeaf, parse_leaf
from billing.log_growth import GrowingLog
from billing.objects import Objects
from metering.instant import time_us_of
from metering.refusal import Fault, Refusal
from metering.steps import step

Progress = Callable[[str, int, int], None]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AT_ONCE = 100  # batches that intake takes together


@dataclass(slots=True)
class Brought:
    """What was done for one operator. `proved`: the checkpoint's signature was checked, its key being here."""

    operator: str
    size: int
    proved: bool
    leaves: int = 0
    batches: int = 0
    heartbeats: int = 0  # beside those, without a leaf
    events: int = 0
    changes: int = 0
    drafts_dropped: int = 0
    uncovered_taken: int = 0
    uncovered_left: int = 0
    behind_batches: int = (
        0  # with events, which no checkpoint covers: out of the archive, behind their lanes' marks
    )
    behind_events: int = 0
    bound_passed: list[str] = field(
        default_factory=list
    )  # periods: of those events, what came just in time is `late`
    left: list[Left] = field(default_factory=list)  # what lies behind the marks and was not taken


@dataclass(slots=True)
class _Pending:
    """Batches of one acceptance that wait to be taken together, with the places of their leaves."""

    accepted_at: str = ""
    batches: list[tuple[int, bytes, BatchLeaf, Delivery]] = field(default_factory=list)


class Forward:
    """One operator's way forward."""

    def __init__(
        self,
        database: OneTransaction,
        raw: Connection,
        objects: Objects,
        log: ArchivedLog,
        now: datetime,
        nowhere: Nowhere,
        progress: Progress,
    ) -> None:
        self._nowhere = nowhere
        self._database = database
        self._raw = raw
        self._objects = objects
        self._log = log
        self._operator = log.operator
        self._further = Further(objects, log)
        self._now = now
        self._progress = progress
        self._replay = Replay(raw)
        self._done = Brought(log.operator, log.checkpoint.size, log.proved)
        self._pending = _Pending()
        self._between = Between(database, raw, log.operator)

    async def run(self, uncovered: Uncovered) -> Brought:
        checkpoint = self._log.checkpoint
        numbered = await replayed.numbered(self._raw, self._operator)
        grown = GrowingLog()
        await replayed.grow(self._raw, self._operator, grown, min(numbered, checkpoint.size))
        lacks = await asyncio.to_thread(self._further.lacks, grown)
        if grown.size < checkpoint.size:
            await self._write(grown.size, lacks)
            numbered = checkpoint.size
            await replayed.grow(self._raw, self._operator, grown, numbered)
            assert grown.root() == checkpoint.root, "what was written is what was read"
        if numbered <= checkpoint.size:
            await replay.set_archived_head(
                self._raw, self._operator, checkpoint.size, checkpoint.root, self._log.note, self._now
            )
        if not self._replay.told:
            async with self._replay.silenced():
                pass  # to learn which tables the log tells of
        self._done.uncovered_taken, self._done.uncovered_left = await decide(
            self._raw, self._replay, self._objects, self._operator, uncovered
        )
        await self._replay.finish_sequences()
        await self._take_behind()
        await self._compare()
        return self._done

    async def _take_behind(self) -> None:
        """What was accepted and no checkpoint covers."""
        newest = await replayed.newest_leaf_at(self._raw, self._operator)
        async with self._replay.copying():
            behind = await take_behind_marks(
                self._raw, self._database, self._objects, self._operator, self._now
            )
        self._done.behind_batches, self._done.behind_events = behind.batches, behind.events
        self._done.heartbeats += behind.heartbeats
        self._done.left = behind.left
        if behind.batches and newest is not None:
            self._done.bound_passed = await replayed.bounds_passed(
                self._raw, self._operator, newest, self._now
            )

    async def _write(self, first: int, lacks: Lacks) -> None:
        waiting = await replayed.waiting_leaves(self._raw, self._operator)
        batches = contents = None
        if lacks.batches:
            batches = await asyncio.to_thread(ArchivedBatches, self._objects, self._operator)
        if lacks.changes:
            contents = await asyncio.to_thread(ArchivedContents, self._objects, self._operator)
            await asyncio.to_thread(self._further.name_missing, contents, first, waiting)
        async with self._replay.silenced():
            index, further = first, self._further.leaves(first)
            while entries := await asyncio.to_thread(next, further, None):
                for data in entries:
                    await self._add(index, data, waiting, batches, contents)
                    index += 1
                    self._progress(
                        f"bring {self._operator} forward", index - first, self._log.checkpoint.size - first
                    )
            await self._take_waiting()

    async def _add(
        self,
        index: int,
        data: bytes,
        waiting: Mapping[bytes, int],
        batches: ArchivedBatches | None,
        contents: ArchivedContents | None,
    ) -> None:
        leaf = parse_leaf(data)
        if data in waiting:
            await self._take_waiting()
            await replay.number_leaf(self._raw, self._operator, index, waiting[data])
        elif isinstance(leaf, BatchLeaf):
            assert batches is not None
            await self._add_batch(index, data, leaf, batches)
        else:
            assert contents is not None
            await self._take_waiting()
            await self._add_change(index, data, leaf, contents)
        self._done.leaves += 1
        step("replayed")

    async def _add_batch(self, index: int, data: bytes, leaf: BatchLeaf, batches: ArchivedBatches) -> None:
        pending = self._pending
        delivery = await asyncio.to_thread(batches.get, leaf)
        between = await self._between.before(leaf, delivery, batches)
        if between or pending.accepted_at != leaf.accepted_at or len(pending.batches) >= _AT_ONCE:
            await self._take_waiting()
        self._done.heartbeats += await self._between.take(between, _instant(leaf.accepted_at))
        self._pending.accepted_at = leaf.accepted_at
        self._pending.batches.append((index, data, leaf, delivery))

    async def _take_waiting(self) -> None:
        """The batches of one acceptance, through intake; each has to be accepted as it was."""
        pending, self._pending = self._pending, _Pending()
        if not pending.batches:
            return
        accepted_at = _instant(pending.accepted_at)
        nothing = Nowhere()
        intake = Intake(nothing, PostgresLedger(self._database), nothing, nothing, clock=lambda: accepted_at)
        summary = await intake.take([delivery for *_, delivery in pending.batches])
        if summary.accepted != len(pending.batches):
            raise await self._not_taken([leaf for _, _, leaf, _ in pending.batches])
        for index, data, _, _ in pending.batches:
            await self._replay.add_leaf(self._operator, index, "batch", data, None, accepted_at)
        self._done.batches += summary.accepted
        self._done.events += summary.events

    async def _not_taken(self, leaves: Sequence[BatchLeaf]) -> Refusal:
        listed = await self._raw.fetch(
            "SELECT hash FROM batch WHERE operator = $1 AND hash = ANY ($2)",
            self._operator,
            [leaf.hash for leaf in leaves],
        )
        there = {row["hash"] for row in listed}
        faults = [
            Fault(
                await replayed.why_not_accepted(self._raw, self._operator, leaf.hash),
                f"{leaf.node}/{leaf.lane}/{leaf.epoch}-{leaf.number}",
            )
            for leaf in leaves
            if leaf.hash not in there
        ] or [Fault("it is listed already, without its leaf", leaf.hash) for leaf in leaves]
        return Refusal(
            "replay_differs",
            f"{len(faults)} batches that were accepted are not accepted again",
            where=faults[0].where,
            remedy="restore the archive from its backup, or take an older backup of the database",
            faults=faults,
        )

    async def _add_change(
        self, index: int, data: bytes, leaf: ChangeLeaf, contents: ArchivedContents
    ) -> None:
        content = await asyncio.to_thread(contents.get, leaf.commitment)
        assert content is not None, "missing contents were named before"
        if leaf.table == "period_close":
            period = json.loads(content.content)["row"]["period"]
            self._done.drafts_dropped += await self._replay.drop_drafts(self._operator, period)
        made_at = await self._replay.apply(self._operator, leaf.table, content, f"leaf {index}")
        await self._replay.add_leaf(self._operator, index, leaf.table, data, content, made_at)
        self._done.changes += 1

    async def _compare(self) -> None:
        """The sums are those that the seals say, the marks are those of the batches. Refusal: totals_differ."""
        differing = await replayed.control_totals_differ(self._raw, self._operator)
        marks = await replayed.marks_differ(self._raw, self._operator)
        if differing or marks:
            what = (
                f"hourly usage has {differing}"
                if differing
                else f"the marks of {', '.join(marks)} are others"
            )
            raise Refusal(
                "totals_differ",
                f"{what} than the sealed batches of {self._operator} say",
                where=self._operator,
                remedy="restore a backup that is older; `tally archive rebuild` finds what differs",
            )


def _instant(accepted_at: str) -> datetime:
    return _EPOCH + timedelta(microseconds=time_us_of(accepted_at))
