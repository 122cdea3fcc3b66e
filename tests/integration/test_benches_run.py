"""Every bench runs, small: what it measures is not looked at, nor how long it takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHES = ("import", "close", "rating", "invoice-pdf", "capture", "steps")
pytestmark = pytest.mark.proof


@pytest.mark.parametrize("name", BENCHES)
def test_a_quick_bench_prints_its_figures_and_writes_them_down(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "--quick", "--results", str(tmp_path), name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    if f"{name}: skipped" in done.stdout:
        pytest.skip(done.stdout.strip())
    found = json.loads((tmp_path / f"{name}.json").read_text())
    assert (found["bench"], found["quick"]) == (name, True)
    assert set(found["machine"]) == {"cores", "memory_gib", "load_average", "python"}
    assert found["figures"]
    assert all(figure["name"] in " ".join(done.stdout.split()) for figure in found["figures"])


def test_help_names_every_bench_and_an_unknown_one_is_a_usage_error() -> None:
    told, refused = (
        subprocess.run([sys.executable, "-m", "bench", word], cwd=ROOT, capture_output=True, text=True)
        for word in ("--help", "nosuch")
    )
    assert f"of {', '.join(BENCHES)};" in " ".join(told.stdout.split())
    assert refused.returncode == 2
    assert "no such bench: nosuch" in refused.stderr
