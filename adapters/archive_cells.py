"""Cells of hourly usage as the archive's commands sum and compare them: columns of plain types, all of one operator."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from billing.cells import KEYS, cells_of
from metering.event import ID, QUANTITIES

HOUR_US = 3_600_000_000
#: Cells as they are compared: words as texts, so that tables of any origin join.
SUM_SCHEMA = pa.schema(
    [
        pa.field("hour", pa.timestamp("us", "UTC")),
        pa.field("customer", ID),
        pa.field("project", ID),
        pa.field("key", ID),
        pa.field("node", pa.string()),
        pa.field("model", pa.string()),
        pa.field("outcome", pa.string()),
        pa.field("band", pa.int64()),
        *(pa.field(name, pa.int64()) for name in QUANTITIES),
    ]
)
assert tuple(SUM_SCHEMA.names) == (*KEYS, *QUANTITIES)


def plain_cells(node: str, tables: Sequence[pa.Table]) -> pa.Table:
    """The cells (SUM_SCHEMA) of events of one node."""
    cells = cells_of([(node, table) for table in tables])
    return pa.Table.from_arrays(
        [cells[name].cast(SUM_SCHEMA.field(name).type) for name in SUM_SCHEMA.names], schema=SUM_SCHEMA
    )


def grouped(cells: pa.Table) -> pa.Table:
    """The sums of cells (SUM_SCHEMA) by KEYS."""
    sums = cells.group_by(list(KEYS), use_threads=False).aggregate([(name, "sum") for name in QUANTITIES])
    columns = [sums[name] for name in KEYS] + [sums[f"{name}_sum"] for name in QUANTITIES]
    return pa.Table.from_arrays(columns, schema=SUM_SCHEMA)


def within(cells: pa.Table, span_us: tuple[int, int] | None) -> pa.Table:
    """The cells of these hours [start, end)."""
    if span_us is None:
        return cells
    hours = cells["hour"].cast(pa.int64())
    return cells.filter(pc.and_(pc.greater_equal(hours, span_us[0]), pc.less(hours, span_us[1])))


def totals_of(cells: pa.Table) -> tuple[int, ...]:
    """The sum of all cells, quantity by quantity in the order of QUANTITIES."""
    return tuple(pc.sum(cells[name]).as_py() or 0 for name in QUANTITIES)


def instant(us: int) -> datetime:
    """Microseconds since 1970 as an instant."""
    return datetime.fromtimestamp(us // 1_000_000, UTC).replace(microsecond=us % 1_000_000)
