"""The real trace of coding sessions: how it is imported, what its own totals are, and its requests as plain facts.

`claude_code_session_totals.csv.zst` is the source's own count, an oracle to the token for prompt and output tokens and
requests; the cached tokens have no totals of their own and are added up here from the rows.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

from command import EXAMPLE, decompressed, public_trace

ORIGIN = datetime(2026, 10, 5, 8, tzinfo=UTC)
SESSIONS, REQUESTS = 710, 49_334
OPTIONS = (
    *("--node", "vilnius-1", "--map", "customer=session_id", "--map", "time=t_s"),
    *("--map", "prompt_tokens=input_tokens", "--map", "cached_tokens=cached_prefix_tokens"),
    *("--map", "completion_tokens=output_tokens", "--time-unit", "s"),
)
Totals = dict[str, dict[str, int]]


def trace() -> Path:
    return public_trace("claude_code_requests.csv.zst")


def import_command() -> tuple[str, ...]:
    """`tally import …` as a user types it for this trace."""
    return ("import", str(trace()), *OPTIONS, "--time-origin", ORIGIN.isoformat(), "--create-customers")


def own_totals() -> Totals:
    """Per session: the source's own requests, prompt and completion tokens, and the cached tokens of its rows."""
    cached: dict[str, int] = defaultdict(int)
    for row in _rows("claude_code_requests.csv.zst"):
        cached[row["session_id"]] += int(row["cached_prefix_tokens"])
    return {
        row["session_id"]: {
            "requests": int(row["requests"]),
            "prompt_tokens": int(row["sum_in"]),
            "cached_tokens": cached[row["session_id"]],
            "completion_tokens": int(row["sum_out"]),
        }
        for row in _rows("claude_code_session_totals.csv.zst")
    }


def events(origin: datetime = ORIGIN) -> Iterator[dict[str, Any]]:
    """Every request as the slow bill (tests/reference/plain_bill.py) takes it, the trace's times beginning at `origin`."""
    for row in _rows("claude_code_requests.csv.zst"):
        yield {
            "time": origin + timedelta(microseconds=int(Fraction(row["t_s"]) * 1_000_000)),
            "customer": row["session_id"],
            "node": "vilnius-1",
            "model": row["model"],
            "prompt_tokens": int(row["input_tokens"]),
            "cached_tokens": int(row["cached_prefix_tokens"]),
            "completion_tokens": int(row["output_tokens"]),
        }


def example_site() -> str:
    """The example's site files as one text."""
    return "\n---\n".join(path.read_text() for path in sorted(EXAMPLE.glob("*.yaml")))


def totals_of(usage: dict[str, Any]) -> Totals:
    """`tally usage --by customer --json` in the form of `own_totals`."""
    counted = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens")
    return {row["customer"]: {name: row[name] for name in counted} for row in usage["rows"]}


def _rows(name: str) -> Iterator[dict[str, str]]:
    return iter(csv.DictReader(io.StringIO(decompressed(public_trace(name)))))
