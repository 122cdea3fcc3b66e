"""Cells into partial sums and out of them again, by the database itself."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import asyncpg
import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import text

from adapters.postgres.database import Database
from adapters.postgres.partial_sums import copy_cells
from adapters.postgres.roll_up import roll_up_hours
from adapters.postgres.schema import QUANTITY_COLUMNS
from billing.cells import CELL_SCHEMA, KEYS
from metering.event import BANDS, OUTCOMES

pytestmark = pytest.mark.anyio

HOUR = datetime(2026, 10, 5, 8, tzinfo=UTC)
COLUMNS = (*KEYS, "late", *QUANTITY_COLUMNS)
COUNT = 20_000


def many_cells() -> pa.Table:
    """Two thousand customers, some without project or key; a quantity is mostly what it is of most requests."""
    rng = np.random.default_rng(5)
    who = rng.integers(0, 2_000, COUNT)
    named = np.array([n.to_bytes(16) for n in range(2_000)], dtype="V16")[who]
    ids = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), COUNT, [None, pa.py_buffer(named.tobytes())])
    some = pa.array([value if told else None for value, told in zip(ids, who % 3 > 0, strict=True)], ids.type)
    completion = rng.integers(0, 500, COUNT)
    figures = {
        "requests": np.where(rng.random(COUNT) < 0.001, -1, 1),
        "prompt_tokens": rng.integers(-5, 10**12, COUNT),
        "completion_tokens": completion,
        "generated_tokens": completion + (rng.random(COUNT) < 0.001),
        "unwitnessed_requests": (rng.random(COUNT) < 0.01).astype(np.int64),
    }
    columns = {
        "hour": pa.array([HOUR] * COUNT, pa.timestamp("us", "UTC")),
        "customer": ids,
        "project": pa.nulls(COUNT, ids.type),
        "key": some,
        "node": pa.array(["n1"] * COUNT).dictionary_encode(),
        "model": pa.array([f"m{n}" for n in rng.integers(0, 5, COUNT)]).dictionary_encode(),
        "outcome": pa.array(np.array(OUTCOMES)[rng.integers(0, 3, COUNT)].tolist()).dictionary_encode(),
        "band": pa.array(np.array(BANDS)[rng.integers(0, 7, COUNT)]),
        **{name: pa.array(figures.get(name, np.zeros(COUNT, np.int64))) for name in QUANTITY_COLUMNS},
    }
    late = pa.field("late", pa.bool_(), nullable=False)
    return pa.table(columns, schema=CELL_SCHEMA).append_column(late, pa.array(rng.random(COUNT) < 0.1))


def sums(rows: list[dict[str, object]]) -> Counter[tuple[object, ...]]:
    found: Counter[tuple[object, ...]] = Counter()
    for row in rows:
        key = tuple(getattr(row[name], "bytes", row[name]) for name in (*KEYS, "late"))
        for name in QUANTITY_COLUMNS:
            amount = row[name]
            assert isinstance(amount, int)
            found[*key, name] += amount
    return found


async def test_cells_are_read_as_they_were_written_and_rolled_up_to_the_same_sums(database: Database) -> None:
    async with database.app("acme") as conn:
        await conn.execute(text("INSERT INTO operator VALUES ('acme')"))
    written = many_cells()
    read = text(f"SELECT {', '.join(COLUMNS)} FROM usage_cell WHERE operator = 'acme'")
    async with database.intake() as conn:
        await conn.execute(text("SELECT ensure_usage_partitions('acme', '2026-10-01')"))
        await copy_cells(conn, "acme", written)
        await copy_cells(conn, "acme", written.slice(0, 0))
        rows = [dict(row._mapping) for row in await conn.execute(read)]
        assert len(rows) == COUNT
        expected = sums(written.to_pylist())
        assert sums(rows) == expected
        counted = "SELECT count(*), max(pg_column_size(p.*)) FROM partial_sum p"
        count, largest = (await conn.execute(text(counted))).one()
        assert COUNT / count > 15
        assert largest < 8_160
        await roll_up_hours(conn, "acme", [HOUR])
        rows = [dict(row._mapping) for row in await conn.execute(read)]
        assert sums(rows) == expected
        assert (await conn.execute(text("SELECT count(*) FROM partial_sum"))).scalar_one() == 0


@pytest.mark.parametrize(
    "arrays",
    [
        "customer, requests) VALUES ('{00000000-0000-0000-0000-000000000001}', '{1, 1}'",
        "customer, key) VALUES ('{00000000-0000-0000-0000-000000000001}', '{}'",
        "customer) VALUES ('{}'",
        "customer) VALUES ('{NULL}'",
    ],
)
async def test_a_row_whose_arrays_differ_in_length_is_refused(database: Database, arrays: str) -> None:
    async with database.app("acme") as conn:
        await conn.execute(text("INSERT INTO operator VALUES ('acme')"))
    keys = "operator, hour, node, model, outcome, band, late"
    values = "'acme', '2026-10-05 08:00Z', 'n', 'm', 'finished', 0, false"
    columns, _, others = arrays.partition(") VALUES (")
    async with database.intake() as conn:
        await conn.execute(text("SELECT ensure_usage_partitions('acme', '2026-10-01')"))
        raw = (await conn.get_raw_connection()).driver_connection
        assert raw is not None
        with pytest.raises(asyncpg.CheckViolationError, match="as_many_of_each"):
            await raw.execute(f"INSERT INTO partial_sum ({keys}, {columns}) VALUES ({values}, {others})")
        await conn.rollback()
