"""The simulated world: sites, Kafka, intake workers, and everything that may happen to them, by a seed.

One seed is one world: some machines with a lane each, each with its shipper, on the twin of Kafka; some intake workers on
the real PostgreSQL. A step is one thing that one of them does (a request, a seal, a sweep of the shipper, one turn of one
worker) or one fault. Then everything heals, time goes on until nothing moves any more, and the auditor closes its book.

    kill            a lane's process, a shipper, a worker at a turn: its memory is gone
    started again   a lane, when everything of it is acknowledged, beside its living shipper
    duplicate, reorder, delay    what lies between a shipper and the brokers
    partition       a site or a worker reaches no broker; the brokers are away for all
    disk full       of a machine after some calls more; of the archive
    power cut       of a machine: only what was fsynced is certain
    clock jump      of a machine's wall clock, up to a quarter of an hour either way
    rebalance       workers join, leave, and are given up while they stand somewhere: zombies that go on later
    restored disk   a machine's disk is lost, its backup goes on
    cloned machine  a copy runs beside the original
    topic           truncated at its end, expired at its front, deleted and made anew, partitions added, compacted
    PostgreSQL      every session ends
    junk            under a lane's name, signed by nobody that it knows

Chance is one generator, the time is a number, ids come from the same generator (conftest.py): the same seed does the same
again, byte for byte.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from auditor import Auditor
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kafka_twin import ACCEPTED, BATCHES, KafkaTwin, Message, TwinOutgoing
from machine import LANE_STEPS, Machine, dies_at
from turns import Killed, Turns
from workers import Store, Worker

from adapters.archive import BatchObjects
from adapters.objects import FolderObjects
from adapters.postgres.database import Database
from adapters.postgres.intake import PostgresLedger
from adapters.postgres.lane_keys import enroll_lane
from metering.event import Event
from metering.identity import LaneKey, new_id
from metering.refusal import Unavailable
from metering.shipper import Shipper
from metering.spool import Spool

OPERATOR = "telecentras"
START_US = 1_791_187_200_000_000
SECOND_US = 1_000_000
CUSTOMERS = [uuid.UUID(int=n).bytes for n in (1, 2, 3)]
MODELS = ("qwen3-32b", "qwen3-8b", "whisper")


class World:
    """One seed's world. `await world.live(steps)`, `await world.rest()`, `await world.audit()`."""

    def __init__(
        self,
        seed: int,
        folder: Path,
        database: Database,
        monkeypatch: pytest.MonkeyPatch,
        connection: asyncpg.Connection[Any],
    ) -> None:
        self.chance = random.Random(seed)
        # Of its own, so that worlds in which no lane is started again after all go on as they went without it.
        self._again = random.Random(f"starts {seed}")
        self.folder = folder
        self.now_us = START_US + self.chance.randrange(3_600) * SECOND_US
        self.kafka = KafkaTwin(partitions=self.chance.randint(1, 4))
        self.turns = Turns(self._blocked)
        self.auditor = Auditor()
        self.told: list[str] = []  # what happened, for whoever reads a failing seed
        self._database = database
        self._monkeypatch = monkeypatch
        self._connection = connection
        self._intake_key = self._key()
        self._heard = 0
        self._copies = 0
        self._held_back: list[Message] = []
        self.archive = Store(BatchObjects(FolderObjects(folder / "archive")))
        self.held = Store(BatchObjects(FolderObjects(folder / "held")))
        self.machines = [self._machine(n) for n in range(self.chance.randint(2, 4))]
        self.shippers: dict[Machine, Shipper | None] = dict.fromkeys(self.machines)
        self.workers = [self._worker(n) for n in range(self.chance.randint(2, 3))]
        self.turns.actors = [worker.actor for worker in self.workers]
        self._wires: dict[Machine, str] = {}

    def now(self) -> datetime:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=self.now_us)

    async def begin(self) -> None:
        """The operator, its customers and its lanes are known, and the machines run."""
        async with self._database.app(OPERATOR) as conn:
            await conn.exec_driver_sql(f"INSERT INTO operator VALUES ('{OPERATOR}')")
            for n, customer in enumerate(CUSTOMERS):
                await conn.exec_driver_sql(
                    f"INSERT INTO subject VALUES ('{OPERATOR}', '{uuid.UUID(bytes=customer)}', 'customer', 'c{n}')"
                )
        async with self._database.app(OPERATOR) as conn:
            for each in self.machines:
                public = LaneKey.public_bytes(each.key)
                await enroll_lane(conn, OPERATOR, each.node, each.lane_name, "sidecar", public, self.now())
        for each in self.machines:
            each.start()

    async def live(self, steps: int, faults: float) -> None:
        """So many steps; of them the share `faults` breaks something."""
        for _ in range(steps):
            self.now_us += self.chance.choice((0, 50_000, SECOND_US, 5 * SECOND_US))
            if self.chance.random() < 0.06:
                self.now_us += (
                    25 * 60 * SECOND_US
                )  # hours become whole, lanes fall silent and speak of them after all
            if self._again.random() < 0.004:
                await self._start_again_after_all()
            if self.chance.random() < faults:
                await self._fault()
            else:
                await self._step()
            await self._hear()

    # -- what goes on --------------------------------------------------------------------------------------------------

    async def _step(self) -> None:
        choice = self.chance.random()
        if choice < 0.45:
            await self._worker_step(self.chance.choice(self.workers))
        elif choice < 0.65:
            self._ship(self.chance.choice(self.machines))
        else:
            self._machine_step(self.chance.choice(self.machines))

    def _machine_step(self, machine: Machine) -> None:
        machine.start()
        if self.chance.random() < 0.5:
            machine.serve(self.chance.randint(1, 3), leave_open=self.chance.random() < 0.2)
        else:
            self.now_us += self.chance.choice((0, 11 * SECOND_US))
            machine.seal()
        self.auditor.look_at(machine)

    async def _worker_step(self, worker: Worker) -> None:
        """It goes on to its next turn; one that waits for a lock is left to wait."""
        if not worker.is_busy:
            worker.sweep()
            await self.turns.settle()
        elif worker.actor.waits:
            await self.turns.go_on(worker.actor)

    def _ship(self, machine: Machine) -> None:
        """A sweep of its shipper."""
        shipper = self.shippers[machine]
        try:
            if shipper is None:
                outgoing = TwinOutgoing(
                    self.kafka, str(machine), wire=lambda sent: self._carry(machine, sent)
                )
                shipper = self.shippers[machine] = self._shipper(machine, outgoing)
            shipper.sweep()
        except Unavailable:
            pass  # its loop waits, and begins again
        except Killed:
            self._end_shipper(machine)
        finally:
            dies_at(None)

    def _carry(self, machine: Machine, sent: list[Message]) -> list[Message]:
        """What arrives at the brokers of what a shipper sent."""
        wire = self._wires.get(machine)
        if wire is None or not sent:
            return sent
        self._wires.pop(machine)
        if wire == "duplicate":
            return [*sent, self.chance.choice(sent)]
        if wire == "reorder":
            return self.chance.sample(sent, len(sent))
        self._held_back += sent  # acknowledged by a broker, and seen by nobody for a while
        return []

    async def _hear(self) -> None:
        """The auditor hears every acknowledgement when it is said."""
        words = [message.value for message in self.kafka.topics[ACCEPTED].partitions[0].messages if message]
        if len(words) > self._heard:
            await self.auditor.check_words(self._connection, self.folder / "archive", words[self._heard :])
            self._heard = len(words)

    # -- what goes wrong -----------------------------------------------------------------------------------------------

    async def _fault(self) -> None:
        faults: Sequence[Callable[[], Any]] = (
            self._kill_a_lane,
            self._kill_a_lane,
            self._kill_a_shipper,
            self._kill_a_worker,
            self._kill_a_worker,
            self._wire,
            self._wire,
            self._partition,
            self._brokers,
            self._disk_full,
            self._archive_full,
            self._power_cut,
            self._clock_jump,
            self._rebalance,
            self._rebalance,
            self._restore,
            self._clone,
            self._topic,
            self._topic,
            self._postgres,
            self._junk,
        )
        fault = self.chance.choice(faults)
        self.told.append(fault.__name__.removeprefix("_"))
        done = fault()
        if done is not None:
            await done

    def _kill_a_lane(self) -> None:
        machine = self.chance.choice(self.machines)
        if self.chance.random() < 0.3:
            machine.kill()
        else:
            dies_at(self.chance.choice(LANE_STEPS), self.chance.randint(1, 2))
            work: Callable[[], None] = self.chance.choice((machine.start, machine.seal, self._serve(machine)))
            work()
        self.auditor.look_at(machine)

    async def _start_again_after_all(self) -> None:
        """A lane is started again once everything of it is acknowledged, beside its shipper, which lives on."""
        await self._finish_sweeps()
        machine = self.chance.choice(self.machines)
        machine.start()
        for _ in range(self.chance.randint(8, 12)):  # more than it seals afterwards
            machine.serve(1)
            machine.seal()
            self.auditor.look_at(machine)
        for _ in range(6):
            self._ship(machine)
            for worker in self.workers:
                worker.sweep()
            await self._finish_sweeps()
            await self._hear()
        left = len(list(machine.sealed.glob("*.seal")))
        self.told.append(f"started again, {left} left")
        machine.kill()
        machine.start()
        self.auditor.look_at(machine)

    def _serve(self, machine: Machine) -> Callable[[], None]:
        return lambda: machine.serve(3)

    def _kill_a_shipper(self) -> None:
        machine = self.chance.choice(self.machines)
        if self.chance.random() < 0.5:
            dies_at("acknowledged", self.chance.randint(1, 2))
            self._ship(machine)
        else:
            self._end_shipper(machine)

    def _end_shipper(self, machine: Machine) -> None:
        """Its process is gone: what it had handed over and not flushed, and its lock."""
        shipper = self.shippers[machine]
        self.shippers[machine] = None
        if shipper is not None:
            shipper.close()

    async def _kill_a_worker(self) -> None:
        worker = self.chance.choice(self.workers)
        if worker.actor.waits:
            self.told.append(f"at {worker.actor.at}")
            await worker.kill()

    def _wire(self) -> None:
        self._wires[self.chance.choice(self.machines)] = self.chance.choice(("duplicate", "reorder", "delay"))

    def _partition(self) -> None:
        cut = self.kafka.cut
        if cut:
            cut.clear()
        else:
            cut.add(str(self.chance.choice(self.machines)))
            if self.chance.random() < 0.3:
                cut.add(self.chance.choice(self.workers).actor.name)

    def _brokers(self) -> None:
        self.kafka.is_up = not self.kafka.is_up
        self._deliver_late()

    def _deliver_late(self) -> None:
        late, self._held_back = self._held_back, []
        for message in late:
            self.kafka.topics[BATCHES].append(message)

    def _disk_full(self) -> None:
        machine = self.chance.choice(self.machines)
        if self.chance.random() < 0.5:
            machine.fills_up(self._monkeypatch, self.chance.randint(0, 6))
        else:
            machine.has_room()

    def _archive_full(self) -> None:
        store = self.chance.choice((self.archive, self.held))
        store.is_full = not store.is_full

    def _power_cut(self) -> None:
        machine = self.chance.choice(self.machines)
        if not machine.is_recorded:
            machine.record(self._monkeypatch)
            return
        self._end_shipper(machine)

        def work() -> None:
            for _ in range(3):
                machine.start()
                machine.serve(2)
                machine.seal()
                self.auditor.look_at(machine)

        before = machine.folder
        self._copies += 1
        machine.lose_power(self.chance.randint(1, 40), work, self.folder / f"spool-{self._copies}")
        self.auditor.heads[machine.folder] = self.auditor.heads.pop(before, "genesis")
        self.auditor.look_at(machine)

    def _clock_jump(self) -> None:
        self.chance.choice(self.machines).clock.skew_us += self.chance.randint(-900, 900) * SECOND_US

    def _rebalance(self) -> None:
        worker = self.chance.choice(self.workers)
        group = self.kafka.group
        (group.leave if worker.actor.name in group.members else group.join)(worker.actor.name)

    def _restore(self) -> None:
        """A copy is made; later the disk is lost, and the copy takes its place."""
        machine = self.chance.choice(self.machines)
        self._copies += 1
        backup = machine.copy(self.folder / f"spool-{self._copies}")
        backup.kill()
        for _ in range(self.chance.randint(0, 3)):
            self._machine_step(machine)
            if self.chance.random() < 0.5:
                self._ship(machine)
        self._end_shipper(machine)
        machine.kill()
        self.auditor.lose_disk(machine)
        self.machines[self.machines.index(machine)] = backup
        self.shippers[backup] = self.shippers.pop(machine)
        self._adopt(machine, backup)

    def _clone(self) -> None:
        if len(self.machines) > 5:
            return
        machine = self.chance.choice(self.machines)
        self._copies += 1
        clone = machine.copy(self.folder / f"spool-{self._copies}")
        self.machines.append(clone)
        self.shippers[clone] = None
        self._adopt(machine, clone)
        clone.start()

    def _adopt(self, machine: Machine, copy: Machine) -> None:
        """The copy's chain ends where its folder says so."""
        self.auditor.branched.add((machine.operator, machine.node, machine.lane_name))
        head = copy.sealed.parent / "head"
        if head.exists():
            self.auditor.heads[copy.folder] = sha256(head.read_bytes()).hexdigest()

    def _topic(self) -> None:
        """Nobody is promised anything by a topic."""
        kafka, topic = self.kafka, self.kafka.topics[BATCHES]
        number = self.chance.randrange(len(topic.partitions))
        partition = topic.partitions[number]
        somewhere = self.chance.randint(partition.start, partition.end)
        match self.chance.randrange(5):
            case 0:
                kafka.truncate(BATCHES, number, somewhere)
            case 1:
                kafka.expire(BATCHES, number, somewhere)
            case 2:
                kafka.create(BATCHES, len(topic.partitions))
            case 3:
                kafka.add_partitions(BATCHES, len(topic.partitions) + 1)
            case _:
                kafka.compact(ACCEPTED)
                self._heard = sum(
                    message is not None for message in kafka.topics[ACCEPTED].partitions[0].messages
                )

    async def _postgres(self) -> None:
        """Every session of a worker ends, as in a restart; what was committed is there."""
        await self._connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE usename = 'tally_intake' AND datname = current_database()"
        )
        await self.turns.settle()

    def _junk(self) -> None:
        """Bytes under a lane's key that claim to be of it."""
        machine = self.chance.choice(self.machines)
        key = f"{machine.operator}/{machine.node}/{machine.lane_name}".encode()
        seen = [each for each in self.auditor.seen.values() if "/".join(each.lane).encode() == key]
        note = self.chance.randbytes(40)
        if seen and self.chance.random() < 0.7:
            note = self.chance.choice(seen).note.replace(b"\nopened ", b"\nopened 1")
        body = self.chance.randbytes(10)
        self.auditor.junk.add(sha256(note + body).hexdigest())
        self.kafka.topics[BATCHES].append(Message(key, note, body))

    # -- the end -------------------------------------------------------------------------------------------------------

    async def rest(self) -> None:
        """Everything heals, every lane seals what it has, and time goes on until nothing moves any more."""
        self.kafka.is_up = True
        self.kafka.cut.clear()
        self._wires.clear()
        self._deliver_late()
        self.archive.is_full = self.held.is_full = False
        await self._finish_sweeps()
        for worker in self.workers:
            self.kafka.group.join(worker.actor.name)
        for machine in self.machines:
            machine.has_room()
            last = (machine.start, machine.seal, machine.finish, machine.seal, machine.stop)
            for work in (
                *last,
                machine.start,
                machine.stop,
            ):  # the second start ends what the first left in the air
                self.now_us += 2 * SECOND_US
                work()
                self.auditor.look_at(machine)
        unchanged = 0
        # A shipper that nobody answers tries what it has one by one: every batch has its turn.
        while unchanged < 2 + max(len(list(each.sealed.glob("*.seal"))) for each in self.machines):
            before = await self._state()
            self.now_us += (
                61 * 60 * SECOND_US
            )  # longer than any shipper waits before it sends something again
            for machine in self.machines:
                self._ship(machine)
            for worker in self.workers:
                if worker.actor.name in self.kafka.group.members:
                    worker.sweep()
            await self._finish_sweeps()
            await self._hear()
            for worker in self.workers[1:]:  # one is enough for the rest
                self.kafka.group.leave(worker.actor.name)
            unchanged = unchanged + 1 if await self._state() == before else 0

    async def _state(self) -> object:
        """What is still to change while time goes on."""
        waiting = [path.name for each in self.machines for path in each.sealed.glob("*.seal")]
        rows = await self._connection.fetchrow(
            "SELECT (SELECT count(*) FROM batch), (SELECT count(*) FROM held), (SELECT count(*) FROM partial_sum)"
        )
        return sorted(waiting), rows

    async def _finish_sweeps(self) -> None:
        """Workers go on in turn until all of them are through."""
        for _ in range(10_000):
            busy = [worker for worker in self.workers if worker.is_busy]
            if not busy:
                return
            for worker in busy:
                if worker.actor.waits:
                    await self.turns.go_on(worker.actor)
            await self.turns.settle()
        raise AssertionError("the workers do not come to an end")

    async def audit(self) -> list[str]:
        """What is wrong."""
        faults = [f"a worker failed: {fault!r}" for worker in self.workers for fault in worker.faults]
        return faults + await self.auditor.close(self._connection, self.folder / "archive", self.machines)

    async def end(self) -> None:
        """Nothing of it goes on: every worker and every lane is killed."""
        for worker in self.workers:
            if worker.actor.waits:
                await worker.kill()
        for machine in self.machines:
            machine.kill()

    # -- makers --------------------------------------------------------------------------------------------------------

    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.chance.randbytes(32))

    def _machine(self, number: int) -> Machine:
        folder = self.folder / f"site-{number}"
        folder.mkdir()
        return Machine(
            f"vilnius-{number // 2}",
            f"sidecar-{number % 2}",
            self._key(),
            folder,
            lambda: self.now_us,
            self.chance,
            operator=OPERATOR,
            make=self._event,
        )

    def _worker(self, number: int) -> Worker:
        ledger = PostgresLedger(self._database)
        keys = {OPERATOR: self._intake_key}
        return Worker(
            f"worker-{number}", self.kafka, ledger, self.archive, self.held, self.turns, keys, self.now
        )

    def _shipper(self, machine: Machine, outgoing: TwinOutgoing) -> Shipper:
        public = LaneKey.public_bytes(self._intake_key)
        return Shipper(Spool(machine.folder), outgoing, lambda _: public, machine.clock)

    def _event(self, time_us: int) -> Event:
        chance = self.chance
        completion = chance.randrange(1_000)
        return Event(
            kind="usage",
            time_us=time_us,
            request=new_id(),
            names=None,
            customer=chance.choice(CUSTOMERS),
            project=None,
            key=None,
            endpoint="chat",
            model=chance.choice(MODELS),
            outcome=chance.choice(("finished", "finished", "aborted", "failed")),
            prompt_tokens=chance.choice((10, 31_999, 32_000, 32_001, 200_001, 3_000_000)),
            cached_tokens=chance.randrange(10),
            completion_tokens=completion,
            reasoning_tokens=chance.randint(0, completion),
            generated_tokens=chance.choice((None, completion, completion + 7)),
            audio_seconds=0,
            request_digest=None,
        )

    async def _blocked(self) -> int:
        """Sessions of workers that wait for a lock."""
        return int(
            await self._connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE usename = 'tally_intake' AND wait_event_type = 'Lock'"
                " AND datname = current_database()"
            )
        )
