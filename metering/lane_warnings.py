"""What a lane tells its operator: a stable word and a sentence each."""

from __future__ import annotations

import logging
from collections.abc import Callable

from metering.clock import ClockChange

#: Told of what an operator should know.
Warn = Callable[[str, str], None]

_CLOCK_WORDS = {
    ClockChange.DOUBTED: "the wall clock was stepped by {:+.1f} s, which is not believed before it has stood for 5 minutes",
    ClockChange.BELIEVED: "the wall clock has stood for 5 minutes where it was stepped to, by {:+.1f} s, and is believed",
    ClockChange.BACK: "the wall clock was stepped by {:+.1f} s",
}

_log = logging.getLogger(__name__)


def log_warning(code: str, what: str) -> None:
    """A warning in the log: where nobody else wants to be told."""
    _log.warning("%s: %s", code, what)


def clock_stepped(change: ClockChange, apart_us: int) -> tuple[str, str]:
    """A new epoch begins because of the clock."""
    return "clock_stepped", f"{_CLOCK_WORDS[change].format(apart_us / 1e6)}: a new epoch begins"


def clock_back() -> tuple[str, str]:
    """A doubted step was undone."""
    return "clock_back", "the step ahead of the wall clock was undone: its time is taken again"


def lane_ahead(ahead_us: int) -> tuple[str, str]:
    """The lane's times are ahead of the clock."""
    return (
        "lane_ahead",
        f"the lane has sealed times {ahead_us / 1e6:.1f} s ahead of the clock and goes on above them: intake"
        " holds its batches until then. If the clock is right, end this lane and give the sidecar a new one",
    )


def lane_waits(why: Exception) -> tuple[str, str]:
    """The lane is open and takes nothing yet."""
    return "lane_waits", f"the lane cannot begin for its disk, nothing is written down until it can: {why}"


def segment_stays(why: Exception) -> tuple[str, str]:
    """A large segment could not be left for a new one."""
    return (
        "segment_stays",
        f"the write-ahead file goes on growing, a new one could not be begun: {why}",
    )
