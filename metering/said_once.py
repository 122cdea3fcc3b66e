"""Warnings that are logged once each, however often they come, and no more than the log can bear."""

from __future__ import annotations

import logging

MOST = 200


class SaidOnce:
    """Call it with what shall be in the log."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._said: set[str] = set()

    def __call__(self, what: str) -> None:
        if what in self._said or len(self._said) > MOST:
            return
        self._said.add(what)
        self._log.warning(
            "%s", what if len(self._said) <= MOST else "more warnings like these are not logged"
        )
