"""A disk that refuses: the n-th call that would take room, or some in a row, fails as on a full disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

#: What a full disk may answer. `pwrite` is not among them: it overwrites what has its room already.
_REFUSED = ("open", "write", "fsync", "replace", "link", "mkdir", "unlink", "ftruncate")


class RefusingDisk:
    """Below `root` the calls `first` … `first + count − 1` fail; a refused write leaves half of its bytes.

    Nothing is really fsynced: a test of a thousand runs shall be quick.
    """

    def __init__(self, root: Path, first: int, count: int) -> None:
        self._root = str(root)
        self._refused = range(first, first + count)
        self.calls = 0
        self.refusals = 0

    def plug_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in _REFUSED:
            monkeypatch.setattr(os, name, self._call(name, getattr(os, name)))

    def _call(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(target: Any, *arguments: Any, **more: Any) -> Any:
            if not self._is_mine(target) or not _changes(name, target, *arguments):
                return real(target, *arguments, **more)
            self.calls += 1
            if self.calls - 1 in self._refused:
                self.refusals += 1
                if name == "write" and len(arguments[0]) > 1:
                    real(target, arguments[0][: len(arguments[0]) // 2])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return None if name == "fsync" else real(target, *arguments, **more)

        return call

    def _is_mine(self, target: Any) -> bool:
        path = Path(f"/proc/self/fd/{target}").readlink() if isinstance(target, int) else target
        return str(path).startswith(self._root + os.sep)


def _changes(name: str, target: Any, *arguments: Any) -> bool:
    """Whether the call would change anything: opening what is there, or removing what is not, does not."""
    if name == "open":
        return bool(arguments[0] & os.O_CREAT) and not Path(target).exists()
    return name != "unlink" or Path(target).exists()
