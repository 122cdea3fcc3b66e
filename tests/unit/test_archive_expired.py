"""After an expiry usage is made again as before, cell by cell; what no decision names is gone, and said to be."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from archive_examples import Archive
from intake_world import START, Writer

from adapters.archive_cells import SUM_SCHEMA
from adapters.archive_expire import Bounds, Hold, expirable, expire
from adapters.archive_expired import put_list, read_lists
from adapters.archive_rebuild import Cells, Ledger, Rebuilt, rebuild
from metering.batch import SealedBatch

OTHER = uuid.UUID(int=2).bytes
LATER = datetime(2027, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["alone", "joined"])
def archive(request: pytest.FixtureRequest) -> Archive:
    """Of one lane 3 events of Acme's, and a day later 2 of somebody else's."""
    made, writer = Archive(), Writer()
    made.put(writer.seal(3), writer.seal(0))
    writer.time_us += 86_400_000_000
    made.put(writer.seal(2, customer=OTHER))
    if request.param == "joined":
        made.compact()
    return made


def last(archive: Archive) -> SealedBatch:
    return list(archive.batches.values())[-1]


def decided(archive: Archive, *holds: Hold) -> str:
    """The digest of what a decision names, the files being gone."""
    bounds = Bounds(date(2027, 1, 1), ZoneInfo("UTC"), lambda _month, _node, _lane: LATER, holds)
    found = expirable(archive.objects, "telecentras", bounds, keep=True)
    listed = put_list(archive.objects, "telecentras", found.cells)
    list(expire(archive.objects, found.files))
    return listed


def made_again(
    archive: Archive, scratch: Path, *lists: str, span: tuple[int, int] | None = None, head: str = ""
) -> tuple[Rebuilt, pa.Table]:
    expired, faults = read_lists(archive.objects, "telecentras", lists)
    assert not faults
    cells = Cells(scratch)
    ledger = Ledger({("vilnius-1", "sidecar-0"): head or last(archive).hash}, expired=expired)
    made = rebuild(archive.objects, "telecentras", ledger, cells, span)
    tables = [SUM_SCHEMA.empty_table(), *(cells.of(day) for day in cells.days())]
    return made, pa.concat_tables(tables).sort_by([("hour", "ascending"), ("customer", "ascending")])


def test_after_an_expiry_every_cell_is_as_before(archive: Archive, tmp_path: Path) -> None:
    _, before = made_again(archive, tmp_path)
    made, after = made_again(archive, tmp_path, decided(archive))
    assert (made.expired, made.events, made.findings) == (2, 5, [])
    assert after.equals(before)
    assert not [name for name in archive.objects.there if name.endswith(".parquet")]


def test_of_a_span_or_up_to_a_head_it_is_too(archive: Archive, tmp_path: Path) -> None:
    begin = int(START.timestamp()) * 1_000_000 // 3_600_000_000 * 3_600_000_000
    span, head = (begin, begin + 3_600_000_000), next(iter(archive.batches.values())).hash
    by_span, by_head = (
        made_again(archive, tmp_path, **asked)[1] for asked in ({"span": span}, {"head": head})
    )
    listed = decided(archive)
    assert made_again(archive, tmp_path, listed, span=span)[1].equals(by_span)
    assert made_again(archive, tmp_path, listed, head=head)[1].equals(by_head)


def test_a_body_that_no_decision_names_is_gone_though_others_of_its_day_expired(tmp_path: Path) -> None:
    archive, writer = Archive(), Writer()
    archive.put(writer.seal(3), writer.seal(2, customer=OTHER))
    listed = decided(archive, Hold(OTHER, None))
    made, _ = made_again(archive, tmp_path, listed)
    assert (made.expired, made.findings) == (1, [])

    stolen = next(name for name in archive.objects.there if name.endswith(".parquet"))
    del archive.objects.there[stolen]
    made, _ = made_again(archive, tmp_path, listed)
    assert [(each.code, each.where) for each in made.findings] == [("gone", stolen.removesuffix(".parquet"))]
    assert made.expired == 1


def test_what_was_kept_and_is_changed_or_lost_is_damage_and_is_not_counted(tmp_path: Path) -> None:
    archive, writer = Archive(), Writer()
    archive.put(writer.seal(3))
    listed = decided(archive)
    there = archive.objects.there
    [cells] = [name for name in there if name.endswith(".cells")]
    whole = there[cells]
    for content in (whole[:-1] + b"x", None):
        there.pop(cells)
        if content is not None:
            there[cells] = content
        made, after = made_again(archive, tmp_path, listed)
        assert [each.code for each in made.findings] == ["damaged", "gone"]
        assert after.num_rows == 0
        there[cells] = whole


def test_a_list_that_is_not_the_one_of_the_decision_names_nothing(tmp_path: Path) -> None:
    archive, writer = Archive(), Writer()
    archive.put(writer.seal(3))
    listed = decided(archive)
    path = f"telecentras/_expired/{listed}.list"
    archive.objects.there[path] += b"2026-10-05/vilnius-1/sidecar-0/_expired-" + b"a" * 64 + b".cells\n"
    found, [fault] = read_lists(archive.objects, "telecentras", [listed])
    assert (dict(found), fault.where) == ({}, path)
    del archive.objects.there[path]
    assert read_lists(archive.objects, "telecentras", [listed])[1][0].where == path


def test_cells_that_were_kept_and_no_decision_names_count_for_nothing(tmp_path: Path) -> None:
    archive, writer = Archive(), Writer()
    archive.put(writer.seal(3))
    decided(archive)
    made, cells = made_again(archive, tmp_path)
    assert ([each.code for each in made.findings], cells.num_rows) == (["gone"], 0)


def test_two_decisions_that_name_one_batch_count_it_once(tmp_path: Path) -> None:
    archive, writer = Archive(), Writer()
    archive.put(writer.seal(3))
    before = dict(archive.objects.there)
    first = decided(archive)
    archive.objects.there |= before  # who decided was killed; another batch comes, and it is decided again
    archive.put(writer.seal(1))
    made, cells = made_again(archive, tmp_path, first, decided(archive))
    assert (made.findings, made.expired) == ([], 2)
    assert sum(cells["requests"].to_pylist()) == 4
