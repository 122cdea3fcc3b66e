"""One HTTP exchange with an engine, kept as it came over the wire: what recordings are made of.

Ordinary clients join chunks, sort headers and hide how a stream is cut. Here a body stays the sequence of
pieces that the server wrote (one per chunk of `Transfer-Encoding: chunked`, a single one under
`Content-Length`), so that a recording shows the framing of server-sent events, and a client may hang up
after any piece.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sends. `body` is text (all bodies here are UTF-8), None for none.

    `hang_up_after` closes the connection once that many pieces of the answer have come (0: at once after
    sending).
    """

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: str | None = None
    hang_up_after: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `pieces` are decoded as UTF-8, one per chunk; `whole` is false where the client hung
    up."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    pieces: tuple[str, ...]
    whole: bool

    @property
    def body(self) -> str:
        return "".join(self.pieces)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)


async def exchange(
    host: str, port: int, request: Request, *, timeout_s: float = 60, heard: list[str] | None = None
) -> Answer:
    """Send one request on a connection of its own and read the answer, or as much of it as the client wants.

    `heard` takes each piece as it comes, for who gives up before there is an answer. Raises `TimeoutError` when the
    server takes longer than `timeout_s`, `EOFError` when it hangs up mid-answer.
    """
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(_request_bytes(host, port, request))
            await writer.drain()
            if request.hang_up_after == 0:
                # Long enough for the engine to have the request, short enough for it not to have answered.
                await asyncio.sleep(0.05)
                return Answer(0, "", (), (), False)
            return await _read_answer(reader, request, [] if heard is None else heard)
        finally:
            writer.close()


def _request_bytes(host: str, port: int, request: Request) -> bytes:
    body = (request.body or "").encode()
    lines = [f"{request.method} {request.path} HTTP/1.1", f"Host: {host}:{port}"]
    lines += [f"{name}: {value}" for name, value in request.headers]
    if request.body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


async def _read_answer(reader: asyncio.StreamReader, request: Request, pieces: list[str]) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status_line, *header_lines = head.rstrip("\r\n").split("\r\n")
    _, status, reason = status_line.split(" ", 2)
    headers = tuple(
        (name, value.strip()) for name, _, value in (line.partition(":") for line in header_lines)
    )
    lowered = {name.lower(): value for name, value in headers}
    whole = True
    if lowered.get("transfer-encoding") == "chunked":
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            pieces.append((await reader.readexactly(size + 2))[:-2].decode())
            if len(pieces) == request.hang_up_after:
                whole = False
                break
        else:
            await reader.readuntil(b"\r\n")
    elif length := int(lowered.get("content-length", "0")):
        pieces.append((await reader.readexactly(length)).decode())
    return Answer(int(status), reason, headers, tuple(pieces), whole)
