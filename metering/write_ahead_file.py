"""Segments of the write-ahead file on disk: beginning one, appending, finding the newest whole one.

What is in them is write_ahead.py's. Appending is one write(2) a frame, at the end of the file, so that a kill leaves
whole frames and at most one cut one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from metering.durable import fsync_file, fsync_folder, write_file, write_whole
from metering.refusal import Refusal, Unavailable
from metering.write_ahead import MAGIC, Opening, Segment, opening_frame, read_segment

#: A segment that has grown beyond this is left for a new one at the next seal.
SEGMENT_BYTES = 32 * 1024 * 1024


class WriteAheadFile:
    """A segment that is being written."""

    def __init__(self, path: Path, number: int, descriptor: int, size: int, *, each: bool = False) -> None:
        """`each`: every append is on disk when it returns."""
        self.path = path
        self.number = number
        self.size = size
        self.synced_size = 0
        self._descriptor = descriptor
        self._each = each
        #: It takes no more: nobody knows what is on disk, or another segment has perhaps taken over.
        self.is_broken = False

    @classmethod
    def create(
        cls,
        folder: Path,
        number: int,
        opening: Opening,
        carried: Iterable[bytes],
        *,
        durable: bool,
        each: bool,
    ) -> WriteAheadFile:
        """Begin segment `number` with its opening and what it carries, whole or not at all.

        With `durable` it is on disk when this returns; without, when `fsync` and an fsync of the folder have returned.
        """
        path = segment_path(folder, number)
        beside = path.with_suffix(".new")
        content = b"".join([MAGIC, opening_frame(opening), *carried])
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(beside, flags, 0o644)
        try:
            write_whole(descriptor, content)
            if durable:
                os.fsync(descriptor)
            beside.replace(path)
            if durable:
                fsync_folder(folder)
        except BaseException:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)  # gives its room back
            raise
        begun = cls(path, number, descriptor, len(content), each=each)
        begun.synced_size = begun.size if durable else 0
        return begun

    def append(self, content: bytes) -> None:
        """write(2) one frame, or several: a killed process loses nothing of it. With `each` it is on disk, too.

        Unavailable `write_ahead_failed` if it fails. What a failing write left is cut off again, so that the frames
        before and after it stay readable.
        """
        if self.is_broken:
            raise self.failure("an earlier write or fsync failed")
        try:
            written = os.write(self._descriptor, content)
        except OSError as error:
            self._cut()
            raise self.failure(str(error)) from error
        if written != len(content):
            self._cut()
            raise self.failure("the disk is full")
        if self._each:
            try:
                self.fsync(self.size + written)
            except Unavailable:
                self._cut()
                raise
        self.size += written

    def fsync(self, size: int) -> None:
        """Put on disk what is written, `size` bytes at least.

        Once this has failed nobody knows what is there, so the file takes no more: a second fsync would succeed on
        pages that the kernel has given up and marked clean.
        """
        if self.is_broken:
            raise self.failure("an earlier write or fsync failed")
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            self.is_broken = True
            raise self.failure(str(error)) from error
        self.synced_size = size

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def give_up(self) -> None:
        """Take no more: another segment has taken over, or nobody knows whether it has."""
        self.is_broken = True

    def _cut(self) -> None:
        try:
            os.ftruncate(self._descriptor, self.size)
        except OSError:
            self.is_broken = True

    def failure(self, what: str) -> Unavailable:
        """What to raise when this segment, or its successor, cannot be written."""
        return Unavailable(
            "write_ahead_failed",
            f"the write-ahead file cannot be written: {what}",
            where=str(self.path),
            remedy="free space on the spool's disk, or restart the sidecar if the disk failed",
        )


class WriteAhead:
    """The segments of one lane, the newest of which is being written."""

    def __init__(self, folder: Path, newest: int, *, each: bool) -> None:
        """`newest` is the number of the newest segment in `folder`, whole or not; 0 if there is none.

        `each`: every append is on disk when it returns.
        """
        self._folder = folder
        self.each = each
        self._number = newest
        self._file: WriteAheadFile | None = None
        self._is_named = True  # the newest segment's name is on disk

    def none_yet(self) -> WriteAheadFile:
        """What stands for a segment before the first is begun: it takes nothing."""
        none = WriteAheadFile(segment_path(self._folder, self._number + 1), self._number + 1, -1, 0)
        none.give_up()
        return none

    @property
    def file(self) -> WriteAheadFile:
        assert self._file is not None, "the lane is closed"
        return self._file

    @property
    def settled(self) -> bool:
        """Whether the newest segment's name is on disk, and no older one is needed any more."""
        return self._is_named

    def begin(self, opening: Opening, carried: Iterable[bytes], *, durable: bool) -> None:
        """Go on in a new segment. Without `durable` the older ones stay until the next `fsync`.

        Unavailable `write_ahead_failed` if the disk refuses: then nothing has changed, unless the new segment has got
        its name already. A start would read that one, so the old one takes no more.
        """
        try:
            begun = WriteAheadFile.create(
                self._folder, self._number + 1, opening, carried, durable=durable, each=self.each
            )
        except OSError as error:
            file = self._file or self.none_yet()
            if segment_path(self._folder, self._number + 1).exists():
                file.give_up()
            raise file.failure(str(error)) from error
        if self._file:
            self._file.close()
        self._file, self._number, self._is_named = begun, self._number + 1, durable

    def fsync(self, size: int) -> None:
        """Put the newest segment, `size` bytes of it at least, on disk, and its name."""
        self.file.fsync(size)
        if not self._is_named:
            try:
                fsync_folder(self._folder)
            except OSError as error:
                self.file.give_up()
                raise self.file.failure(str(error)) from error
            self._is_named = True
            self.remove_old()

    def remove_old(self) -> None:
        """Delete the segments that the newest one has taken over from; it is on disk.

        One that can't be deleted does no harm, and is tried again with the next.
        """
        assert self._is_named
        for number, path in segments(self._folder):
            if number < self._number:
                with contextlib.suppress(OSError):
                    path.unlink()

    def sync_found(self, path: Path) -> None:
        """Put a segment that was found on disk, and its name: a killed process wrote it, and perhaps did not.

        What is made of it must not outlive it. OSError if the disk refuses.
        """
        fsync_file(path)
        fsync_folder(self._folder)

    def close(self) -> None:
        if self._file:
            self._file.close()
            self._file = None


