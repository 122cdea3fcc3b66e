"""A streamed response (`/v1/responses`): what it told of its usage, and how it ended.

The engine says its usage once, in the last event, together with all of the answer again:

    event: response.output_text.delta    a piece of the answer: at least one token of it
    event: response.completed            {"response": {…, "status": "completed" | "incomplete", "usage": {…}}}

vLLM (0.32) ends with `response.completed` whatever the status; OpenAI's protocol has `response.incomplete`,
`response.failed` and `error` besides. A stream that ends without any of them was cut off. Of one whose client left, the
deltas passed on are counted. Its bytes are never changed.
"""

from __future__ import annotations

from metering.json_answers import picked_model, verdict_of
from metering.json_picks import JsonPicks, Places
from metering.named_events import NamedEvents
from metering.usage import Usage, deltas_usage, responses_usage

_LAST = frozenset({b"response.completed", b"response.incomplete", b"response.failed", b"response.cancelled"})
_LAST_PLACES: Places = {b"response": {b"usage": None, b"status": None, b"model": None}}
_FIRST_PLACES: Places = {b"response": {b"model": None}}


class ResponsesStream:
    """One stream. `verdict` is the outcome, once the stream has said it."""

    __slots__ = ("_deltas", "_events", "_reasoning", "_usage", "model", "verdict")

    def __init__(self) -> None:
        self._events = NamedEvents(self._begins, self._ends)
        self._deltas = 0
        self._reasoning = 0
        self._usage: bytes | None = None
        self.verdict: str | None = None
        self.model: str | None = None

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

    @property
    def pending(self) -> bool:
        return self.verdict is None

    def usage(self) -> Usage | None:
        if self._usage is not None or self.verdict == "finished":
            return responses_usage(self._usage)
        return deltas_usage(0, 0, self._deltas, self._reasoning)

    def _begins(self, name: bytes) -> JsonPicks | None:
        if name in _LAST:
            return JsonPicks(_LAST_PLACES)
        return JsonPicks(_FIRST_PLACES) if name == b"response.created" else None

    def _ends(self, name: bytes, picks: JsonPicks | None, _head: bytes) -> None:
        if self.verdict is not None:
            return
        if name.endswith(b".delta"):
            self._deltas += 1
            self._reasoning += name.startswith(b"response.reasoning")
        elif name == b"error":
            self.verdict = "failed"
        elif picks is not None:
            values = picks.values
            self.model = picked_model(values.get(b"response.model")) or self.model
            if name in _LAST:
                said = values.get(b"response.usage")
                self._usage = None if said == b"null" else said
                stated = b'"failed"' if name == b"response.failed" else values.get(b"response.status")
                self.verdict = verdict_of(b'"cancelled"' if name == b"response.cancelled" else stated)
