"""SQL over the archive's events: DuckDB in memory, on what was handed to it and nothing else.

Two views: `event`, all events with operator, node and lane from their path and the names of customer, project and key; and
`seal`, a row a batch. The files are handed over as Arrow datasets, in a folder or in a bucket, and DuckDB itself may open
nothing: no file, no network, no extension, no other statement than one SELECT. Memory and time are bounded
(`archive_bounds`).

Which files hold the events is decided by batches, so each event is met once also while `tally archive compact` runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from adapters.archive_bounds import (
    AnswerSize,
    Clock,
    Limits,
    TimedObjects,
    bounded_memory,
    memory_bytes,
    translated,
)
from adapters.archive_cells import instant
from adapters.archive_files import event_files
from adapters.archive_reading import LaneDay, contents
from adapters.objects import ArrowObjects
from billing.objects import Objects
from metering.body import as_parquet
from metering.event import EVENT_SCHEMA, QUANTITIES
from metering.refusal import Refusal

_BATCH_ROWS = 64  # the answer is counted so many rows at a time
_LIMITS = Limits()
_NAMED = ("customer", "project", "key")
_WHOSE = [pa.field(name, pa.string()) for name in ("operator", "node", "lane")]
_FILE_SCHEMA = pa.schema([*as_parquet(EVENT_SCHEMA.empty_table()).schema, *_WHOSE])
_UUID = r"regexp_replace(lower(hex({0})), '(.{{8}})(.{{4}})(.{{4}})(.{{4}})', '\1-\2-\3-\4-')"


@dataclass(frozen=True, slots=True)
class Answer:
    """Names of columns, rows of JSON values, and whether there were more rows."""

    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    truncated: bool


def query(
    objects: ArrowObjects,
    sql: str,
    days: Sequence[LaneDay],
    names: Mapping[UUID, str],
    span: tuple[datetime, datetime] | None = None,
    limits: Limits = _LIMITS,
) -> Answer:
    """Answers one SELECT over the events and seals of these lanes' days. `span`: only events of [start, end).

    Refusals: `bad_query` (not one SELECT, or what DuckDB says of it), `query_too_large`, `query_too_long`.
    """
    clock = Clock(limits)
    timed = TimedObjects(objects, clock)
    with translated(limits), contextlib.closing(_session(limits)) as session:
        memory = memory_bytes(session)
        wanted = _tables_of(session, sql)
        with bounded_memory(memory), clock.interrupting(session):
            if "event" in wanted:
                _add_events(session, objects, timed, days, names, span)
            if "seal" in wanted:
                _add_seals(session, timed, days)
            session.execute("SET lock_configuration = true")
            wrapped = session.sql(sql).limit(limits.rows + 1)
            columns, rows = _rows(wrapped.to_arrow_reader(_BATCH_ROWS), clock, AnswerSize(limits, memory))
    return Answer(columns, tuple(rows[: limits.rows]), len(rows) > limits.rows)


def _rows(
    found: pa.RecordBatchReader, clock: Clock, size: AnswerSize
) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    rows: list[tuple[object, ...]] = []
    for batch in found:
        clock.check()
        size.add(batch)
        columns = [column.to_pylist() for column in batch.columns]
        rows += [tuple(_json(value) for value in row) for row in zip(*columns, strict=True)]
    return tuple(found.schema.names), rows


def _session(limits: Limits) -> duckdb.DuckDBPyConnection:
    session = duckdb.connect(
        ":memory:",
        config={
            "memory_limit": limits.memory,
            "temp_directory": "",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "python_enable_replacements": "false",
        },
    )
    session.execute("SET TimeZone = 'UTC'")
    session.execute("SET enable_external_access = false")
    return session


def _tables_of(session: duckdb.DuckDBPyConnection, sql: str) -> set[str]:
    statements = session.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise Refusal(
            "bad_query",
            "this is not one SELECT",
            where="SQL",
            remedy='the archive is only read: tally archive query "SELECT model, count(*) FROM event GROUP BY model"',
        )
    return {name.lower() for name in session.get_table_names(sql)}


def _add_events(
    session: duckdb.DuckDBPyConnection,
    objects: ArrowObjects,
    timed: Objects,
    days: Iterable[LaneDay],
    names: Mapping[UUID, str],
    span: tuple[datetime, datetime] | None,
) -> None:
    system, base = objects.arrow()
    paths: list[str] = []
    whose: list[ds.Expression] = []
    for day in days:
        files = event_files(timed, day)
        paths += [f"{base}/{path}" for path in files]
        owner = (
            (ds.field("operator") == day.operator)
            & (ds.field("node") == day.node)
            & (ds.field("lane") == day.lane)
        )
        whose += [owner] * len(files)
    files = ds.FileSystemDataset.from_paths(
        paths, schema=_FILE_SCHEMA, format=ds.ParquetFileFormat(), filesystem=system, partitions=whose
    )
    session.register("_event", files)
    session.register("_name", _names_table(names))
    session.execute(f"CREATE VIEW event AS {_event_select(span)}")


def _event_select(span: tuple[datetime, datetime] | None) -> str:
    columns = []
    for field in EVENT_SCHEMA:
        if field.name in _NAMED:
            id_ = _UUID.format(f"e.{field.name}")
            columns += [
                f"coalesce({field.name}_name.name, {id_}) AS {field.name}",
                f"{id_} AS {field.name}_id",
            ]
        elif pa.types.is_fixed_size_binary(field.type):
            columns.append(f"lower(hex(e.{field.name})) AS {field.name}")
        else:
            columns.append(f"e.{field.name}")
    joins = " ".join(f"LEFT JOIN _name {name}_name ON {name}_name.id = e.{name}" for name in _NAMED)
    where = ""
    if span is not None:
        begin, end = (moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f+00") for moment in span)
        where = f" WHERE e.time >= '{begin}'::TIMESTAMPTZ AND e.time < '{end}'::TIMESTAMPTZ"
    return f"SELECT e.operator, e.node, e.lane, {', '.join(columns)} FROM _event e {joins}{where}"  # noqa: S608  (names of ours)


def _names_table(names: Mapping[UUID, str]) -> pa.Table:
    return pa.table(
        {
            "id": pa.array([id_.bytes for id_ in names], pa.binary(16)),
            "name": pa.array(list(names.values()), pa.string()),
        }
    )


def _add_seals(session: duckdb.DuckDBPyConnection, objects: Objects, days: Iterable[LaneDay]) -> None:
    """A table of DuckDB's own, within its memory; it grows by one lane's day at a time."""
    session.register("_more", _SEAL_SCHEMA.empty_table())
    session.execute("CREATE TABLE _seal AS SELECT * FROM _more")
    for batch in _seal_batches(objects, days):
        session.register("_more", pa.Table.from_batches([batch]))
        session.execute("INSERT INTO _seal SELECT * FROM _more")
    session.unregister("_more")
    session.execute("CREATE VIEW seal AS SELECT * FROM _seal")


_SEAL_WORDS = ("operator", "node", "lane", "kind", "epoch")
_SEAL_NUMBERS = ("number", "first", "last", "opened", "closed", "events", *QUANTITIES, "body_bytes")
_SEAL_SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in _SEAL_WORDS),
        pa.field("complete_to", pa.timestamp("us", "UTC")),
        *(pa.field(name, pa.int64()) for name in _SEAL_NUMBERS),
        *(pa.field(name, pa.string()) for name in ("body_sha256", "root", "previous", "hash", "stored")),
        pa.field("final", pa.bool_()),
        pa.field("facts", pa.list_(pa.string())),
    ]
)


def _seal_batches(objects: Objects, days: Iterable[LaneDay]) -> Iterator[pa.RecordBatch]:
    for day in days:
        rows = []
        for place in contents(objects, day).places:
            seal = place.seal
            row = {
                field.name: getattr(seal, field.name)
                for field in fields(seal)
                if field.name in _SEAL_SCHEMA.names
            }
            row |= {name: getattr(seal.totals, name) for name in QUANTITIES}
            stored = "gone" if place.is_gone else "joined" if place.joined is not None else "alone"
            row |= {
                "complete_to": instant(seal.complete_to_us),
                "hash": place.name.rpartition("-")[2],
                "stored": stored,
                "facts": list(seal.facts),
            }
            rows.append(row)
        yield pa.RecordBatch.from_pylist(rows, schema=_SEAL_SCHEMA)


def _json(value: Any) -> object:
    if isinstance(value, datetime):
        moment = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Decimal) and value == value.to_integral_value():
        return int(value)
    if isinstance(value, date | time | timedelta | UUID | Decimal):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | tuple):
        return [_json(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _json(each) for key, each in value.items()}
    return value
