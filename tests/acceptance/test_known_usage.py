"""Usage that is there already, or half bad: files and request ids known before, bad rows left out and listed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command import EXAMPLE, Tally, over, write_rows

from adapters.postgres.database import DatabaseUrls


@pytest.fixture
def tally(fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path) -> Tally:
    return over(fresh_urls(), tmp_path / "data", EXAMPLE)


def row(request: str, **given: object) -> dict[str, object]:
    return {
        "time": "2026-10-12T09:30:00Z",
        "customer": "acme",
        "model": "qwen3-32b",
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "request_id": request,
        **given,
    }


def requests(tally: Tally) -> int:
    counted: int = tally("usage")["total"]["requests"]
    return counted


def test_a_known_file_under_other_options_is_refused_unless_also(tally: Tally, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "usage.csv", [row(""), row("", prompt_tokens=300)])
    first = tally("import", str(file))

    error = tally.refused("import", str(file), "--set", "model=qwen3-8b")
    assert error["code"] == "known_file"
    assert first["id"] in error["what"]
    assert requests(tally) == 2

    second = tally("import", str(file), "--set", "model=qwen3-8b", "--also")
    assert second["events"] == 2
    assert second["id"] != first["id"]
    assert requests(tally) == 4


def test_the_same_rows_in_another_file_or_format_are_the_same_import(tally: Tally, tmp_path: Path) -> None:
    first = tally("import", str(write_rows(tmp_path / "usage.csv", [row("a"), row("b", prompt_tokens=300)])))
    elsewhere = "2026-10-12T12:30:00+03:00"  # the same instant, written in another zone
    rows = [row("a", time=elsewhere), row("b", time=elsewhere, prompt_tokens=300)]
    (tmp_path / "usage.jsonl").write_text("\n".join(map(json.dumps, rows)))

    again = tally("import", str(tmp_path / "usage.jsonl"))

    assert again["id"] == first["id"]
    assert (again["events"], again["already_known"]) == (0, 2)
    assert requests(tally) == 2


def test_known_request_ids_with_the_same_content_are_left_out(tally: Tally, tmp_path: Path) -> None:
    tally("import", str(write_rows(tmp_path / "monday.csv", [row("a"), row("b")])))

    overlapping = write_rows(tmp_path / "tuesday.csv", [row("b"), row("c"), row("c")])
    second = tally("import", str(overlapping))

    assert (second["events"], second["already_known"]) == (1, 2)
    assert requests(tally) == 3


def test_a_known_request_id_with_other_content_is_refused(tally: Tally, tmp_path: Path) -> None:
    tally("import", str(write_rows(tmp_path / "monday.csv", [row("a"), row("b")])))

    clash = write_rows(tmp_path / "tuesday.csv", [row("b", prompt_tokens=999), row("c")])
    error = tally.refused("import", str(clash))

    assert error["code"] == "request_id_clash"
    assert "b" in " ".join(f"{fault['where']} {fault['what']}" for fault in error["faults"])
    assert requests(tally) == 2


def test_a_request_id_that_clashes_within_one_file_is_refused(tally: Tally, tmp_path: Path) -> None:
    error = tally.refused(
        "import", str(write_rows(tmp_path / "usage.csv", [row("a"), row("a", prompt_tokens=999)]))
    )

    assert error["code"] == "request_id_clash"
    assert requests(tally) == 0


def test_skip_bad_imports_the_good_rows_and_lists_the_others(tally: Tally, tmp_path: Path) -> None:
    rows = [row("a"), row("b", prompt_tokens=-1), row("c", time="2026-10-12T09:30:00"), row("d")]
    file, bad = write_rows(tmp_path / "usage.csv", rows), tmp_path / "bad.txt"

    told = tally("import", str(file), "--skip-bad", str(bad))

    assert (told["events"], told["skipped"]) == (2, 2)
    first, second = bad.read_text().splitlines()
    assert first.startswith("usage.csv:3: prompt_tokens is not a whole number")
    assert second.startswith("usage.csv:4: time without a zone")
    assert requests(tally) == 2
