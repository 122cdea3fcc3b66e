"""What an exchange asks for, step by step, and what a client is told when its engine or its sidecar goes away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from metering.event import Event
from metering.http_refusal import Refused

#: What is written for the model of a request that names none and gets none in the answer.
UNKNOWN_MODEL = "unknown"

#: Why the engine was lost, and what a client that has seen nothing yet is told.
LOST = {
    "unreachable": Refused(
        503, "engine_unreachable", "The engine does not answer.", headers=((b"retry-after", b"1"),)
    ),
    "closed": Refused(502, "engine_closed", "The engine closed the connection before it answered."),
    "malformed": Refused(502, "engine_malformed", "The engine's answer was not valid HTTP/1.1."),
    "silent": Refused(504, "engine_silent", "The engine did not answer in time."),
}
STOPPING = Refused(503, "stopping", "This server is stopping.", close=True, headers=((b"retry-after", b"1"),))


@dataclass(frozen=True, slots=True)
class Watch:
    """A response that goes on in the background: whose it is, and where.

    `places`: the ordinal of the engine that has it, and its id there. They are several only where it is not known any
    more which engine that was. `absent` is what is known of it without asking the engine; `finished` there says that
    the engine has taken it up. `lines` as for a step. `streamed`: it was asked for as a stream (None: not known), of
    which so many `events` were passed on.
    """

    places: tuple[tuple[int, str], ...]
    absent: Event
    lines: int | None = None
    streamed: bool | None = None
    events: int = 0


class Step(NamedTuple):
    """What to do now, in this order: write `event` down, send `to_client`; then, if `over`, let go of both sides.

    `keep_client`: the client's connection may carry another request. `unread_usage`: a finished answer whose usage
    could not be read; its event has no tokens. `lines`: how many lines the engine's witness writes of it; 0 if it never
    had the request or refused it, None if that is not known. `watch`: there is no event yet, somebody has to see to it.
    """

    event: Event | None
    to_client: bytes
    over: bool
    keep_client: bool
    unread_usage: bool = False
    lines: int | None = None
    watch: Watch | None = None
