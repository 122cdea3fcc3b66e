"""What clients send, read strictly (RFC 9112), without a socket.

The grammar is llhttp's (httptools): it refuses two lengths, a length beside chunked, folded header lines, bare line
feeds, control characters and bad chunk sizes by itself. Here come the limits on line, headers and body, the headers
that are ours (key, id, lengths, expectations) and the list of lines that the engine is to see.

A request is collected whole before it goes on: its body is parsed once, and an engine never waits for a slow client.
A request that is refused by its head alone keeps nothing of its body.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import httptools

from metering.endpoints import HEALTH, Endpoint
from metering.http_refusal import Refused
from metering.keybook import KeyEntry

#: Headers of one connection only (RFC 9110, 7.6.1).
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding"
    b" upgrade".split()
)
# What the sidecar says to the engine in its own words, and the client's key, which is nobody else's business. Answers
# are asked for uncompressed, so that usage can be read in passing.
_OURS = frozenset(
    b"authorization x-api-key host content-length expect x-request-id accept-encoding http2-settings".split()
)
_DROPPED = HOP_BY_HOP | _OURS
_LOOKED_AT = _DROPPED | {b"content-encoding"}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may send: bytes of the request line's target, of the whole head, header lines, body bytes."""

    target_bytes: int = 8 * 1024
    head_bytes: int = 32 * 1024
    headers: int = 100
    body_bytes: int = 32 * 1024 * 1024


@dataclass(slots=True)
class Budget:
    """Bytes of request bodies held at once by all connections together, and how many there may be."""

    limit: int = 1024 * 1024 * 1024
    used: int = 0


@dataclass(slots=True)
class Request:
    """One request of a client. `lines` are the header lines that the engine is to see, without line ends.

    `refused` says that it goes no further; what was read of its body is dropped. `http10`: no chunked answer.
    `held` are the bytes of its body that count against the budget: whoever is done with the request calls `let_go`.
    """

    method: bytes
    target: bytes
    lines: list[bytes]
    keep_alive: bool
    http10: bool
    authorization: list[bytes]
    length: int | None = None
    expects_continue: bool = False
    endpoint: Endpoint = HEALTH
    key: KeyEntry | None = None
    refused: Refused | None = None
    body: bytes = b""
    held: int = 0

    def let_go(self, budget: Budget) -> None:
        budget.used -= self.held
        self.held = 0


class RequestParser(Protocol):
    """The part of httptools.HttpRequestParser that is used."""

    def feed_data(self, data: bytes) -> None: ...
    def get_method(self) -> bytes: ...
    def get_http_version(self) -> str: ...
    def should_keep_alive(self) -> bool: ...


#: Fills in `endpoint` and `key` of a request whose head is whole, or says why it goes no further.
Judge = Callable[[Request], Refused | None]


