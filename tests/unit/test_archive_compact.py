"""Joined batches: the same events, roots and totals as before, whatever was joined when, and wherever it was killed."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archive_examples import Archive, quiet_hours
from hypothesis import given, settings
from hypothesis import strategies as st
from intake_world import START, Writer
from memory_objects import Cut

from adapters import archive_compact
from adapters.archive import BatchObjects
from adapters.archive_joined import join, read_joined
from adapters.archive_reading import BatchReader
from billing.intake_ports import StoredBatch
from metering.batch import read_body
from metering.event import totals
from metering.refusal import Refusal

FAR = datetime(2026, 12, 1, tzinfo=UTC)


def rows(table: pa.Table) -> list[str]:
    return sorted(str(row) for row in table.to_pylist())


def test_a_closed_day_becomes_one_pair_of_objects_with_the_same_seals_events_and_sums() -> None:
    archive = quiet_hours(3)
    events = archive.events()
    done = archive.compact()
    assert (done.files, done.batches, done.events) == (1, 18, 3)
    assert (done.objects_before, done.objects_after) == (21, 2)
    assert archive.notes() == {path: batch.note for path, batch in archive.batches.items()}
    assert rows(archive.events()) == rows(archive.plain()) == rows(events)
    assert totals(archive.events()) == totals(events)


def test_hours_are_joined_while_the_day_runs_and_days_when_it_is_over() -> None:
    archive = quiet_hours(4)
    day = START.replace(hour=0)
    assert archive.compact(now=day + timedelta(hours=10, minutes=30)).batches == 6  # 08:00 to 09:00
    assert archive.compact(now=day + timedelta(hours=10, minutes=30)).files == 0
    assert archive.compact(now=day + timedelta(hours=13, minutes=1)).batches == 18
    assert archive.compact(now=day + timedelta(hours=24, minutes=59)).files == 0
    assert archive.compact(now=day + timedelta(hours=25)).batches == 24
    assert len(archive.objects.there) == 2
    assert len(archive.events()) == 4


def test_what_no_transaction_is_known_to_have_taken_stays_as_it_lies() -> None:
    archive = quiet_hours(2)
    assert archive.compact(mark=START + timedelta(minutes=30)).batches == 3
    assert len(archive.notes()) == 12


def test_a_late_batch_joins_the_file_of_its_day() -> None:
    archive = quiet_hours(2)
    archive.compact()
    late = Writer(lane="sidecar-0", epoch="b" * 32)
    late.time_us = int((START + timedelta(hours=5)).timestamp()) * 1_000_000
    archive.put(late.seal(2))
    assert len(archive.events()) == 4
    assert archive.compact().batches == 13
    assert len(archive.objects.there) == 2
    assert len(archive.events()) == 4


def test_a_damaged_late_batch_leaves_the_file_of_its_day_as_it_is() -> None:
    archive = quiet_hours(2)
    archive.compact()
    joined = dict(archive.objects.there)
    late = Writer(epoch="b" * 32)
    late.time_us = int((START + timedelta(hours=5)).timestamp()) * 1_000_000
    archive.put(late.seal(2))
    body = next(path for path in archive.objects.there if "b" * 32 in path and path.endswith(".parquet"))
    archive.objects.there[body] = b"PAR1"
    for _ in range(2):
        done = archive.compact()
        assert (done.files, [fault.code for fault in done.faults]) == (0, ["body_size"])
        assert joined.items() <= archive.objects.there.items()


def test_a_joined_file_that_was_written_wrong_is_made_again_while_its_batches_lie_beside_it() -> None:
    archive = quiet_hours(2)
    apart, events = dict(archive.objects.there), rows(archive.events())
    archive.compact()
    [body] = [path for path in archive.objects.there if path.endswith(".parquet")]
    archive.objects.there[body] = archive.objects.there[body][:-1]
    torn = dict(archive.objects.there)
    archive.objects.there |= apart
    archive.compact()
    assert (rows(archive.events()), len(archive.objects.there)) == (events, 2)

    bodiless = {path: content for path, content in apart.items() if path.endswith(".seal")}
    archive.objects.there = torn | bodiless
    archive.compact()
    assert archive.objects.there == torn | bodiless  # damage is left as it lies


def test_files_are_not_larger_than_they_may_be() -> None:
    archive = quiet_hours(4)
    assert archive.compact(full_seals=10).files == 3
    assert archive.compact(full_seals=10).files == 0
    assert len(archive.events()) == len(archive.plain()) == 4


def test_an_accepted_batch_is_found_by_its_path_wherever_it_lies() -> None:
    archive = quiet_hours(2)
    archive.compact()
    reader, stored = BatchReader(archive.objects), BatchObjects(archive.objects)
    for path, batch in archive.batches.items():
        assert reader.events(path).num_rows == batch.seal.events
        found = stored.get(path)
        # Of one and the same version of pyarrow, even the body's digest.
        assert found == StoredBatch(path, batch.note, batch.body)
    assert stored.get("telecentras/2026-10-05/vilnius-1/sidecar-0/none") is None


def test_a_batch_is_found_whole_between_any_two_steps_of_compaction(monkeypatch: pytest.MonkeyPatch) -> None:
    archive = quiet_hours(2, every_s=1800)
    met: list[str] = []

    def look(step: str) -> None:
        met.append(step)
        store = BatchObjects(archive.objects)
        for path, batch in archive.batches.items():
            assert store.get(path) == StoredBatch(path, batch.note, batch.body), step

    monkeypatch.setattr(archive_compact, "step", look)
    archive.compact()
    assert met == ["joined", "bodies-left", "seals-left"]


def test_a_batch_whose_events_are_gone_is_its_seal_alone() -> None:
    for joined in (False, True):
        archive = quiet_hours(2, every_s=1800)
        if joined:
            archive.compact()
        for name in [name for name in archive.objects.there if name.endswith(".parquet")]:
            del archive.objects.there[name]
        for path, batch in archive.batches.items():
            assert BatchObjects(archive.objects).get(path) == StoredBatch(path, batch.note, b"")


def test_a_damaged_batch_is_named_and_stays_as_it_lies_while_the_others_are_joined() -> None:
    archive = quiet_hours(2)
    path = next(path for path, batch in archive.batches.items() if batch.body)
    archive.objects.there[f"{path}.parquet"] = b"PAR1 damaged"
    done = archive.compact()
    assert [(fault.code, fault.where) for fault in done.faults] == [("body_size", path)]
    assert done.batches == 11
    assert archive.objects.there[f"{path}.parquet"] == b"PAR1 damaged"


def is_whole(archive: Archive) -> bool:
    try:
        return len(archive.notes()) == len(archive.batches) and archive.events().num_rows > 0
    except Refusal:
        return False


def test_every_flipped_byte_of_a_joined_file_is_found() -> None:
    archive = quiet_hours(1)
    archive.compact()
    assert is_whole(archive)
    for path, content in list(archive.objects.there.items()):
        for at in range(0, len(content), 97):
            archive.objects.there[path] = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
            assert not is_whole(archive)
        archive.objects.there[path] = content


def test_a_joined_file_says_what_it_holds() -> None:
    writer = Writer()
    first, beat = writer.seal(2), writer.seal(0)
    joined, seals, body = join(
        [
            ("a-0-" + first.hash, first.note, read_body(first.seal, first.body)),
            ("a-1-" + beat.hash, beat.note, None),
        ]
    )
    assert read_joined(joined.name, seals) == joined
    assert [(entry.hash, entry.first_row, entry.rows) for entry in joined.entries] == [
        (first.hash, 0, 2),
        (beat.hash, 2, 0),
    ]
    assert pq.read_table(io.BytesIO(body)).num_rows == 2


@settings(max_examples=40)
@given(
    steps=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 4000)), min_size=1, max_size=25),
    when=st.lists(st.integers(0, 40), max_size=3),
    full_seals=st.integers(2, 12),
    cuts=st.lists(st.integers(0, 30), max_size=4),
)
def test_any_split_joined_at_any_time_and_killed_anywhere_is_the_same_archive(
    steps: Sequence[tuple[int, int]], when: Sequence[int], full_seals: int, cuts: Sequence[int]
) -> None:
    archive, writer = Archive(), Writer()
    for count, pause_s in steps:
        writer.time_us += pause_s * 1_000_000
        archive.put(writer.seal(count))
    before = rows(archive.events())
    notes = archive.notes()
    for cut, hours in zip(cuts, [*sorted(when), 90, 90, 90, 90], strict=False):
        archive.objects.cut_at = cut
        with contextlib.suppress(Cut):
            archive.compact(now=START + timedelta(hours=hours), full_seals=full_seals)
        archive.objects.cut_at = None
        assert archive.notes() == notes
        assert rows(archive.events()) == before
    done = archive.compact(full_seals=full_seals)
    assert done.faults == []
    assert archive.notes() == notes
    assert rows(archive.events()) == rows(archive.plain()) == before
    assert archive.compact(full_seals=full_seals).files == 0