def segment_path(folder: Path, number: int) -> Path:
    """Where segment `number` lies."""
    return folder / f"write-ahead-{number:08d}.wal"


def segments(folder: Path) -> list[tuple[int, Path]]:
    """The segments in a lane's folder, oldest first."""
    return sorted((int(path.stem.rpartition("-")[2]), path) for path in folder.glob("write-ahead-*.wal"))


def newest_segment(folder: Path) -> tuple[int, Path | None, Segment | None]:
    """The number of the newest segment, and path and meaning of the newest whole one.

    Older and torn ones stay where they are: they go once the lane has a new one. (0, None, None) if there is none.
    Refusal `write_ahead_damaged` if there are segments but not one is whole: a person must look.
    """
    found = segments(folder)
    for _, path in reversed(found):
        segment = read_segment(path.read_bytes())
        if segment is not None:
            return found[-1][0], path, segment
    if found:
        raise Refusal(
            "write_ahead_damaged",
            "no write-ahead segment has a whole opening",
            where=str(found[-1][1]),
            remedy="keep the file, and move it away to go on without what it held",
        )
    return 0, None, None


def set_aside(path: Path, segment: Segment) -> str:
    """Keep what the end of a segment could not be read as in a file of its own; returns what to tell the operator."""
    aside = path.with_name(f"torn-{path.stem.rpartition('-')[2]}")
    write_file(aside, path.read_bytes()[segment.whole :])
    return f"the last {segment.unread} bytes of {path.name} are no whole frame; they are kept in {aside.name}"
