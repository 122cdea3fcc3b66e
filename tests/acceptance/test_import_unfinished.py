"""An import that Ctrl-C stopped half-way: every place that shows its rows as usage says that they are not all."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command import EXAMPLE, Tally, over

from adapters.postgres.database import DatabaseUrls

ROWS = 150_000  # fifteen batches


@pytest.fixture
def tally(fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path) -> Tally:
    return over(fresh_urls(), tmp_path / "data", EXAMPLE)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    def lines() -> Iterator[str]:
        yield "time,customer,model,prompt_tokens,completion_tokens"
        for row in range(ROWS):
            day, second = 1 + row // 86_400, row % 86_400
            stamp = f"2026-10-{day:02}T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}Z"
            yield f"{stamp},acme,qwen3-32b,100,20"

    path = tmp_path / "usage.csv"
    path.write_text("\n".join(lines()) + "\n")
    return path


def stopped_half_way(tally: Tally, file: Path) -> dict[str, str]:
    """The refusal that Ctrl-C made of an import, given when some of its batches were sealed."""
    importing = tally.start("import", str(file), "--json")
    ends = time.monotonic() + 60
    while (
        len(list((tally.data / "spool").rglob("*.seal")) + list((tally.data / "archive").rglob("*.parquet")))
        < 2
    ):
        assert time.monotonic() < ends
        time.sleep(0.01)
    os.kill(importing.pid, signal.SIGINT)
    stopped = importing.wait()
    assert stopped.exit_code == 130, stopped
    error: dict[str, str] = stopped.document["error"]
    return error


def test_an_import_that_ctrl_c_stopped_is_named_wherever_its_rows_count(
    tally: Tally, file: Path, tmp_path: Path
) -> None:
    error = stopped_half_way(tally, file)
    id = error["where"]

    assert error["code"] == "interrupted"
    assert id.startswith("import-")
    assert f"stopped by the keyboard; {id} is not finished: " in error["what"]
    assert f"tally import void {id}" in error["remedy"]
    assert "half done" not in error["remedy"]

    streams = tally("streams")
    [begun] = streams["unfinished_imports"]
    assert (begun["id"], begun["state"], begun["rows"]) == (id, "running", ROWS)
    assert 0 < begun["counted"] <= ROWS
    assert [lane["state"] for lane in streams["lanes"] if lane["lane"] == id] == ["unfinished"]
    assert f"unfinished: {id} is not finished: " in tally.run("streams").stdout

    used = tally("usage")
    assert used["total"]["requests"] == begun["counted"]
    assert [warned["what"] for warned in used["warnings"]] == [f"not whole: {begun['what']}"]
    assert tally("usage", "--period", "2026-09")["warnings"] == []
    previewed = tally("invoice", "preview", "--customer", "acme", "--period", "2026-10")["warnings"]
    assert previewed[-1] == used["warnings"][0]
    assert ("import", "warning", begun["what"]) in [
        (check["name"], check["state"], check["what"]) for check in tally("doctor")["checks"]
    ]

    report = tmp_path / "usage.json"
    made = tally("report", "usage", "--period", "2026-10", "--format", "json", "--out", str(report))
    told = json.loads(report.read_bytes())
    assert (told["whole"], told["unfinished_imports"]) == (False, [begun])
    assert [warned["what"] for warned in made["warnings"]] == [f"not whole: {begun['what']}"]
    assert tally.refused("period", "close", "2026-10")["code"] == "import_unfinished"

    tally("import", str(file))
    assert tally("streams")["unfinished_imports"] == []
    assert tally("usage")["warnings"] == []
    assert tally("usage")["total"]["requests"] == ROWS
