"""The archive after a day of 100 quiet nodes: how many objects, before and after `tally archive compact`.

Demanded: at most 5,000. Each node's lane seals a heartbeat every ten seconds, 864,000 in all. They are sealed, stored,
listed in the database, and the log is signed, as intake and the sequencer do it; only the checks at acceptance are left
out, which make no object. The objects are kept in memory: their number is asked, not how fast a disk is. In an hour the
log is signed ten times, as the lanes' first heartbeats of the hour come in.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from adapters.archive import seal_path
from adapters.archive_compact import compact
from adapters.log_sequencer import sequence
from adapters.objects import damaged
from adapters.postgres.copying import copy_table
from adapters.postgres.database import Database
from adapters.postgres.embedded import discard
from adapters.postgres.lane_keys import enroll_lane
from adapters.postgres.open import open_database
from bench.results import Measured
from metering.batch import GENESIS, Seal, make_batch
from metering.event import QUANTITIES
from metering.identity import LaneKey

OPERATOR = "telecentras"
DAY = datetime(2026, 10, 5, tzinfo=UTC)
NODES, QUICK_NODES = 100, 3
EVERY = timedelta(seconds=10)
GROUPS = 10  # of lanes whose first heartbeats of an hour are signed together
PER_HOUR = timedelta(hours=1) // EVERY


class _Kept:
    """Objects in a dict."""

    def __init__(self) -> None:
        self.there: dict[str, bytes] = {}

    def put(self, objects: Sequence[tuple[str, bytes]]) -> None:
        for path, content in objects:
            if self.there.setdefault(path, content) != content:
                raise damaged(path)

    def replace(self, path: str, content: bytes) -> None:
        self.there[path] = content

    def get(self, path: str) -> bytes | None:
        return self.there.get(path)

    def list(self, prefix: str) -> Iterator[str]:
        return iter(sorted(path for path in self.there if path.startswith(prefix)))

    def remove(self, paths: Sequence[str]) -> None:
        for path in paths:
            self.there.pop(path, None)


class _Lane:
    """A quiet node's only lane."""

    def __init__(self, rank: int) -> None:
        self.node = f"node-{rank:03}"
        self.key = Ed25519PrivateKey.from_private_bytes(rank.to_bytes(32, "big"))
        self.number, self.previous = 0, GENESIS
        self.at = DAY + rank * timedelta(milliseconds=97)

    def hour(self) -> Iterator[tuple[Seal, bytes, str]]:
        """The heartbeats of the next hour: seal, note, hash."""
        for _ in range(PER_HOUR):
            sealed = make_batch(
                operator=OPERATOR,
                node=self.node,
                lane="sidecar-0",
                kind="sidecar",
                epoch="a" * 32,
                number=self.number,
                first=1,
                complete_to_us=int(self.at.timestamp() * 1_000_000),
                opened=0,
                closed=0,
                previous=self.previous,
                key=self.key,
            )
            yield sealed.seal, sealed.note, sealed.hash
            self.number, self.previous, self.at = self.number + 1, sealed.hash, self.at + EVERY


def measure(quick: bool) -> Measured:
    """Lives through the day, compacts on the next, and counts."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            return asyncio.run(_measured(Path(scratch), QUICK_NODES if quick else NODES))
        finally:
            discard(Path(scratch))


async def _measured(scratch: Path, nodes: int) -> Measured:
    found, objects = Measured(), _Kept()
    lanes = [_Lane(rank) for rank in range(nodes)]
    began = time.perf_counter()
    async with open_database(scratch, {}) as database:
        async with database.app(OPERATOR) as connection:
            await connection.exec_driver_sql(f"INSERT INTO operator VALUES ('{OPERATOR}')")
        async with database.intake() as connection:
            for lane in lanes:
                public = LaneKey.public_bytes(lane.key)
                await enroll_lane(connection, OPERATOR, lane.node, "sidecar-0", "sidecar", public, DAY)
        for hour in range(24):
            for group in range(GROUPS):
                await _accept(database, objects, lanes[group::GROUPS])
                now = DAY + timedelta(hours=hour, seconds=group)
                await sequence(database, objects, scratch / "keys", OPERATOR, now, make_key=True)
        async with database.app(OPERATOR) as connection:
            counted = await connection.exec_driver_sql("SELECT count(*) FROM leaf WHERE kind = 'batch'")
            leaves = counted.scalar_one()
    before, lived = len(objects.there), time.perf_counter() - began
    end = DAY + timedelta(days=1, hours=3)
    compacted = list(compact(objects, OPERATOR, lambda _node, _lane: end, end))
    log = sum("/_log/" in path for path in objects.there)
    found.add("nodes", nodes)
    found.add("heartbeats", sum(each.batches for each in compacted))
    found.add("leaves of batches", leaves)
    found.add("objects before compact", before)
    found.add("objects after compact", len(objects.there), "", "≤ 5000")
    found.add("of them the log's", log)
    found.add("sealed, listed, signed", lived, "s")
    found.add("compact", time.perf_counter() - began - lived, "s")
    return found


async def _accept(database: Database, objects: _Kept, lanes: Sequence[_Lane]) -> None:
    """An hour of these lanes: objects and rows as intake makes them."""
    rows: list[dict[str, Any]] = []
    for lane in lanes:
        for seal, note, seal_hash in lane.hour():
            path = f"{OPERATOR}/{lane.at.date()}/{lane.node}/sidecar-0/{seal.epoch}-{seal.number}-{seal_hash}"
            objects.put([(seal_path(path), note)])
            rows.append(_row(seal, len(note), path, seal_hash, lane.at))
    if not rows:
        return
    instants = ("complete_to", "accepted_at")
    table = pa.Table.from_pylist(rows)
    for name in instants:
        at = table.column_names.index(name)
        table = table.set_column(at, name, table[name].cast(pa.timestamp("us", "UTC")))
    async with database.intake() as connection:
        await copy_table(connection, "batch", table)


def _row(seal: Seal, size: int, path: str, seal_hash: str, at: datetime) -> dict[str, Any]:
    names = ("operator", "node", "lane", "epoch", "number", "previous", "first", "last", "events")
    return {
        **{name: getattr(seal, name) for name in names},
        **dict.fromkeys(QUANTITIES, 0),
        "hash": seal_hash,
        "complete_to": at,
        "path": path,
        "bytes": size,
        "accepted_at": at,
        "root_checked": True,
        "adopted": False,
        "final": False,
    }