@dataclass(slots=True)
class RequestReader:
    """Bytes of one connection in, requests out, in order, in `ready`.

    `fault`: the bytes are no HTTP/1.1 any more; what is ready is still good, nothing after it can be read.
    `current`: the request whose head is whole and whose body is still coming.
    """

    judge: Judge
    limits: Limits = field(default_factory=Limits)
    budget: Budget = field(default_factory=Budget)
    ready: deque[Request] = field(default_factory=deque)
    fault: Refused | None = None
    current: Request | None = None
    in_head: bool = False
    _parser: RequestParser = field(init=False)
    _target: bytes = b""
    _headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    _head_bytes: int = 0
    _pieces: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)

    def feed(self, data: bytes) -> None:
        """Read on. Afterwards look at `ready`, `fault` and `current`."""
        if self.fault is not None:
            return
        if self.current is None:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            if self.ready:
                self.ready.pop()
            self.fault = Refused(400, "upgrade_refused", "This server speaks HTTP/1.1 only.", close=True)
        except httptools.HttpParserError as error:
            self.fault = Refused(400, "bad_request", f"Not valid HTTP/1.1: {error}.", close=True)
        if self.in_head and self._head_bytes > self.limits.head_bytes and self.fault is None:
            self.fault = _head_too_large(self.limits)

    @property
    def idle(self) -> bool:
        """Nothing of a next request has come."""
        return not self.in_head and self.current is None and not self.ready

    def drop(self) -> None:
        """The connection is gone: nothing that was read is served any more."""
        for request in (*self.ready, *([self.current] if self.current else ())):
            request.let_go(self.budget)
        self.ready.clear()
        self.current = None

    # -- what llhttp calls ------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.in_head = True
        self._target = b""
        self._headers = []
        self._pieces = []

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_head:  # else it is a trailer, which nobody here has a use for
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.in_head = False
        self._head_bytes = 0
        parser = self._parser
        version = parser.get_http_version()
        request = Request(
            parser.get_method(),
            self._target,
            [],
            keep_alive=parser.should_keep_alive() and version == "1.1",
            http10=version != "1.1",
            authorization=[],
        )
        self.current = request
        request.refused = _take_headers(request, self._headers, self.limits) or self.judge(request)
        if request.refused is not None and request.refused.close:
            request.keep_alive = False

    def on_body(self, piece: bytes) -> None:
        request = self.current
        assert request is not None
        if request.refused is not None:
            return
        size = len(piece)
        self._pieces.append(piece)
        request.held += size
        self.budget.used += size
        if request.held > self.limits.body_bytes:
            request.refused = _body_too_large(self.limits)
        elif self.budget.used > self.budget.limit:
            request.refused = Refused(503, "too_many_bodies", "Too many large requests at once.", close=True)
        if request.refused is not None:
            request.keep_alive = False
            self._pieces.clear()
            request.let_go(self.budget)

    def on_message_complete(self) -> None:
        request = self.current
        assert request is not None
        self.current = None
        if request.refused is None:
            pieces = self._pieces
            request.body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._pieces = []
        self.ready.append(request)


def _take_headers(request: Request, headers: list[tuple[bytes, bytes]], limits: Limits) -> Refused | None:
    """Sort the headers into what is ours and what the engine is to see; say what is wrong with them."""
    size = len(request.target)
    if size > limits.target_bytes:
        return Refused(
            431, "target_too_long", f"The request line is limited to {limits.target_bytes} bytes.", close=True
        )
    if not request.target.startswith(b"/") or b"#" in request.target:
        return Refused(400, "bad_target", "The request target must be a path.", close=True)
    hosts = 0
    connection = b""
    encoding = b""
    lines = request.lines
    for name, value in headers:
        size += len(name) + len(value) + 4
        lowered = name.lower()
        if lowered not in _LOOKED_AT:
            lines.append(name + b": " + value)
        elif lowered == b"host":
            hosts += 1
        elif lowered == b"authorization":
            request.authorization.append(value.strip())
        elif lowered == b"content-length":
            request.length = int(value)
        elif lowered == b"connection":
            connection += b"," + value.lower()
        elif lowered == b"expect":
            if value.strip().lower() != b"100-continue":
                return Refused(
                    417, "unknown_expectation", "Only `Expect: 100-continue` is known.", close=True
                )
            request.expects_continue = True
        elif lowered == b"transfer-encoding":
            if value.strip().lower() != b"chunked":
                return Refused(501, "unknown_transfer_encoding", "Only `chunked` is known.", close=True)
        elif lowered == b"content-encoding":
            encoding += value.strip().lower()
            lines.append(name + b": " + value)
    if size > limits.head_bytes or len(headers) > limits.headers:
        return _head_too_large(limits)
    if hosts > 1 or (hosts == 0 and not request.http10):
        return Refused(400, "bad_host", "There must be exactly one Host header.", close=True)
    if encoding not in (b"", b"identity"):
        return Refused(415, "unknown_content_encoding", "Send the body uncompressed.")
    if connection:
        _drop_named(request, connection)
    if request.length is not None and request.length > limits.body_bytes:
        return _body_too_large(limits)
    return None


def _drop_named(request: Request, connection: bytes) -> None:
    """Headers that `Connection` names are of this connection only, whatever they are."""
    named = {token.strip() for token in connection.split(b",")} - {b"", b"close", b"keep-alive"}
    if named:
        request.lines = [line for line in request.lines if line.partition(b":")[0].lower() not in named]


def _head_too_large(limits: Limits) -> Refused:
    what = f"The head of a request is limited to {limits.head_bytes} bytes and {limits.headers} header lines."
    return Refused(431, "head_too_large", what, close=True)


def _body_too_large(limits: Limits) -> Refused:
    return Refused(413, "body_too_large", f"A body is limited to {limits.body_bytes} bytes.", close=True)
