"""Following the lines of the engine's witness as they grow, across rotation, restarts and kills of either side.

Every process of the engine writes a stream of numbered parts (engine_lines.py); all streams in the folder are followed
at once, each from its own place: part, offset, number of the next line. The place is the reader's to keep, in one file
with what it made of the lines (engine_watch.py): then no line counts twice, and none is lost, whatever is killed. One
file is open at a time, a chunk of it in memory.

    {"1760000000000000-4711-scheduler":{"part":0,"offset":1482,"n":7,"torn":false}}

What is wrong with the files stops nothing and is named in `take_faults`: a line that cannot be read is passed over, a
number that is missing says how many lines the witness could not write, a last line without its end is left where it is.
Only a format version that this does not know holds its stream where it stands, to be read by a later version.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from metering.engine_lines import MAX_LINE_BYTES, Ended, EngineLine, parse_line, part_name
from metering.refusal import Fault, Refusal

CHUNK_BYTES = 256 * 1024

#: A last line that has had no end for this long will not get one: a write takes microseconds.
TORN_AFTER_S = 5.0

#: More faults than this are only counted until somebody takes them.
MOST_FAULTS = 100


@dataclass(frozen=True, slots=True)
class Found:
    """A line, and in which stream. Stream and `line.n` together are found once, or again after a kill."""

    stream: str
    line: EngineLine


@dataclass(slots=True)
class _Place:
    """How far a stream was read. `n` is the number of its next line, None where no line was read yet."""

    part: int
    offset: int = 0
    n: int | None = None
    named: int = -1  # the offset at which something was named, so that it is named once
    is_held: bool = False  # its next line has a format that is not known here
    is_torn: bool = False  # its next line was counted as missing


class EngineLines:
    """The lines in one folder. For one reader; not safe among threads."""

    def __init__(self, folder: Path) -> None:
        """Reads from the beginning, unless told otherwise. The folder need not be there yet."""
        self._folder = folder
        self._faults: list[Fault] = []
        self._more_faults = 0
        self._missing = 0
        self._places: dict[str, _Place] = {}

    def go_on_at(self, place: Mapping[str, Any]) -> None:
        """Go on where `place` was taken. Raises KeyError, TypeError or ValueError for what it never gave."""
        self._places = {
            stream: _Place(
                int(each["part"]),
                int(each["offset"]),
                None if each["n"] is None else int(each["n"]),
                is_torn=bool(each["torn"]),
            )
            for stream, each in place.items()
        }

    def place(self) -> dict[str, Any]:
        """How far each stream was read, for JSON."""
        return {
            stream: {"part": place.part, "offset": place.offset, "n": place.n, "torn": place.is_torn}
            for stream, place in self._places.items()
        }

    def skip(self) -> None:
        """Pass over everything that is there now, unread: it was written for nobody."""
        for stream, there in self._parts().items():
            path = self._path(stream, there[-1])
            offset = _end_of_lines(path)
            # What has no end yet is no line that is missed, whether it gets one or not.
            self._places[stream] = _Place(there[-1], offset, is_torn=path.stat().st_size > offset)

    def read_some(self, lines: int) -> list[Found]:
        """The next of them, so many at most."""
        return list(islice(self.read(), lines))

    def read(self) -> Generator[Found, None, None]:
        """The lines that are there and were not read yet, stream by stream, each in its order.

        Ends when the ends of all files are reached; call it again for what has come since. A line counts as read
        when it is handed out. A reader that stops early goes on there with its next call.
        """
        parts = self._parts()
        for stream in sorted(self._places.keys() - parts.keys()):
            del self._places[stream]
        for stream, there in sorted(parts.items()):
            place = self._places.setdefault(stream, _Place(there[0]))
            while place.part in there or self._pass_over_missing(stream, place, there):
                part = place.part
                yield from self._read_part(stream, place)
                if place.part == part:
                    break

    def take_faults(self) -> list[Fault]:
        """What was found wrong since the last call, oldest first."""
        faults, self._faults = self._faults, []
        if self._more_faults:
            faults.append(Fault(f"{self._more_faults} more faults in the engine's lines", str(self._folder)))
            self._more_faults = 0
        return faults

    def take_missing(self) -> int:
        """How many lines were found missing since the last call: numbers that are not there, and torn last lines."""
        missing, self._missing = self._missing, 0
        return missing

    def remove_read(self, *, unchanged_s: float) -> list[str]:
        """Delete files that were read to their end and not changed for `unchanged_s`; returns their names.

        Call it when the place is on disk. The wait is for other readers of the folder: other lanes of the node. (A
        witness that is alive after all notices that its file has gone, and writes another.) A file with a torn or
        unknown end stays. OSError where the folder does not let us.
        """
        removed = []
        for stream, there in self._parts().items():
            place = self._places.get(stream)
            for part in there:
                path = self._path(stream, part)
                if place and part <= place.part and self._is_done(path, part, place, unchanged_s):
                    path.unlink()
                    removed.append(path.name)
                    if part == place.part:
                        del self._places[stream]
                        break
        return removed

    def _is_done(self, path: Path, part: int, place: _Place, unchanged_s: float) -> bool:
        there = path.stat()
        is_read = part < place.part or place.offset == there.st_size
        return is_read and _age_s(there.st_mtime) > unchanged_s

    def _parts(self) -> dict[str, list[int]]:
        """The parts of every stream that are there, in order."""
        parts: dict[str, list[int]] = {}
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                if name := part_name(path.name):
                    parts.setdefault(name.stream, []).append(name.part)
        return {stream: sorted(there) for stream, there in parts.items()}

    def _pass_over_missing(self, stream: str, place: _Place, there: list[int]) -> bool:
        later = [part for part in there if part > place.part]
        if not later:
            return False
        self._fault(f"part {place.part} is missing", self._path(stream, place.part).name)
        place.part, place.offset = later[0], 0
        return True

    def _read_part(self, stream: str, place: _Place) -> Iterator[Found]:
        """What a part holds from `place` on. Leaves `place` in the next part if this one says that one follows."""
        path = self._path(stream, place.part)
        try:
            if path.stat().st_size == place.offset:
                return
            file = path.open("rb")
        except FileNotFoundError:
            return
        with file:
            while True:
                file.seek(place.offset)
                chunk = file.read(CHUNK_BYTES)
                end = chunk.rfind(b"\n") + 1
                if end == 0:
                    if len(chunk) <= MAX_LINE_BYTES:
                        self._name_torn(path, place, len(chunk))
                        return
                    self._fault("a line is longer than any of the witness's", f"{path.name}:{place.offset}")
                    end = len(chunk)
                for content in chunk[:end].splitlines(keepends=True):
                    line = self._meaning(path, place, content)
                    if place.is_held:
                        return
                    place.offset += len(content)
                    if line is None:
                        continue
                    following = _following(line)
                    if following is not None:
                        place.part, place.offset = following, 0
                    yield Found(stream, line)
                    if following is not None:
                        return

    def _meaning(self, path: Path, place: _Place, content: bytes) -> EngineLine | None:
        """The line, unless it cannot be read or was read before; an unknown format holds the stream."""
        where = f"{path.name}:{place.offset}"
        place.is_held = False
        if content == b"\n":
            return None
        try:
            line = parse_line(content)
        except Refusal as refusal:
            if refusal.code == "unknown_engine_line_format":
                if place.named != place.offset:
                    self._fault(refusal.what, where, refusal.remedy)
                place.named = place.offset
                place.is_held = True
            else:
                self._fault(refusal.what, where)
            return None
        expected, place.n = place.n, max(line.n + 1, place.n or 0)
        if expected is not None and line.n < expected:
            self._fault(f"line {line.n} is there twice", where)
            return None
        if expected is not None and line.n > expected:
            self._fault(
                f"{line.n - expected} lines before line {line.n} were not written or cannot be read", where
            )
            self._missing += line.n - expected - place.is_torn
        place.is_torn = False
        return line

    def _name_torn(self, path: Path, place: _Place, tail: int) -> None:
        if tail and not place.is_torn and _age_s(path.stat().st_mtime) > TORN_AFTER_S:
            place.is_torn = True
            self._missing += 1
            self._fault(f"the last line is torn: {tail} bytes without an end", f"{path.name}:{place.offset}")

    def _path(self, stream: str, part: int) -> Path:
        return self._folder / f"{stream}-{part:06d}.jsonl"

    def _fault(self, what: str, where: str, remedy: str = "") -> None:
        if len(self._faults) < MOST_FAULTS:
            self._faults.append(Fault(what, where, remedy))
        else:
            self._more_faults += 1


def _following(line: EngineLine) -> int | None:
    return line.said.next if isinstance(line.said, Ended) else None


def _age_s(changed_s: float) -> float:
    return time.time() - changed_s


def _end_of_lines(path: Path) -> int:
    """Where the last whole line of a file ends."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        start = max(0, size - MAX_LINE_BYTES)
        file.seek(start)
        return start + file.read().rfind(b"\n") + 1
