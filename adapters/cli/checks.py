"""What `tally doctor` says of one thing that it looked at."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARNING, FAULT = "ok", "warning", "fault"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: its `state`, `what` was seen, and what to do about it."""

    name: str
    state: str
    what: str
    remedy: str = ""
