"""Cells of hourly usage as columns, ids and all: what a rebuild from the archive is compared with."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import pyarrow as pa
import pyarrow.csv
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres.database import driver
from adapters.postgres.schema import QUANTITY_COLUMNS

# Ctrl-C is the command's to answer: Arrow's own handler of the signal would end it with an exception of Arrow's.
pa.enable_signal_handlers(False)

_WORDS = pa.dictionary(pa.int32(), pa.string())
_SENT = {
    "hour": pa.int64(),
    **dict.fromkeys(("customer", "project", "key", "node", "model", "outcome"), _WORDS),
    "band": pa.int64(),
    **dict.fromkeys(QUANTITY_COLUMNS, pa.int64()),
}
_KEYS = "hour, customer, project, key, node, model, outcome, band"
_CELLS = f"""
    SELECT (date_part('epoch', hour) * 1000000)::bigint, customer, project, key, node, model, outcome, band,
           {", ".join(f"sum({name})::bigint" for name in QUANTITY_COLUMNS)}
    FROM usage_cell WHERE operator = $1 AND hour >= $2 AND hour < $3 GROUP BY {_KEYS}
"""  # noqa: S608  (column names of ours)


async def usage_cells(conn: AsyncConnection, operator: str, start: datetime, end: datetime) -> pa.Table:
    """The cells of the hours [start, end), one row each whether billed or late.

    Columns: hour timestamp[us, UTC]; customer, project, key 16 bytes (project and key may be null); node, model,
    outcome text; band and the quantities int64.
    """
    raw = await driver(conn)
    received = pa.BufferOutputStream()

    async def receive(data: bytes) -> None:
        received.write(data)

    await raw.copy_from_query(_CELLS, operator, start, end, output=receive, format="csv")
    sent = received.getvalue()
    if not sent.size:
        return _typed(pa.table({name: pa.array([], kind) for name, kind in _SENT.items()}))
    return _typed(
        pa.csv.read_csv(
            pa.BufferReader(sent),
            read_options=pa.csv.ReadOptions(column_names=list(_SENT)),
            parse_options=pa.csv.ParseOptions(newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(
                column_types=_SENT, strings_can_be_null=True, quoted_strings_can_be_null=False
            ),
        )
    )


async def usage_hours(conn: AsyncConnection, operator: str) -> tuple[datetime, datetime] | None:
    """The first and the last hour with usage; None without any."""
    raw = await driver(conn)
    row = await raw.fetchrow("SELECT min(hour), max(hour) FROM usage_cell WHERE operator = $1", operator)
    return None if row is None or row[0] is None else (row[0], row[1])


def _typed(cells: pa.Table) -> pa.Table:
    columns = {name: cells[name].combine_chunks() for name in cells.column_names}
    columns["hour"] = columns["hour"].view(pa.timestamp("us", "UTC"))
    for name in ("customer", "project", "key"):
        words = (
            columns[name]
            if not isinstance(columns[name], pa.ChunkedArray)
            else columns[name].unify_dictionaries()
        )
        ids = pa.array([UUID(word).bytes for word in words.dictionary.to_pylist()], pa.binary(16))
        columns[name] = ids.take(words.indices)
    for name in ("node", "model", "outcome"):
        columns[name] = columns[name].cast(pa.string())
    return pa.table(columns)
