"""The two clocks of a writer: what time it is, and how much time has passed.

The wall clock can be stepped, by a person or by NTP; the monotonic clock cannot. Both are slewed together, so they
stay together unless somebody steps the first. Domain code takes a `Clock`, so that a test can be the clock.
"""

from __future__ import annotations

import time
from typing import Protocol


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
