"""Tariffs full of mistakes, with what must be said of them beside each line (tests/vectors/mistakes).

`#! words` in a line: applying lists a fault there with these words; `#? words`: a warning. Several are divided by ` | `.
Nothing else may be listed.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapters.site_files.apply import apply_site, check_site
from adapters.site_files.reading import read_files
from adapters.site_files.store import MemorySiteStore
from metering.refusal import Fault, Refusal

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
MISTAKES = Path(__file__).parents[1] / "vectors" / "mistakes"

Listed = dict[int, list[str]]
"""What is said of each line."""


def expected(file: Path, mark: str) -> Listed:
    found: Listed = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        said = [words.strip() for words in re.split(r"(?=#[!?] )", line)[1:]]
        wanted = [words[2:].rstrip("| ").strip() for words in said if words.startswith(mark)]
        if wanted and not line.startswith("#"):
            found[number] = wanted
    return found


def checked(file: Path) -> tuple[Sequence[Fault], Sequence[Fault]]:
    """Faults and warnings of a file beside an empty store."""
    try:
        return (), asyncio.run(check_site(MemorySiteStore(), read_files([file]), NOW)).warnings
    except Refusal as refused:
        warnings = refused.extra.get("warnings", [])
        assert isinstance(warnings, list)
        return refused.faults, [Fault(**each) for each in warnings]


def by_line(file: Path, faults: Sequence[Fault]) -> Listed:
    found: Listed = defaultdict(list)
    for fault in faults:
        name, _, line = fault.where.rpartition(":")
        assert name == str(file)
        assert fault.remedy, f"{fault} does not say what to do"
        found[int(line)].append(f"{fault.what} ({fault.remedy})")
    return dict(found)


def compared(wanted: Listed, found: Listed) -> list[str]:
    """Differences: what is not said though it should be, and what is said though nobody asked."""
    differences = []
    for line in sorted({*wanted, *found}):
        said, words = found.get(line, []), wanted.get(line, [])
        differences += [f"{line}: not said: {each}" for each in words if not any(each in one for one in said)]
        differences += [
            f"{line}: not asked for: {one}" for one in said if not any(each in one for each in words)
        ]
    return differences


@pytest.mark.parametrize("file", sorted(MISTAKES.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_mistake_is_listed_at_its_line_with_a_remedy_and_nothing_else(file: Path) -> None:
    faults, warnings = checked(file)
    assert compared(expected(file, "#!"), by_line(file, faults)) == []
    assert compared(expected(file, "#?"), by_line(file, warnings)) == []


@pytest.mark.parametrize(("name", "mark"), [("refused.yaml", "#!"), ("odd.yaml", "#?")])
def test_one_file_has_more_than_thirty_kinds_of_mistakes_at_once(name: str, mark: str) -> None:
    words = [each for said in expected(MISTAKES / name, mark).values() for each in said]
    kinds = {re.sub(r"'[^']*'|[a-z0-9_-]*\d[\d.,_%-]*|\[.*?\]", "", each) for each in words}
    assert len(kinds) >= 30


def test_a_version_that_was_applied_before_and_has_ended_is_not_warned_of_any_more() -> None:
    row = 'prices: [{models: ["*"], input: 2, output: 1}]'
    head = "kind: tariff\nid: t\noperator: o\ncurrency: EUR\n"
    operator = "kind: operator\nid: o\nname: O\ncountry: LT\ncurrency: EUR\ntimezone: Europe/Vilnius\n"
    history = f"{operator}---\n{head}{row}\n---\n{head}valid_from: 2026-10-01\n{row}\n"
    store, files = MemorySiteStore(), read_files(["-"], history.encode)
    first = asyncio.run(apply_site(store, files, NOW))
    again = asyncio.run(apply_site(store, files, NOW))
    assert [each.where for each in first.warnings] == ["-:12", "-:19"]
    assert [each.where for each in again.warnings] == ["-:19"]


def test_the_page_of_warnings_shows_what_check_says(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "tariff-check.md").read_text(encoding="utf-8")
    (site,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (shown,) = re.findall(r"^```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    file = tmp_path / "odd.yaml"
    file.write_text(site, encoding="utf-8")
    _, warnings = checked(file)
    assert [str(each).removeprefix(f"{tmp_path}/") for each in warnings] == shown.splitlines()
