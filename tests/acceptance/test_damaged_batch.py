"""A flipped bit in a sealed batch: intake holds the batch, `tally streams` names it, and no period closes over it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from command import EXAMPLE, over, write_rows

from adapters.postgres.database import DatabaseUrls


def test_a_batch_with_a_flipped_bit_is_held_and_named_and_stops_the_close(
    fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path
) -> None:
    tally = over(fresh_urls(), tmp_path / "data", EXAMPLE)
    rows = [
        {
            "time": "2026-10-12T09:30:00Z",
            "customer": "acme",
            "model": "qwen3-32b",
            "prompt_tokens": 1_000 + n,
            "completion_tokens": 20,
        }
        for n in range(25_000)
    ]
    file = write_rows(tmp_path / "usage.csv", rows)
    assert tally.run("import", str(file), TALLY_KILL_AT="sealed:1").exit_code == -9
    [body] = tally.data.rglob("spool/**/sealed/*.parquet")
    damaged = bytearray(body.read_bytes())
    damaged[len(damaged) // 2] ^= 0b100
    body.write_bytes(damaged)

    refused = tally.refused("import", str(file))
    streams = tally.run("streams", "--json")
    close = tally.refused("period", "close", "2026-10")

    assert refused["code"] == "batch_held"
    assert streams.exit_code == 3
    [lane] = streams.document["lanes"]
    assert lane["held"] >= 1
    assert lane["held_batches"][0]["code"] == "body_digest"
    assert lane["held_batches"][0]["number"] == 0
    assert "body_digest" in tally.run("streams").stdout
    assert close["code"] == "held_batches"
    assert tally("usage")["total"]["requests"] == 0
    assert tally.run("doctor", "--json").exit_code == 3
    [kept] = [
        path for path in (tally.data / "held").rglob("*.parquet") if path.read_bytes() == bytes(damaged)
    ]
    assert kept.stat().st_size == len(damaged)
