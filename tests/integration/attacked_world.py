"""A sidecar under attack: an engine that signs its answers, an honest client who looks at the signatures, and an audit.

Every request carries a mark in its body, and the engine puts the mark of what it was asked into its answer. The honest
client asks all the while on a connection of its own, and each of its answers must have its own mark. What reaches the
engine is kept byte for byte and read again by another parser than the sidecar's (h11).
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h11
from scripted_engine import SECRET, Asked, Client, World, usage, world

CHAT = "/v1/chat/completions"
#: What attackers try to smuggle in asks for this path. No request for it may ever reach the engine.
FORBIDDEN = "/invocations"
_MARK = re.compile(rb"mark-[A-Za-z0-9_.-]+")


def asking(mark: str, **more: Any) -> bytes:
    """The body of a chat request with a mark."""
    return json.dumps({"model": "tiny", "messages": [{"content": mark}], **more}).encode()


def post(body: bytes, head: str = "", *, path: str = CHAT, length: object = None) -> bytes:
    """A whole request. `length`: another value than the body's length; "" leaves the header out."""
    said = f"Content-Length: {len(body) if length is None else length}\r\n" if length != "" else ""
    return (
        f"POST {path} HTTP/1.1\r\nHost: s\r\nAuthorization: Bearer {SECRET}\r\n{said}{head}\r\n".encode(
            "latin-1"
        )
        + body
    )


def chunks(body: bytes, *, size: str = "", end: bytes = b"0\r\n\r\n") -> bytes:
    """A body in one chunk; `size` is written in the place of its size."""
    return (size or f"{len(body):x}").encode("latin-1") + b"\r\n" + body + b"\r\n" + end


SMUGGLED = post(asking("mark-smuggled"), path=FORBIDDEN)


@dataclass
class Signer:
    """An engine that answers each request with its mark and keeps every byte that it was sent, a list a connection."""

    heard: list[list[bytes]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard: list[bytes] = []
        self.heard.append(heard)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                heard.append(head)
                length = re.search(rb"(?i)\r\ncontent-length: *(\d+)\r\n", head)
                body = await reader.readexactly(int(length[1]) if length else 0)
                heard.append(body)
                writer.write(signed(body))
                await writer.drain()
        writer.close()

    def requests(self) -> list[tuple[h11.Request, bytes]]:
        """The requests that a strict reader finds in what was heard; nothing else may be there."""
        found: list[tuple[h11.Request, bytes]] = []
        for heard in self.heard:
            parser = h11.Connection(h11.SERVER, max_incomplete_event_size=2**20)
            parser.receive_data(b"".join(heard))
            asked, body = None, b""
            while (event := parser.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                if isinstance(event, h11.Request):
                    asked, body = event, b""
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    assert asked is not None
                    found.append((asked, body))
                    parser.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                    parser.send(h11.EndOfMessage())
                    parser.start_next_cycle()
            assert parser.trailing_data == (b"", False)
        return found


def signed(body: bytes) -> bytes:
    """The engine's answer to a request with that body."""
    found = _MARK.search(body)
    text = b'{"mark":"%b"' % (found[0] if found else b"none") + usage(1, 1) + b"}"
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text)


@dataclass
class Attacked:
    """The sidecar's world and the engine's memory."""

    it: World
    engine: Signer
    honest: asyncio.Task[None] | None = None

    async def own_answer(self, client: Client, mark: str) -> None:
        """The connection is as good as new: it asks, and gets the answer to that."""
        await client.send(post(asking(mark)))
        status, _, body = await client.answer()
        assert (status, json.loads(body)["mark"]) == (200, mark)

    async def audit(self) -> list[bytes]:
        """Whatever was tried, the engine heard only whole requests of ours, each on the books; their bodies."""
        assert self.honest is not None
        assert not self.honest.done()
        await self._stop()
        await self.it.settle()
        heard = self.engine.requests()
        for asked, body in heard:
            headers = [name for name, _ in asked.headers]
            path = asked.target.partition(b"?")[0]
            assert (asked.method, path) in ((b"POST", CHAT.encode()), (b"OPTIONS", CHAT.encode())), asked
            # A browser's preflight passes without a key, and without anything that the engine could work on.
            if asked.method == b"OPTIONS":
                assert (headers.count(b"host"), body) == (1, b"")
                continue
            for name in (b"x-request-id", b"content-length", b"host", b"accept-encoding"):
                assert headers.count(name) == 1, headers
            ours = {
                b"transfer-encoding",
                b"transfer_encoding",
                b"content_length",
                b"authorization",
                b"expect",
            }
            assert ours.isdisjoint(headers), headers
        ids = [value for asked, _ in heard for name, value in asked.headers if name == b"x-request-id"]
        assert len(set(ids)) == len(ids)
        events = await self.it.events()
        assert set(ids) <= {event["request"].hex().encode() for event in events}
        return [body for _, body in heard]

    async def _stop(self) -> None:
        assert self.honest is not None
        self.honest.cancel()
        with suppress(asyncio.CancelledError):
            await self.honest


@asynccontextmanager
async def attacked(folder: Path, **options: Any) -> AsyncIterator[Attacked]:
    """The world, with an honest client that asks until the end and never gets another's answer."""

    async def nobody(_: Asked) -> None:
        raise AssertionError("the signing engine is asked, not this one")

    engine = Signer()
    server = await asyncio.start_server(engine.serve, "127.0.0.1", 0, limit=2**26)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        async with world(folder, nobody, engine_url=url, **options) as it:
            here = Attacked(it, engine)
            here.honest = asyncio.create_task(_honest(here))
            try:
                yield here
            finally:
                here.honest.cancel()
    finally:
        server.close()


async def _honest(here: Attacked) -> None:
    client = await here.it.client()
    for number in range(1_000_000):
        await here.own_answer(client, f"mark-honest-{number}")
        await asyncio.sleep(0.001)
