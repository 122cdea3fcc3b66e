"""Archives in memory, made of batches that are sealed by hand."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache

import pyarrow as pa
import pyarrow.parquet as pq
from intake_world import START, Writer
from memory_objects import MemoryObjects

from adapters.archive import BatchObjects
from adapters.archive_compact import Compacted, compact
from adapters.archive_reading import Reader, contents, lane_days
from billing.intake_ports import StoredBatch
from metering.batch import SealedBatch
from metering.event import EVENT_SCHEMA

FAR = datetime(2026, 12, 1, tzinfo=UTC)


@dataclass
class Archive:
    objects: MemoryObjects = field(default_factory=MemoryObjects)
    batches: dict[str, SealedBatch] = field(default_factory=dict)

    def put(self, *batches: SealedBatch) -> None:
        for batch in batches:
            seal = batch.seal
            day = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=seal.complete_to_us)).date()
            path = f"{seal.operator}/{day}/{seal.node}/{seal.lane}/{seal.epoch}-{seal.number}-{batch.hash}"
            BatchObjects(self.objects).put([StoredBatch(path, batch.note, batch.body)])
            self.batches[path] = batch

    def compact(self, now: datetime = FAR, mark: datetime = FAR, full_seals: int = 20_000) -> Compacted:
        done = Compacted()
        for each in compact(self.objects, "telecentras", lambda node, lane: mark, now, full_seals=full_seals):
            done.add(each)
        return done

    def notes(self) -> dict[str, bytes]:
        """Every batch's seal, by path."""
        return {
            f"{day.folder}/{place.name}": place.note
            for day in lane_days(self.objects, "telecentras")
            for place in contents(self.objects, day).places
        }

    def events(self) -> pa.Table:
        """Every event of every batch, each batch's root checked."""
        reader = Reader(self.objects)
        return pa.concat_tables(
            [EVENT_SCHEMA.empty_table()]
            + [
                reader.events(day.folder, place)
                for day in lane_days(self.objects, "telecentras")
                for place in contents(self.objects, day).places
            ]
        )

    def plain(self) -> pa.Table:
        """What somebody finds who reads the Parquet files as they lie there."""
        bodies = [
            pq.read_table(io.BytesIO(content))
            for path, content in self.objects.there.items()
            if path.endswith(".parquet") and not path.rpartition("/")[2].startswith("_")
        ]
        return pa.concat_tables(bodies) if bodies else EVENT_SCHEMA.empty_table()


def quiet_hours(hours: int, every_s: int = 600) -> Archive:
    """A lane that seals a heartbeat every ten minutes, from 08:00 on, and one event an hour. Each has its own copy."""
    made, found = _quiet_hours(hours, every_s), Archive()
    found.objects.there, found.batches = dict(made.objects.there), dict(made.batches)
    return found


@cache
def _quiet_hours(hours: int, every_s: int) -> Archive:
    archive, writer = Archive(), Writer()
    for second in range(0, hours * 3600, every_s):
        writer.time_us = int((START + timedelta(seconds=second)).timestamp()) * 1_000_000
        archive.put(writer.seal(1 if second % 3600 == 0 else 0))
    return archive
