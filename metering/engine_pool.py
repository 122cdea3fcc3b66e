"""The sidecar's connections to the engine: kept alive, each for one exchange at a time.

A request is sent once. If the engine closes before it answers, nobody can know whether it has begun to work, so the
request is never sent again by itself: the client is told (502) and the event says `failed`. To make that rare, an idle
connection is used again only while it is younger than the engine's own patience (`idle_s`, below uvicorn's 5 s). A
connection is closed, not kept, whenever anything about it is unclear: an answer cut short, a client that left, a
request that was not wholly sent when its answer was whole. Closing is also how the engine learns of an abort.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast
from urllib.parse import urlsplit

from metering.exchange import Exchange
from metering.http_answer import AnswerReader
from metering.refusal import Refusal

#: Larger bodies are written beside their head, not copied behind it.
_JOIN_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class EngineAddress:
    """Where the engine listens, and how it is named in `Host`."""

    host: str
    port: int
    name: bytes

    @classmethod
    def parse(cls, url: str) -> EngineAddress:
        """`http://HOST[:PORT]`. Refusal `bad_engine_url` for anything else."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port or 80
        except ValueError:
            host, port, parts = None, 0, urlsplit("")
        if parts.scheme != "http" or not host or parts.path not in ("", "/") or parts.query or parts.username:
            raise Refusal(
                "bad_engine_url", f"{url!r} is no address of an engine", remedy="give http://HOST:PORT"
            )
        return cls(host, port, parts.netloc.encode("ascii"))


class Waiter(Protocol):
    """Who waits for an answer: the client's connection."""

    def answer_came(self) -> None:
        """The exchange has taken in more of the answer."""
        ...

    def engine_lost(self, cause: str) -> None:
        """No more of the answer will come."""
        ...


class EngineConnection(asyncio.Protocol):
    """One connection to the engine."""

    def __init__(self, pool: EnginePool) -> None:
        self._pool = pool
        self._reader = AnswerReader()
        self._waiter: Waiter | None = None
        self._transport: asyncio.Transport | None = None
        self.idle_since_s = 0.0
        self.heard_s = 0.0

    def begin(self, exchange: Exchange, waiter: Waiter) -> None:
        """Send the exchange's request; `waiter` is told of what comes back, until `release`."""
        transport = self._transport
        assert transport is not None
        self._waiter = waiter
        self.heard_s = self._pool.clock()
        self._reader.expect(exchange)
        head, body = exchange.to_engine(self._pool.address.name), exchange.body
        if len(body) < _JOIN_BYTES:
            transport.write(head + body)
        else:
            transport.writelines([head, body])

    def release(self) -> None:
        """The exchange is over. Keep the connection if it is as good as new, else close it at once."""
        self._waiter = None
        transport = self._transport
        if transport is None:
            return
        if self._reader.reusable and not transport.is_closing() and transport.get_write_buffer_size() == 0:
            transport.resume_reading()
            self._pool.keep(self)
        else:
            transport.abort()

    def pause(self) -> None:
        """The client cannot take more for now."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    # -- asyncio ----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods but not the class.
        self._transport = cast(asyncio.Transport, transport)
        self._pool.open.add(self)

    def data_received(self, data: bytes) -> None:
        self.heard_s = self._pool.clock()
        self._reader.feed(data)
        waiter = self._waiter
        if self._reader.bad:
            self._waiter = None
            self.close()
            if waiter is not None:
                waiter.engine_lost("malformed")
        elif waiter is not None:
            waiter.answer_came()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._transport = None
        self._pool.forget(self)
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.engine_lost("closed")


class EnginePool:
    """All connections to one engine. `clock` counts seconds, monotonic."""

    def __init__(
        self,
        address: EngineAddress,
        clock: Callable[[], float],
        *,
        idle_s: float,
        connect_s: float,
        keep: int = 256,
    ) -> None:
        self.address = address
        self.clock = clock
        self.open: set[EngineConnection] = set()
        #: What `system_fingerprint` the engine showed last, as bytes of its JSON.
        self.fingerprint: bytes | None = None
        self._idle_s = idle_s
        self._connect_s = connect_s
        self._keep = keep
        self._idle: list[EngineConnection] = []

    def take(self) -> EngineConnection | None:
        """An idle connection, the one used last first; None if a new one is needed."""
        oldest = self.clock() - self._idle_s
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and connection.idle_since_s >= oldest:
                return connection
            connection.close()
        return None

    async def connect(self) -> EngineConnection:
        """A new connection. OSError (TimeoutError is one) if the engine cannot be reached."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._connect_s):
            _, connection = await loop.create_connection(
                lambda: EngineConnection(self), self.address.host, self.address.port
            )
        return connection

    def keep(self, connection: EngineConnection) -> None:
        if len(self._idle) >= self._keep:
            connection.close()
            return
        connection.idle_since_s = self.clock()
        self._idle.append(connection)

    def forget(self, connection: EngineConnection) -> None:
        self.open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def sweep(self) -> None:
        """Close what has been idle for too long."""
        oldest = self.clock() - self._idle_s
        for connection in [c for c in self._idle if c.idle_since_s < oldest]:
            connection.close()

    def close(self) -> None:
        for connection in list(self.open):
            connection.close()
