"""SIGKILL of anything at named steps and seeded moments of a run: afterwards nothing is lost and nothing counts twice.

Each point (kill_points) is a world of its own (kill_world), in which something is killed (kill_scenes), everything is
started again, more requests are served, months are closed and documents issued. Then an auditor who believes nobody
(kill_auditor) lays the sender's book, the engine's, the archive and the commands' figures side by side.

`make test` plays five points, `make proof` all of them, and then writes bench/results/kill.json. To play one again:

    python -m pytest -m "" "tests/acceptance/test_killed_anywhere.py::test_nothing_is_lost_at_any_point[NAME]"
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo

import kill_auditor as auditor
import pytest
from kill_points import FIVE, POINTS, Point
from kill_world import World, make_world

from adapters.postgres.database import DatabaseUrls

ZONE = ZoneInfo("Europe/Vilnius")
ROOT = Path(__file__).parents[2]
REPLAY = (
    "play it again:  python -m pytest -m '' '"
    "tests/acceptance/test_killed_anywhere.py::test_nothing_is_lost_at_any_point[{}]'"
)


@dataclass
class Figures:
    """What a run of many points came to."""

    points: dict[str, int] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    requests: dict[str, int] = field(default_factory=dict)
    events: int = 0
    imported: int = 0
    lost: int = 0
    double: int = 0
    wrong: int = 0


@pytest.fixture(scope="module")
def figures() -> Iterator[Figures]:
    """Written to bench/results/kill.json by `make proof`, which sets TALLY_PROOF."""
    figures = Figures()
    begun = time.monotonic()
    yield figures
    if os.environ.get("TALLY_PROOF") and figures.points:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
        document = {
            "commit": head.stdout.strip() or None,
            "killed": len(figures.points),
            **asdict(figures),
            "seconds": round(time.monotonic() - begun),
        }
        path = ROOT / "bench" / "results" / "kill.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1) + "\n")


@pytest.mark.parametrize("name", FIVE)
def test_nothing_is_lost_at_five_points(
    name: str, figures: Figures, fresh_urls: Callable[[], DatabaseUrls]
) -> None:
    _play(POINTS[name], figures, fresh_urls)


@pytest.mark.proof
@pytest.mark.parametrize("name", POINTS)
def test_nothing_is_lost_at_any_point(
    name: str, figures: Figures, fresh_urls: Callable[[], DatabaseUrls]
) -> None:
    _play(POINTS[name], figures, fresh_urls)


def _play(point: Point, figures: Figures, fresh_urls: Callable[[], DatabaseUrls]) -> None:
    figures.points[point.name] = point.seed
    try:
        with make_world(point.seed, None if point.embedded else fresh_urls()) as world:
            point.scene(world)
            world.finish()
            findings = _audit(world, figures)
        assert not findings, auditor.as_text(findings)
    except BaseException as trouble:
        figures.failed.append(point.name)
        trouble.add_note(REPLAY.format(point.name))
        raise


def _audit(world: World, figures: Figures) -> auditor.Findings:
    """Bills every month, then lays all books side by side."""
    findings = auditor.Findings()
    run = world.tally
    auditor.check_streams(run("streams"), world.data, findings)
    lanes = auditor.archived_events(world.data / "archive")
    events = [event for of_lane in lanes.values() for event in of_lane]
    served = [event for lane, of_lane in lanes.items() if lane.startswith("sidecar-") for event in of_lane]
    others = [event for lane, of_lane in lanes.items() if lane.startswith("import-") for event in of_lane]
    auditor.check_chains(world.data / "archive", findings)
    if world.only_life is not None:
        auditor.check_only_life(world.only_life, served, findings)
    auditor.check_requests(world.sender.book, world.heard_by_engine(), served, findings)
    auditor.check_import(world.imported, others, findings)
    auditor.check_usage(run("usage", "--by", "model,outcome"), events, findings)
    for month in sorted({event["time"].astimezone(ZONE).strftime("%Y-%m") for event in events}):
        run("period", "close", month, "--issue", "--accept-unfinished")
    documents = [run("invoice", "show", each["id"]) for each in run("invoice", "list")["invoices"]]
    auditor.check_documents(documents, run("ledger", "trial-balance"), events, findings)

    for sent in world.sender.book:
        figures.requests[sent.fate] = figures.requests.get(sent.fate, 0) + 1
    figures.events += len(served)
    figures.imported += len(others)
    figures.lost += len(findings.lost)
    figures.double += len(findings.double)
    figures.wrong += len(findings.wrong)
    return findings
