"""The whole road over Kafka, as processes that can be killed, and a book of its own beside it.

    sealing (here) ─▶ spool ─▶ `tally shipper` ─▶ a broker ─▶ `tally intake --workers N` ─▶ the embedded PostgreSQL

The book counts what is sealed, by lane and hour, and knows nothing of what becomes of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from embedded_postgres_witness import parts
from intake_world import HOUR_US, OPERATOR, World, Writer
from kafka.admin import KafkaAdminClient, NewPartitions, NewTopic
from kafka_broker import OwnBroker

from adapters.kafka.settings import KafkaSettings
from metering.lane_folder import LaneFolder

READY_WITHIN_S = 60
Book = dict[tuple[str, int], tuple[int, int]]


@dataclass
class Sealing:
    """Lanes that seal into the spool, each on a node of its own."""

    spool: Path
    chance: random.Random
    writers: list[Writer]
    folders: list[LaneFolder] = field(default_factory=list)
    book: dict[tuple[str, int], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))

    def open(self) -> None:
        """Each lane has one batch then."""
        self.folders = [
            LaneFolder.open(self.spool, OPERATOR, writer.node, writer.lane) for writer in self.writers
        ]
        for at in range(len(self.writers)):
            self.seal_one(at)

    def close(self) -> None:
        for folder in self.folders:
            folder.close()

    def seal(self) -> None:
        """One batch of any lane, of some events or none; now and then the next is of a later hour."""
        self.seal_one(self.chance.randrange(len(self.writers)))

    def seal_one(self, at: int) -> None:
        writer, count, prompt = self.writers[at], self.chance.randrange(6), self.chance.randrange(1, 1000)
        for number in range(count):
            entry = self.book[writer.node, (writer.time_us + 1_000_000 * (number + 1)) // HOUR_US]
            entry[0] += 1
            entry[1] += prompt
        self.folders[at].publish(writer.seal(count, prompt_tokens=prompt))
        if self.chance.random() < 0.05:
            writer.time_us += HOUR_US


class Road:
    """Shipper and workers over one broker and one data folder, and the hands of whoever breaks them."""

    def __init__(
        self,
        data: Path,
        settings: KafkaSettings,
        broker: OwnBroker | None = None,
        environ: Mapping[str, str] | None = None,
        workers: int = 2,
    ) -> None:
        self.data = data
        self.settings = settings
        self._broker = broker
        self._environ = dict(environ or {})
        self._workers = workers
        self._parts: dict[str, subprocess.Popen[bytes]] = {}
        self._log = data.parent / "road.log"

    def create_topics(self, partitions: int) -> None:
        with self._admin() as admin:
            names = (self.settings.batches, partitions), (self.settings.accepted, 1)
            admin.create_topics([NewTopic(name, count, 1) for name, count in names])

    def start(self) -> None:
        with ThreadPoolExecutor() as both:
            list(both.map(lambda begin: begin(), (self._start_shipper, self._start_intake)))

    def stop(self) -> None:
        for process in self._parts.values():
            process.send_signal(signal.SIGTERM)
        for process in self._parts.values():
            assert process.wait(60) == 0, self._log.read_text(errors="replace")[-3_000:]

    def end(self) -> None:
        """Whatever still runs, runs no more."""
        for process in self._parts.values():
            for pid in [*children(process.pid), process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
                    os.kill(pid, signal.SIGKILL)
            process.wait()

    @property
    def broker(self) -> OwnBroker:
        """The road's own, to be broken."""
        assert self._broker is not None
        return self._broker

    def workers(self) -> list[int]:
        return children(self._parts["intake"].pid)

    # -- what may happen to it -----------------------------------------------------------------------------------------

    def kill_a_worker(self, chance: random.Random) -> None:
        for pid in chance.sample(self.workers(), k=min(1, len(self.workers()))):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill_intake(self, _chance: random.Random) -> None:
        """The parent: its workers see it, and stop by themselves."""
        self._parts["intake"].kill()
        self._parts["intake"].wait()
        self._start_intake()

    def kill_the_shipper(self, _chance: random.Random) -> None:
        self._parts["shipper"].kill()
        self._parts["shipper"].wait()
        self._start_shipper()

    def kill_the_broker(self, chance: random.Random) -> None:
        self.broker.kill()
        time.sleep(chance.uniform(0, 1))
        self.broker.start()

    def cut_a_segment(self, chance: random.Random) -> None:
        """The broker is killed, and the end of a partition's last segment is not on its disk."""
        self.broker.kill()
        logs = sorted(self.broker.logs.glob(f"{self.settings.batches}-[0-9]*"))
        if logs:
            segment = sorted(chance.choice(logs).glob("*.log"))[-1]
            size = segment.stat().st_size
            os.truncate(segment, size - chance.randint(0, size // 2))
        self.broker.start()

    def kill_postgresql(self, chance: random.Random) -> None:
        for pid in parts(self.data)[:1] if chance.random() < 0.5 else parts(self.data):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def make_the_topic_again(self, _chance: random.Random) -> None:
        with self._admin() as admin:
            count = len(admin.describe_topics([self.settings.batches])[0]["partitions"])
            admin.delete_topics([self.settings.batches])
            until = time.monotonic() + 30
            while self.settings.batches in admin.list_topics():
                assert time.monotonic() < until
                time.sleep(0.05)
            admin.create_topics([NewTopic(self.settings.batches, count, 1)])

    def add_partitions(self, total: int) -> None:
        with self._admin() as admin:
            admin.create_partitions({self.settings.batches: NewPartitions(total)})

    def make_a_zombie(self, seconds: float) -> Callable[[], None]:
        """Stops a worker for longer than the group waits for it; what wakes it again."""
        pid = self.workers()[0]
        os.kill(pid, signal.SIGSTOP)
        wakes_at = time.monotonic() + seconds

        def wake() -> None:
            time.sleep(max(0.0, wakes_at - time.monotonic()))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

        return wake

    def _start_shipper(self) -> None:
        self._start("shipper", "shipper")

    def _start_intake(self) -> None:
        self._start("intake", "intake", "--workers", str(self._workers))

    def _start(self, name: str, *arguments: str) -> None:
        environ = {
            **os.environ,
            "TALLY_DATA": str(self.data),
            "TALLY_KAFKA": ",".join(self.settings.brokers),
            "TALLY_KAFKA_PREFIX": self.settings.prefix,
            **self._environ,
        }
        with self._log.open("ab") as log:
            started = subprocess.Popen(
                [sys.executable, "-m", "adapters.cli", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environ,
                start_new_session=True,
            )
        self._parts[name] = started
        assert started.stdout is not None
        line = started.stdout.readline()
        started.stdout.close()
        assert json.loads(line or b"{}").get("ready"), self._log.read_text(errors="replace")[-3_000:]

    @contextmanager
    def _admin(self) -> Iterator[KafkaAdminClient]:
        admin = KafkaAdminClient(**self.settings.client("test"))
        try:
            yield admin
        finally:
            admin.close()


def children(pid: int) -> list[int]:
    """Its child processes that live."""
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


async def wait_for_an_empty_spool(sealing: Sealing, within_s: float) -> None:
    """Until intake has acknowledged everything."""
    async with asyncio.timeout(within_s):
        while any(any(folder.sealed.iterdir()) for folder in sealing.folders):  # noqa: ASYNC110 - files
            await asyncio.sleep(0.2)


async def compare(world: World, sealing: Sealing) -> None:
    """The ledger says exactly what the book says, and its list of batches is gap-free."""
    found = await world.rows(
        "SELECT node, (extract(epoch FROM hour) / 3600)::bigint, sum(requests)::bigint, sum(prompt_tokens)::bigint"
        " FROM usage_cell GROUP BY node, hour"
    )
    says = {(str(node), hour): (requests, prompt) for node, hour, requests, prompt in found}
    written = {place: tuple(counted) for place, counted in sealing.book.items()}
    assert says == written, sorted(set(says.items()) ^ set(written.items()), key=str)
    marks = await world.rows("SELECT node, number, head FROM lane ORDER BY node")
    sealed = sorted((each.node, each.number - 1, each.previous) for each in sealing.writers)
    assert marks == sealed, (marks, sealed)
    listed = await world.rows("SELECT node, count(*), max(number) FROM batch GROUP BY node ORDER BY node")
    counts = sorted((each.node, each.number, each.number - 1) for each in sealing.writers)
    assert listed == counts, (listed, counts)
    assert await world.held() == []
    assert await world.rows("SELECT count(*) FROM set_aside") == [(0,)]
