"""What a query of the archive may take: time and memory, also where the database's own limits do not reach.

DuckDB keeps its tables and hash tables within its `memory_limit`, and not the values that it computes a few thousand
rows at a time, nor what becomes of them in Arrow and Python. So while a query runs, the process may not grow by more
than that limit and `_BESIDE_BYTES` (Linux: RLIMIT_DATA, the soft limit, put back afterwards); an allocation beyond it
fails, and the query with it, and nothing else. An answer's own bytes are counted as they come.

The time runs from before the first seal is read until the last row is had. DuckDB is interrupted; between its turns, and
before each object that is read, the clock is asked.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow as pa

from billing.objects import Objects
from metering.refusal import Refusal, Unavailable

_BESIDE_BYTES = 512 << 20
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_STATUS = Path("/proc/self/status")
#: What part of the memory an answer's rows may be; as Python's values and as JSON they are larger.
_ANSWER_PART = 8


@dataclass(frozen=True, slots=True)
class Limits:
    """What a query may take: memory as DuckDB writes it, seconds, rows that are answered."""

    memory: str = "1GB"
    timeout_s: float = 60
    rows: int = 1000


@dataclass(slots=True)
class Clock:
    """The time that a query has; it runs from now on."""

    limits: Limits
    ends: float = field(init=False)

    def __post_init__(self) -> None:
        self.ends = time.monotonic() + self.limits.timeout_s

    def check(self) -> None:
        """Refusal: query_too_long."""
        if time.monotonic() >= self.ends:
            raise too_long(self.limits)

    @contextlib.contextmanager
    def interrupting(self, session: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Interrupts what the session does at the end of the time, and whatever it begins after that."""
        done = threading.Event()

        def watch() -> None:
            wait_s = max(0.0, self.ends - time.monotonic())
            while not done.wait(wait_s):
                session.interrupt()
                wait_s = 0.1

        watching = threading.Thread(target=watch, name="query-time", daemon=True)
        watching.start()
        try:
            yield
        finally:
            done.set()
            watching.join()


class TimedObjects:
    """Objects that are read while there is time; else Refusal query_too_long. (A query writes none.)"""

    def __init__(self, objects: Objects, clock: Clock) -> None:
        self._objects = objects
        self._clock = clock

    def get(self, path: str) -> bytes | None:
        self._clock.check()
        return self._objects.get(path)

    def list(self, prefix: str) -> Iterator[str]:
        self._clock.check()
        return self._objects.list(prefix)

    def put(self, objects: Sequence[tuple[str, bytes]]) -> None:
        self._objects.put(objects)

    def replace(self, path: str, content: bytes) -> None:
        self._objects.replace(path, content)

    def remove(self, paths: Sequence[str]) -> None:
        self._objects.remove(paths)


def memory_bytes(session: duckdb.DuckDBPyConnection) -> int:
    """The session's memory limit."""
    [(said,)] = session.execute("SELECT current_setting('memory_limit')").fetchall()
    found = re.fullmatch(r"([\d.]+) (\w+)", said)
    if found is None or found[2] not in _UNITS:
        return int(said.split()[0]) if said.endswith("bytes") else 1 << 62  # more than there is
    whole, _, tenth = found[1].partition(".")
    return (int(whole) * 10 + int(tenth or 0)) * _UNITS[found[2]] // 10


@contextlib.contextmanager
def bounded_memory(limit_bytes: int) -> Iterator[None]:
    """The process does not grow by more than this and `_BESIDE_BYTES`; where that can't be told, nothing is bounded."""
    if not _STATUS.exists():
        yield
        return
    import resource  # not on every system

    now = int(
        next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmData:")).split()[1]
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = (now << 10) + limit_bytes + _BESIDE_BYTES
    if soft != resource.RLIM_INFINITY:
        most = min(most, soft)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (min(most, (1 << 63) - 1), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


@dataclass(slots=True)
class AnswerSize:
    """The bytes of an answer as they come, of at most an eighth of the memory."""

    limits: Limits
    memory: int
    bytes: int = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Refusal: query_too_large."""
        self.bytes += batch.nbytes
        if self.bytes > self.memory // _ANSWER_PART:
            raise too_large(
                self.limits,
                f"the answer is larger than {self.memory // _ANSWER_PART >> 20} MiB, an eighth of",
            )


def too_long(limits: Limits) -> Refusal:
    """The query had its time."""
    return Refusal(
        "query_too_long",
        f"the query took longer than {limits.timeout_s:g} s",
        where="SQL",
        remedy="name --operator and --period, or allow more with --timeout",
    )


def too_large(limits: Limits, what: str = "the query needs more memory than") -> Refusal:
    """The query had its memory."""
    return Refusal(
        "query_too_large",
        f"{what} {limits.memory}",
        where="SQL",
        remedy="ask for fewer rows, groups or columns, or allow more with --memory",
    )


@contextlib.contextmanager
def translated(limits: Limits) -> Iterator[None]:
    """What DuckDB, Arrow and the files raise, as refusals: query_too_long, query_too_large, bad_query."""
    try:
        yield
    except duckdb.InterruptException:
        raise too_long(limits) from None
    except (duckdb.OutOfMemoryException, MemoryError):
        raise too_large(limits) from None
    except duckdb.Error as fault:
        raise Refusal(
            "bad_query",
            str(fault).strip(),
            where="SQL",
            remedy="the views are event and seal, the SQL is DuckDB's",
        ) from None
    except FileNotFoundError as fault:
        raise Unavailable(
            "archive_changes",
            "a file left while it was read: `tally archive compact` or `expire` runs",
            where=str(fault.filename or ""),
            remedy="ask again",
        ) from None
    except (OSError, OverflowError, ValueError, pa.ArrowException) as fault:
        if "Out of Memory" in str(fault):
            raise too_large(limits) from None
        if "INTERRUPT" in str(fault).upper():
            raise too_long(limits) from None
        what = str(fault).strip().split("\n")[0]
        raise Refusal("bad_query", f"a value of the answer can't be shown: {what}", where="SQL") from None
