"""A billion events through Kafka into committed hourly usage: in at most 12 minutes, within bounds of disk and memory.

The load is that of `bench intake` ("spread"): 100,000 batches of 10,000 events on a hundred nodes, 100 lanes each. A
shipper seals and sends them while intake's workers take them in, and keeps at most so many ahead. The topic keeps its
newest gigabyte or so, as a small disk would; the archive is the ordinary one, but what is older than its newest 5 GB is
deleted behind intake: a sink. Refuses to begin with less than 40 GB free, and on less than that many bytes it would
still run: the rest is for PostgreSQL, whose partial sums are rolled up hour by hour as on any other day.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.intake import CHECKED
from bench.intake_load import Message, Shape, messages, pool
from bench.intake_site import Sample, Site, ship, site, take
from bench.results import Measured, Skipped

WITHIN_S = 720
FREE_BYTES = 40_000_000_000
ARCHIVE_BYTES = 5_000_000_000
#: The topic holds so much of each partition: more than AHEAD_EVENTS could weigh if a third of the partitions, one
#: worker's, held nearly all of them, for what a topic lets go unread would be a hole.
RETENTION_BYTES = 400_000_000
SEGMENT_BYTES = 50_000_000
AHEAD_EVENTS = 30_000_000
_EVERY_S = 1.0


def measure(quick: bool) -> Measured:
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < FREE_BYTES and not quick:
        raise Skipped(f"{free // 10**9} GB of disk are free in {tempfile.gettempdir()}, 40 are needed")
    shape, lanes = (Shape(events=2_000, slots=2, nodes=10), 3) if quick else (Shape(slots=10), 100)
    return asyncio.run(_measure(shape, lanes, quick))


async def _measure(shape: Shape, lanes_each: int, quick: bool) -> Measured:
    found, events = Measured(), lanes_each * shape.nodes * shape.slots * shape.events
    found.notes.append(CHECKED)
    batches = await asyncio.to_thread(pool, shape)
    properties = {"log.retention.check.interval.ms": "2000", "log.segment.bytes": str(SEGMENT_BYTES)}
    async with site(properties) as here:
        lanes = await here.enrol(lanes_each, shape.nodes)
        retention = {"retention.bytes": str(RETENTION_BYTES), "segment.bytes": str(SEGMENT_BYTES)}
        settings = here.topics(retention)
        progress = _Progress()
        sink = asyncio.create_task(_sink(here.data / "archive"))
        began = time.perf_counter()
        try:
            async with asyncio.TaskGroup() as group:
                load = progress.held_back(messages(batches, lanes, by_lane=False), shape.events)
                group.create_task(ship(settings, load))
                taking = group.create_task(take(here, lanes, events, every_s=_EVERY_S, told=progress.reached))
        finally:
            sink.cancel()
        seconds = time.perf_counter() - began
        _say(found, events, seconds, taking.result(), quick)
        found.add("events in hourly usage", await _counted(here), "", str(events))
    return found


class _Progress:
    """How far intake is: who sends waits for it, in a thread of its own."""

    def __init__(self) -> None:
        self._taken = 0

    def reached(self, sample: Sample) -> None:
        self._taken = sample.events

    def held_back(self, load: Iterator[Message], events: int) -> Iterator[Message]:
        """`load`, never more than AHEAD_EVENTS ahead."""
        for number, message in enumerate(load):
            while number * events - self._taken > AHEAD_EVENTS:
                time.sleep(0.05)
            yield message


async def _sink(archive: Path) -> None:
    """Keeps the newest ARCHIVE_BYTES of the archive's files."""
    while True:
        await asyncio.sleep(_EVERY_S * 5)
        await asyncio.to_thread(_forget_oldest, archive)


def _forget_oldest(archive: Path) -> None:
    files = [(path.stat(), path) for path in archive.rglob("*.parquet")]
    kept = 0
    for stat, path in sorted(files, key=lambda file: file[0].st_mtime_ns, reverse=True):
        kept += stat.st_size
        if kept > ARCHIVE_BYTES:
            path.unlink()
            path.with_name(f"_{path.stem}.seal").unlink(missing_ok=True)


def _say(found: Measured, events: int, seconds: float, samples: list[Sample], quick: bool) -> None:
    spent = samples[-1].used.since(samples[0].used)
    counted = max(samples[-1].events - samples[0].events, 1)
    found.add("events", events)
    found.add("seconds, from nothing to the last commit", seconds, "s", "" if quick else f"≤ {WITHIN_S}")
    found.add("events a second", round(events / seconds), "/s")
    for name, cpu in spent.items():
        found.add(f"CPU of {name}", cpu / counted * 1e6, "s per million events")
    found.add("most memory of the workers", max(s.used.workers_kib for s in samples) // 1024, "MiB")
    found.notes.append(
        "the shipper seals and sends meanwhile, on the same cores; its CPU is in none of the figures"
    )


async def _counted(here: Site) -> int:
    async with here.database.intake() as conn:
        found: int = (await conn.exec_driver_sql("SELECT sum(requests)::bigint FROM usage_cell")).scalar_one()
        return found
