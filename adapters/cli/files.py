"""Files that a person asked a command to write: refused by name where they cannot be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metering.refusal import Refusal


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Refuses (`cannot_write`) what the block fails to write at `path`."""
    try:
        yield
    except OSError as problem:
        raise _cannot(path, problem.strerror or str(problem)) from None


def check_writable(path: Path) -> None:
    """Refuses (`cannot_write`) a file that could not be written anyhow, before hours are spent on what goes into it."""
    if path.is_dir():
        raise _cannot(path, "it is a folder")
    if not path.absolute().parent.is_dir():
        raise _cannot(path, "its folder is not there")
    if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise _cannot(path, "permission denied")


def _cannot(path: Path, why: str) -> Refusal:
    return Refusal(
        "cannot_write",
        f"cannot write: {why}",
        where=str(path),
        remedy="name a file in a folder that you may write to",
    )
