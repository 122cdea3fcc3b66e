"""Answers in one body, read in passing: the usage in them, and nothing else, is kept.

Two readers, one contract with `metering.sse` and the named streams: `feed` takes a piece and gives the bytes that the
client is to see, `usage` says what it was told, None where nothing could be read. `UsageAnswer` takes the last usage
object of a body in which nothing of the client's own comes after it, at the speed of a search. `PlacesAnswer` takes
values from their exact places where the client's own JSON may be echoed (`metering.json_picks`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from metering.http_answer import AnswerHead
from metering.json_picks import JsonPicks, Places
from metering.request_body import model_name
from metering.sse import USAGE_VALUE
from metering.usage import Usage

_USAGE = re.compile(rb'"usage"\s*:\s*(' + USAGE_VALUE + rb")")
#: A usage object is a few hundred bytes.
_MAX_USAGE_BYTES = 4096


class UsageAnswer:
    """An answer in one JSON body, however large: finds its usage object in passing and keeps nothing else."""

    __slots__ = ("_carry", "_read", "found")

    verdict: str | None = None
    fault: str | None = None
    model: str | None = None
    pending = False

    def __init__(self, read: Callable[[bytes | None], Usage | None]) -> None:
        self._read = read
        self._carry = b""
        self.found: bytes | None = None

    def feed(self, piece: bytes) -> bytes:
        data = piece
        if len(piece) <= _MAX_USAGE_BYTES:
            data = self._carry + piece
        elif self._carry:
            self._search(self._carry + piece[:_MAX_USAGE_BYTES])  # of a large piece only the seam is joined
        at = self._search(data)
        self._carry = data[max(at, len(data) - _MAX_USAGE_BYTES) :] if at >= 0 else data[-7:]
        return piece

    def flush(self, *, torn: bool = False) -> bytes:  # noqa: ARG002 - nothing is ever kept back
        return b""

    def usage(self) -> Usage | None:
        return self._read(self.found)

    def _search(self, data: bytes) -> int:
        """Take the last usage object of `data`; where its name begins, or −1."""
        at = data.rfind(b'"usage"')
        if at >= 0:
            found = _USAGE.match(data, at)
            if found is not None and found[1] != b"null":
                self.found = found[1]
                return -1
        return at


class HeaderAnswer(UsageAnswer):
    """Embeddings in binary (`encoding_format: bytes`): the usage is in a header, `metadata`, and not in the body.
    With `bytes_only` the engine says none at all."""

    __slots__ = ()

    def __init__(self, read: Callable[[bytes | None], Usage | None], head: AnswerHead) -> None:
        super().__init__(read)
        for name, value in head.headers:
            if name.lower() == b"metadata":
                super().feed(value)

    def feed(self, piece: bytes) -> bytes:
        return piece


class PlacesAnswer:
    """An answer in one JSON body with values at exact places. `read` makes its usage of them; `status`, if
    it is among them, says how the work ended."""

    __slots__ = ("_picks", "_read", "verdict")

    def __init__(self, places: Places, read: Callable[[Mapping[bytes, bytes]], Usage | None]) -> None:
        self._picks = JsonPicks(places)
        self._read = read
        self.verdict: str | None = None

    def feed(self, piece: bytes) -> bytes:
        self._picks.feed(piece)
        return piece

    def flush(self, *, torn: bool = False) -> bytes:
        """Nothing was kept back; a whole answer says how the work ended."""
        if not torn:
            self.verdict = verdict_of(self._picks.values.get(b"status"))
        return b""

    @property
    def fault(self) -> str | None:
        return "engine_error" if self.verdict == "failed" else None

    def usage(self) -> Usage | None:
        return self._read(self._picks.values)

    @property
    def pending(self) -> bool:
        return self._picks.values.get(b"status") in (None, b'"queued"', b'"in_progress"')

    @property
    def model(self) -> str | None:
        return picked_model(self._picks.values.get(b"model"))


def verdict_of(status: bytes | None) -> str:
    """The outcome of a response by the status that it states: cut short by its own limit is finished, too."""
    return {b'"failed"': "failed", b'"cancelled"': "aborted"}.get(status or b"", "finished")


def picked_model(raw: bytes | None) -> str | None:
    """A model's name as it stood in an answer, quotes included."""
    return None if raw is None else model_name(raw.decode("utf-8", "replace").strip('"'))
