"""Objects as files below a folder.

A file is written beside its place (`.NAME.CHANCE.new`), fsynced and renamed, and then its folder is fsynced: a reader
never meets half of one, and a transaction that commits afterwards never lists what a power cut took away. Of many
objects at once the fsyncs run in a few threads: the file system's journal then commits many of them together.

Batches are open to whoever may look into the folder: analysts' tools read them, and they name nobody. What a log's leaves
tell (`_log/content`: names and addresses of customers, hashes of API keys) and what is held are their owner's alone, 0600
in folders of 0700.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from billing.objects import Objects
from metering.durable import fsync_folder, make_folder, write_file
from metering.refusal import Refusal, Unavailable

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

#: fsyncs that wait beside each other.
_THREADS = 8
_PRIVATE = "_log/content"
_T = TypeVar("_T")


class ArrowObjects(Objects, Protocol):
    """Objects that pyarrow can read as datasets."""

    def arrow(self) -> tuple[FileSystem, str]:
        """The same as pyarrow's readers take it: a file system, and what names begin with there."""
        ...


class FolderObjects:
    """Objects below `root`, which is made if it is missing. See `billing.objects.Objects`."""

    def __init__(self, root: Path, *, private: bool = False) -> None:
        """`private`: all of it is the owner's alone."""
        self.root = root
        self._private = private
        self._lasting: set[Path] = set()

    def put(self, objects: Sequence[tuple[str, bytes]]) -> None:
        with _translated(self.root):
            missing = [
                (place, content)
                for path, content in objects
                if _is_missing(place := self._place(path), content)
            ]
            folders = list(dict.fromkeys(place.parent for place, _ in missing))
            for folder in folders:
                self._make_folder(folder)
            # Chance keeps two writers of one file apart; what a killed one leaves is a stray that nobody reads.
            besides = [place.with_name(f".{place.name}.{secrets.token_hex(8)}.new") for place, _ in missing]
            writes = [(beside, content) for beside, (_, content) in zip(besides, missing, strict=True)]
            each(lambda write: write_file(*write, mode=self._mode(write[0])), writes, _THREADS)
            for beside, (place, _) in zip(besides, missing, strict=True):
                beside.replace(place)
            each(fsync_folder, folders, _THREADS)

    def replace(self, path: str, content: bytes) -> None:
        with _translated(self.root):
            place = self._place(path)
            self._make_folder(place.parent)
            beside = place.with_name(f".{place.name}.{secrets.token_hex(8)}.new")
            write_file(beside, content, mode=self._mode(beside))
            beside.replace(place)
            fsync_folder(place.parent)

    def get(self, path: str) -> bytes | None:
        with _translated(self.root):
            try:
                return self._place(path).read_bytes()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None

    def list(self, prefix: str) -> Iterator[str]:
        return walk(self._children, prefix)

    def remove(self, paths: Sequence[str]) -> None:
        with _translated(self.root):
            folders: dict[Path, None] = {}
            for path in paths:
                place = self._place(path)
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    place.unlink()
                    folders[place.parent] = None
            for folder in folders:
                fsync_folder(folder)

    def arrow(self) -> tuple[FileSystem, str]:
        """See `ArrowObjects`."""
        from pyarrow.fs import LocalFileSystem  # whoever only stores batches need not wait for it

        return LocalFileSystem(), str(self.root)

    def _children(self, folder: str) -> Sequence[tuple[str, bool]]:
        with _translated(self.root):
            try:
                found = list((self.root / folder).iterdir())
            except (FileNotFoundError, NotADirectoryError):
                return []
            named = [(path.name, path.is_dir()) for path in found]
            return [
                (name, folded) for name, folded in named if not (name[0] == "." and name.endswith(".new"))
            ]

    def _make_folder(self, folder: Path) -> None:
        """The folder, its name and those above it on disk: one that is there may be from a process that was killed
        before it had made the name last, so the first use by this process makes sure."""
        if folder in self._lasting and folder.is_dir():
            return
        if self._is_private(folder):
            parts = folder.relative_to(self.root).parts
            inner = self.root if self._private else self.root.joinpath(*parts[: parts.index("content") + 1])
            make_folder(inner.parent)
            make_folder(folder, mode=0o700)
        else:
            make_folder(folder)
        above = folder
        while above != self.root:
            above = above.parent
            fsync_folder(above)
        self._lasting.add(folder)

    def _is_private(self, place: Path) -> bool:
        return self._private or f"/{_PRIVATE}/" in f"/{place.relative_to(self.root).as_posix()}/"

    def _mode(self, place: Path) -> int:
        return 0o600 if self._is_private(place) else 0o644

    def _place(self, path: str) -> Path:
        place = self.root / path
        assert path[0] != "/", "names are relative"
        assert ".." not in place.parts, "names are built from checked words"
        return place


def walk(children: Callable[[str], Sequence[tuple[str, bool]]], prefix: str) -> Iterator[str]:
    """Names below `prefix` in the order of their code points. `children(folder)`: (name, is a folder) of what lies in a
    folder; a folder's names sort as if `/` ended them, since that is what follows."""
    folder, _, begins = prefix.rpartition("/")
    for name, is_folder in sorted(children(folder), key=lambda child: child[0] + "/" * child[1]):
        if not name.startswith(begins):
            continue
        path = f"{folder}/{name}" if folder else name
        if is_folder:
            yield from walk(children, f"{path}/")
        else:
            yield path


def damaged(path: str) -> Refusal:
    """The refusal where a name holds other bytes than it should."""
    return Refusal(
        "damaged_object",
        "other bytes lie under this name, which always holds the same",
        where=path,
        remedy="somebody changed it, or the disk did: restore it from a backup, `tally doctor` says more",
    )


def _is_missing(place: Path, content: bytes) -> bool:
    try:
        there = place.read_bytes()
    except FileNotFoundError:
        return True
    if there != content:
        raise damaged(str(place))
    return False


def each(act: Callable[[_T], object], on: Sequence[_T], threads: int) -> None:
    """`act` on each, `threads` at a time; the first failure is raised when all that had begun have ended."""
    if len(on) < 2:
        for one in on:
            act(one)
        return
    left = iter(on)

    def some() -> None:
        for one in left:  # of a list's iterator each thread takes what the others have not taken
            act(one)

    count = min(threads, len(on))
    with ThreadPoolExecutor(count, thread_name_prefix="objects") as pool:
        for share in [
            pool.submit(some) for _ in range(count)
        ]:  # a task a thread: one for each file costs as much as it
            share.result()


@contextlib.contextmanager
def _translated(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(
            "archive_unavailable",
            f"batches can't be stored or read: {error.strerror}",
            where=str(error.filename or root),
            remedy="free or mend the disk; intake goes on by itself",
        ) from error
