"""Writing the lines: at once for a kill, within 50 ms for a power cut, and never at the engine's cost.

The caller is the engine's scheduler between two steps, so nothing here waits for a disk: a line is one write(2), and a
thread does the fsync. Nothing here raises either. What fails is counted, logged once and said in a `faults` line as
soon as one can be written; its number stays missing, so a reader knows that a line is.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tallygrid_vllm.lines import file_name, line

FOLDER_VARIABLE = "TALLY_ENGINE_LINES"
BYTES_VARIABLE = "TALLY_ENGINE_LINES_BYTES"
DEFAULT_PART_BYTES = 64 * 1024 * 1024
FSYNC_SECONDS = 0.05

#: Below vLLM's own logger, so that it shows where vLLM's lines show.
logger = logging.getLogger("vllm.tallygrid_vllm")


class LineWriter:
    """One stream of lines. Safe among threads; a forked child goes on in a stream of its own."""

    _closed: bool
    _pid: int | None

    def __init__(
        self, folder: Path, role: str, opened: Mapping[str, object], part_bytes: int = DEFAULT_PART_BYTES
    ) -> None:
        """Makes `folder` where it is missing and opens part 0. `opened` is what every part begins with.

        OSError if the folder or the file cannot be made.
        """
        self._folder = folder
        self._role = role
        self._opened = dict(opened)
        self._part_bytes = part_bytes
        self._faults = 0
        self._faults_said = 0
        self._last_fault = ""
        self._forget()
        self._begin()
        os.register_at_fork(after_in_child=self._forget)
        atexit.register(self.close)

    def write(self, kind: str, said: Mapping[str, object]) -> None:
        """Append one line. Never raises."""
        try:
            with self._lock:
                if self._closed:
                    return
                if self._pid is None:
                    self._begin()
                if self._size >= self._part_bytes or not os.fstat(self._descriptor).st_nlink:
                    self._turn_over()  # where no links are left, somebody deleted the file
                self._append(kind, said)
        except Exception as error:
            self.fault(kind, error)

    def guarded(self, what: str, work: Callable[..., None], *given: object) -> None:
        """Do some of the witness's own work; what it raises is counted and goes no further."""
        try:
            work(*given)
        except Exception as error:
            self.fault(what, error)

    def fault(self, what: str, error: Exception) -> None:
        """Count a failure of the witness; the first is logged."""
        self._faults += 1
        self._last_fault = f"{what}: {type(error).__name__}"
        if self._faults == 1:
            logger.warning("tallygrid: the witness failed (%s: %r); the engine goes on", what, error)
        self._dirty.set()

    def close(self) -> None:
        """Say that the stream ends, and put it on disk. Twice is once."""
        try:
            with self._lock:
                if self._closed or self._pid is None:
                    return
                self._say_faults()
                self._append("ended", {"next": None})
                self._closed = True
            self._put_on_disk()
        except Exception as error:
            self.fault("ended", error)

    def _begin(self) -> None:
        """A new stream: this process's own, number 0, part 0, with a thread that puts it on disk."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._start_us = time.time_ns() // 1000
        while True:
            try:
                self._descriptor = self._new_file(0, os.O_EXCL)
                break
            except FileExistsError:
                self._start_us += 1  # two streams of one process in one microsecond
        self._pid = os.getpid()
        self._say_opened()
        threading.Thread(target=self._keep_on_disk, name="tallygrid-lines", daemon=True).start()

    def _forget(self) -> None:
        """No stream yet; also in a forked child, for the parent's is the parent's."""
        self._lock = threading.Lock()
        self._dirty = threading.Event()
        self._closed = False
        self._n = 0
        self._part = 0
        self._full: list[int] = []
        self._pid = None

    def _turn_over(self) -> None:
        """Go on in the next part; where none can be made, in this one. The thread puts the full one on disk."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            fresh = self._new_file(self._part + 1, 0)
            try:
                self._append("ended", {"next": self._part + 1})
            except OSError:
                os.close(fresh)
                raise
            self._full.append(self._descriptor)
            self._descriptor = fresh
            self._part += 1
            self._say_opened()
        except OSError as error:
            self.fault("next part", error)

    def _new_file(self, part: int, exclusively: int) -> int:
        name = file_name(self._start_us, os.getpid(), self._role, part)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | exclusively
        return os.open(self._folder / name, flags, 0o640)

    def _say_opened(self) -> None:
        self._size = 0
        self._torn = False
        self._is_named = False  # the part's name is not on disk yet
        self._append("opened", {"role": self._role, "part": self._part, "pid": self._pid, **self._opened})

    def _append(self, kind: str, said: Mapping[str, object]) -> None:
        n, self._n = self._n, self._n + 1  # a line that fails has used its number
        content = line(n, time.time_ns() // 1000, kind, dict(said))
        if self._torn:
            content = b"\n" + content  # what was left of an earlier line stands alone and spoils no other
        written = os.write(self._descriptor, content)
        self._dirty.set()
        if written != len(content):
            self._torn = True
            self._size += written
            raise OSError(f"only {written} of {len(content)} bytes of a line were written: the disk is full")
        self._torn = False
        self._size += written

    def _say_faults(self) -> None:
        if self._faults > self._faults_said:
            faults, n = self._faults, self._n
            try:
                self._append("faults", {"count": faults, "what": self._last_fault})
            except OSError:
                self._n = n  # a missing number stands for a line about a request, never for this
                raise
            self._faults_said = faults

    def _keep_on_disk(self) -> None:
        begun_in = os.getpid()
        while not self._closed and self._pid == begun_in:
            self._dirty.wait()
            time.sleep(FSYNC_SECONDS)
            try:
                self._put_on_disk()
            except Exception as error:
                self.fault("fsync", error)
                time.sleep(1)  # a disk that fails is not asked 20 times a second

    def _put_on_disk(self) -> None:
        self._dirty.clear()
        with self._lock:
            if not self._closed:
                self._say_faults()
            full, self._full = self._full, []
            is_named, self._is_named = self._is_named, True
            newest = os.dup(self._descriptor)
        for descriptor in (*full, newest):
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        if is_named:
            return
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def open_writer(role: str, opened: Mapping[str, object]) -> LineWriter | None:
    """The stream that the environment asks for; None, and a line in the log, where there can be none."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        logger.warning("tallygrid: %s is not set, so no lines are written", FOLDER_VARIABLE)
        return None
    try:
        part_bytes = int(os.environ.get(BYTES_VARIABLE) or DEFAULT_PART_BYTES)
        return LineWriter(Path(folder), role, opened, part_bytes)
    except (OSError, ValueError) as error:
        logger.warning("tallygrid: no lines are written: %s", error)
        return None
