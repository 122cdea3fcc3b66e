"""Advisory locks on files, and waiting with patience.

Everything that commands on one data folder agree about goes through flock(2): the kernel lets go of a lock when its
last holder is gone, however it went, so no lock outlives a killed command and no pid has to be believed. Every lock
is opened close-on-exec; the one that a child shall hold is passed to it by name (`pass_fds`).
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metering.refusal import Unavailable

_log = logging.getLogger("tallygrid.postgres")

_FIRST_NOTICE_S = 5.0
_NEXT_NOTICE_S = 30.0


class Patience:
    """Waits in small steps up to a limit, and says now and then (as a warning in the log) what it waits for."""

    def __init__(self, what: str, where: Path, *, limit_s: float, remedy: str = "") -> None:
        self.what = what
        self.where = where
        self.remedy = remedy
        self.limit_s = limit_s
        self._began = time.monotonic()
        self._notice_at = self._began + _FIRST_NOTICE_S

    def pause(self) -> None:
        """One step of waiting (10 ms, 50 ms after the first second). Raises `Unavailable` past the limit."""
        now = time.monotonic()
        waited = now - self._began
        if waited > self.limit_s:
            raise Unavailable(
                "database_down",
                f"{self.what}: gave up after {self.limit_s:.0f} s",
                where=str(self.where),
                remedy=self.remedy or "try again; nothing was changed",
            )
        if now >= self._notice_at:
            _log.warning("%s; waiting for %.0f s so far (%s)", self.what, waited, self.where)
            self._notice_at = now + _NEXT_NOTICE_S
        time.sleep(0.01 if waited < 1 else 0.05)


def open_lock(path: Path) -> int:
    """Opens, or makes, a lock file and returns its descriptor; nothing is locked yet."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def try_exclusive(lock: int) -> bool:
    """Takes the lock for this holder alone, or turns its shared lock into that; False where another holds it.

    A refused turn loses the shared lock too (flock is not atomic there).
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def take_shared(lock: int) -> None:
    """Takes the lock beside other shared holders. The caller knows that nobody holds it alone."""
    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)


@contextmanager
def exclusively(path: Path, patience: Patience) -> Iterator[None]:
    """Holds the lock at `path` alone for the block, waiting for its turn. Raises FileNotFoundError without its folder."""
    lock = _wait_for(path, patience)
    try:
        yield
    finally:
        os.close(lock)


def _wait_for(path: Path, patience: Patience) -> int:
    while True:
        lock = open_lock(path)
        try:
            while not try_exclusive(lock):
                patience.pause()
            if _is_at(lock, path):
                return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


def _is_at(lock: int, path: Path) -> bool:
    """Whether the open file is the one at `path`: whoever had the lock before may have removed the folder."""
    try:
        return os.path.samestat(os.fstat(lock), path.stat())
    except FileNotFoundError:
        return False
