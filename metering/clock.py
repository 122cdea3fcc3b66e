"""The clocks of a writer: what time it is, how much time has passed, and what to think when the two disagree.

The wall clock can be stepped, by a person or by NTP; the monotonic clock cannot. Both are slewed together, so they
stay together unless somebody steps the first. Domain code takes a `Clock`, so that a test can be the clock.

A step is doubted or believed by its direction, because a lane's times only rise: a moment in the future, once it is
sealed, holds up everything after it until that moment has come.

    back            believed at once; times go on rising, so it can do no harm that waiting would avoid
    ahead           doubted: time goes on from before the step (anchored to the monotonic clock) until the step has
                    stood for 5 minutes without moving by more than 2 s; then it is believed
    out of range    before 2020 or from 2100 on, where no event may lie: doubted for as long as it stands
    doubted, undone forgotten, as if it had never been

So a clock that is wrong for some seconds leaves no trace, and one that NTP sets right after boot is followed after 5
minutes. A start believes the wall clock as it finds it: there is nothing to compare it with. Time that the machine
slept through counts as passed, where the system can tell (Linux: CLOCK_BOOTTIME).
"""

from __future__ import annotations

import time
from enum import Enum
from typing import Protocol

from metering.event import EARLIEST_TIME_US, END_OF_TIME_US

MAX_APART_US = 2_000_000
#: How long a step ahead has to stand before it is believed.
BELIEVED_AFTER_US = 300_000_000

_PASSED = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


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
        return time.clock_gettime_ns(_PASSED) // 1_000


class ClockChange(Enum):
    """What became of the wall clock since its owner last said `settle`."""

    DOUBTED = "stepped ahead, or out of range"
    BELIEVED = "stepped ahead, and it has stood"
    UNDONE = "back where it was before a doubted step"
    BACK = "stepped back"


class SteadyClock:
    """A clock that doubts steps ahead; see the module's text. One thread looks and settles, any may ask the time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset_us = clock.wall_us() - clock.monotonic_us()
        self._doubting = False
        self._stands_at_us = 0
        self._since_us: int | None = None

    def wall_us(self) -> int:
        """The time, by the wall clock unless it was stepped more than 2 s ahead, or out of range."""
        wall_us = self._clock.wall_us()
        anchored_us = self._clock.monotonic_us() + self._offset_us
        return wall_us if wall_us - anchored_us <= MAX_APART_US and _in_range(wall_us) else anchored_us

    def monotonic_us(self) -> int:
        return self._clock.monotonic_us()

    @property
    def apart_us(self) -> int:
        """How far the wall clock is ahead of where it would be had nobody stepped it."""
        return self._clock.wall_us() - self._clock.monotonic_us() - self._offset_us

    def look(self) -> ClockChange | None:
        """What the owner has to act upon; the same again at the next look until it says `settle`.

        To be called every few seconds at least: how long a step has stood is known from these looks.
        """
        apart_us = self.apart_us
        in_range = _in_range(self._clock.wall_us())
        if apart_us <= MAX_APART_US and in_range:
            self._since_us = None
            if apart_us < -MAX_APART_US:
                return ClockChange.BACK
            return ClockChange.UNDONE if self._doubting else None
        now_us = self._clock.monotonic_us()
        if self._since_us is None or abs(apart_us - self._stands_at_us) > MAX_APART_US:
            self._since_us, self._stands_at_us = now_us, apart_us
        if in_range and now_us - self._since_us >= BELIEVED_AFTER_US:
            return ClockChange.BELIEVED
        return None if self._doubting else ClockChange.DOUBTED

    def settle(self, change: ClockChange) -> None:
        """The owner has acted upon what `look` said; from here on a believed step is the time."""
        self._doubting = change is ClockChange.DOUBTED
        if change in (ClockChange.BACK, ClockChange.BELIEVED):
            self._offset_us += self.apart_us
            self._since_us = None


def _in_range(wall_us: int) -> bool:
    return EARLIEST_TIME_US <= wall_us < END_OF_TIME_US
