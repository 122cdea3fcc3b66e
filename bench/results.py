"""What a bench found, as a table for people and as one JSON file.

    {"bench": "import", "quick": false, "commit": "1146eb0…", "changed": false, "made_at": "2026-11-22T06:40:00Z",
     "machine": {"cores": 2, "memory_gib": 24, "load_average": [1.6, 2.2, 2.4], "python": "3.11.9"}, "seconds": 41.2,
     "figures": [{"name": "rows", "value": 1383669, "unit": ""}, …], "notes": []}

`changed`: the working tree differed from the commit. `load_average` is from before the bench: figures of a busy machine
are to be read with it. `seconds` is the whole bench.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

FOLDER = Path(__file__).parent / "results"
ROOT = Path(__file__).parents[1]


class Skipped(Exception):
    """This machine cannot run the bench; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure. `demanded` says what it has to be, for instance "≤ 60"."""

    name: str
    value: int | float
    unit: str = ""
    demanded: str = ""


@dataclass(slots=True)
class Measured:
    """What a bench found, in the order in which it is shown."""

    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, value: float, unit: str = "", demanded: str = "") -> None:
        """A figure, to four significant digits where it is not a whole number."""
        rounded = value if isinstance(value, int) else float(f"{value:.4g}")
        self.figures.append(Figure(name, rounded, unit, demanded))


def machine() -> dict[str, Any]:
    """What the figures depend on; no names."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
    }


def write(
    name: str, measured: Measured, *, quick: bool, seconds: float, before: Mapping[str, Any], folder: Path
) -> Path:
    """The result file of a bench."""
    found = {
        "bench": name,
        "quick": quick,
        **_commit(),
        "made_at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "machine": dict(before),
        "seconds": round(seconds, 1),
        "figures": [asdict(figure) for figure in measured.figures],
        "notes": measured.notes,
    }
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return path


def show(name: str, measured: Measured) -> None:
    """The figures as a table on standard output."""
    drawn = Table(title=name, title_justify="left", box=None, pad_edge=False, show_header=False)
    drawn.add_column()
    drawn.add_column(justify="right")
    drawn.add_column()
    drawn.add_column()
    for figure in measured.figures:
        drawn.add_row(figure.name, f"{figure.value:,}", figure.unit, figure.demanded)
    console = Console(highlight=False)
    console.print(drawn)
    for note in measured.notes:
        console.print(f"  {note}", markup=False)


def _commit() -> dict[str, Any]:
    commit = _git("rev-parse", "HEAD")
    return {"commit": commit.strip() or None, "changed": bool(_git("status", "--porcelain"))}


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout
    except FileNotFoundError:
        return ""
