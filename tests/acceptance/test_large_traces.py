"""Two more public traces: an hour of a chat service, with stamps that name no zone, and a day of 1.38 million requests."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command import EXAMPLE, decompressed, over, public_trace, vilnius

from adapters.postgres.database import DatabaseUrls

AZURE = (
    *("--map", "time=TIMESTAMP", "--map", "prompt_tokens=ContextTokens"),
    *("--map", "completion_tokens=GeneratedTokens", "--set", "customer=acme", "--set", "model=chat"),
)
SERVEGEN = (
    *("--map", "time=t_ms", "--map", "customer=client", "--map", "prompt_tokens=input_tokens"),
    *(
        "--map",
        "completion_tokens=output_tokens",
        "--map",
        "request_id=request_id",
        "--set",
        "model=reasoner",
    ),
    *("--time-unit", "ms", "--time-origin", "2026-10-05T00:00:00Z", "--create-customers"),
)
GIB = 1 << 30


def test_stamps_without_a_zone_are_refused_until_one_is_named_and_cut_to_microseconds(
    fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path
) -> None:
    trace = public_trace("AzureLLMInferenceTrace_conv.csv.zst")
    tally = over(fresh_urls(), tmp_path / "data", EXAMPLE)

    refused = tally.refused("import", str(trace), *AZURE)
    told = tally("import", str(trace), *AZURE, "--time-zone", "UTC")

    rows = list(csv.DictReader(io.StringIO(decompressed(trace))))
    assert "time without a zone" in refused["faults"][0]["what"]
    assert told["events"] == len(rows)
    assert told["first"] == "2023-11-16T18:15:46.680590Z"
    total = tally("usage", "--from", "2023-11-16", "--to", "2023-11-17")["total"]
    assert (total["requests"], total["prompt_tokens"], total["completion_tokens"]) == (
        len(rows),
        sum(int(row["ContextTokens"]) for row in rows),
        sum(int(row["GeneratedTokens"]) for row in rows),
    )


@pytest.mark.proof
def test_a_day_of_1_38_million_requests_is_imported_within_a_gigabyte(
    capsys: pytest.CaptureFixture[str],
) -> None:
    trace = public_trace("servegen_r1_24h_requests.csv.zst")
    with vilnius() as tally:
        command = [sys.executable, "-m", "adapters.cli", "import", str(trace), *SERVEGEN]
        begun = time.monotonic()
        process = subprocess.Popen(command, env={**os.environ, "TALLY_DATA": str(tally.data)})
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds, resident = time.monotonic() - begun, used.ru_maxrss * 1024

        rows = list(csv.DictReader(io.StringIO(decompressed(trace))))
        with capsys.disabled():
            print(f"\n{len(rows):,} rows: {seconds:.1f} s, at most {resident / GIB:.2f} GiB of memory")
        assert process.returncode == 0
        assert resident < 10**9
        usage = tally("usage", "--by", "customer")
        assert usage["total"]["requests"] == len(rows)
        assert len(usage["rows"]) == len({row["client"] for row in rows})
        for name, column in (
            ("prompt_tokens", "input_tokens"),
            ("completion_tokens", "output_tokens"),
            ("reasoning_tokens", "reasoning_tokens"),
        ):
            assert usage["total"][name] == sum(int(row[column]) for row in rows)

        begun = time.monotonic()
        [closed] = tally("period", "close", "2026-10")["operators"]
        with capsys.disabled():
            print(f"closing {len(closed['drafts'])} customers: {time.monotonic() - begun:.1f} s")
        assert len(closed["drafts"]) + len(closed["zero"]) == len(usage["rows"])
