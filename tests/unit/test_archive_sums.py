"""Usage made again from the archive follows the lane's chain: what is missing, extra, damaged or gone is named."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pyarrow.compute as pc
import pytest
from archive_examples import Archive, quiet_hours
from intake_world import START, Writer

from adapters.archive_cells import HOUR_US, SUM_SCHEMA
from adapters.archive_rebuild import Cells, Ledger, Rebuilt, differences, lost_hours, rebuild
from adapters.archive_sums import Gone
from billing.cells import cells_of
from metering.batch import SealedBatch

LANE = ("vilnius-1", "sidecar-0")


def made_again(
    archive: Archive,
    tmp_path: Path,
    head: SealedBatch | str,
    span: tuple[int, int] | None = None,
    **ledger: object,
) -> tuple[Rebuilt, int]:
    """What a rebuild up to `head` finds, and the requests that it counts."""
    cells = Cells(tmp_path)
    name = head if isinstance(head, str) else head.hash
    known = Ledger({LANE: name}, **ledger)  # type: ignore[arg-type]  # the fields by their names
    made = rebuild(archive.objects, "telecentras", known, cells, span)
    return made, sum(pc.sum(cells.of(day)["requests"]).as_py() for day in cells.days())


def last(archive: Archive) -> SealedBatch:
    return list(archive.batches.values())[-1]


def path_of(archive: Archive, number: int) -> str:
    return next(path for path, batch in archive.batches.items() if batch.seal.number == number)


def take(archive: Archive, path: str) -> None:
    folder, _, name = path.rpartition("/")
    for each in (f"{path}.parquet", f"{folder}/_{name}.seal"):
        archive.objects.there.pop(each, None)


@pytest.fixture(params=["alone", "joined"])
def archive(request: pytest.FixtureRequest) -> Archive:
    """Three days of a lane with an event an hour."""
    found = quiet_hours(40, every_s=1800)
    if request.param == "joined":
        assert found.compact().files == 2
    return found


def test_a_whole_archive_gives_every_event_and_nothing_to_say(archive: Archive, tmp_path: Path) -> None:
    made, requests = made_again(archive, tmp_path, last(archive))
    assert (made.batches, made.events, requests, made.findings) == (80, 40, 40, [])


def test_up_to_a_head_only_what_the_chain_held_then_counts(archive: Archive, tmp_path: Path) -> None:
    head = archive.batches[path_of(archive, 20)]
    made, requests = made_again(archive, tmp_path, head)
    assert (made.batches, requests, made.findings) == (21, 11, [])


def test_only_the_hours_that_are_asked_for_are_summed(archive: Archive, tmp_path: Path) -> None:
    begin = int((START + timedelta(hours=10)).timestamp()) * 1_000_000
    made, requests = made_again(archive, tmp_path, last(archive), (begin, begin + 6 * 3_600_000_000))
    assert (made.batches, requests, made.findings) == (80, 6, [])


def test_a_head_that_the_archive_never_reaches_is_named(archive: Archive, tmp_path: Path) -> None:
    made, _ = made_again(archive, tmp_path, "f" * 64)
    assert [finding.code for finding in made.findings] == ["missing"]
    assert "f" * 64 in made.findings[0].what


@pytest.mark.parametrize("number", [0, 2, 32, 40])
def test_a_missing_batch_is_named_by_the_one_behind_it(tmp_path: Path, number: int) -> None:
    archive = quiet_hours(40, every_s=1800)
    missing = path_of(archive, number)
    take(archive, missing)
    made, requests = made_again(archive, tmp_path, last(archive))
    [finding] = made.findings
    assert (finding.code, finding.where) == ("missing", path_of(archive, number + 1))
    assert archive.batches[missing].hash in finding.what
    assert requests == 39


def test_a_batch_that_no_chain_reaches_is_extra_and_not_counted(tmp_path: Path) -> None:
    archive = quiet_hours(40, every_s=1800)
    before = archive.batches[path_of(archive, 10)]
    fork = Writer(
        number=11, sequence=before.seal.last, previous=before.hash, time_us=before.seal.complete_to_us
    )
    archive.put(fork.seal(5))
    stray, head = list(archive.batches)[-1], list(archive.batches.values())[-2]
    made, requests = made_again(archive, tmp_path, head)
    assert [(finding.code, finding.where) for finding in made.findings] == [("extra", stray)]
    assert (made.batches, requests) == (80, 40)


def test_a_batch_that_a_decision_put_behind_another_is_followed(tmp_path: Path) -> None:
    archive = quiet_hours(10, every_s=1800)
    lost = archive.batches[path_of(archive, 5)]
    take(archive, path_of(archive, 5))
    behind = {archive.batches[path_of(archive, 6)].hash: lost.seal.previous}
    made, requests = made_again(archive, tmp_path, last(archive), adopted=behind)
    assert (made.batches, requests, made.findings) == (19, 10, [])


def test_a_damaged_body_is_named_and_its_hours_are_not_compared(tmp_path: Path) -> None:
    archive = quiet_hours(10, every_s=1800)
    path = path_of(archive, 4)
    archive.objects.there[f"{path}.parquet"] = archive.objects.there[f"{path}.parquet"][:-1] + b"x"
    made, requests = made_again(archive, tmp_path, last(archive))
    assert [(finding.code, finding.where) for finding in made.findings] == [("damaged", path)]
    assert (requests, [each.path for each in made.gone]) == (9, [path])


def test_events_that_are_gone_are_a_finding(tmp_path: Path) -> None:
    archive = quiet_hours(10, every_s=1800)
    del archive.objects.there[f"{path_of(archive, 4)}.parquet"]
    lost, _ = made_again(archive, tmp_path, last(archive))
    assert [finding.code for finding in lost.findings] == ["gone"]


def test_what_the_archive_holds_after_a_head_and_of_a_lane_without_one_is_named_where_asked(
    archive: Archive, tmp_path: Path
) -> None:
    head = archive.batches[path_of(archive, 76)]
    ledger = Ledger({LANE: head.hash})
    made = rebuild(archive.objects, "telecentras", ledger, Cells(tmp_path), behind=True)
    assert (made.behind, made.findings) == ([path_of(archive, number) for number in (77, 78, 79)], [])
    nobodys = rebuild(archive.objects, "telecentras", Ledger({}), Cells(tmp_path), behind=True)
    assert nobodys.behind == list(archive.batches)
    assert rebuild(archive.objects, "telecentras", ledger, Cells(tmp_path)).behind == []


def test_cells_that_do_not_come_to_the_seals_control_totals_are_a_finding(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.archive_cells.cells_of", lambda batches: cells_of(batches).slice(1))
    made, _ = made_again(archive, tmp_path, last(archive))
    assert {finding.code for finding in made.findings} == {"differs"}


def test_cells_differ_by_key_and_sums_and_hours_that_are_gone_are_left_out(tmp_path: Path) -> None:
    archive = quiet_hours(3, every_s=1800)
    cells = Cells(tmp_path)
    made = rebuild(archive.objects, "telecentras", Ledger({LANE: last(archive).hash}), cells)
    [day] = cells.days()
    ours = cells.of(day)
    assert differences(ours, ours, {}, 10) == (0, [])
    count, [found] = differences(ours, ours.slice(1), {}, 10)
    assert count == 1
    assert (found["archive"]["requests"], found["database"]["requests"]) == (1, 0)
    assert differences(ours, SUM_SCHEMA.empty_table(), {}, 2)[0] == 3
    del archive.objects.there[f"{path_of(archive, 2)}.parquet"]
    made = rebuild(
        archive.objects, "telecentras", Ledger({LANE: last(archive).hash}), fewer := Cells(tmp_path)
    )
    assert differences(fewer.of(day), ours, lost_hours(made.gone), 10)[0] == 0


def test_hours_of_which_much_is_gone_are_left_out_at_once(tmp_path: Path) -> None:
    archive = quiet_hours(10, every_s=1800)
    cells = Cells(tmp_path)
    rebuild(archive.objects, "telecentras", Ledger({LANE: last(archive).hash}), cells)
    ours = cells.of(cells.days()[0])
    gone = [Gone("", "vilnius-1", 1, HOUR_US * n, HOUR_US * n) for n in range(0, 40_000, 2)]
    gone += [Gone("", "vilnius-1", 1, HOUR_US * n, HOUR_US * (n + 1)) for n in range(0, 4_000, 3)]
    begins, ends = lost_hours(gone)["vilnius-1"]
    assert (ends >= begins).all()
    assert (begins[1:] > ends[:-1]).all(), "they are apart"
    assert begins[0] == 0
    first = int(pc.min(ours["hour"]).cast("int64").as_py())
    lost = lost_hours(
        [*gone, Gone("", "vilnius-1", 1, first, first + 2 * HOUR_US), Gone("", "n", 1, 0, first * 2)]
    )
    assert differences(ours, SUM_SCHEMA.empty_table(), lost, 0)[0] == 7


def test_cells_that_went_to_the_scratch_folder_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.archive_rebuild._HELD_CELLS", 3)
    archive = quiet_hours(40, every_s=1800)
    _, requests = made_again(archive, tmp_path, last(archive))
    assert requests == 40
    assert list(tmp_path.glob("*.arrow"))
