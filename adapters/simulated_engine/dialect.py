"""What the dialects share: an answer is told whole, or chunk by chunk as its tokens come."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from adapters.simulated_engine.asked import Asked, Sequence
from adapters.simulated_engine.generation import Step
from adapters.simulated_engine.options import EngineOptions

MOST_WORDS = 64
DONE = b"data: [DONE]\n\n"
_WORDS = (" node", " meter", " seal", " lane", " batch", " tariff", " line", " ledger")

Body = dict[str, Any]
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Answering:
    """One request's answer: what was asked, the id it goes by, when it began (seconds)."""

    asked: Asked
    id: str
    created: int
    options: EngineOptions


class Dialect(Protocol):
    """How one answer is told. `reported_tokens` are the completion tokens that its usage reports."""

    def whole(self, reported_tokens: int) -> Body:
        """The body of an answer that is not streamed."""

    def opened(self) -> Iterator[bytes]:
        """What a stream begins with before the engine has given anything."""

    def started(self) -> Iterator[bytes]:
        """What comes with the first token."""

    def told(self, step: Step) -> Iterator[bytes]:
        """Some tokens of one choice."""

    def ended(self, reported_tokens: int) -> Iterator[bytes]:
        """What a stream ends with."""


def encode(body: Body) -> bytes:
    """JSON as the server spells it. Half characters that a client sent come back as question marks."""
    return _encode(body).encode("utf-8", "replace")


def event(body: Body) -> bytes:
    """A server-sent event without a name."""
    return b"data: %b\n\n" % encode(body)


def named_event(body: Body) -> bytes:
    """A server-sent event that goes by its body's `type`."""
    return b"event: %b\ndata: %b\n\n" % (body["type"].encode(), encode(body))


def words(first: int, end: int, sequence: Sequence) -> str:
    """The text of a sequence's tokens from `first` to before `end`: a word each, but never more than MOST_WORDS."""
    end = min(end, sequence.shown_tokens, first + MOST_WORDS)
    return "".join(_WORDS[number % len(_WORDS)] for number in range(first, end))
