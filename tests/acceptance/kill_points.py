"""The points at which something is killed: at least three in each named step, and others at seeded moments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kill_scenes import (
    OUTSIDE,
    Scene,
    close_dies,
    credit_dies,
    import_dies,
    intake_dies,
    intake_dies_outside,
    intake_dies_rolling_up,
    issue_dies,
    sidecar_dies,
    sidecar_of_up_dies,
    up_dies,
)
from kill_server_scenes import (
    everything,
    postmaster,
    server_child,
    server_dies_serving,
    server_dies_taking,
    server_dies_under,
)


@dataclass(frozen=True, slots=True)
class Point:
    """A kill. `embedded`: the world has a PostgreSQL of its own, for that is a victim."""

    name: str
    seed: int
    scene: Scene
    embedded: bool = False


def _all_points() -> Iterator[Point]:
    for step, counts in {"intent": (1, 17, 40), "outcome": (1, 15, 35), "fsync": (1, 3, 6)}.items():
        for count in counts:
            yield Point(f"sidecar-{step}-{count}", count, sidecar_dies(f"{step}:{count}"))
    for step in ("making", "head", "sealed"):
        yield Point(f"sidecar-{step}-draining", 1, sidecar_dies(f"{step}:1"))
        yield Point(f"sidecar-{step}-recovering", 2, sidecar_dies(OUTSIDE, f"{step}:1"))
        yield Point(f"sidecar-{step}-again", 3, sidecar_dies(OUTSIDE, f"{step}:2", f"{step}:1"))
    yield Point("sidecar-interrupted-first", 1, sidecar_dies("interrupted:1"))
    yield Point("sidecar-interrupted-recovering", 2, sidecar_dies(OUTSIDE, "interrupted:1", "intent:30"))
    for step in ("in-transaction", "committed", "acknowledged"):
        for count in (1, 2, 3):
            yield Point(f"intake-{step}-{count}", count, intake_dies(f"{step}:{count}"))
    for count in (1, 2, 4):
        yield Point(f"intake-roll-up-{count}", count, intake_dies_rolling_up(f"roll-up:{count}"))
    for name, scene in {"close": close_dies, "issue": issue_dies, "credit": credit_dies}.items():
        for count in (1, 2):
            yield Point(f"{name}-issue-{count}", count, scene(f"issue:{count}"))
    for step in ("making:1", "making:3", "head:2", "sealed:1", "sealed:2", "sealed:3"):
        yield Point(f"import-{step.replace(':', '-')}", 1, import_dies(step))
    for step in ("in-transaction", "committed", "acknowledged"):
        yield Point(f"import-{step}-1", 1, import_dies(f"{step}:1"))
    for seed in range(4):
        yield Point(f"sidecar-outside-{seed}", seed, sidecar_dies(OUTSIDE, OUTSIDE))
        yield Point(f"intake-outside-{seed}", seed, intake_dies_outside)
        yield Point(f"close-outside-{seed}", seed, close_dies(OUTSIDE))
        yield Point(f"import-outside-{seed}", seed, import_dies(OUTSIDE))
    for name, victims in {"postmaster": postmaster, "backend": server_child}.items():
        for seed in range(2):
            yield Point(f"{name}-serving-{seed}", seed, server_dies_serving(victims), embedded=True)
            yield Point(f"{name}-taking-{seed}", seed, server_dies_taking(victims), embedded=True)
            for what in ("close", "import"):
                yield Point(f"{name}-{what}-{seed}", seed, server_dies_under(victims, what), embedded=True)
    for seed in range(2):
        yield Point(f"everything-serving-{seed}", seed, server_dies_serving(everything), embedded=True)
        yield Point(f"everything-taking-{seed}", seed, server_dies_taking(everything), embedded=True)
    yield Point("up-sidecar", 1, sidecar_of_up_dies)
    yield Point("up-itself", 2, up_dies, embedded=True)


POINTS = {point.name: point for point in _all_points()}

#: What `make test` kills: the sidecar, intake, PostgreSQL, a close and an import.
FIVE = ("sidecar-outcome-15", "intake-committed-1", "postmaster-taking-0", "close-issue-1", "import-sealed-2")
