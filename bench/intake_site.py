"""A site for the benches of intake: a database with the lanes, a Kafka broker of its own, and `tally intake` between.

Everything is real and on this machine: the embedded PostgreSQL with its ordinary settings, Apache Kafka in one process,
the command with its workers, the archive in a folder. What each process used is read from /proc.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import text

from adapters.kafka.outgoing import KafkaOutgoing
from adapters.kafka.settings import KafkaSettings
from adapters.postgres.database import Database
from adapters.postgres.embedded import discard
from adapters.postgres.open import open_database
from adapters.postgres.place import find, home_of
from bench.command import ROOT, TALLY, server
from bench.intake_load import OPERATOR, Message, customer_ids, lane_key, lane_name
from bench.processes import cpu_s, memory_kib
from bench.results import Skipped
from metering.identity import LaneKey
from metering.note import key_hash
from metering.spool import LaneRef

_PARTITIONS = 12
#: One more than there are cores: while one waits for its files and its commit, the others work.
WORKERS = 3
_LANES = text("""
    INSERT INTO lane (operator, node, lane, kind, enrolled_at)
    SELECT :operator, node, lane, 'sidecar', now()
    FROM unnest(CAST(:nodes AS text[]), CAST(:lanes AS text[])) AS w(node, lane)
""")
_KEYS = text("""
    INSERT INTO lane_key (operator, node, lane, rank, public_key, key_hash, made_at, enrolled_at)
    SELECT :operator, node, lane, 0, key, hash, now(), now()
    FROM unnest(CAST(:nodes AS text[]), CAST(:lanes AS text[]), CAST(:keys AS bytea[]), CAST(:hashes AS text[]))
        AS w(node, lane, key, hash)
""")
_TAKEN = text("SELECT coalesce(sum(events), 0)::bigint FROM batch WHERE lane = ANY(CAST(:lanes AS text[]))")

_CHECKED = text("SELECT coalesce(sum(events), 0)::bigint FROM batch WHERE root_checked")


@dataclass(frozen=True, slots=True)
class Used:
    """CPU seconds so far by kind of process, and the memory that all workers hold."""

    cpu_s: Mapping[str, float]
    workers_kib: int

    def since(self, before: Used) -> dict[str, float]:
        return {name: self.cpu_s[name] - before.cpu_s[name] for name in self.cpu_s}


@dataclass(frozen=True, slots=True)
class Sample:
    """How far intake was at a moment."""

    at: float
    events: int
    used: Used


@dataclass
class Site:
    """The database, the broker and the data folder. Each run has topics and lanes of its own."""

    data: Path
    database: Database
    broker: str
    broker_pid: int
    environment: dict[str, str] = field(default_factory=dict)
    next_lane: int = 0

    async def enrol(self, count: int, nodes: int) -> range:
        """So many more lanes on each node; their numbers."""
        lanes = range(self.next_lane, self.next_lane + count)
        self.next_lane += count
        names = [lane_name(node, lane) for lane in lanes for node in range(nodes)]
        keys = [LaneKey.public_bytes(lane_key(name)) for name in names]
        wanted = {
            "operator": OPERATOR,
            "nodes": [name.node for name in names],
            "lanes": [name.lane for name in names],
            "keys": keys,
            "hashes": [key_hash(str(name), key).hex() for name, key in zip(names, keys, strict=True)],
        }
        async with self.database.app(OPERATOR) as conn:
            await conn.execute(_LANES, {name: wanted[name] for name in ("operator", "nodes", "lanes")})
            await conn.execute(_KEYS, wanted)
        return lanes

    def topics(self, settings: Mapping[str, str] | None = None) -> KafkaSettings:
        """Two new topics, by `tally kafka prepare`; the commands that follow use them. `settings` of the first."""
        prefix = f"bench-{uuid.uuid4().hex[:8]}"
        self.environment = {"TALLY_KAFKA": self.broker, "TALLY_KAFKA_PREFIX": prefix}
        command = [sys.executable, *TALLY, "kafka", "prepare", "--partitions", str(_PARTITIONS), "--json"]
        subprocess.run(
            [*command, "--data", str(self.data)],
            env={**os.environ, **self.environment},
            cwd=ROOT,
            check=True,
            capture_output=True,
        )
        found = KafkaSettings((self.broker,), prefix)
        if settings:
            _alter(found, settings)
        return found

    async def taken(self, lanes: range) -> int:
        """Events of these lanes that are accepted."""
        async with self.database.intake() as conn:
            names = [lane_name(0, lane).lane for lane in lanes]
            found: int = (await conn.execute(_TAKEN, {"lanes": names})).scalar_one()
            return found

    def used(self, intake_pid: int) -> Used:
        """What broker, PostgreSQL, and intake with its workers have used."""
        workers = [intake_pid, *_children(intake_pid)]
        return Used(
            {
                "workers": sum(map(_cpu_s, workers)),
                "broker": _cpu_s(self.broker_pid),
                "PostgreSQL": self.postgres_cpu_s(),
            },
            sum(map(_memory_kib, workers)),
        )

    def postgres_cpu_s(self) -> float:
        """CPU seconds of the server's processes, the ended ones too."""
        server_pid = _postmaster(self.data)
        return sum(map(_cpu_s, _children(server_pid))) + _with_the_ended(server_pid)


