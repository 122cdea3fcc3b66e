"""A query of the archive takes the time and the memory that it was given, whatever it asks for."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pytest
from archive_examples import quiet_hours

from adapters.archive_bounds import Limits
from adapters.archive_query import Answer, query
from adapters.archive_reading import lane_days
from adapters.objects import FolderObjects
from metering.refusal import Refusal


def asked(folder: Path, sql: str, **limits: object) -> Answer:
    return query(FolderObjects(folder), sql, [], {}, None, Limits(**limits))  # type: ignore[arg-type]  # by name


class Slow(FolderObjects):
    """A store that takes 20 ms for each object."""

    def get(self, path: str) -> bytes | None:
        time.sleep(0.02)
        return super().get(path)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    FolderObjects(folder).put(list(quiet_hours(6, every_s=60).objects.there.items()))
    return folder


def resident_bytes() -> int:
    """The most that this process had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT repeat('x', 1000000) a, repeat('y', 1000000) b, repeat('z', 1000000) c FROM range(2000)",
        "SELECT repeat('x', 2000000) a, repeat('y', 2000000) b, repeat('z', 2000000) c FROM range(2000)",
        "SELECT repeat('x', 100000) a FROM range(1000)",
    ],
)
def test_wide_rows_are_refused_before_they_fill_the_memory(tmp_path: Path, sql: str) -> None:
    before, soft = resident_bytes(), resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(Refusal) as refused:
        asked(tmp_path, sql, memory="200MB")
    assert refused.value.code == "query_too_large"
    assert resident_bytes() - before < 1 << 30
    assert asked(tmp_path, "SELECT 1 AS one").rows == ((1,),), "and the process is as it was"
    assert resource.getrlimit(resource.RLIMIT_DATA) == soft


@pytest.mark.parametrize("sql", ["SELECT DATE '290000-01-01'", "SELECT * FROM test_all_types()"])
def test_a_value_that_can_not_be_shown_is_a_bad_query(tmp_path: Path, sql: str) -> None:
    with pytest.raises(Refusal) as refused:
        asked(tmp_path, sql)
    assert refused.value.code == "bad_query"


def test_rows_come_in_the_order_that_was_asked_for_and_no_more_of_them(tmp_path: Path) -> None:
    answer = asked(tmp_path, "SELECT range AS n FROM range(1000) ORDER BY n DESC -- newest first", rows=3)
    assert (answer.columns, answer.rows, answer.truncated) == (("n",), ((999,), (998,), (997,)), True)
    whole = asked(tmp_path, "WITH a AS (SELECT range AS n FROM range(200)) SELECT n FROM a LIMIT 200;")
    assert ([row[0] for row in whole.rows], whole.truncated) == (list(range(200)), False)


def test_seals_are_read_within_the_time(archive: Path) -> None:
    slow = Slow(archive)
    days = list(lane_days(slow, "telecentras"))
    begun = time.monotonic()
    with pytest.raises(Refusal) as refused:
        query(slow, "SELECT count(*) FROM seal", days, {}, None, Limits(timeout_s=0.1))
    assert refused.value.code == "query_too_long"
    assert time.monotonic() - begun < 2
    [(count, again)] = query(slow, "SELECT count(*), (SELECT count(*) FROM seal) FROM seal", days, {}).rows
    assert (count, again) == (360, 360)


def test_what_begins_after_the_time_is_interrupted_too(tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(Refusal) as refused:
        asked(tmp_path, "SELECT count(*) FROM range(1000000) a, range(1000000) b", timeout_s=0.1)
    assert refused.value.code == "query_too_long"
    assert time.monotonic() - begun < 3
