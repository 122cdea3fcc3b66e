"""One connection to an engine: kept alive, for one exchange at a time.

A request is sent once. If the engine closes before it answers, nobody can know whether it has begun to work, so the
request is never sent again by itself: the client is told (502) and the event says `failed`. To make that rare, an idle
connection is used again only while it is younger than the engine's own patience (`idle_s`, below uvicorn's 5 s). A
connection is closed, not kept, whenever anything about it is unclear: an answer cut short, a client that left, a
request that was not wholly sent when its answer was whole. Closing is also how the engine learns of an abort.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, cast

from metering.http_answer import AnswerReader, AnswerTaker

if TYPE_CHECKING:
    from metering.engine_pool import EnginePool

#: Larger bodies are written beside their head, not copied behind it.
_JOIN_BYTES = 64 * 1024


class Sendable(AnswerTaker, Protocol):
    """What is sent to an engine and takes its answer: an exchange, or a question of the sidecar's own."""

    @property
    def body(self) -> bytes: ...
    def aim(self, ordinal: int, fingerprint: bytes | None) -> None:
        """It goes to this engine: the next thing asked for is its bytes."""
        ...

    def to_engine(self, opening: bytes) -> bytes:
        """Its head; `opening` are the header lines that every request to that engine begins with."""
        ...


class Waiter(Protocol):
    """Who waits for an answer: the client's connection."""

    def answer_came(self) -> None:
        """The exchange has taken in more of the answer."""
        ...

    def engine_lost(self, cause: str) -> None:
        """No more of the answer will come."""
        ...


class EngineConnection(asyncio.Protocol):
    """One connection to the engine of `pool`. Each `begin` is followed by one `release`."""

    def __init__(self, pool: EnginePool) -> None:
        self.pool = pool
        self._reader = AnswerReader()
        self._waiter: Waiter | None = None
        self._transport: asyncio.Transport | None = None
        self._used = False
        self.idle_since_s = 0.0
        self.heard_s = 0.0

    def begin(self, exchange: Sendable, waiter: Waiter) -> None:
        """Send the exchange's request; `waiter` is told of what comes back, until `release`."""
        transport, pool = self._transport, self.pool
        assert transport is not None
        assert not self._used
        self._used = True
        pool.in_air += 1
        self._waiter = waiter
        self.heard_s = pool.clock()
        self._reader.expect(exchange)
        exchange.aim(pool.ordinal, pool.fingerprint)
        head, body = exchange.to_engine(pool.opening), exchange.body
        if len(body) < _JOIN_BYTES:
            transport.write(head + body)
        else:
            transport.writelines([head, body])

    def release(self) -> None:
        """The exchange is over. Keep the connection if it is as good as new, else close it at once."""
        assert self._used
        self._used = False
        self.pool.in_air -= 1
        self._waiter = None
        transport = self._transport
        if transport is None:
            return
        if self._reader.reusable and not transport.is_closing() and transport.get_write_buffer_size() == 0:
            transport.resume_reading()
            self.pool.keep(self)
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
        self.pool.open.add(self)

    def data_received(self, data: bytes) -> None:
        self.heard_s = self.pool.clock()
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
        self.pool.forget(self)
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.engine_lost("closed")
