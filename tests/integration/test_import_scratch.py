"""Scratch folders of imports: gone with the import, or with the next one where it was killed."""

from __future__ import annotations

from pathlib import Path

from adapters.importing.scratch import scratch_folder


def test_a_scratch_folder_is_gone_when_its_import_is(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "scratch") as own:
        (own / "rows.arrow").write_bytes(b"rows")

    assert list((tmp_path / "scratch").iterdir()) == []


def test_what_a_killed_import_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    left = tmp_path / "scratch" / "import-left"
    left.mkdir(parents=True)
    (left / "rows.arrow").write_bytes(b"rows")

    with scratch_folder(tmp_path / "scratch") as own:
        assert list((tmp_path / "scratch").iterdir()) == [own]


def test_the_folder_of_an_import_that_runs_is_left_alone(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "scratch") as first, scratch_folder(tmp_path / "scratch") as second:
        assert sorted((tmp_path / "scratch").iterdir()) == sorted([first, second])


def test_a_file_that_somebody_put_there_stays(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "notes").write_text("mine")

    with scratch_folder(tmp_path / "scratch"):
        assert (tmp_path / "scratch" / "notes").read_text() == "mine"
