"""Prepared usage (`billing.usage_runs`) as Arrow files under the data folder, memory-mapped when it is asked for again.

    cache/what-if/<operator's digest>-2026-10-<key>/runs.arrow  hours.arrow  customers.arrow  nodes.arrow …

The key digests what the usage of the period rests on, read in the same transaction as the usage itself would be: the
batches accepted with events of that time, the partial sums that wait for their roll-up, the names that subjects have,
and, of the tables that hold the usage, how many rows were ever put in and taken out, and their size. A key that
changed needlessly costs a reading; an old key is never asked for again, and its folder goes when the next one is
written. Everything here may be deleted at any time.

A folder has the quantities that were asked for when it was written (most tariffs price few, and each costs a tenth of
the reading); who asks for another reads these and that one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres.usage import usage_table
from billing.hourly import hour_number, read_hourly
from billing.period import Period
from billing.usage_runs import UsageRuns, from_tables, to_tables, usage_runs
from metering.durable import fsync_file
from metering.event import QUANTITIES

_FORMAT = 1
_BATCHES = text("""
    SELECT count(*), coalesce(sum(requests), 0), coalesce(sum(prompt_tokens), 0), coalesce(sum(generated_tokens), 0),
        max(last_time)
    FROM seal_sum WHERE operator = :operator AND last_time >= :start AND first_time < :end
""")
_NOT_ROLLED_UP = text("""
    SELECT count(*), min(hour), max(hour) FROM partial_sum WHERE operator = :operator AND hour >= :start AND hour < :end
""")
_NAMES = text("""
    SELECT count(*), sum(hashtextextended(id::text || coalesce(slug, ''), 0)) FROM subject WHERE operator = :operator
""")
_TABLES = text("""
    SELECT relname, pg_stat_get_tuples_inserted(oid), pg_stat_get_tuples_updated(oid), pg_stat_get_tuples_deleted(oid),
        pg_relation_size(oid)
    FROM pg_class WHERE relname = ANY(:names) AND relkind = 'r' ORDER BY relname
""")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A period's usage, and the folder that stands for it; it is not there where the cache cannot be written."""

    runs: UsageRuns
    folder: Path


async def prepared_usages(
    conn: AsyncConnection,
    operator: str,
    periods: Sequence[Period],
    zone: ZoneInfo,
    quantities: Collection[str],
    cache: Path,
) -> dict[Period, Prepared]:
    """Each period's usage, with these quantities at least, from the cache or read and put there. `conn` is in a snapshot
    transaction.

    While one period's usage is prepared in a thread, the next one's is read; no more than these two are in memory as they
    were read. Refuses `quantity_overflow`. Where the cache cannot be written the usage is read each time.
    """
    found: dict[Period, Prepared] = {}
    preparing: tuple[Period, asyncio.Task[Prepared]] | None = None
    for period in periods:
        start, end = period.bounds(zone)
        stem = f"{_digest(operator)[:24]}-{period}-"
        folder = cache / (stem + await _key(conn, operator, start, end))
        kept = await asyncio.to_thread(_kept, folder)
        wanted = frozenset(quantities).union(() if kept is None else kept.magnitudes)
        if kept is not None and wanted == kept.magnitudes.keys():
            found[period] = Prepared(kept, folder)
            continue
        usage = await usage_table(conn, operator, start, end, quantities=sorted(wanted))
        if preparing is not None:
            found[preparing[0]] = await preparing[1]
        preparing = (
            period,
            asyncio.create_task(asyncio.to_thread(_prepared, usage, start, end, cache, stem, folder)),
        )
        del usage
    if preparing is not None:
        found[preparing[0]] = await preparing[1]
    return {period: found[period] for period in periods}


def _prepared(
    usage: pa.Table, start: datetime, end: datetime, cache: Path, stem: str, folder: Path
) -> Prepared:
    made = usage_runs(read_hourly(usage, start, end)[0], hour_number(start))
    with contextlib.suppress(OSError):
        _write(made, cache, stem, folder)
    kept = _kept(folder)  # its pages need no memory of ours; another's may lack a quantity
    return Prepared(kept if kept and kept.magnitudes == made.magnitudes else made, folder)


def _kept(folder: Path) -> UsageRuns | None:
    """What the folder holds; None where it is not there, or not whole any more."""
    try:
        found = from_tables({path.stem: _mapped(path) for path in _whole(folder)})
    except (OSError, KeyError, ValueError):  # pyarrow's are ValueErrors
        return None
    return found if found.magnitudes.keys() <= set(QUANTITIES) else None


def _whole(folder: Path) -> list[Path]:
    """The files of a folder that is there: it got its name when it was whole."""
    paths = sorted(folder.glob("*.arrow"))
    if not paths:
        raise FileNotFoundError(folder)
    return paths


def _mapped(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def _write(made: UsageRuns, cache: Path, stem: str, folder: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".", dir=cache))
    try:
        for name, table in to_tables(made).items():
            whole = table.combine_chunks()
            with (
                pa.OSFile(str(scratch / f"{name}.arrow"), "wb") as sink,
                pa.ipc.new_file(sink, whole.schema) as out,
            ):
                out.write_table(whole)
            fsync_file(scratch / f"{name}.arrow")
        for old in _of(cache, stem):
            shutil.rmtree(old, ignore_errors=True)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _of(cache: Path, stem: str) -> Iterator[Path]:
    return (path for path in cache.iterdir() if path.name.startswith(stem))


async def _key(conn: AsyncConnection, operator: str, start: datetime, end: datetime) -> str:
    asked = {"operator": operator, "start": start, "end": end}
    batches = (await conn.execute(_BATCHES, asked)).one()
    partial = (await conn.execute(_NOT_ROLLED_UP, asked)).one()
    names = (await conn.execute(_NAMES, {"operator": operator})).one()
    months = sorted({f"{start:%Y%m}", f"{end:%Y%m}"})
    leaves = [
        f"{kind}_{_digest(operator)[:24]}_{month}"
        for kind in ("hourly_usage", "partial_sum")
        for month in months
    ]
    tables = (await conn.execute(_TABLES, {"names": leaves})).all()
    rests_on = [
        _FORMAT,
        pa.__version__,
        operator,
        str(start),
        str(end),
        *map(list, (batches, partial, names, *tables)),
    ]
    return _digest(json.dumps(rests_on, default=str))[:32]


def _digest(said: str) -> str:
    return hashlib.sha256(said.encode()).hexdigest()
