"""Server-sent events with names, read in passing, in any pieces, without keeping them.

    event: response.output_text.delta
    data: {"type":"response.output_text.delta","delta":"Hel",…}
    <a blank line>

An event may be as long as a whole answer (`response.completed` repeats all of the text), so an event is never put
together: `begins` says at its name which values of its data are wanted, they are picked as the bytes pass, and `ends`
is told of them at the blank line. Engines write the name first; one that came behind the data would be passed over.
Lines end with LF or CR LF (WHATWG HTML, 9.2.6).
"""

from __future__ import annotations

from collections.abc import Callable

from metering.json_picks import JsonPicks

_MAX_NAME_BYTES = 128
#: Of data in which nothing is wanted, so much of its beginning is shown: enough for an event's type.
HEAD_BYTES = 128
_NAME, _DATA, _OTHER = 1, 2, 3

#: What is wanted of the data of an event of that name; None: nothing.
Begins = Callable[[bytes], JsonPicks | None]
#: An event is whole: its name, what was picked, and where nothing was wanted the beginning of its data.
Ends = Callable[[bytes, JsonPicks | None, bytes], None]


class NamedEvents:
    """One stream of events."""

    __slots__ = ("_begins", "_ends", "_head", "_line", "_name", "_picks", "_some", "_start")

    def __init__(self, begins: Begins, ends: Ends) -> None:
        self._begins = begins
        self._ends = ends
        self._line = 0  # what the line is, once that is known
        self._start = b""  # the first bytes of a line of which that is not known yet
        self._name = b""
        self._head = b""
        self._picks: JsonPicks | None = None
        self._some = False  # the event has had data

    def feed(self, piece: bytes) -> None:
        at, size = 0, len(piece)
        while at < size:
            end = piece.find(b"\n", at)
            stop = size if end < 0 else end
            if not self._line:
                at = self._begin_line(piece, at, stop)
            if self._line == _DATA:
                if self._picks is not None:
                    self._picks.feed(piece, at, stop)
                elif len(self._head) < HEAD_BYTES:
                    self._head += piece[at : min(stop, at + HEAD_BYTES - len(self._head))]
            elif self._line == _NAME and len(self._name) < _MAX_NAME_BYTES:
                self._name += piece[at : min(stop, at + _MAX_NAME_BYTES)]
            if end < 0:
                return
            self._end_line()
            at = end + 1

    def _begin_line(self, piece: bytes, at: int, stop: int) -> int:
        """Find out what the line is; where its content goes on."""
        taken = min(stop, at + 6 - len(self._start))
        start = self._start + piece[at:taken]
        if start.startswith(b"data:"):
            self._line = _DATA
            if not self._some:
                self._some = True
                self._name = self._name.strip()
                self._picks = self._begins(self._name)
            taken -= len(start) - 5
            start = b""
        elif len(start) == 6:
            self._line = _NAME if start == b"event:" and not self._some else _OTHER
            if self._line == _NAME:
                self._name = b""
            start = b""
        self._start = start
        return taken

    def _end_line(self) -> None:
        if not self._line and self._start in (b"", b"\r"):
            if self._some:
                self._ends(self._name, self._picks, self._head)
            self._name, self._head, self._picks, self._some = b"", b"", None, False
        self._line = 0
        self._start = b""


class NamedStream:
    """An answer in a stream of named events, as an exchange reads it: its bytes go on as they came.

    `verdict` is the outcome, once the stream has said it. A dialect says what it wants of which event (`_begins`) and what
    it makes of it (`_ends`, no more after the verdict).
    """

    __slots__ = ("_events", "verdict")

    def __init__(self) -> None:
        self._events = NamedEvents(self._begins, self._ends)
        self.verdict: str | None = None

    def feed(self, piece: bytes) -> bytes:
        self._events.feed(piece)
        return piece

    def flush(self, *, torn: bool = False) -> bytes:  # noqa: ARG002 - nothing is ever kept back
        return b""

    @property
    def fault(self) -> str | None:
        """What was wrong with the stream, if it ends here."""
        if self.verdict is None:
            return "engine_malformed"
        return "engine_error" if self.verdict == "failed" else None

    def _begins(self, name: bytes) -> JsonPicks | None:
        raise NotImplementedError

    def _ends(self, name: bytes, picks: JsonPicks | None, head: bytes) -> None:
        raise NotImplementedError
