"""One shipper a spool: it holds SPOOL/shipper.lock (flock).

Two would send everything twice. A second one says so and waits until the first is gone, so any number of sidecars on a
machine may each bring one, and the kernel lets go of the lock of one that is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

from metering.durable import make_folder

_log = logging.getLogger(__name__)

LOCK_FILE = "shipper.lock"
_ASK_EVERY_S = 1.0


@contextlib.asynccontextmanager
async def spool_held(spool: Path, stop: asyncio.Event) -> AsyncIterator[bool]:
    """The spool, for one shipper: waits while another has it, and says so. False: told to stop before it was free."""
    make_folder(spool)
    lock = os.open(spool / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        waits = False
        while not _taken(lock):
            if not waits:
                _log.info("another shipper empties this spool; this one waits until it is gone")
            waits = True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _ASK_EVERY_S)
            if stop.is_set():
                yield False
                return
        yield True
    finally:
        os.close(lock)


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
