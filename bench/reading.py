"""Hourly usage out of PostgreSQL into Arrow: a month of 10,000 customers, 5 M rows, as rating reads it.

Demanded: ≤ 4 s. The read is of a database of its own that was filled just before; the fastest of three is told, for the
first also reads the pages from the disk. Memory is what the command's own use grew by, table included.
"""

from __future__ import annotations

import asyncio
import resource
import tempfile
import time
from pathlib import Path
from zoneinfo import ZoneInfo

from adapters.postgres.embedded import discard
from adapters.postgres.open import open_database
from adapters.postgres.usage import usage_table
from bench.results import Measured
from bench.usage_question import CUSTOMERS, declare, fill_month
from billing.period import Period

MONTH = Period(2026, 10)
ROWS = 5_000_000
_TRIALS = 3


def measure(quick: bool) -> Measured:
    """Fills a database of its own, reads it, and says how long that took."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            return asyncio.run(_measured(Path(scratch), 50_000 if quick else ROWS))
        finally:
            discard(Path(scratch))


async def _measured(data: Path, rows: int) -> Measured:
    found = Measured()
    start, end = MONTH.bounds(ZoneInfo("UTC"))
    times_s = []
    async with open_database(data, {}) as database:
        operator = await declare(database, 0, CUSTOMERS)
        await fill_month(database, 0, MONTH, CUSTOMERS, rows, 5)
        before_kib = _peak_kib()
        async with database.app(operator) as connection:
            for _ in range(_TRIALS):
                began = time.perf_counter()
                table = await usage_table(connection, operator, start, end)
                times_s.append(time.perf_counter() - began)
                count, size = table.num_rows, table.nbytes
                del table
    found.add("rows", count)
    found.add("read in", min(times_s), "s", "≤ 4")
    found.add("a row", min(times_s) / count * 1e6, "µs")
    found.add("table", size / 2**20, "MiB")
    found.add("peak of the reader", (_peak_kib() - before_kib) / 1024, "MiB")
    return found


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
