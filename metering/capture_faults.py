"""What keeps a sidecar from serving metered requests, cause by cause.

Each cause is ended only by the work that it stopped: a sync that succeeds says nothing about sealing. A failing write is
the exception, since nothing writes while requests are refused: a sync that succeeds lets requests try (`eases`), and
the next write says whether it is over. The log has one line when a cause comes and one when it is gone, however often
it is met in between.
"""

from __future__ import annotations

import logging

from metering.http_refusal import Refused

WRITE, SYNC, SEAL, JOIN = "write", "sync", "seal", "write joined events"
KEEP_UP, SPOOL = "seal as fast as requests end", "keep its spool below the limit"

_LATER = ((b"retry-after", b"1"),)
_NOT_METERED = Refused(
    503,
    "capture_unavailable",
    "Requests are not served while their usage cannot be written down.",
    headers=_LATER,
)
_BEHIND = Refused(
    503,
    "capture_behind",
    "Requests are not served while too many events wait to be sealed.",
    headers=_LATER,
)
_SPOOL_FULL = Refused(
    503,
    "spool_full",
    "Requests are not served while the spool is at its limit.",
    headers=_LATER,
)
_log = logging.getLogger(__name__)


class CaptureFaults:
    """The causes that stand. True while nothing new can be written down."""

    def __init__(self, consequence: str) -> None:
        """`consequence` is said in the log: requests are refused, or served unmetered."""
        self._consequence = consequence
        self._standing: set[str] = set()
        self._told: set[str] = set()

    @property
    def standing(self) -> tuple[str, ...]:
        """The causes, in alphabetical order."""
        return tuple(sorted(self._standing))

    @property
    def refusal(self) -> Refused:
        """What a client is told whose request cannot be written down."""
        if KEEP_UP in self._standing:
            return _BEHIND
        return _SPOOL_FULL if SPOOL in self._standing else _NOT_METERED

    def __bool__(self) -> bool:
        return bool(self._standing)

    def __contains__(self, cause: str) -> bool:
        return cause in self._standing

    def stands(self, cause: str, why: object) -> None:
        """The lane cannot `cause` (a verb), because of `why`."""
        self._standing.add(cause)
        if cause not in self._told:
            self._told.add(cause)
            _log.error("the lane cannot %s, %s: %s", cause, self._consequence, why)

    def eases(self, cause: str) -> None:
        """Requests may try whether it is over."""
        self._standing.discard(cause)

    def ends(self, cause: str) -> None:
        """The lane can do it."""
        if cause in self._told:
            self._standing.discard(cause)
            self._told.discard(cause)
            _log.warning("the lane can %s again", cause)
