"""The real traces that benches read, or stand-ins of the same shape where they are not at hand.

They lie in `traces/` of the folder that `TALLY_SHARED` names, else of `../shared` beside the repository. A stand-in
is drawn from a fixed seed; its figures are comparable, not its bills.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv

ROOT = Path(__file__).parents[1]
SEED = 1


@dataclass(frozen=True, slots=True)
class Trace:
    """A file to import, how many rows it has, the options that it takes, and whether it is the real one."""

    path: Path
    rows: int
    options: tuple[str, ...]
    real: bool


def servegen(folder: Path, rows: int | None = None) -> Trace:
    """24 hours of a large model: 1,383,669 requests of 73 tenants, one of which has 28.6 % of them."""
    maps = ("customer=client", "time=t_ms", *_TOKENS, "reasoning_tokens=reasoning_tokens")
    options = _options(maps, "--set", "model=deepseek-r1", "--time-unit", "ms")
    return _trace("servegen_r1_24h_requests.csv.zst", 1_383_669, options, folder, rows, _drawn_servegen)


def claude_code(folder: Path, rows: int | None = None) -> Trace:
    """Coding sessions: 49,334 requests of 710 customers."""
    maps = ("customer=session_id", "time=t_s", *_TOKENS, "cached_tokens=cached_prefix_tokens")
    return _trace(
        "claude_code_requests.csv.zst",
        49_334,
        _options(maps, "--time-unit", "s"),
        folder,
        rows,
        _drawn_claude_code,
    )


_TOKENS = ("prompt_tokens=input_tokens", "completion_tokens=output_tokens")


def _options(maps: tuple[str, ...], *more: str) -> tuple[str, ...]:
    mapped = [word for each in maps for word in ("--map", each)]
    return (*mapped, *more, "--time-origin", "2026-10-05T08:00:00Z", "--create-customers")


def _trace(
    name: str,
    real_rows: int,
    options: tuple[str, ...],
    folder: Path,
    rows: int | None,
    draw: Callable[[int], pa.Table],
) -> Trace:
    real = Path(os.environ.get("TALLY_SHARED", ROOT.parent / "shared")) / "traces" / name
    if rows is None and real.exists():
        return Trace(real, real_rows, options, real=True)
    path = folder / name
    with pa.CompressedOutputStream(str(path), "zstd") as out:
        csv.write_csv(draw(rows or real_rows), out, csv.WriteOptions(quoting_style="none"))
    return Trace(path, rows or real_rows, options, real=False)


def _drawn_servegen(rows: int) -> pa.Table:
    chance = np.random.default_rng(SEED)
    shares = np.array([0.286, *[0.714 / 72] * 72])
    output = chance.integers(1, 3_000, rows)
    return pa.table(
        {
            "request_id": np.arange(rows),
            "t_ms": np.sort(chance.integers(0, 86_400_000, rows)),
            "client": pa.array([f"c{n}" for n in range(73)]).take(
                pa.array(chance.choice(73, rows, p=shares))
            ),
            "input_tokens": chance.integers(1, 4_000, rows),
            "output_tokens": output,
            "reasoning_tokens": output * 3 // 4,
        }
    )


def _drawn_claude_code(rows: int) -> pa.Table:
    chance = np.random.default_rng(SEED)
    models = ["claude-opus-4-5-20251101", "claude-sonnet-4-5-20250929", "claude-haiku-4-5-20251001"]
    prompt = chance.integers(100, 150_000, rows)
    sessions = np.concatenate([np.arange(min(rows, 710)), chance.integers(0, 710, max(0, rows - 710))])
    return pa.table(
        {
            "session_id": pa.array([f"trace_{n:04}" for n in range(710)]).take(pa.array(sessions)),
            "t_s": chance.integers(0, 36_000, rows) / 1000,
            "model": pa.array(models).take(pa.array(chance.integers(0, 3, rows))),
            "input_tokens": prompt,
            "cached_prefix_tokens": prompt * 9 // 10,
            "output_tokens": chance.integers(0, 2_000, rows),
        }
    )
