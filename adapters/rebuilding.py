"""`tally archive rebuild`: what the archive comes to, beside what the ledger says, operator by operator.

Heads of lanes, decisions and cells are read in one snapshot of the database, while intake goes on: a batch lies in the
archive before it is committed, so the archive holds all that the snapshot knows. Up to a close, the heads are those
that the close stored, and what is compared is what it rated. What the archive holds after the heads of now is asked for
once more in the end: a batch that the database still does not list is named, since nothing would ever count it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.archive_cells import SUM_SCHEMA, within
from adapters.archive_expired import read_lists
from adapters.archive_rebuild import (
    Cells,
    Ledger,
    Rebuilt,
    day_number,
    day_start,
    days_of,
    differences,
    lost_hours,
    rebuild,
)
from adapters.archive_sums import Finding
from adapters.postgres import archive as rows
from adapters.postgres.closes import load_closes
from adapters.postgres.database import Database
from adapters.postgres.site import operator_facts, operator_zone
from adapters.postgres.usage import slugs
from adapters.postgres.usage_cells import usage_cells, usage_hours
from billing.holiday import with_holidays
from billing.objects import Objects
from billing.period import Period
from billing.ports import PeriodClose
from billing.rating import rate
from metering.refusal import Refusal

NAMED = 100  # differences that are listed one by one
_COMMITTING_S = (1, 4)  # a batch is archived that much before it is committed, at most
_EVERY_HOUR = timedelta(hours=1)
Span = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class Asked:
    """What to rebuild: one month or all, up to the heads of a close (`2026-10`, `2026-10/2`) or of now; whether roots of
    bodies that were never joined are recomputed too; where the database's cells are exported to."""

    period: Period | None = None
    up_to: str | None = None
    root: bool = False
    export: Path | None = None


async def rebuilt(
    database: Database,
    objects: Objects,
    operator: str,
    asked: Asked,
    scratch: Path,
    progress: Callable[[Rebuilt], None] = lambda _made: None,
) -> dict[str, Any]:
    """One operator's archive beside the ledger. Refusals: not_closed, bad_period."""
    async with database.app(operator, snapshot=True) as conn:
        if asked.up_to is not None:
            return await _up_to_close(conn, objects, operator, asked, scratch, progress)
        ledger, faults = await _ledger(conn, objects, operator)
        span = await _span(conn, operator, asked.period)
        with _cells(scratch) as cells:
            made = await asyncio.to_thread(
                rebuild,
                objects,
                operator,
                ledger,
                cells,
                _us(span),
                root=asked.root,
                behind=True,
                progress=progress,
            )
            made.findings += faults
            compared = await _compare(conn, operator, cells, made, span, asked.export, ledger)
    made.findings += await _behind(database, operator, made.behind)
    ok = not made.findings and not compared["different"]
    return _head(operator, made, ok) | compared


async def _compare(
    conn: AsyncConnection,
    operator: str,
    cells: Cells,
    made: Rebuilt,
    span: Span | None,
    export: Path | None,
    ledger: Ledger,
) -> dict[str, Any]:
    hours = span or _together(await usage_hours(conn, operator), cells)
    lost = lost_hours(made.gone)
    counted, different, named = 0, 0, list[dict[str, Any]]()
    with _exporting(export, ledger, span) as write:
        for begin, end in days_of(*hours) if hours else ():
            theirs = await usage_cells(conn, operator, begin, end)
            write(theirs)
            ours = within(await asyncio.to_thread(cells.of, day_number(begin)), _us((begin, end)))
            counted += ours.num_rows
            count, some = await asyncio.to_thread(differences, ours, theirs, lost, NAMED - len(named))
            different += count
            named += some
    return {
        "from": None if hours is None else _text(hours[0]),
        "to": None if hours is None else _text(hours[1]),
        "cells": counted,
        "different": different,
        "differences": named,
    }


async def _up_to_close(
    conn: AsyncConnection,
    objects: Objects,
    operator: str,
    asked: Asked,
    scratch: Path,
    progress: Callable[[Rebuilt], None],
) -> dict[str, Any]:
    close = await _close(conn, operator, asked.up_to or "")
    heads = {(lane.partition("/")[0], lane.partition("/")[2]): head for lane, head in close.heads.items()}
    now, faults = await _ledger(conn, objects, operator)
    ledger = replace(now, heads=heads, late=await rows.late_batches(conn, operator, close.period))
    facts = with_holidays(await operator_facts(conn, operator), close.period, close.holidays)
    span = close.period.bounds(await operator_zone(conn, operator))
    names = {id_.bytes: slug for id_, slug in (await slugs(conn, operator, ("customer",))).items()}
    with _cells(scratch) as cells:
        made = await asyncio.to_thread(
            rebuild, objects, operator, ledger, cells, _us(span), root=asked.root, progress=progress
        )
        made.findings += faults
        usage = await asyncio.to_thread(_as_usage, cells, names)
    rated = dict((await asyncio.to_thread(rate, usage, facts, close.period)).tokens)
    at_close = close.result["rated"]
    same = all(rated.get(meter, 0) == at_close.get(meter, 0) for meter in rated.keys() | at_close.keys())
    return _head(operator, made, same and not made.findings) | {
        "close": {"period": str(close.period), "number": close.number, "closed_at": _text(close.closed_at)},
        "rated": rated,
        "rated_at_close": at_close,
    }


