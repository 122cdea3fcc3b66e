"""SIGKILL of the sidecar at 200 points under load on every endpoint: no request without an event, none with two.

Each point is a world of its own (capture_world): the sidecar dies in a named step (metering/steps.py) or at a seeded
moment, is started again, serves on, and ends in order. Then an auditor who believes nobody (capture_auditor) lays the
clients' book, the engine's and its witness's beside the events, to the token.

Two steps are not on this road: `rotate` needs some 100,000 requests and `mended` a disk that fails; both are killed in
tests/integration, where a lane has small segments and a disk of its own.

`make test` plays five points, `make proof` all of them. To play one again:

    python -m pytest -m "" "tests/acceptance/test_capture_killed.py::test_no_request_is_lost_at_any_of_200_points[NAME]"
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count as count_from
from itertools import islice

import pytest
from capture_auditor import check_capture, check_spans
from capture_clients import CLIENTS, WHOLE, Load
from capture_world import Base, World, base_folder, make_world
from kill_auditor import Findings, as_text, check_chains

from adapters.postgres.database import DatabaseUrls

OUTSIDE = "outside"
SHARE = 48

# Which time of each step kills; those on the way to the spool come when the sidecar drains.
_IN_THE_STREAM = {
    "intent": (1, 2, 7, 19, 31, 44),
    "told": (1, 2, 7, 13, 19, 28),
    "outcomes": (1, 2, 3, 4, 6),
    "fsync": (1, 2, 3, 5, 8),
}
_SEALING = {"making": (1, 2, 3), "head": (1, 2, 3), "sealed": (1, 2, 3)}


@dataclass(frozen=True, slots=True)
class Point:
    """The lives of a sidecar, one after the other, each ended at a step or from outside. `is_witnessed`: the engine
    has a witness, and so events wait for its lines."""

    name: str
    seed: int
    lives: tuple[str, ...]
    is_witnessed: bool = True


def _all_points() -> Iterator[Point]:
    for step, counts in _IN_THE_STREAM.items():
        for count in counts:
            yield Point(f"{step}-{count}", count, (f"{step}:{count}",))
            yield Point(f"{step}-{count}-after-another", count, (OUTSIDE, f"{step}:{count}"))
    for step, counts in _SEALING.items():
        for count in counts:
            yield Point(f"{step}-{count}", count, (f"{step}:1",))
            yield Point(f"{step}-{count}-after-another", 10 + count, (*(OUTSIDE,) * count, f"{step}:1"))
    for seed in range(3):
        yield Point(f"interrupted-{seed}", seed, (OUTSIDE,) * seed + ("interrupted:1",))
    for count in (1, 2, 7, 19, 31, 44):
        yield Point(f"outcome-{count}", count, (f"outcome:{count}",), is_witnessed=False)
        yield Point(
            f"outcome-{count}-after-another", count, (OUTSIDE, f"outcome:{count}"), is_witnessed=False
        )
    for seed in count_from():
        yield Point(f"outside-{seed}", seed, (OUTSIDE,) * (1 + seed % 3))


UNMETERED = (1, 5, 20)
POINTS = {point.name: point for point in islice(_all_points(), 200 - len(UNMETERED))}
FIVE = ("intent-19", "told-7-after-another", "outcomes-2", "sealed-2", "outside-2")


@pytest.fixture(scope="module")
def base(fresh_urls: Callable[[], DatabaseUrls]) -> Iterator[Base]:
    with base_folder(fresh_urls()) as made:
        yield made


@pytest.mark.parametrize("name", FIVE)
def test_no_request_is_lost_at_five_points(name: str, base: Base) -> None:
    _play(POINTS[name], base)


@pytest.mark.proof
@pytest.mark.parametrize("name", POINTS)
def test_no_request_is_lost_at_any_of_200_points(name: str, base: Base) -> None:
    _play(POINTS[name], base)


@pytest.mark.proof
@pytest.mark.parametrize("count", UNMETERED)
def test_what_is_served_unmetered_is_counted_across_a_kill(count: int, base: Base) -> None:
    """The spool is over its limit, and the sidecar was told to serve on: it counts before it asks the engine."""
    with make_world(count, base) as world:
        assert world.start_sidecar()
        world.send(SHARE).join()
        assert world.sidecar is not None
        assert world.sidecar.stop() == 0, world.sidecar.trouble()
        over_limit = ("--spool-limit", "1", "--when-full", "serve-unmetered")
        assert world.start_sidecar(*over_limit, kill_at=f"unmetered:{count}")
        while (
            world.sidecar.running and len(world.clients.book) < 40 * SHARE
        ):  # it looks at the spool now and then
            _wait(world, world.send(SHARE))
        assert world.sidecar.wait() == -signal.SIGKILL, world.sidecar.trouble()
        world.finish()
        heard = len(world.heard_by_engine(unmetered=True))
        fates = world.clients.fates()
        findings = Findings()
        if not heard <= world.unmetered() <= heard + CLIENTS:
            findings.wrong.append(f"{world.unmetered()} served unmetered, the engine heard of {heard}")
        events = len([event for event in world.events() if event["kind"] == "usage"])
        if not fates[WHOLE] <= events + heard <= len(world.clients.book):
            findings.wrong.append(f"{events} events and {heard} unmetered ones of {fates}")
    assert not findings, as_text(findings)


def _play(point: Point, base: Base) -> None:
    with make_world(point.seed, base, is_witnessed=point.is_witnessed) as world:
        for life in point.lives:
            _live(world, life)
        world.finish()
        findings = Findings()
        events = world.events()
        check_chains(world.tally.data / "spool", findings)
        generated = world.generated_by_engine() if point.is_witnessed else None
        check_capture(world.clients.book, world.heard_by_engine(), generated, events, findings)
        if point.is_witnessed:
            check_spans(world.spans(), events, findings)
    assert not findings, as_text(findings)


def _live(world: World, life: str) -> None:
    """One life of the sidecar under load, to its end."""
    started = world.start_sidecar(kill_at=None if life == OUTSIDE else life)
    assert world.sidecar is not None
    if started:
        load = world.send(SHARE)
        if life == OUTSIDE:
            time.sleep(world.chance.uniform(0, 0.5))
            world.sidecar.kill()
        else:
            _wait(world, load)
            world.sidecar.stop()  # a step on the way to the spool is reached when the sidecar drains
    assert world.sidecar.wait() == -signal.SIGKILL, f"{life} was not reached: {world.sidecar.trouble()}"


def _wait(world: World, load: Load) -> None:
    """Until the load is over or the sidecar dead."""
    assert world.sidecar is not None
    while world.sidecar.running and load.running:
        time.sleep(0.01)