async def ship(settings: KafkaSettings, batches: Iterable[Message]) -> None:
    """Sends them as a shipper does, acknowledged by the broker."""

    def send() -> None:
        out = KafkaOutgoing(settings)
        for each in batches:
            out.send(LaneRef(*each.lane), each.note, each.body)
        out.flush()
        out.close()

    await asyncio.to_thread(send)


async def take(
    site: Site,
    lanes: range,
    events: int,
    *,
    workers: int = WORKERS,
    program: Sequence[str] = TALLY,
    every_s: float = 0.1,
    leave_roots: bool = True,
    told: Callable[[Sample], None] = lambda _: None,
) -> list[Sample]:
    """Runs `tally intake` until all of these lanes' events are accepted; how far it was, from its first commit on.
    `told` is so at once. `leave_roots`: the second pass over Merkle roots is left for later, a figure of its own."""
    command = [sys.executable, *program, "intake", "--data", str(site.data)]
    command += ["--workers", str(workers)] if workers > 1 else []
    command += ["--leave-roots"] if leave_roots else []
    samples: list[Sample] = []
    with server(command, site.environment) as (pid, _):
        while not samples or samples[-1].events < events:
            await asyncio.sleep(every_s)
            found = await site.taken(lanes)
            if found and (not samples or found > samples[-1].events):
                samples.append(Sample(time.perf_counter(), found, site.used(pid)))
                told(samples[-1])
    return samples


async def check_roots(site: Site, seconds: float) -> tuple[int, float, dict[str, float]]:
    """Lets intake work on roots alone for some time: events whose roots it checked, wall seconds and CPU meanwhile."""
    command = [sys.executable, *TALLY, "intake", "--data", str(site.data), "--workers", str(WORKERS)]
    with server(command, site.environment) as (pid, _):
        await asyncio.sleep(2)  # until all workers are there
        before, used, began = await _checked(site), site.used(pid), time.perf_counter()
        await asyncio.sleep(seconds)
        wall, after = time.perf_counter() - began, await _checked(site)
        return after - before, wall, site.used(pid).since(used)


async def _checked(site: Site) -> int:
    async with site.database.intake() as conn:
        found: int = (await conn.execute(_CHECKED)).scalar_one()
        return found


@contextlib.asynccontextmanager
async def site(properties: Mapping[str, str] | None = None) -> AsyncIterator[Site]:
    """A new site with the operator and its customers; nothing is left of it. Skipped where Kafka is not at hand."""
    own_broker, absent = _brokers()
    folder = Path(tempfile.mkdtemp(prefix="tally-bench-"))
    data = folder / "data"
    try:
        with contextlib.ExitStack() as stack:
            try:
                broker = stack.enter_context(own_broker(folder, properties))
            except absent as reason:
                raise Skipped(str(reason)) from None
            async with open_database(data, {}) as database:
                await _declare(database)
                yield Site(data, database, broker.address, broker.pid)
    finally:
        discard(data)
        shutil.rmtree(folder, ignore_errors=True)


def _brokers() -> tuple[Any, type[BaseException]]:
    """The tests' broker, and how it says that there is none."""
    import pytest  # only here: the rest of the benches run without the tests' tools

    sys.path.insert(0, str(ROOT / "tests" / "reference"))
    from kafka_broker import own_broker

    return own_broker, pytest.skip.Exception


async def _declare(database: Database) -> None:
    async with database.app(OPERATOR) as conn:
        await conn.execute(text("INSERT INTO operator VALUES (:operator)"), {"operator": OPERATOR})
        await conn.execute(
            text("INSERT INTO subject VALUES (:operator, :id, 'customer', :slug, NULL)"),
            [
                {"operator": OPERATOR, "id": uuid.UUID(bytes=customer), "slug": f"customer-{number}"}
                for number, customer in enumerate(customer_ids())
            ],
        )


def _alter(settings: KafkaSettings, changes: Mapping[str, str]) -> None:
    from kafka import KafkaAdminClient
    from kafka.admin import ConfigResource, ConfigResourceType

    admin = KafkaAdminClient(**settings.client("bench"))
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, settings.batches, configs=dict(changes))])
    admin.close()


def _children(pid: int) -> list[int]:
    """Processes below `pid`, whatever their depth."""
    above: dict[int, list[int]] = defaultdict(list)
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (path / "stat").read_text().rpartition(")")[2].split()
                above[int(fields[1])].append(int(path.name))
    found, left = list[int](), [pid]
    while left:
        below = above[left.pop()]
        found += below
        left += below
    return found


def _cpu_s(pid: int) -> float:
    """0 of a process that has ended meanwhile: its parent's figures hold it."""
    try:
        return cpu_s(pid)
    except OSError:
        return 0.0


def _memory_kib(pid: int) -> int:
    try:
        return memory_kib(pid)
    except (OSError, StopIteration):
        return 0


def _with_the_ended(pid: int) -> float:
    """CPU seconds of a process and of its children that have ended (proc(5), stat: fields 14 to 17)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _postmaster(data: Path) -> int:
    place = find(home_of(data))
    assert place is not None
    return int((place.cluster / "postmaster.pid").read_text().splitlines()[0])