async def _close(conn: AsyncConnection, operator: str, up_to: str) -> PeriodClose:
    period, _, number = up_to.partition("/")
    closes = [
        close
        for close in await load_closes(conn, operator, period=Period.parse(period))
        if not number or str(close.number) == number
    ]
    if not closes:
        raise Refusal(
            "not_closed", f"there is no such close: {up_to}", where="--up-to", remedy="tally period list"
        )
    return closes[-1]


async def _ledger(conn: AsyncConnection, objects: Objects, operator: str) -> tuple[Ledger, list[Finding]]:
    """What the ledger says, and what decisions name that is not in the archive as it was."""
    lists = await rows.expired_lists(conn, operator)
    expired, faults = await asyncio.to_thread(read_lists, objects, operator, lists)
    ledger = Ledger(await rows.heads(conn, operator), await rows.adopted(conn, operator), expired)
    return ledger, [Finding("damaged", fault.what, fault.where) for fault in faults]


async def _behind(database: Database, operator: str, paths: Sequence[str]) -> list[Finding]:
    """Those of the batches after a head that the database does not list when their transaction had time to commit."""
    by_hash = {path.rpartition("-")[2]: path for path in paths}
    for wait_s in (0, *_COMMITTING_S):
        if not by_hash:
            break
        await asyncio.sleep(wait_s)
        async with database.app(operator) as conn:
            left = await rows.unlisted(conn, operator, list(by_hash))
        by_hash = {name: path for name, path in by_hash.items() if name in left}
    what = "the archive holds it after the lane's head, and the database does not list it: nothing counts its events"
    return [Finding("behind", what, path) for path in sorted(by_hash.values())]


async def _span(conn: AsyncConnection, operator: str, period: Period | None) -> Span | None:
    return None if period is None else period.bounds(await operator_zone(conn, operator))


def _together(hours: Span | None, cells: Cells) -> Span | None:
    """All hours that either side has."""
    days = cells.days()
    begins = [hours[0]] if hours else []
    ends = [hours[1] + _EVERY_HOUR] if hours else []
    if days:
        begins.append(day_start(days[0]))
        ends.append(day_start(days[-1] + 1))
    return (min(begins), max(ends)) if begins else None


def _as_usage(cells: Cells, names: dict[bytes, str]) -> pa.Table:
    """All cells in the columns that rating reads, customers by name, nothing of it late."""
    table = pa.concat_tables([SUM_SCHEMA.empty_table(), *(cells.of(day) for day in cells.days())])
    ids = table["customer"].combine_chunks().dictionary_encode()
    words = pa.array([names.get(id_, id_.hex()) for id_ in ids.dictionary.to_pylist()], pa.string())
    usage = table.set_column(
        table.schema.get_field_index("customer"),
        "customer",
        pa.DictionaryArray.from_arrays(ids.indices, words),
    ).drop_columns(["project", "key"])
    for name in ("node", "model", "outcome"):
        usage = usage.set_column(usage.schema.get_field_index(name), name, usage[name].dictionary_encode())
    return usage.append_column("late", pa.array([False] * usage.num_rows, pa.bool_()))


@contextmanager
def _cells(scratch: Path) -> Iterator[Cells]:
    scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
    with TemporaryDirectory(dir=scratch, prefix="rebuild-") as folder:
        yield Cells(Path(folder))


@contextmanager
def _exporting(
    export: Path | None, ledger: Ledger, span: Span | None
) -> Iterator[Callable[[pa.Table], None]]:
    """Writes cells to a Parquet file whose metadata say what they go with (`adapters/archive_spark.py`)."""
    if export is None:
        yield lambda _cells: None
        return
    told = {
        "heads": {"/".join(lane): head for lane, head in ledger.heads.items()},
        "adopted": dict(ledger.adopted),
        "span_us": _us(span),
        "expired": {folder: list(paths) for folder, paths in ledger.expired.items()},
    }
    schema = SUM_SCHEMA.with_metadata({b"tallygrid": json.dumps(told).encode()})
    with pq.ParquetWriter(export, schema, compression="zstd") as writer:
        yield lambda cells: writer.write_table(cells.replace_schema_metadata(schema.metadata))


def _head(operator: str, made: Rebuilt, ok: bool) -> dict[str, Any]:
    return {
        "operator": operator,
        "ok": ok,
        "lanes": made.lanes,
        "batches": made.batches,
        "events": made.events,
        "expired": made.expired,
        "findings": [
            {"code": each.code, "what": each.what, "where": each.where} for each in made.findings[:NAMED]
        ],
        "findings_total": len(made.findings),
    }


def _us(span: Span | None) -> tuple[int, int] | None:
    if span is None:
        return None
    begin, end = (int(moment.timestamp()) * 1_000_000 for moment in span)
    return begin, end


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
