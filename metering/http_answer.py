"""What the engine sends, read strictly, without a socket, and the head of it that the client is to see.

One reader belongs to one connection to the engine and hands what it reads to whoever is set as `taker`. Bytes that
nobody asked for, a second answer to one request, an answer without a length: each makes the connection `bad`, and a
bad connection is closed, so that no request of one client is ever answered with the bytes of another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import httptools

from metering.http_head import HOP_BY_HOP
from metering.known_head import head_again, split_head

Headers = list[tuple[bytes, bytes]]


# Made for each request: a named tuple is made four times as fast as a frozen dataclass.
class AnswerHead(NamedTuple):
    """Status and headers of an answer, names as the engine wrote them. `length` is None where it is chunked.

    `plain`, where it is known already, is what `head_bytes` makes of it for a client that sees the answer as it is.
    """

    status: int
    reason: bytes
    headers: Headers
    length: int | None
    event_stream: bool
    plain: bytes | None = None


@dataclass(frozen=True, slots=True)
class KnownAnswer:
    """A head that was read before: the bytes `before` and `after` its length's digits, what they said, and the bytes
    around the digits in its `plain` form. `place`: the header that holds the length."""

    before: bytes
    after: bytes
    head: AnswerHead
    place: int
    plain_before: bytes
    plain_after: bytes

    def with_length(self, length: int) -> AnswerHead:
        """That head with another length."""
        head, digits = self.head, b"%d" % length
        headers = head.headers.copy()
        headers[self.place] = (headers[self.place][0], digits)
        plain = self.plain_before + digits + self.plain_after
        return AnswerHead(head.status, head.reason, headers, length, head.event_stream, plain)


class AnswerTaker(Protocol):
    """Who is told of an answer: its head, its body piece by piece, its end."""

    def answer_head(self, head: AnswerHead) -> None: ...
    def answer_piece(self, piece: bytes) -> None: ...
    def answer_end(self) -> None: ...


class AnswerParser(Protocol):
    """The part of httptools.HttpResponseParser that is used."""

    def feed_data(self, data: bytes) -> None: ...
    def get_status_code(self) -> int: ...
    def get_http_version(self) -> str: ...
    def should_keep_alive(self) -> bool: ...


@dataclass(slots=True)
class AnswerReader:
    """Bytes of one connection from the engine in, calls to `taker` out.

    `bad` names what is wrong with the bytes. `reusable`: the last answer ended and another request may follow.
    """

    taker: AnswerTaker | None = None
    bad: str = ""
    reusable: bool = True
    _parser: AnswerParser = field(init=False)
    _reason: bytes = b""
    _headers: Headers = field(default_factory=list)
    _provisional: bool = False
    _in_body: bool = False
    # Where the parser stands: between two messages, and how many it began to read in the piece before it.
    _between: bool = True
    _begun: int = 0
    _head: AnswerHead | None = None
    _known: KnownAnswer | None = None

    def __post_init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)

    def expect(self, taker: AnswerTaker) -> None:
        """A request has been sent; its answer belongs to `taker`."""
        assert self.taker is None
        assert self.reusable
        self.taker = taker
        self.reusable = False

    def feed(self, data: bytes) -> None:
        """Read on; afterwards look at `bad`."""
        if self.taker is None and not self.bad:
            self.bad = "bytes without a request"
        if self.bad:
            return
        if self._between:
            known = self._known
            if known is not None and (place := head_again(known.before, known.after, data)):
                length, start = place
                if start + length == len(data):
                    self._hand_over(known.with_length(length), data[start:])
                    return
            self._begun = 0
            self._parse(data)
            if self._between and self._begun == 1 and not self.bad:
                self._learn(data)
        else:
            self._parse(data)

    def _hand_over(self, head: AnswerHead, body: bytes) -> None:
        """A whole answer with a known head."""
        taker, self.taker = self.taker, None
        assert taker is not None
        self.reusable = True
        taker.answer_head(head)
        if body:
            taker.answer_piece(body)
        taker.answer_end()

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.bad = "an upgrade that nobody asked for"
        except httptools.HttpParserError as error:
            self.bad = str(error)
        if self.bad:
            self.reusable = False

    def _learn(self, data: bytes) -> None:
        """Know the head of the one answer that `data` is, if it is an ordinary one."""
        head = self._head
        if head is None or head.length is None or not self.reusable or not (split := split_head(data)):
            return
        plain = split_head(head_bytes(head, sized=True, chunked=False, close=False))
        places = [at for at, (name, _) in enumerate(head.headers) if name.lower() == b"content-length"]
        if plain is not None and len(places) == 1:
            self._known = KnownAnswer(split[0], split[1], head, places[0], plain[0], plain[1])

    # -- what llhttp calls ------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.taker is None:
            self.bad = "a second answer to one request"
        self._headers = []
        self._reason = b""
        self._in_body = False
        self._between = False
        self._begun += 1
        self._head = self._known = None

    def on_status(self, part: bytes) -> None:
        self._reason += part

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_body:  # else it is a trailer
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._in_body = True
        status = self._parser.get_status_code()
        self._provisional = status < 200
        if self.taker is None or self._provisional:
            return
        length: int | None = 0 if status in (204, 304) else None
        framed = length is not None
        event_stream = False
        for name, value in self._headers:
            lowered = name.lower()
            if lowered == b"content-length":
                length, framed = int(value), True
            elif lowered == b"transfer-encoding":
                framed = framed or value.strip().lower() == b"chunked"
            elif lowered == b"content-type":
                event_stream = value.lower().startswith(b"text/event-stream")
        if not framed:
            self.bad = "an answer without a length"
            return
        self._head = AnswerHead(status, self._reason, self._headers, length, event_stream)
        self.taker.answer_head(self._head)

    def on_body(self, piece: bytes) -> None:
        if self.taker is not None and not self.bad:
            self.taker.answer_piece(piece)

    def on_message_complete(self) -> None:
        self._between = True
        if self._provisional or self.taker is None or self.bad:
            return
        taker, self.taker = self.taker, None
        self.reusable = self._parser.should_keep_alive()
        taker.answer_end()


def head_bytes(head: AnswerHead, *, sized: bool, chunked: bool, close: bool) -> bytes:
    """The head as the client is to see it: the engine's lines in their order, less what was between us and it.

    `sized`: the engine's length still holds. `chunked`: the body goes out in chunks, whatever it came in. `close`:
    the connection ends after this answer.
    """
    if head.plain is not None and sized and not chunked and not close:
        return head.plain
    lines = [b"HTTP/1.1 %d %s" % (head.status, head.reason)]
    named: set[bytes] = set()
    for name, value in head.headers:
        lowered = name.lower()
        if lowered == b"content-length":
            if sized:
                lines.append(name + b": " + value)
        elif lowered not in HOP_BY_HOP:
            lines.append(name + b": " + value)
        elif lowered == b"transfer-encoding" and chunked:
            lines.append(name + b": chunked")
            chunked = False
        elif lowered == b"connection":
            named.update(token.strip() for token in value.lower().split(b","))
    if named - {b"close", b"keep-alive"}:
        lines[1:] = [line for line in lines[1:] if line.partition(b":")[0].lower() not in named]
    if chunked:
        lines.append(b"transfer-encoding: chunked")
    if close:
        lines.append(b"connection: close")
    return b"\r\n".join([*lines, b"", b""])
