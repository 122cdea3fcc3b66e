"""An import, or a void, that was killed on its road: listed from before its first seal, so nothing forgets it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command import EXAMPLE, Tally, over

from adapters.postgres.database import DatabaseUrls

ROWS = 25_000  # three batches
SECOND_NODE = """---
kind: node
id: kaunas-1
operator: telecentras
region: LT-KU
"""
RIGHT = ("--map", "prompt_tokens=right")
WRONG = ("--map", "prompt_tokens=wrong")


@pytest.fixture
def tally(fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path) -> Tally:
    (tmp_path / "kaunas.yaml").write_text(SECOND_NODE)
    return over(fresh_urls(), tmp_path / "data", EXAMPLE, tmp_path / "kaunas.yaml")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two columns that could be the prompt's tokens: one of them is."""

    def lines() -> Iterator[str]:
        yield "time,customer,model,right,wrong,completion_tokens"
        for row in range(ROWS):
            yield f"2026-10-12T{row // 3600:02}:{row // 60 % 60:02}:{row % 60:02}Z,acme,qwen3-32b,100,900,20"

    path = tmp_path / "usage.csv"
    path.write_text("\n".join(lines()) + "\n")
    return path


def into(file: Path, *options: str, node: str = "vilnius-1") -> tuple[str, ...]:
    return ("import", str(file), "--node", node, *options)


def used(tally: Tally) -> tuple[int, int]:
    total = tally("usage")["total"]
    return total["requests"], total["prompt_tokens"]


@pytest.mark.parametrize("step", ["listed:1", "sealed:2", "committed:1", "acknowledged:1"])
def test_a_killed_import_under_wrong_options_is_refused_taken_back_and_replaced(
    tally: Tally, file: Path, step: str
) -> None:
    assert tally.run(*into(file, *WRONG), TALLY_KILL_AT=step).exit_code == -9

    error = tally.refused(*into(file, *RIGHT))
    assert error["code"] == "known_file"
    assert "not finished" in error["what"]
    close = tally.refused("period", "close", "2026-10")
    assert close["code"] == "import_unfinished"
    killed = next(word for word in error["what"].split() if word.startswith("import-")).rstrip(",")
    assert killed in close["what"]
    assert f"tally import void {killed}" in error["remedy"]

    tally("import", "void", killed, "--reason", "wrong column")
    assert used(tally) == (0, 0)
    assert tally("import", "void", killed, "--reason", "again")["events"] == 0
    tally(*into(file, *RIGHT))

    assert used(tally) == (ROWS, ROWS * 100)
    [closed] = tally("period", "close", "2026-10")["operators"]
    assert closed["drafts"]


def test_a_killed_import_is_finished_by_the_same_command_and_stands_once(tally: Tally, file: Path) -> None:
    assert tally.run(*into(file, *RIGHT), TALLY_KILL_AT="committed:1").exit_code == -9

    finished = tally(*into(file, *RIGHT))
    again = tally(*into(file, *RIGHT))

    assert (finished["events"], again["events"], again["id"]) == (ROWS, 0, finished["id"])
    assert used(tally) == (ROWS, ROWS * 100)
    tally("period", "close", "2026-10")


def test_what_was_taken_back_half_done_may_be_imported_again_as_a_new_import(
    tally: Tally, file: Path
) -> None:
    assert tally.run(*into(file, *RIGHT), TALLY_KILL_AT="committed:1").exit_code == -9
    error = tally.refused("period", "close", "2026-10")
    killed = error["what"].split()[0]
    tally("import", "void", killed, "--reason", "not now")

    fresh = tally(*into(file, *RIGHT))

    assert fresh["id"] == f"{killed}.2"
    assert used(tally) == (ROWS, ROWS * 100)


def test_a_killed_void_stops_the_close_and_the_same_content_until_it_is_finished(
    tally: Tally, file: Path
) -> None:
    imported = tally(*into(file, *RIGHT))
    void = ("import", "void", imported["id"], "--reason", "wrong node")
    assert tally.run(*void, TALLY_KILL_AT="committed:1").exit_code == -9

    assert tally.refused("period", "close", "2026-10")["code"] == "import_unfinished"
    assert tally.refused(*into(file, *RIGHT))["code"] == "import_unfinished"
    [begun] = tally("streams")["unfinished_imports"]
    assert (begun["id"], begun["state"], begun["counted"]) == (imported["id"], "voiding", used(tally)[0])
    assert f"tally import void {imported['id']}" in begun["remedy"]
    done = tally(*void)

    assert (done["events"], done["prompt_tokens"]) == (ROWS, -ROWS * 100)
    assert used(tally) == (0, 0)
    tally("period", "close", "2026-10")


def test_the_same_content_into_two_nodes_at_once_is_two_imports_that_are_both_listed(
    tally: Tally, file: Path
) -> None:
    nodes = ("vilnius-1", "kaunas-1")
    running = [tally.start(*into(file, *RIGHT, "--also", node=node), "--json") for node in nodes]
    made = [command.wait().document for command in running]

    assert [each["events"] for each in made] == [ROWS, ROWS]
    assert len({each["id"] for each in made}) == 2
    assert used(tally) == (2 * ROWS, 2 * ROWS * 100)
    for each in made:
        assert tally("import", "void", each["id"], "--reason", "listed, so it can go")["events"] == ROWS
    assert used(tally) == (0, 0)


def test_the_same_command_twice_at_once_imports_once(tally: Tally, file: Path) -> None:
    running = [tally.start(*into(file, *RIGHT), "--json") for _ in range(2)]
    made = [command.wait().document for command in running]

    assert sorted(each["events"] for each in made) == [0, ROWS]
    assert len({each["id"] for each in made}) == 1
    assert used(tally) == (ROWS, ROWS * 100)
