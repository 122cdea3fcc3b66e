"""Files and folders that survive a power loss, made so that a half-written one is never seen.

A file is written beside its place, fsynced and renamed over it, and the folder is fsynced. As root we also write into
folders that an unprivileged user owns, so the folder is held open by its descriptor and no link in it is followed.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path


def write(path: Path, text: str, *, owner: tuple[int, int] | None = None) -> None:
    """Puts `text` (UTF-8) at `path` with mode 0600, whole or not at all; `owner`: (uid, gid) to give it to."""
    fresh = f".{path.name}.new"
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _unlink(fresh, folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(fresh, flags, 0o600, dir_fd=folder), "wb") as file:
            file.write(text.encode())
            file.flush()
            if owner is not None:
                os.fchown(file.fileno(), *owner)
            os.fsync(file.fileno())
        os.rename(fresh, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)
    finally:
        os.close(folder)


def make_folder(path: Path, mode: int = 0o700, *, owner: tuple[int, int] | None = None) -> None:
    """Makes the folder, and what is missing above it, with `mode` whatever the umask; existing ones stay as they are."""
    if path.is_dir():
        return
    if not path.parent.exists():
        make_folder(path.parent, mode)
    try:
        path.mkdir(mode=mode)
    except FileExistsError:
        # Another command made it meanwhile, or it is no folder: whoever uses it next will say so.
        return
    if owner is not None:
        os.chown(path, *owner)
    path.chmod(mode)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Makes renames and new names in the folder last through a power loss."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def is_own_folder(path: Path, uid: int) -> bool:
    """Whether `path` is a folder (not a link to one) of that user."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid


def _unlink(name: str, folder: int) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return
