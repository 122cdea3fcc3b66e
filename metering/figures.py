"""What a sidecar says of itself at one moment, for whoever watches it. Numbers only: no key, no customer, no text."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

#: Upper bounds of the latency buckets, in seconds.
BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0)


@dataclass(slots=True)
class Latency:
    """A histogram: how many observations lie in each bucket (one more than BOUNDS_S), and their sum in seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    sum_s: float = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.sum_s += seconds


@dataclass(frozen=True, slots=True)
class EngineFigures:
    """One engine as the sidecar sees it: `up` is what its last health check said."""

    up: bool
    requests: int


@dataclass(frozen=True, slots=True)
class Figures:
    """Counts are since the start of the process, and only rise; the others are of now.

    `refused` by error code, `events` by outcome, `joined` by result (`joined`: the engine's line came in time; `alone`:
    it did not; `amended`: it came later). `faults` are the causes for which requests are refused or served unmetered.
    `unaccounted` by (model, `prompt` or `generated`): tokens of the last settled span that are in the engine's counters
    and in no event. `witness` is `yes`, `no` or `aside`. `added` is what the sidecar adds to a request, in seconds.
    """

    requests: int
    events: Mapping[str, int]
    refused: Mapping[str, int]
    usage_unread: int
    unmetered_requests: int
    open_requests: int
    connections: int
    unsealed_events: int
    spool_bytes: int
    spool_limit_bytes: int
    spool_oldest_s: float
    faults: tuple[str, ...]
    engines: Mapping[str, EngineFigures]
    joined: Mapping[str, int]
    join_waiting: int
    join_lag_s: float
    engine_lines: int
    engine_lines_missing: int
    witness: str
    unaccounted: Mapping[tuple[str, str], int]
    added: Latency
