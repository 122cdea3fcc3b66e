"""A streamed response (`/v1/responses`): what it told of its usage, and how it ended.

The engine says its usage once, in the last event, together with all of the answer again:

    event: response.output_text.delta    a piece of the answer: at least one token of it
    event: response.completed            {"response": {…, "status": "completed" | "incomplete", "usage": {…}}}

vLLM (0.32) ends with `response.completed` whatever the status; OpenAI's protocol has `response.incomplete`,
`response.failed` and `error` besides. A stream that ends without any of them was cut off. Of one whose client left, the
deltas passed on are counted; where it left after the end of all content (`response.content_part.done` and the like), it
had the whole answer without its usage (`unread`). Its bytes are never changed.

A response in the background can be streamed again while it runs, from any event on and by several clients at once. So
that none of its deltas counts twice, `PassedOn` counts them by the numbers of their events.
"""

from __future__ import annotations

from metering.json_answers import picked_model, verdict_of
from metering.json_picks import JsonPicks, Places
from metering.named_events import NamedStream
from metering.usage import Usage, deltas_usage, responses_usage

_LAST = frozenset({b"response.completed", b"response.incomplete", b"response.failed", b"response.cancelled"})
_LAST_PLACES: Places = {b"response": {b"usage": None, b"status": None, b"model": None}}
_CONTENT_DONE = frozenset(
    {b"response.output_text.done", b"response.content_part.done", b"response.function_call_arguments.done"}
)
_FIRST_PLACES: Places = {b"response": {b"model": None}}
_NUMBER = b"sequence_number"
_DELTA_PLACES: Places = {_NUMBER: None}


class PassedOn:
    """What of one response's events was passed on to clients, by all of its streams. `events`: up to which number."""

    __slots__ = ("deltas", "events", "reasoning")

    def __init__(self, events: int = 0, deltas: int = 0, reasoning: int = 0) -> None:
        self.events = events
        self.deltas = deltas
        self.reasoning = reasoning

    def delta(self, number: int, *, reasoning: bool) -> None:
        """The delta in the event of that number was passed on, perhaps not for the first time."""
        if number >= self.events:
            self.events = number + 1
            self.deltas += 1
            self.reasoning += reasoning


class ResponsesStream(NamedStream):
    """One stream. `events` are those that were whole."""

    __slots__ = (
        "_deltas",
        "_passed",
        "_reasoning",
        "_usage",
        "_whole",
        "events",
        "model",
    )

    def __init__(self, passed: PassedOn | None = None) -> None:
        """`passed`: the response is streamed again, and its deltas are counted there as well."""
        super().__init__()
        self._passed = passed
        self.events = 0
        self._deltas = 0
        self._reasoning = 0
        self._whole = False
        self._usage: bytes | None = None
        self.model: str | None = None

    @property
    def unread(self) -> bool:
        """All content begun was passed on to its end, and not what the answer used."""
        return self._whole and self.verdict is None

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
        if self._passed is not None and name.endswith(b".delta"):
            return JsonPicks(_DELTA_PLACES)
        return JsonPicks(_FIRST_PLACES) if name == b"response.created" else None

    def _ends(self, name: bytes, picks: JsonPicks | None, _head: bytes) -> None:
        if self.verdict is not None:
            return
        self.events += 1
        if name.endswith(b".delta"):
            reasoning = name.startswith(b"response.reasoning")
            self._whole = False
            self._deltas += 1
            self._reasoning += reasoning
            if self._passed is not None and picks is not None:
                self._passed.delta(_number(picks), reasoning=reasoning)
        elif name in _CONTENT_DONE:
            self._whole = True
        elif name.endswith(b".added"):
            self._whole = False
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


def _number(picks: JsonPicks) -> int:
    said = picks.values.get(_NUMBER, b"")
    return int(said) if said.isdigit() and len(said) < 16 else -1
