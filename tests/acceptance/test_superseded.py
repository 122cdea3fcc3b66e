"""Stories of tests/vectors/rating over the command line and PostgreSQL: what is superseded after it was billed, and late
usage that makes all of it cheaper. Nothing that was issued changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from command import Json, Tally, over, write_rows
from rating_vectors import BASE, STORIES

from adapters.postgres.database import DatabaseUrls

OCTOBER = "2026-10"
LINE = {"contract": "contract_version", "version": "tariff_version", "row": "price_row"}
"""What a story calls the keys of a line in the JSON of `invoice show`."""


@pytest.fixture
def tally(fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path) -> Tally:
    return over(fresh_urls(), tmp_path / "data")


def declare(tally: Tally, text: str, path: Path) -> Json:
    path.write_text(text)
    return tally("apply", str(path))


def import_usage(tally: Tally, usage: list[Mapping[str, Any]], path: Path) -> None:
    rows = [
        {
            "time": each["at"],
            "customer": each.get("customer", "acme"),
            "model": each.get("model", "m"),
            "prompt_tokens": each.get("prompt", 0),
            "completion_tokens": each.get("completion", 0),
        }
        for each in usage
    ]
    tally("import", str(write_rows(path, rows)), "--node", "vilnius-1")


def close(tally: Tally) -> list[Json]:
    """The documents that a close with --issue makes, each whole."""
    [row] = tally("period", "close", OCTOBER, "--issue")["operators"]
    return [tally("invoice", "show", each["id"]) for each in row["issued"]]


def without_the_year(numbers: list[str]) -> list[str]:
    return [f"{number.partition('-')[0]} {number.rpartition('-')[2]}" for number in numbers]


def check(found: Json, stated: Mapping[str, Any]) -> None:
    """A document as the story states it; numbers but for the year in which the test runs."""
    assert {name: found[name] for name in ("id", "kind", "net", "tax")} == {
        name: stated[name] for name in ("id", "kind", "net", "tax")
    }
    assert without_the_year([found["number"]]) == without_the_year([stated["number"]])
    for name in ("supplements", "corrects"):
        numbers = [each["number"] for each in found[name]]
        assert without_the_year(numbers) == without_the_year(stated.get(name, []))
    for name in ("allowances", "charges"):
        assert [
            (each["reason"], each["reason_code"], each["base"], each["percent"], each["amount"])
            for each in found[name]
        ] == [
            (each["reason"], each["code"], each.get("base"), each.get("percent"), each["amount"])
            for each in stated.get(name, [])
        ]
    for line, said in zip(by_price(found["lines"]), by_price(stated["lines"]), strict=True):
        assert said.items() <= {**line, **{name: line[key] for name, key in LINE.items()}}.items()


def by_price(lines: list[Json]) -> list[Json]:
    return sorted(lines, key=lambda line: (line["unit_price"], line["quantity"]))


@pytest.mark.parametrize("name", ["story-discount-shrank", "story-volume-tier-down"])
def test_a_story_goes_over_the_command_line_as_it_is_written(name: str, tally: Tally, tmp_path: Path) -> None:
    story = STORIES[name]
    declare(tally, BASE + story["site"], tmp_path / "site.yaml")
    issued: dict[str, Json] = {}
    for number, step in enumerate(story["story"]):
        if "usage" in step:
            import_usage(tally, step["usage"], tmp_path / f"usage-{number}.csv")
        if "site" in step:
            assert declare(tally, step["site"], tmp_path / f"site-{number}.yaml")["changed"]
        if "close" in step:
            made = close(tally)
            for found, stated in zip(made, step["documents"], strict=True):
                check(found, stated)
            issued |= {each["id"]: each for each in made}
    assert {id: tally("invoice", "show", id) for id in issued} == issued, "what is issued stays"
    reconciled = tally("reconcile", "--period", OCTOBER)
    assert reconciled["rated"] == reconciled["invoiced"]
    assert tally("ledger", "trial-balance")["balanced"] is True


def test_a_version_that_was_billed_is_only_superseded_and_apply_says_what_to_close_again(
    tally: Tally, tmp_path: Path
) -> None:
    story = STORIES["story-supersede-price-down"]
    declare(tally, BASE + story["site"], tmp_path / "site.yaml")
    import_usage(tally, story["story"][0]["usage"], tmp_path / "usage.csv")
    first, _beta = close(tally)
    before = tally("invoice", "explain", first["id"])["lines"]
    superseding = story["story"][2]["site"]
    kept = [line for line in superseding.splitlines() if not line.startswith(("supersedes", "reason"))]
    edited = tmp_path / "edited.yaml"
    edited.write_text("\n".join([*kept, "valid_from: 2026-10-01"]) + "\n")
    assert tally.refused("apply", str(edited))["code"] == "bad_site_files"
    said = tmp_path / "superseding.yaml"
    said.write_text(superseding)
    ran = tally.run("apply", str(said))
    assert ran.exit_code == 0
    assert OCTOBER in ran.stdout + ran.stderr
    *lines, whole = tally("invoice", "explain", first["id"])["lines"]
    assert lines == before[:-1], "by the file that it was billed from"
    assert whole["steps"][0]["to"] == "as the month rated then"
    [found] = close(tally)
    check(found, story["story"][3]["documents"][0])
