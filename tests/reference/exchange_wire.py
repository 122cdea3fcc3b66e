"""Plays one exchange with bytes on both sides and keeps, in order, what it wrote down and what it sent."""

from __future__ import annotations

import json
from collections.abc import Iterable

from metering.endpoints import ENDPOINTS, find_endpoint
from metering.event import Event
from metering.exchange import Exchange
from metering.exchange_step import Step, Watch
from metering.http_answer import AnswerHead, AnswerReader
from metering.http_refusal import Refused
from metering.http_request import Request, RequestReader
from metering.keybook import KeyEntry
from metering.opening import open_exchange
from metering.usage import Usage

KEY = KeyEntry(b"K" * 16, b"C" * 16, b"P" * 16, None)
REQUEST_ID = bytes(range(16))
SECRET = b"S" * 32
FINGERPRINT = b',"system_fingerprint":"vllm-0.32.0-35e01477"'


def judge(request: Request) -> Refused | None:
    """Every key is good."""
    endpoint = find_endpoint(request.method, request.target)
    if isinstance(endpoint, Refused):
        return endpoint
    assert endpoint in ENDPOINTS
    request.endpoint = endpoint
    request.key = KEY
    return None


def request_bytes(
    body: object,
    *,
    path: str = "/v1/chat/completions",
    version: str = "1.1",
    head: str = "",
    method: str = "POST",
) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = f"{method} {path} HTTP/{version}\r\nHost: sidecar\r\nContent-Length: {len(content)}\r\n{head}\r\n"
    return lines.encode() + content


def read_request(data: bytes) -> Request:
    reader = RequestReader(judge)
    reader.feed(data)
    assert reader.fault is None
    return reader.ready.popleft()


def sized(body: bytes, *, status: str = "200 OK", kind: str = "application/json") -> bytes:
    """An engine's answer with a length, as uvicorn writes it."""
    head = (
        f"HTTP/1.1 {status}\r\nserver: uvicorn\r\ncontent-length: {len(body)}\r\ncontent-type: {kind}\r\n\r\n"
    )
    return head.encode() + body


def chunked(events: Iterable[bytes]) -> bytes:
    """An engine's stream, one chunk an event."""
    head = b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events)
    return head + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


class Wire:
    """One exchange, fed by hand; it goes to the engine of `ordinal` (None: it gets to none).

    `log` holds events and bytes in the order in which they were due.
    """

    def __init__(
        self,
        body: object,
        *,
        path: str = "/v1/chat/completions",
        version: str = "1.1",
        fingerprint: bytes | None = None,
        head: str = "",
        ordinal: int | None = 0,
        method: str = "POST",
    ) -> None:
        request = read_request(request_bytes(body, path=path, version=version, head=head, method=method))
        opened = open_exchange(request, REQUEST_ID, 1_000, SECRET)
        assert isinstance(opened, Exchange)
        if ordinal is not None:
            opened.aim(ordinal, fingerprint)
        self.exchange = opened
        self.reader = AnswerReader()
        self.reader.expect(opened)
        self.log: list[Event | bytes] = []
        self.steps: list[Step] = []

    def engine(self, data: bytes) -> Wire:
        """Bytes from the engine."""
        self.reader.feed(data)
        if self.reader.bad:
            self.exchange.engine_lost("malformed")
        return self.due()

    def lost(self, cause: str = "closed") -> Wire:
        self.exchange.engine_lost(cause)
        return self.due()

    def gone(self) -> Wire:
        self.exchange.client_gone()
        return self.due()

    def stop(self) -> Wire:
        self.exchange.stop()
        return self.due()

    def due(self) -> Wire:
        step = self.exchange.step(2_000)
        self.steps.append(step)
        if step.event is not None:
            self.log.append(step.event)
        if step.to_client:
            self.log.append(step.to_client)
        return self

    @property
    def watch(self) -> Watch | None:
        """The response that goes on in the background, if one does."""
        return next((step.watch for step in self.steps if step.watch is not None), None)

    @property
    def events(self) -> list[Event]:
        return [entry for entry in self.log if isinstance(entry, Event)]

    @property
    def event(self) -> Event:
        (event,) = self.events
        return event

    @property
    def outcome(self) -> tuple[str, Usage]:
        event = self.event
        return event.outcome, Usage(
            event.prompt_tokens,
            event.cached_tokens,
            event.completion_tokens,
            event.reasoning_tokens,
            event.audio_seconds,
        )

    @property
    def sent(self) -> bytes:
        return b"".join(entry for entry in self.log if isinstance(entry, bytes))

    @property
    def seen(self) -> Seen:
        """What a client makes of the bytes that it got."""
        return Seen.read(self.sent)


class Seen:
    """An answer as a client reads it: heads apart, chunks joined."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.whole = False

    @classmethod
    def read(cls, data: bytes) -> Seen:
        self = cls()
        reader = AnswerReader()
        reader.expect(self)
        reader.feed(data)
        assert not reader.bad
        return self

    def answer_head(self, head: AnswerHead) -> None:
        self.status = head.status
        self.headers = {name.lower(): value for name, value in head.headers}

    def answer_piece(self, piece: bytes) -> None:
        self.body += piece

    def answer_end(self) -> None:
        self.whole = True
