"""Which lane speaks for a node: of several sidecar lanes in one spool folder just one says what the engine counted.

    SPOOL/<operator>/<node>/speaks      the name of the lane that speaks, or spoke last; that lane holds it (flock)

Never two of them: the kernel gives the lock to one living process. And not just anyone: a lane that is away for a
moment is waited for, because what it has not said yet is kept with it. So a lane takes the free word if nobody ever had
it, if it had it last itself, or if the lane that had it last has ended (its last seal was final) or has written nothing
for an hour; a living lane writes every 10 s. Until one of these holds nobody speaks, and the others wait with what they
would leave unsaid (engine_span.py). A lane that begins for the first time takes the free word at once: it stands in for
one that was given up.
"""

from __future__ import annotations

import fcntl
import os
import time
from enum import Enum, auto
from pathlib import Path

from metering.refusal import Refusal
from metering.seal import NAME, peek_seal

WORD_FILE = "speaks"
#: A lane that has written nothing for so long does not come back to speak.
SILENT_AFTER_S = 3600.0


class Speaker(Enum):
    """Who speaks for the node."""

    OURS = auto()
    ANOTHER = auto()
    NOBODY = auto()


class NodeWord:
    """A lane's hold on the word of its node."""

    def __init__(self, lane_folder: Path) -> None:
        self._lane = lane_folder
        self._lock = -1

    def take(self, *, is_new: bool = False) -> Speaker:
        """Who speaks; the word is taken if it is free and for this lane to take. A disk that refuses gives it to nobody.

        `is_new`: the lane begins for the first time.
        """
        if self._lock >= 0:
            return Speaker.OURS
        try:
            lock = os.open(self._lane.parent / WORD_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError:
            return Speaker.NOBODY
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            last = _name(os.pread(lock, 256, 0))
            if last != self._lane.name:
                if last and not is_new and not is_silent(self._lane.parent / last):
                    os.close(lock)
                    return Speaker.NOBODY
                os.ftruncate(lock, 0)
                os.pwrite(lock, self._lane.name.encode(), 0)
        except OSError as error:
            os.close(lock)
            return Speaker.ANOTHER if isinstance(error, BlockingIOError) else Speaker.NOBODY
        self._lock = lock
        return Speaker.OURS

    def close(self) -> None:
        """Let go of the word; it is this lane's when it comes back within the hour."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _name(content: bytes) -> str:
    """The lane that the file names; "" for what a power cut left of it."""
    name = content.decode("ascii", "replace")
    return name if NAME.fullmatch(name) else ""


def is_silent(lane_folder: Path) -> bool:
    """Whether the lane has ended, or has written nothing for an hour."""
    if time.time() - last_written_s(lane_folder) > SILENT_AFTER_S:
        return True
    try:
        return peek_seal((lane_folder / "head").read_bytes()).final
    except (OSError, Refusal):
        return False


def others_written_s(lane_folder: Path) -> float:
    """When another sidecar lane of the node last wrote, in seconds since 1970; 0 if there is none."""
    others = {path.parent for path in lane_folder.parent.glob("*/write-ahead-*.wal")} - {lane_folder}
    return max(map(last_written_s, others), default=0.0)


def last_written_s(lane_folder: Path) -> float:
    """When something was last written of the lane, in seconds since 1970: its head, or a write-ahead file; 0 if never."""
    newest = 0.0
    for path in (lane_folder / "head", *lane_folder.glob("write-ahead-*.wal")):
        try:
            newest = max(newest, path.stat().st_mtime)
        except FileNotFoundError:
            continue
    return newest
