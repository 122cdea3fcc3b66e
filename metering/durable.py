"""Files that are whole or absent, whatever is killed or unplugged.

`os.replace` is atomic for everybody who looks, but only an fsync of the file before it and of the folder after it make
that last over a power cut. These few functions are the only place where the order is written down.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def fsync_folder(folder: Path) -> None:
    """Make what was created, renamed or removed in `folder` last."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_file(path: Path) -> None:
    """Make what anybody wrote into the file last."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write a file in place and fsync it (not its folder): for names that nobody reads yet."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        write_whole(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(descriptor: int, content: bytes) -> None:
    """write(2) until everything is written."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def replace_file(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Put `content` at `path`, whole or not at all; on disk, and its name too, when this returns."""
    beside = path.with_name(path.name + ".new")
    write_file(beside, content, mode=mode)
    beside.replace(path)
    fsync_folder(path.parent)


def create_once(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Put `content` at `path` unless a file is there already; of several at once exactly one wins."""
    beside = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    write_file(beside, content, mode=mode)
    try:
        with contextlib.suppress(FileExistsError):
            os.link(beside, path)
    finally:
        beside.unlink()
    fsync_folder(path.parent)


def make_folder(folder: Path, *, mode: int = 0o755) -> None:
    """Make `folder` and what is missing above it, each name on disk when this returns; those that are there stay as they
    are."""
    if folder.is_dir():
        return
    make_folder(folder.parent, mode=mode)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=mode)
    fsync_folder(folder.parent)


def file_signature(path: Path) -> tuple[int, int, int] | None:
    """What changes when somebody writes the file or puts another in its place; None if it cannot be looked at."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
