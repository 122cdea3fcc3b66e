"""Intake workers on the twin of Kafka and the real PostgreSQL, each stopped at every turn of its way.

A worker is `billing.intake.Intake` as it is, with the real ledger. Its ports are wrapped so that it stands still before
and after each question to the database, each write of files and each word to Kafka; within a transaction too, with the
locks of its lanes held. So whatever another worker, or the world, can do in between, it can do here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import pyarrow as pa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kafka_twin import BATCHES, KafkaTwin, TwinSource
from turns import Actor, Turns

from billing.acceptance import Known, Mark
from billing.inspection import LaneName
from billing.intake import Intake
from billing.intake_ports import Acceptance, BatchStore, Lateness, Ledger, StoredBatch, Taking
from metering.acknowledgement import Acknowledgement, sign_acknowledgement
from metering.batch import Seal
from metering.refusal import Unavailable


class Store:
    """A store of batches whose disk may be full: it then takes the first batch of those that it is given."""

    def __init__(self, store: BatchStore) -> None:
        self._store = store
        self.is_full = False

    def put(self, batches: Sequence[StoredBatch]) -> None:
        if self.is_full:
            self._store.put(batches[:1])
            raise Unavailable("archive_unavailable", "no space left on device")
        self._store.put(batches)

    def get(self, path: str) -> StoredBatch | None:
        return self._store.get(path)

    def note(self, path: str) -> bytes | None:
        return self._store.note(path)

    def events(self, path: str) -> pa.Table:
        return self._store.events(path)

    def remove(self, paths: Sequence[str]) -> None:
        self._store.remove(paths)


class SteppedAcceptance:
    """`billing.intake_ports.Acceptance` with a turn before each of its statements."""

    def __init__(self, acceptance: Acceptance, turns: Turns) -> None:
        self._acceptance = acceptance
        self._turns = turns

    @property
    def marks(self) -> Mapping[LaneName, Mark]:
        return self._acceptance.marks

    async def known(self, wanted: Sequence[Seal]) -> Mapping[LaneName, Known]:
        await self._turns.turn("before known")
        return await self._acceptance.known(wanted)

    async def lateness(self, operators: Collection[str]) -> Mapping[str, Lateness]:
        return await self._acceptance.lateness(operators)

    async def write(self, taking: Taking, accepted_at: datetime) -> Sequence[str]:
        await self._turns.turn("before write")
        settled = await self._acceptance.write(taking, accepted_at)
        await self._turns.turn("before commit")
        return settled


class SteppedLedger:
    """`billing.intake_ports.Ledger` with turns. What has none of its own goes through by `__getattr__`."""

    def __init__(self, ledger: Ledger, turns: Turns) -> None:
        self._ledger = ledger
        self._turns = turns

    def __getattr__(self, name: str) -> object:
        return getattr(self._ledger, name)

    @asynccontextmanager
    async def accept(self, names: Collection[LaneName]) -> AsyncIterator[SteppedAcceptance]:
        await self._turns.turn("before locks")
        async with self._ledger.accept(names) as acceptance:
            await self._turns.turn("locked")
            yield SteppedAcceptance(acceptance, self._turns)
        await self._turns.turn("committed")

    async def roll_up(self, now: datetime) -> int:
        await self._turns.turn("before roll-up")
        return await self._ledger.roll_up(now)


class Worker:
    """One worker process after another under one name: a kill throws the memory away, the next start makes a new one."""

    def __init__(
        self,
        name: str,
        kafka: KafkaTwin,
        ledger: Ledger,
        archive: BatchStore,
        held: BatchStore,
        turns: Turns,
        keys: Mapping[str, Ed25519PrivateKey],
        clock: Callable[[], datetime],
    ) -> None:
        self.actor = Actor(name)
        self.swept = 0
        self.faults: list[Exception] = []
        self._stores, self._clock = (archive, held), clock
        self._kafka, self._ledger, self._turns, self._keys = kafka, ledger, turns, keys
        self._positions: dict[str, Mapping[int, int]] = {}
        self._source: TwinSource | None = None
        self._intake: Intake | None = None

    @property
    def is_busy(self) -> bool:
        return self.actor.task is not None and not self.actor.task.done()

    def sweep(self) -> None:
        """Begin a sweep and a roll-up; a worker that was killed begins anew."""
        if self._intake is None:
            self._source = TwinSource(self._kafka, self.actor.name, self._known, self._sign)
            stepped: Any = SteppedLedger(self._ledger, self._turns)  # most of it goes through by __getattr__
            self._intake = Intake(self._source, stepped, *self._stores, clock=self._clock)
        self._turns.start(self.actor, self._sweep(self._intake))

    async def kill(self) -> None:
        """SIGKILL, wherever it stands. The group does not know yet."""
        self._intake = self._source = None
        await self._turns.kill(self.actor)

    async def _sweep(self, intake: Intake) -> None:
        try:
            await self._turns.turn("before sweep")
            # Asked here because the twin's source can't wait for the database: as old as the next turn makes it.
            source = self._kafka.source_of(BATCHES)
            self._positions[source] = await self._ledger.positions(source)
            await intake.take_pending()
            await intake.roll_up()
            self.swept += 1
        except Unavailable:
            pass  # the loop of a running intake waits, and begins again
        except Exception as fault:
            self.faults.append(fault)

    def _known(self, source: str) -> Mapping[int, int]:
        return self._positions.get(source, {})

    def _sign(self, name: LaneName, mark: Mark) -> bytes:
        assert mark.epoch is not None
        said = Acknowledgement(*name, epoch=mark.epoch, number=mark.number, hash=mark.head)
        return sign_acknowledgement(said, self._keys[name.operator])
