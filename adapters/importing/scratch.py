"""A folder of an import's own, where its rows are sorted, and which no killed import leaves behind for good.

The folder is locked (flock) while its import lives; the kernel lets go however that ends. The next import removes
every folder that nobody holds. Making and locking a folder is one step under the lock of the folder above it, so that
none is swept away between the two.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp


@contextmanager
def scratch_folder(scratch: Path) -> Iterator[Path]:
    """A new empty folder below `scratch` for as long as the block."""
    scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _locked(scratch):
        _sweep(scratch)
        own = Path(mkdtemp(dir=scratch, prefix="import-"))
        lock = _open(own)
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield own
    finally:
        shutil.rmtree(own)
        os.close(lock)


def _sweep(scratch: Path) -> None:
    for folder in scratch.iterdir():
        # Held by an import that is at work, or gone since we looked: both are as they should be.
        with suppress(BlockingIOError, FileNotFoundError, NotADirectoryError):
            _remove_unheld(folder)


def _remove_unheld(folder: Path) -> None:
    lock = _open(folder)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    finally:
        os.close(lock)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = _open(folder)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _open(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
