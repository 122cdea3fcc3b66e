"""`tally doctor` at the spool: its disk, what waits in it, and sidecars that run and seal nothing.

A running sidecar holds the lock of its lane's folder and seals every 10 s, with or without requests. One that has not
sealed for a minute cannot write what it would have to: it refuses requests, or serves them unmetered. Whether a lock is
held is read from /proc/locks, never tried: a try would be in the way of a sidecar that starts just then. What runs on
another machine, or in a container of its own, is not seen there; its lane shows by how far it is behind.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from adapters.cli.checks import FAULT, OK, WARNING, Check
from adapters.cli.framework import counted
from adapters.data_folder import DataFolder
from metering.lane_folder import lane_path
from metering.refusal import Refusal
from metering.seal import peek_seal
from metering.spool import LaneRef, Spool

LITTLE_DISK_BYTES = 2 << 30
FULL_DISK_BYTES = 1 << 20
MANY_WAITING = 1_000
SILENT_S = 60.0
_LOCKS = Path("/proc/locks")


def check_disks(folder: DataFolder) -> list[Check]:
    """The disk of the data folder, and the spool's where that is another one."""
    checks = [_disk("disk", folder.root)]
    if folder.spool.exists() and folder.spool.stat().st_dev != folder.root.stat().st_dev:
        checks.append(_disk("disk of the spool", folder.spool))
    return checks


def check_spool(spool: Path) -> list[Check]:
    """What waits for intake, and each lane whose sidecar runs and does not seal."""
    waiting = sum(1 for _ in Spool(spool).pending()) if spool.exists() else 0
    state = WARNING if waiting > MANY_WAITING else OK
    batches = f"{waiting} sealed {'batch waits' if waiting == 1 else 'batches wait'} for intake"
    checks = [Check("spool", state, batches, "is intake running?" if waiting else "")]
    locked = _locked_inodes()
    checks += [check for lane in Spool(spool).lanes() for check in _silent(spool, lane, locked)]
    return checks


def _disk(name: str, path: Path) -> Check:
    free = shutil.disk_usage(path).free
    state = OK if free >= LITTLE_DISK_BYTES else WARNING if free >= FULL_DISK_BYTES else FAULT
    return Check(
        name, state, f"{free >> 20:,} MiB free", "" if state == OK else "capture stops when it is full"
    )


def _silent(spool: Path, ref: LaneRef, locked: frozenset[tuple[int, int]]) -> list[Check]:
    lane = lane_path(spool, ref.operator, ref.node, ref.lane)
    try:
        lock = (lane / "lock").stat()
        since_s, is_sidecar = lock.st_mtime, True
        if (lane / "head").exists():
            since_s = (lane / "head").stat().st_mtime
            is_sidecar = peek_seal((lane / "head").read_bytes()).kind == "sidecar"
    except (OSError, Refusal):
        return []  # it went away meanwhile, or is damaged: then its sidecar says so, and does not start
    age_s = time.time() - since_s
    if (lock.st_dev, lock.st_ino) not in locked or not is_sidecar or age_s < SILENT_S:
        return []
    return [
        Check(
            f"sidecar {ref.node}/{ref.lane}",
            FAULT,
            f"it runs and has sealed nothing for {counted(int(age_s), 'second')}: it refuses requests, or serves them"
            " unmetered",
            "its log says why; see that the spool's disk has room and can be written",
        )
    ]


def _locked_inodes() -> frozenset[tuple[int, int]]:
    """(device, inode) of every file that a process holds with flock(2); proc_locks(5)."""
    try:
        rows = [line.split() for line in _LOCKS.read_text().splitlines()]
    except OSError:
        return frozenset()
    places = [row[5].split(":") for row in rows if len(row) > 5 and row[1] == "FLOCK"]
    return frozenset(
        (os.makedev(int(major, 16), int(minor, 16)), int(inode)) for major, minor, inode in places
    )
