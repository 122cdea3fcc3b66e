"""An engine that does exactly what a test tells it to, a sidecar in front of it with a real lane, and a bare client."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import pyarrow as pa
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from metering.body import read_body
from metering.identity import hash_secret
from metering.keybook import KeyEntry
from metering.lane import Lane
from metering.refusal import Unavailable
from metering.sidecar import Sidecar
from metering.sidecar_options import Patience, SidecarOptions
from metering.spool import Spool

SECRET = "tg_" + "s" * 43
KEY = KeyEntry(b"K" * 16, b"C" * 16, b"P" * 16, None)
P = ParamSpec("P")


def on_uvloop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test as the sidecar runs: on uvloop. Nothing may be left hanging for a minute."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        uvloop.run(asyncio.wait_for(test(*args, **kwargs), 60))

    return run


async def until(reached: Callable[[], object]) -> None:
    """Wait for what no event tells of."""
    while not reached():  # noqa: ASYNC110 - the other side is a socket
        await asyncio.sleep(0.002)


class Keys:
    """One customer's key."""

    def find(self, secret_sha256: bytes) -> KeyEntry | None:
        return KEY if secret_sha256 == hash_secret(SECRET) else None

    def find_id(self, id: bytes) -> KeyEntry | None:
        return KEY if id == KEY.id else None


@dataclass
class Asked:
    """One request as the engine got it, and the way to answer it."""

    head: str
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    connection: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def header(self, name: str) -> str | None:
        lines = (line.partition(": ") for line in self.head.split("\r\n")[1:])
        return next((value for key, _, value in lines if key.lower() == name.lower()), None)

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def left(self) -> None:
        """Returns when the sidecar has closed this connection, and `gone` says so."""
        with suppress(ConnectionError):
            assert await self.reader.read(1) == b""
        self.gone.set()


Script = Callable[[Asked], Awaitable[None]]


@dataclass
class ScriptedEngine:
    script: Script
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                asked = Asked(head, b"", reader, writer, number)
                asked.body = await reader.readexactly(int(asked.header("content-length") or 0))
                self.asked.append(asked)
                await self.script(asked)
        writer.close()


@asynccontextmanager
async def scripted(
    script: Script, *, tls: ssl.SSLContext | None = None, port: int = 0
) -> AsyncIterator[tuple[ScriptedEngine, str]]:
    """An engine that listens, and its address."""
    engine = ScriptedEngine(script)
    server = await asyncio.start_server(engine.serve, "127.0.0.1", port, limit=2**26, ssl=tls)
    bound = server.sockets[0].getsockname()[1]
    try:
        yield engine, f"{'http' if tls is None else 'https'}://127.0.0.1:{bound}"
    finally:
        server.close()
        for asked in engine.asked:
            asked.writer.transport.abort()
        await asyncio.sleep(0)


@dataclass
class Client:
    """A client that sends bytes and reads bytes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """One whole answer: status, headers (names in lower case), body without chunks."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = b""
        if headers.get("transfer-encoding") == "chunked":
            pieces: list[bytes] = []
            while piece := await self.chunk():
                pieces.append(piece)
            body = b"".join(pieces)
        else:
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return int(first.split()[1]), headers, body

    async def chunk(self) -> bytes:
        size = int(await self.reader.readline(), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def ended(self) -> bytes:
        """What still comes until the sidecar closes the connection."""
        return await self.reader.read()

    def leave(self) -> None:
        self.writer.transport.abort()


@dataclass
class World:
    engine: ScriptedEngine
    sidecar: Sidecar
    lane: Lane
    port: int
    folder: Path
    clients: list[Client] = field(default_factory=list)

    async def client(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port, limit=2**20))
        self.clients.append(client)
        return client

    async def ask(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        client = await self.client()
        await client.send(data)
        answer = await client.answer()
        client.leave()
        return answer

    async def settle(self) -> None:
        """Wait until nothing is in the air."""
        await until(
            lambda: self.lane.opened == self.lane.closed and not any(c.busy for c in self.sidecar.connections)
        )

    async def events(self) -> list[dict[str, Any]]:
        """Drain, and read every event that was sealed, through the format's own reader."""
        await self.sidecar.drain()
        return sealed_events(self.folder)


def sealed_events(folder: Path) -> list[dict[str, Any]]:
    tables: list[pa.Table] = []
    for spooled in Spool(folder).pending():
        batch = spooled.batch()
        if batch.body:
            tables.append(read_body(batch.seal, batch.body))
    rows: list[dict[str, Any]] = [row for table in tables for row in table.to_pylist()]
    return rows


@asynccontextmanager
async def world(
    folder: Path,
    script: Script,
    *,
    patience: Patience | None = None,
    engine_url: str | None = None,
    more: tuple[str, ...] = (),
    tls: ssl.SSLContext | None = None,
    lane: dict[str, Any] | None = None,
    key: Ed25519PrivateKey | None = None,
    **options: Any,
) -> AsyncIterator[World]:
    """A scripted engine (or that of `engine_url`, and `more` of them), a sidecar before it, a lane in `folder` (opened
    as `lane` says, with its `key`)."""
    async with scripted(script) as (engine, url):
        key = key or Ed25519PrivateKey.generate()
        opened = Lane.open(folder, operator="op", node="n", lane="0", key=key, **lane or {})
        given = SidecarOptions(
            (engine_url or url, *more),
            "n",
            "op",
            patience=patience or Patience(drain_s=5, linger_s=0.1),
            **options,
        )
        sidecar = Sidecar(given, opened, Keys())
        port = await sidecar.start("127.0.0.1", 0, tls)
        it = World(engine, sidecar, opened, port, folder)
        try:
            yield it
        finally:
            with suppress(Unavailable):  # where a test broke the lane
                await sidecar.drain()
            for client in it.clients:
                client.writer.transport.abort()
            await asyncio.sleep(0.01)


def request(body: object = None, *, path: str = "/v1/chat/completions", head: str = "") -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    method = "GET" if body is None else "POST"
    length = f"Content-Length: {len(content)}\r\n" if content else ""
    return (
        f"{method} {path} HTTP/1.1\r\nHost: s\r\nAuthorization: Bearer {SECRET}\r\n{length}{head}\r\n".encode()
        + content
    )


def sized(body: bytes, status: str = "200 OK", head: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode() + body


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def usage(prompt: int, completion: int) -> bytes:
    return b',"usage":{"prompt_tokens":%d,"completion_tokens":%d}' % (prompt, completion)


def token(count: int, *, prompt: int = 7) -> bytes:
    """The engine's chunk with its `count`th token, running usage included."""
    return b'data: {"choices":[{"index":0,"text":"x","finish_reason":null}]' + usage(prompt, count) + b"}\n\n"


PLAIN_TOKEN = b'data: {"choices":[{"index":0,"text":"x","finish_reason":null}]}\n\n'
DONE = b"data: [DONE]\n\n"


def last(count: int) -> bytes:
    return b'data: {"choices":[]' + usage(7, count) + b"}\n\n"
