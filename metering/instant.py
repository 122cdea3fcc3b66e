"""An instant as text in what is signed: RFC 3339 in UTC with six decimals, one spelling for each microsecond."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH_OF_TIME = datetime(1970, 1, 1, tzinfo=UTC)
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"


def time_text(time_us: int) -> str:
    """The instant (µs since 1970, UTC) as `2026-10-05T08:00:10.000000Z`."""
    return (_EPOCH_OF_TIME + timedelta(microseconds=time_us)).strftime(_TIME_FORMAT)


def time_us_of(text: str) -> int:
    """The instant that `time_text` wrote; ValueError for what is none. Other spellings may pass: write and compare."""
    if not text.endswith("Z"):
        raise ValueError(f"{text!r} is no instant in UTC")
    return (datetime.fromisoformat(text) - _EPOCH_OF_TIME) // timedelta(microseconds=1)  # a tenth of strptime
