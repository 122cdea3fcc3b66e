"""What clients send, read strictly (RFC 9112), without a socket.

The grammar is llhttp's (httptools): it refuses two lengths, a length beside chunked, folded header lines, bare line
feeds, control characters and bad chunk sizes by itself. Here come the limits on line, headers and body, the headers
that are ours (key, id, lengths, expectations) and the list of lines that the engine is to see.

A request is collected whole before it goes on: its body is parsed once, and an engine never waits for a slow client.
A request that is refused by its head alone keeps nothing of its body.

A `Content-Encoding` (gzip, deflate) is not undone, because vLLM does not undo one either: it reads the bytes that came
as JSON and answers 400 in its own words. So the bytes go on as they are, and the header stays here, lest something in
the engine inflates what nobody has read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import httptools

from metering.endpoints import HEALTH, Endpoint
from metering.http_head import body_too_large, head_too_large, not_parsed, take_head
from metering.http_refusal import Refused
from metering.keybook import KeyEntry
from metering.known_head import KnownRequest, head_again, split_head


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may send: bytes of the request line's target, of the whole head, header lines, body bytes."""

    target_bytes: int = 8 * 1024
    head_bytes: int = 64 * 1024
    headers: int = 256
    body_bytes: int = 64 * 1024 * 1024


@dataclass(slots=True)
class Budget:
    """Bytes of request bodies held at once by all connections together, and how many there may be."""

    limit: int = 1024 * 1024 * 1024
    used: int = 0


