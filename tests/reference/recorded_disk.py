"""A disk that remembers what a power cut would leave of it.

While it is plugged in, what is written below its folder goes to the real files and into a model: of each file what the
last fsync put on disk and the writes since; of each folder the names that its last fsync put on disk and the changes
since. At a chosen operation the power is cut (`PowerCut` from there on), and `after` writes what could be found then:

    a file      of the writes since its fsync none, all, the first ones with the last torn, or any of its 512-byte
                sectors, zeroes where one is missing
    a folder    of the changes since its fsync the first ones (a rename between folders in both or in none)

That is what POSIX promises, and less than ext4 or XFS keep. Nothing is really fsynced, so it is quick, too.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

_SECTOR = 512
_CALLS = ("open", "close", "write", "pwrite", "ftruncate", "fsync", "replace", "link", "unlink", "mkdir")


class PowerCut(BaseException):
    """The machine is off."""


@dataclass(eq=False)
class File:
    now: bytearray = field(default_factory=bytearray)
    on_disk: bytes = b""
    #: (offset, content) of each write since the last fsync; (size, None) of each truncation.
    since: list[tuple[int, bytes | None]] = field(default_factory=list)

    def write(self, offset: int, content: bytes) -> None:
        self.since.append((offset, content))
        _put(self.now, offset, content)

    def truncate(self, size: int) -> None:
        self.since.append((size, None))
        _put(self.now, size, None)

    def fsync(self) -> None:
        self.on_disk, self.since = bytes(self.now), []

    def after(self, chance: random.Random) -> bytes:
        how = chance.choice(("none", "all", "torn", "sectors"))
        if how == "none" or not self.since:
            return self.on_disk
        if how == "all":
            return bytes(self.now)
        if how == "torn":
            kept = bytearray(self.on_disk)
            *first, (offset, content) = self.since[: chance.randint(1, len(self.since))]
            for each in first:
                _put(kept, *each)
            _put(kept, offset, content[: chance.randint(0, len(content))] if content else content)
            return bytes(kept)
        kept = bytearray(self.on_disk[: len(self.now)].ljust(len(self.now), b"\0"))
        for at in range(0, len(self.now), _SECTOR):
            if chance.random() < 0.5:
                kept[at : at + _SECTOR] = self.now[at : at + _SECTOR]
        return bytes(kept)


def _put(content: bytearray, offset: int, piece: bytes | None) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    if piece is None:
        del content[offset:]
    else:
        content[offset : offset + len(piece)] = piece


@dataclass(eq=False)
class Change:
    """A change of names: what they are afterwards; None: gone."""

    names: dict[str, File | None]
    on_disk: bool = False

    def touches(self) -> set[str]:
        return {str(Path(name).parent) for name in self.names}


class RecordedDisk:
    """The files below `root`, from now on, until the `cut_at`-th operation."""

    def __init__(self, root: Path, cut_at: int) -> None:
        self.root = str(root)
        self.left = cut_at
        self.is_cut = False
        self._names: dict[str, File] = {}
        self._folders: list[str] = [
            str(path.relative_to(root)) for path in sorted(root.rglob("*")) if path.is_dir()
        ]
        self._changes: list[Change] = []
        self._descriptors: dict[int, tuple[str, File | None]] = {}
        self._real: dict[str, Callable[..., Any]] = {}
        for path in root.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                self._names[str(path)] = File(bytearray(content), content)
        self._at_first = dict(self._names)

    def plug_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Take the calls of `os` that write, or that make written things last."""
        for name in _CALLS:
            self._real[name] = getattr(os, name)
            monkeypatch.setattr(os, name, getattr(self, name))

    def after(self, chance: random.Random, folder: Path) -> None:
        """Write what is found after the cut into `folder`."""
        names: dict[str, File | None] = {**self._at_first}
        stopped: set[str] = set()
        last = max((at for at, change in enumerate(self._changes) if change.on_disk), default=-1)
        for at, change in enumerate(self._changes):
            folders = change.touches()
            is_lost = not change.on_disk and (folders & stopped or (at > last and chance.random() < 0.4))
            if is_lost:
                stopped |= folders
            else:
                names.update(change.names)
        for each in self._folders:
            (folder / each).mkdir(parents=True, exist_ok=True)
        for name, file in names.items():
            if file is not None:
                (folder / os.path.relpath(name, self.root)).write_bytes(file.after(chance))

    # -- what the code under test calls ------------------------------------------------------------------------------

    def open(self, path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        name = os.fspath(path)
        if not self._is_mine(name):
            return int(self._real["open"](path, flags, mode, **more))
        with self._operation():
            descriptor = int(self._real["open"](path, flags, mode))
            file = self._names.get(name)
            if file is None and not Path(name).is_dir():
                file = File()
                self._change({name: file})
            if file and flags & os.O_TRUNC:
                file.truncate(0)
            self._descriptors[descriptor] = (name, file)
            return descriptor

    def close(self, descriptor: int) -> None:
        self._descriptors.pop(descriptor, None)
        self._real["close"](descriptor)

    def write(self, descriptor: int, content: bytes) -> int:
        file = self._file(descriptor)
        if file is None:
            return int(self._real["write"](descriptor, content))
        with self._operation():
            # Whoever writes here appends, or has just opened the file empty.
            file.write(len(file.now), bytes(content))
            return int(self._real["write"](descriptor, content))

    def pwrite(self, descriptor: int, content: bytes, offset: int) -> int:
        file = self._file(descriptor)
        if file is None:
            return int(self._real["pwrite"](descriptor, content, offset))
        with self._operation():
            file.write(offset, content)
            return int(self._real["pwrite"](descriptor, content, offset))

    def ftruncate(self, descriptor: int, size: int) -> None:
        file = self._file(descriptor)
        if file is None:
            self._real["ftruncate"](descriptor, size)
            return
        with self._operation():
            file.truncate(size)
            self._real["ftruncate"](descriptor, size)

    def fsync(self, descriptor: int) -> None:
        if descriptor not in self._descriptors:
            self._real["fsync"](descriptor)
            return
        with self._operation():
            pass  # a cut within an fsync: it has done nothing yet
        name, file = self._descriptors[descriptor]
        if file:
            file.fsync()
        for change in self._changes:
            if file is None and name in change.touches():
                change.on_disk = True

    def replace(self, source: Any, target: Any) -> None:
        if not self._is_mine(source):
            self._real["replace"](source, target)
            return
        with self._operation():
            self._real["replace"](source, target)
            self._change({os.fspath(source): None, os.fspath(target): self._names[os.fspath(source)]})

    def link(self, source: Any, target: Any) -> None:
        if not self._is_mine(source):
            self._real["link"](source, target)
            return
        with self._operation():
            self._real["link"](source, target)
            self._change({os.fspath(target): self._names[os.fspath(source)]})

    def unlink(self, path: Any, **more: Any) -> None:
        if not self._is_mine(path):
            self._real["unlink"](path, **more)
            return
        with self._operation():
            self._real["unlink"](path)
            self._change({os.fspath(path): None})

    def mkdir(self, path: Any, mode: int = 0o777, **more: Any) -> None:
        self._real["mkdir"](path, mode, **more)
        if self._is_mine(path):  # folders are made once, at the first start, and taken to last
            self._folders.append(os.path.relpath(os.fspath(path), self.root))

    def _is_mine(self, path: Any) -> bool:
        return str(os.fspath(path)).startswith(self.root + os.sep)

    def _file(self, descriptor: int) -> File | None:
        return self._descriptors.get(descriptor, ("", None))[1]

    @contextmanager
    def _operation(self) -> Iterator[None]:
        """One operation: the power may be cut after it, and before anybody hears that it was done."""
        if self.is_cut:
            raise PowerCut
        yield
        self.left -= 1
        if self.left <= 0:
            self.is_cut = True
            raise PowerCut

    def _change(self, names: dict[str, File | None]) -> None:
        self._changes.append(Change(names))
        for name, file in names.items():
            if file is None:
                self._names.pop(name, None)
            else:
                self._names[name] = file
