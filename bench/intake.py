"""Intake's speed: events a second from Kafka to committed hourly usage, on this machine, with everything on it.

Demanded, on two cores: 2,000,000 a second where each of 10,000 customers is on one or two of a hundred nodes, 1,000,000
where every customer uses every node and model; the same cost of an event from the first million to the hundredth (tenths
2 and 3 of the run are held against 8 and 9, and what differs is drawn out to the whole). Load: intake_load.py; what
runs: intake_site.py. The messages lie in Kafka before intake starts. The rate counts from the first commit that is seen
to the last; CPU is that of all of the broker's, PostgreSQL's and the workers' processes in between.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import text

from adapters.postgres.roll_up import roll_up
from bench.intake_load import CUSTOMERS, MODELS, Shape, messages, pool
from bench.intake_site import WORKERS, Sample, Site, check_roots, ship, site, take
from bench.results import Measured
from metering.batch import MAX_EVENTS, SealedBatch, check_root, read_body

CHECKED = (
    "checked in each batch: Ed25519 signature, seal's form, body's SHA-256 and sizes, page sizes before decoding, row count,"
    " sequence numbers, order of times, complete_to, impossible events, control totals; in the lane: chain, numbers, lane's"
    " key, customers known; archived and on disk before the commit, synchronous_commit on; not: Merkle roots,"
    " which are the second pass and a figure of its own"
)


SMALL_EVENTS = 100
_LONG = 40_000_000
_EARLY, _LATE = (0.1, 0.3), (0.7, 0.9)
_BETWEEN = 0.6
"""Of a run, from the middle of the early part to that of the late."""


@dataclass(frozen=True, slots=True)
class Run:
    """One load: its name in the figures, its shape, lanes a node, and events a second that are demanded."""

    name: str
    shape: Shape
    lanes: int
    demanded: int = 0

    @property
    def events(self) -> int:
        return self.lanes * self.shape.nodes * self.shape.slots * self.shape.events


def runs(quick: bool) -> list[Run]:
    if quick:
        small = Shape(events=2_000, slots=2, nodes=10)
        return [
            Run("spread", small, 2),
            Run("everywhere", Shape(events=2_000, slots=2, nodes=10, everywhere=True), 1),
            Run("batches of 100", Shape(events=SMALL_EVENTS, slots=2, nodes=10), 2),
        ]
    return [
        Run("spread", Shape(slots=5), 20, 2_000_000),
        Run("everywhere", Shape(slots=3, everywhere=True), 2, 1_000_000),
        Run("batches of 100", Shape(events=SMALL_EVENTS, slots=20), 2),
    ]


def measure(quick: bool) -> Measured:
    return asyncio.run(_measure(quick))


async def _measure(quick: bool) -> Measured:
    found = Measured()
    found.notes.append(CHECKED)
    found.notes.append(
        f"{CUSTOMERS} customers, {len(MODELS)} models; a pool of bodies is sealed for as many lanes as are needed: a body"
        f" names no lane, so every batch has a place of its own; batches of {MAX_EVENTS} events unless named;"
        f" {WORKERS} workers"
    )
    async with site() as here:
        for run in runs(quick):
            batches = await asyncio.to_thread(pool, run.shape)
            lanes = await here.enrol(run.lanes, run.shape.nodes)
            settings = here.topics()
            await ship(settings, messages(batches, lanes, by_lane=run.shape.everywhere))
            # looking costs some ms each time: seldom where it takes a minute
            every_s = 0.5 if run.events >= _LONG else 0.1
            _speed(found, run, await take(here, lanes, run.events, every_s=every_s), quick)
            if run.shape.events == SMALL_EVENTS:
                continue
            if not run.shape.everywhere:
                _root(found, batches)
                await _root_pass(found, here, quick)
            await _roll_up(found, run, here)
            await _stages(found, run, here, batches)
    return found


def _speed(found: Measured, run: Run, samples: list[Sample], quick: bool) -> None:
    """Events a second, CPU of an event by process, and how both and the memory hold from beginning to end."""
    first, last = samples[0], samples[-1]
    events = last.events - first.events
    if not events:  # all of them in one commit
        found.notes.append(f"{run.name}: too few events for a rate")
        return
    demanded = f"≥ {run.demanded}" if run.demanded and not quick else ""
    found.add(f"{run.name}: events", run.events)
    found.add(f"{run.name}: events a second", round(events / (last.at - first.at)), "/s", demanded)
    for name, spent in last.used.since(first.used).items():
        found.add(f"{run.name}: CPU of {name}", spent / events * 1e6, "s per million events")
    total = sum(last.used.since(first.used).values())
    found.add(f"{run.name}: CPU in all", total / events * 1e6, "s per million events")
    found.add(f"{run.name}: CPU of a batch", total / events * run.shape.events * 1e3, "ms")
    found.add(
        f"{run.name}: most memory of the workers", max(s.used.workers_kib for s in samples) // 1024, "MiB"
    )
    if run.events >= _LONG:
        _flat(found, run, samples)


def _flat(found: Measured, run: Run, samples: list[Sample]) -> None:
    """The second and third tenth beside the eighth and ninth: workers start in the first, and in the last some have done.

    Two of them on one core's two threads are slower each than one alone, so that a tenth in which some have done seems
    cheaper.
    """
    costs, memories = [], []
    for start, end in (_EARLY, _LATE):
        part = [s for s in samples if start * run.events <= s.events <= end * run.events]
        spent = sum(part[-1].used.since(part[0].used).values())
        costs.append(spent / (part[-1].events - part[0].events) * 1e6)
        memories.append(max(s.used.workers_kib for s in part) / 1024)
    found.add(f"{run.name}: CPU in tenths 2 and 3", costs[0], "s per million events")
    found.add(f"{run.name}: CPU in tenths 8 and 9", costs[1], "s per million events")
    drift = (100 * costs[1] / costs[0] - 100) / _BETWEEN
    found.add(f"{run.name}: CPU from beginning to end", drift, "%", "± 10")
    found.add(f"{run.name}: memory, tenths 2 and 3", round(memories[0]), "MiB")
    found.add(f"{run.name}: memory, tenths 8 and 9", round(memories[1]), "MiB")
    found.add(f"{run.name}: memory at the end", samples[-1].used.workers_kib // 1024, "MiB")


async def _roll_up(found: Measured, run: Run, here: Site) -> None:
    """What it costs to make one row a cell of all hours."""
    async with here.database.intake() as conn:
        parts = (
            await conn.execute(
                text("SELECT coalesce(sum(cardinality(customer)), 0)::bigint FROM partial_sum")
            )
        ).scalar_one()
    # By then no lane has spoken for an hour, so all hours are whole.
    before, began = here.postgres_cpu_s(), time.perf_counter()
    hours = await roll_up(here.database, datetime.now(UTC) + timedelta(hours=2))
    seconds, spent = time.perf_counter() - began, here.postgres_cpu_s() - before
    found.add(f"{run.name}: partial sums", parts)
    found.add(f"{run.name}: hours rolled up at the end", hours)
    if parts:
        found.add(f"{run.name}: roll-up of a partial sum", spent / parts * 1e6, "µs of CPU")
        found.add(f"{run.name}: roll-up", seconds, "s")


async def _stages(found: Measured, run: Run, here: Site, batches: list[list[SealedBatch]]) -> None:
    """One worker, its stages timed."""
    lanes = await here.enrol(1, run.shape.nodes)
    await ship(here.topics(), messages(batches, lanes, by_lane=True))
    events = len(lanes) * run.shape.nodes * run.shape.slots * run.shape.events
    with tempfile.TemporaryDirectory() as scratch:
        stages = Path(scratch) / "stages.json"
        program = ("-m", "bench.intake_stages", str(stages))
        await take(here, lanes, events, workers=1, program=program)
        spent: dict[str, float] = json.loads(stages.read_text())
    whole = spent.pop("all")
    for stage, seconds in spent.items():
        found.add(f"{run.name}: stage {stage}", seconds / events * 1e6, "s per million events")
    rest = whole - sum(spent.values())
    found.add(
        f"{run.name}: stage all else of the worker",
        rest / events * 1e6,
        "s per million events",
    )


async def _root_pass(found: Measured, here: Site, quick: bool) -> None:
    """Intake with nothing but roots to do, all of its workers."""
    events, seconds, used = await check_roots(here, 2 if quick else 20)
    if events:
        found.add("root pass of all workers", round(events / seconds), "events a second")
        found.add("root pass: CPU in all", sum(used.values()) / events * 1e6, "s per million events")


def _root(found: Measured, batches: list[list[SealedBatch]]) -> None:
    """The second pass over a batch: its root from its events."""
    some = [chain[0] for chain in batches[:20]]
    began = time.process_time()
    for batch in some:
        check_root(batch.seal, read_body(batch.seal, batch.body))
    spent = time.process_time() - began
    found.add(
        "root pass", spent / sum(batch.seal.events for batch in some) * 1e6, "s of CPU per million events"
    )
