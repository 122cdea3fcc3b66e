"""`tally archive compact` and `expire`, killed at each of their steps: what was begun is ended by the next run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pandas
import pytest
from archive_examples import Archive, quiet_hours

from adapters.archive_compact import compact
from adapters.archive_expire import expire
from adapters.archive_files import event_files
from adapters.archive_reading import lane_days
from adapters.objects import FolderObjects

CLOSED = datetime(2027, 1, 1, tzinfo=UTC)


def run_killed(archive: Path, step: str, what: str) -> int:
    """A process of its own that does `what` to the archive and kills itself at the step."""
    program = f"""
from datetime import UTC, datetime
from pathlib import Path
from adapters.archive_compact import compact
from adapters.archive_expire import expire
from adapters.objects import FolderObjects
objects, closed = FolderObjects(Path({str(archive)!r})), datetime(2027, 1, 1, tzinfo=UTC)
{what}
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"TALLY_KILL_AT": step}, check=False
    )
    return ran.returncode


@pytest.fixture
def archive(tmp_path: Path) -> tuple[Archive, FolderObjects]:
    """An afternoon of a lane, on disk: 24 batches, 4 of them with an event."""
    made = quiet_hours(4)
    objects = FolderObjects(tmp_path / "archive")
    objects.put(list(made.objects.there.items()))
    return made, objects


@pytest.mark.parametrize("step", ["joined:1", "bodies-left:1", "seals-left:1"])
def test_compaction_killed_at_a_step_leaves_an_archive_that_is_whole_and_is_ended_by_the_next(
    archive: tuple[Archive, FolderObjects], step: str
) -> None:
    made, objects = archive
    joining = "list(compact(objects, 'telecentras', lambda n, l: closed, closed))"
    assert run_killed(objects.root, step, joining) == -signal.SIGKILL
    [day] = lane_days(objects, "telecentras")
    files = [objects.root / path for path in event_files(objects, day)]
    assert sum(len(pandas.read_parquet(file)) for file in files) == 4

    list(compact(objects, "telecentras", lambda _node, _lane: CLOSED, CLOSED))
    [day] = lane_days(objects, "telecentras")
    assert (len(day.joined_seals), len(day.joined_bodies)) == (1, 1)
    assert not day.seals | day.bodies
    assert len(pandas.read_parquet(objects.root / "telecentras")) == 4
    made.objects.there = {path: objects.get(path) or b"" for path in objects.list("")}
    assert made.notes() == {path: batch.note for path, batch in made.batches.items()}


@pytest.mark.parametrize(("step", "left"), [("decided:1", 4), ("expired:1", 2)])
def test_expiry_killed_at_a_step_has_taken_what_it_had_decided_and_no_more(
    archive: tuple[Archive, FolderObjects], step: str, left: int
) -> None:
    _, objects = archive
    [day] = lane_days(objects, "telecentras")
    files = event_files(objects, day)
    expiring = f"list(expire(objects, {files!r}, at_once=2))"
    assert run_killed(objects.root, step, expiring) == -signal.SIGKILL
    [day] = lane_days(objects, "telecentras")
    assert (len(day.bodies), len(day.seals)) == (left, 24)
    list(expire(objects, files))
    [day] = lane_days(objects, "telecentras")
    assert (len(day.bodies), len(day.seals)) == (0, 24)


def test_a_quiet_nodes_day_is_some_thirty_objects_while_it_runs_and_two_when_it_is_over(
    tmp_path: Path,
) -> None:
    """A heartbeat every five minutes here, every ten seconds in `make proof`: joined, it is the same number of objects."""
    _quiet_day(tmp_path, every_s=300)


@pytest.mark.proof
def test_a_quiet_nodes_8640_seals_become_two_objects(tmp_path: Path) -> None:
    _quiet_day(tmp_path, every_s=10)


def _quiet_day(tmp_path: Path, every_s: int) -> None:
    made = quiet_hours(16, every_s=every_s)
    objects = FolderObjects(tmp_path / "archive")
    objects.put(list(made.objects.there.items()))
    begin = datetime(2026, 10, 5, 8, tzinfo=UTC)
    for hour in range(10, 24):
        list(compact(objects, "telecentras", lambda _node, _lane: CLOSED, begin.replace(hour=hour)))
    hourly = len(list(objects.list("")))
    waiting = 2 * (3600 // every_s) + 4  # what came in the last two hours
    # A hundred such lanes: fewer than 5,000 objects a day, also before the day is joined.
    assert hourly - waiting <= 2 * 14 <= 50
    list(compact(objects, "telecentras", lambda _node, _lane: CLOSED, CLOSED))
    assert len([path for path in objects.list("") if "2026-10-05" in path]) == 2
    assert len(pandas.read_parquet(objects.root / "telecentras")) == 16
