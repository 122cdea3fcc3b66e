"""The two clocks of a writer: what time it is, and how much time has passed.

The wall clock can be stepped, by a person or by NTP; the monotonic clock cannot. Both are slewed together, so they
stay together unless somebody steps the first. Domain code takes a `Clock`, so that a test can be the clock.
"""

from __future__ import annotations

import time
from typing import Protocol

MAX_APART_US = 2_000_000


class Clock(Protocol):
    """Where a writer's instants come from."""

    def wall_us(self) -> int:
        """Microseconds since 1970-01-01T00:00Z."""

    def monotonic_us(self) -> int:
        """Microseconds since some moment; never steps."""


class SystemClock:
    """The machine's clocks."""

    def wall_us(self) -> int:
        return time.time_ns() // 1_000

    def monotonic_us(self) -> int:
        return time.monotonic_ns() // 1_000


class StepWatch:
    """Notices when the wall clock was stepped: by how far the two clocks have come apart since this was made."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset_us = clock.wall_us() - clock.monotonic_us()

    @property
    def apart_us(self) -> int:
        """How far the wall clock is ahead of where it would be had nobody stepped it."""
        return self._clock.wall_us() - self._clock.monotonic_us() - self._offset_us

    @property
    def stepped(self) -> bool:
        """Whether the clocks are more than 2 s apart."""
        return abs(self.apart_us) > MAX_APART_US
