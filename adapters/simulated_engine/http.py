"""HTTP/1.1 as the engine's server speaks it: requests in, one at a time; answers whole or in chunks.

An asyncio protocol with httptools' parser, because three things matter that a framework hides: every chunk
is written as soon as it is made, a client that closes is noticed at once, and thousands of small answers a
second cost little. Headers are uvicorn's, in its order. Pipelined requests wait for the answer before them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Protocol, cast

import httptools

from adapters.simulated_engine.errors import unsupported_media_type

Headers = tuple[tuple[str, str], ...]
JSON_TYPE: Headers = (("content-type", "application/json"),)
EVENT_STREAM_TYPE: Headers = (("content-type", "text/event-stream; charset=utf-8"),)
_VARY: Headers = (("vary", "Origin"),)


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request as it came in; header names are in lower case, the path is without its query."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    keep_alive: bool


def json_body(request: HttpRequest) -> bytes:
    """The body of a request that says that it is JSON. `EngineError` where it says otherwise."""
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise unsupported_media_type()
    return request.body


class Handler(Protocol):
    """What answers requests. It must call `whole` or `begin` … `end` on the exchange, now or later."""

    def __call__(self, request: HttpRequest, exchange: Exchange) -> None: ...


class Exchange:
    """The answering side of one request. `on_left` is called when the client closes before the answer is
    whole."""

    def __init__(self, protocol: EngineProtocol, request: HttpRequest, extra: Headers) -> None:
        self._protocol = protocol
        self._keep_alive = request.keep_alive
        self._extra = extra
        self.on_left: Callable[[], object] | None = None

    def whole(self, status: int, body: bytes, headers: Headers = JSON_TYPE, *, before: Headers = ()) -> None:
        """A complete answer; `before` are headers that come ahead of Content-Length."""
        length = (("content-length", str(len(body))),)
        self._write(self._head(status, (*before, *length, *headers, *_VARY, *self._extra)) + body)
        self._protocol.answered(self._keep_alive)

    def begin(self, status: int, headers: Headers) -> None:
        chunked = (("transfer-encoding", "chunked"),)
        self._write(self._head(status, (*headers, *_VARY, *self._extra, *chunked)))

    async def chunk(self, body: bytes) -> None:
        """Write one chunk, then wait while the client takes too little."""
        self._write(b"%x\r\n%b\r\n" % (len(body), body))
        if not self._protocol.writable.is_set():
            await self._protocol.writable.wait()

    def end(self) -> None:
        self._write(b"0\r\n\r\n")
        self._protocol.answered(self._keep_alive)

    def break_off(self, begun: bytes = b"") -> None:
        """Send `begun` and close in the middle of the answer."""
        self._write(begun)
        self._protocol.close()

    def break_off_whole(self, status: int, body: bytes) -> None:
        """Promise all of `body`, send half of it, and close."""
        headers = (("content-length", str(len(body))), *JSON_TYPE, *_VARY, *self._extra)
        self.break_off(self._head(status, headers) + body[: len(body) // 2])

    def _head(self, status: int, headers: Headers) -> bytes:
        lines = [_status_and_date(status)]
        lines += [f"{name}: {value}" for name, value in headers]
        if not self._keep_alive:
            lines.append("connection: close")
        return "\r\n".join([*lines, "\r\n"]).encode("latin-1")

    def _write(self, data: bytes) -> None:
        self._protocol.write(data)


class EngineProtocol(asyncio.Protocol):
    """One connection: parses requests, hands them to the handler one after another."""

    def __init__(
        self, handler: Handler, connections: set[EngineProtocol], extra: Callable[[HttpRequest], Headers]
    ):
        self._handler = handler
        self._connections = connections
        self._extra = extra
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[HttpRequest] = deque()
        self._current: Exchange | None = None
        self._serving = False
        self.writable = asyncio.Event()
        self.writable.set()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # an upgrade that nobody accepts is an ordinary request
        except httptools.HttpParserError:
            head = f"{_status_and_date(400)}\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n\r\n"
            self.write(head.encode() + b"Invalid HTTP request received.")
            self.close()

    def connection_lost(self, _error: Exception | None) -> None:
        self._connections.discard(self)
        self._waiting.clear()
        self.writable.set()
        if self._current is not None and self._current.on_left is not None:
            self._current.on_left()
        self._current = None

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    # httptools' side

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._headers.get("expect", "").lower() == "100-continue":
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        url = httptools.parse_url(self._url)
        path, query = url.path.decode("latin-1"), (url.query or b"").decode("latin-1")
        method = self._parser.get_method().decode("latin-1")
        keep_alive = self._parser.should_keep_alive()
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._waiting.append(HttpRequest(method, path, query, self._headers, body, keep_alive))
        self._serve_waiting()

    # the exchange's side

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def answered(self, keep_alive: bool) -> None:
        self._current = None
        if not keep_alive:
            self.close()
        elif not self._serving:
            self._serve_waiting()

    def close(self) -> None:
        self._transport.close()

    def _serve_waiting(self) -> None:
        """Serve what waits until an answer takes time; answers given at once do not nest."""
        if self._serving:
            return
        self._serving = True
        while self._waiting and self._current is None and not self._transport.is_closing():
            request = self._waiting.popleft()
            self._current = Exchange(self, request, self._extra(request))
            self._handler(request, self._current)
        self._serving = False


_date: tuple[int, str] = (0, "")


def _status_and_date(status: int) -> str:
    """The status line and uvicorn's two default headers; the date is made once a second."""
    global _date
    now = int(asyncio.get_running_loop().time())
    if _date[0] != now:
        _date = (now, formatdate(usegmt=True))
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ndate: {_date[1]}\r\nserver: uvicorn"
