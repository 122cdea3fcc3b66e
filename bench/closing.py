"""`tally period close` of 710 customers, drafted only, and issued: seconds; and what of that is rating.

Demanded: at most 20 s, without PDFs. Each close is the whole command, with the start of Python and PostgreSQL in it.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path

from adapters.postgres.books import PostgresBooks
from adapters.postgres.open import open_database
from bench.command import installation
from bench.results import Measured
from bench.traces import claude_code
from billing.holiday import with_holidays
from billing.period import Period
from billing.rating import rate

QUICK_ROWS = 2_000
OCTOBER = Period(2026, 10)
OPERATOR = "telecentras"


def measure(quick: bool) -> Measured:
    found = Measured()
    with tempfile.TemporaryDirectory() as scratch, installation() as here:
        trace = claude_code(Path(scratch), QUICK_ROWS if quick else None)
        imported = here.tally("import", str(trace.path), "--node", "vilnius-1", *trace.options)
        drafted = here.tally("period", "close", str(OCTOBER))
        rows, lines, seconds = asyncio.run(_rating(here.data))
        issued = here.tally("period", "close", str(OCTOBER), "--issue")
        again = here.tally("period", "close", str(OCTOBER), "--issue")
    [row] = drafted.document["operators"]
    customers = len(row["drafts"]) + len(row["zero"]) + len(row["waiting"])
    found.add("requests", trace.rows)
    found.add("customers", customers)
    found.add("documents", len(issued.document["operators"][0]["issued"]))
    found.add("cells of usage", rows)
    found.add("lines", lines)
    found.add("import", imported.seconds, "s")
    found.add("close, drafts", drafted.seconds, "s", "≤ 20")
    found.add("close --issue", issued.seconds, "s", "≤ 20")
    found.add("close --issue, nothing to do", again.seconds, "s")
    found.add("rating alone", seconds, "s")
    found.add("most memory, close --issue", issued.peak_mib, "MiB")
    if not trace.real:
        found.notes.append("drawn rows: the real trace is not at hand, or --quick")
    return found


async def _rating(data: Path) -> tuple[int, int, float]:
    """Cells, lines, and the seconds that rating them takes once they are in memory."""
    async with open_database(data, os.environ) as database, PostgresBooks(database).read(OPERATOR) as book:
        facts = await book.facts()
        usage = await book.usage(*OCTOBER.bounds(facts.operator[-1].zone))
    began = time.perf_counter()
    rated = rate(usage, with_holidays(facts, OCTOBER), OCTOBER)
    seconds = time.perf_counter() - began
    return usage.num_rows, sum(len(lines) for lines in rated.lines.values()), seconds
