"""From usage events to cells: the pure step between a set of accepted batches and hourly usage.

A cell is (hour, customer, project, key, node, model, outcome, band) of one operator; each holds the QUANTITIES of
`metering.event` as sums. Hourly usage is a function of the set of accepted batches, so the same function serves intake
(which writes the cells of a poll as partial sums) and a rebuild from the archive (which compares them).

Everything works on columns. The keys of a row are folded into one integer (mixed radix over the distinct values of
each key), so that grouping hashes eight bytes a row instead of some eighty. Measured on one core with 50 batches of
10,000 events: 5 M events/s in all where they fall into 80,000 cells; the grouping alone is ten times as fast as by the
eight columns themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import numpy as np
import pyarrow as pa

from metering.columns import integers
from metering.event import ID, QUANTITIES, WORD, bands, quantities, whole_prompts

_HOUR = pa.timestamp("us", "UTC")
KEYS = ("hour", "customer", "project", "key", "node", "model", "outcome", "band")
CELL_SCHEMA = pa.schema(
    [
        pa.field("hour", _HOUR, nullable=False),
        pa.field("customer", ID, nullable=False),
        pa.field("project", ID),
        pa.field("key", ID),
        pa.field("node", WORD, nullable=False),
        pa.field("model", WORD, nullable=False),
        pa.field("outcome", WORD, nullable=False),
        pa.field("band", pa.int64(), nullable=False),
        *(pa.field(name, pa.int64(), nullable=False) for name in QUANTITIES),
    ]
)

_HOUR_US = 3_600_000_000
_RADIX_LIMIT = 1 << 62
_UNREAD = ["sequence", "request", "names", "endpoint", "request_digest"]


def cells_of(batches: Sequence[tuple[str, pa.Table]]) -> pa.Table:
    """The cells of `batches`, pairs of (node, events as `metering.event.EVENT_SCHEMA`), all of one operator.

    The result has CELL_SCHEMA, one row a cell, in no particular order. Sums are exact for up to nine million events
    of the greatest allowed quantity (10^12) a cell; intake takes far fewer at a time.
    """
    filled = [(node, events) for node, events in batches if events.num_rows]
    if not filled:
        return CELL_SCHEMA.empty_table()
    return _grouped(_joined(filled))


def mark_late(table: pa.Table, is_late: Callable[[datetime], bool]) -> pa.Table:
    """`table` with the column `late` (bool): what `is_late` says of each cell's hour. It is asked once an hour."""
    hours = table["hour"].combine_chunks().dictionary_encode()
    late = pa.array([is_late(hour) for hour in hours.dictionary.to_pylist()], pa.bool_())
    return table.append_column(pa.field("late", pa.bool_(), nullable=False), late.take(hours.indices))


def _joined(batches: Sequence[tuple[str, pa.Table]]) -> pa.Table:
    """All events in one table of CELL_SCHEMA's columns, a row an event."""
    tables = [table.drop_columns(_UNREAD) for _, table in batches]
    events = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    nodes = sorted({node for node, _ in batches})
    codes = np.repeat(
        np.array([nodes.index(node) for node, _ in batches], np.int32),
        [table.num_rows for _, table in batches],
    )
    sums = quantities(events)
    time = integers(events, "time")
    columns = {
        "hour": pa.array(time - time % _HOUR_US).cast(_HOUR),
        "customer": events["customer"],
        "project": events["project"],
        "key": events["key"],
        "node": pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(nodes, pa.string())),
        "model": events["model"],
        "outcome": events["outcome"],
        "band": pa.array(bands(whole_prompts(events))),
        **sums,
    }
    return pa.table(columns, schema=CELL_SCHEMA)


def _grouped(rows: pa.Table) -> pa.Table:
    """The sums of `rows` (CELL_SCHEMA) by KEYS."""
    found = pa.table(
        {"code": _codes(rows), "row": np.arange(rows.num_rows), **{name: rows[name] for name in QUANTITIES}}
    )
    sums = found.group_by("code", use_threads=False).aggregate(
        [("row", "min"), *((name, "sum") for name in QUANTITIES)]
    )
    keys = rows.select(list(KEYS)).take(sums["row_min"])
    columns = [*(keys[name] for name in KEYS), *(sums[f"{name}_sum"] for name in QUANTITIES)]
    return pa.table(columns, schema=CELL_SCHEMA).combine_chunks()


def _codes(rows: pa.Table) -> pa.Array:
    """One integer a row, equal where all KEYS are equal."""
    code = np.zeros(rows.num_rows, np.int64)
    span = 1
    for name in KEYS:
        column = rows[name].combine_chunks()
        if not isinstance(column, pa.DictionaryArray):
            column = column.dictionary_encode(null_encoding="encode")
        if span * len(column.dictionary) >= _RADIX_LIMIT:
            seen = pa.array(code).dictionary_encode()
            code, span = seen.indices.to_numpy().astype(np.int64), len(seen.dictionary)
        code = code * len(column.dictionary) + column.indices.to_numpy()
        span *= len(column.dictionary)
    return pa.array(code)