@dataclass(slots=True)
class Request:
    """One request of a client. `lines` are the header lines that the engine is to see, without line ends.

    `authorization` are the keys that it shows, each as the value of an `Authorization` header, an `x-api-key` too; more
    than one if they differ. `secret_sha256` is the hash of the one key, once somebody has asked for it. `vouched` are
    the ids of keys that a trusted gateway names.
    `refused` says that it goes no further; what was read of its body is dropped. `http10`: no chunked answer.
    `held` are the bytes of its body that count against the budget: whoever is done with the request calls `let_go`.
    """

    method: bytes
    target: bytes
    lines: list[bytes]
    keep_alive: bool
    http10: bool
    authorization: list[bytes]
    vouched: tuple[bytes, ...] = ()
    length: int | None = None
    expects_continue: bool = False
    endpoint: Endpoint = HEALTH
    key: KeyEntry | None = None
    refused: Refused | None = None
    body: bytes = b""
    held: int = 0
    secret_sha256: bytes | None = None

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
    `current`: the request whose head is whole and whose body is still coming. `trust_header`, in lower case, names a
    key where the client is `trusted`, and is dropped where it is not.
    """

    judge: Judge
    limits: Limits = field(default_factory=Limits)
    budget: Budget = field(default_factory=Budget)
    trust_header: bytes | None = None
    trusted: bool = False
    ready: deque[Request] = field(default_factory=deque)
    fault: Refused | None = None
    current: Request | None = None
    in_head: bool = False
    _parser: RequestParser = field(init=False)
    _target: bytes = b""
    _headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    _head_bytes: int = 0
    # Since the last piece of the body: lengths of chunks, trailers.
    _around_body: int = 0
    _pieces: list[bytes] = field(default_factory=list)
    # Where the parser stands: between two messages, and how many it began to read in the piece before it.
    _between: bool = True
    _begun: int = 0
    _known: KnownRequest | None = None
    # Bytes of a body behind a known head that are still to come.
    _missing: int = 0

    def __post_init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)

    def feed(self, data: bytes) -> None:
        """Read on. Afterwards look at `ready`, `fault` and `current`."""
        while data and self.fault is None:
            if self._missing:
                data = self._read_body(data)
            elif (
                (known := self._known) is not None
                and self._between
                and (place := head_again(known.before, known.after, data))
            ):
                data = self._take_known(known, data, *place)
            else:
                self._parse(data)
                return

    def _take_known(self, known: KnownRequest, data: bytes, length: int, start: int) -> bytes:
        """Begin a request with the known head; what follows its head and body in `data`."""
        request = Request(
            known.method,
            known.target,
            known.lines,
            keep_alive=True,
            http10=False,
            authorization=known.authorization,
            vouched=known.vouched,
            length=length,
            secret_sha256=known.secret_sha256,
        )
        body = data[start:]
        whole = len(body) == length <= self.limits.body_bytes
        if whole and self.budget.used + length <= self.budget.limit and self.judge(request) is None:
            request.body = body
            request.held = length
            self.budget.used += length
            self.ready.append(request)
            return b""
        self.current = request
        self._missing = length
        self._pieces = []
        if length > self.limits.body_bytes:
            request.refused = body_too_large(self.limits)
        else:
            request.refused = self.judge(request)
        if request.refused is not None and request.refused.close:
            request.keep_alive = False
        return self._read_body(body)

    def _read_body(self, data: bytes) -> bytes:
        """Read on in the body behind a known head; what follows it in `data`."""
        missing = self._missing
        piece, rest = (data, b"") if len(data) <= missing else (data[:missing], data[missing:])
        self._missing = missing - len(piece)
        if piece:
            self.on_body(piece)
        if not self._missing:
            self.on_message_complete()
        return rest

    def _parse(self, data: bytes) -> None:
        fresh = self._between
        self._begun = 0
        if self.current is None:
            self._head_bytes += len(data)
        else:
            self._around_body += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            if self.ready:
                self.ready.pop()
            self.fault = Refused(400, "upgrade_refused", "This server speaks HTTP/1.1 only.", close=True)
        except httptools.HttpParserError as error:
            self.fault = not_parsed(str(error))
        size = self._head_bytes if self.in_head else self._around_body
        if size > self.limits.head_bytes and self.fault is None:
            self.fault = head_too_large(self.limits)
        if fresh and self._begun == 1 and not self.in_head and self.fault is None:
            self._learn(data, self.current or self.ready[-1])

    def _learn(self, data: bytes, request: Request) -> None:
        """Know the head of `request` again, the only one that begins in `data`, if it is an ordinary one."""
        # Without a key, another length behind the same head would not be looked at.
        if request.refused or request.key is None or request.length is None or not request.keep_alive:
            return
        if not request.expects_continue and (split := split_head(data)):
            self._known = KnownRequest(
                *split,
                request.method,
                request.target,
                request.lines,
                request.authorization,
                request.vouched,
                request.secret_sha256,
            )

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
        self._between = False
        self._begun += 1
        self._known = None
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
        request.refused = take_head(
            request, version, self._headers, self.limits, self.trust_header, trusted=self.trusted
        ) or self.judge(request)
        if request.refused is not None and request.refused.close:
            request.keep_alive = False

    def on_body(self, piece: bytes) -> None:
        request = self.current
        assert request is not None
        self._around_body = 0
        if request.refused is not None:
            return
        if request.key is None:  # what is served to anybody is not worth anybody's memory
            request.refused = Refused(413, "body_not_expected", "This request takes no body.", close=True)
            request.keep_alive = False
            return
        size = len(piece)
        self._pieces.append(piece)
        request.held += size
        self.budget.used += size
        if request.held > self.limits.body_bytes:
            request.refused = body_too_large(self.limits)
        elif self.budget.used > self.budget.limit:
            request.refused = Refused(503, "too_many_bodies", "Too many large requests at once.", close=True)
        if request.refused is not None:
            request.keep_alive = False
            self._pieces.clear()
            request.let_go(self.budget)

    def on_message_complete(self) -> None:
        self._around_body = 0
        request = self.current
        assert request is not None
        self.current = None
        if request.refused is None:
            pieces = self._pieces
            request.body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._pieces = []
        self._between = True
        self.ready.append(request)
