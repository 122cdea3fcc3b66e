"""One client's connection to the sidecar: requests in order, one exchange at a time, its answer passed on as it comes.

While an exchange runs, the connection is still read, because that is how a client that leaves is noticed: its end of
file, also of one direction only, means that it is gone, as with vLLM's own server. What it sends early waits, up to
`_PENDING_BYTES`; then it is no longer read until its turn. A client that reads slowly stops the reading of its answer
from the engine, so at most a buffer's worth of it is held here.
"""

from __future__ import annotations

import asyncio
from typing import cast

from metering.capture_port import Capture
from metering.engine_connection import EngineConnection
from metering.exchange import Exchange
from metering.http_refusal import OwnAnswer, Refused, answer_bytes
from metering.http_request import Request, RequestReader

_PENDING_BYTES = 64 * 1024
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class ClientConnection(asyncio.Protocol):
    """Where a client's bytes, an exchange and a connection to the engine meet."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._reader: RequestReader
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._engine: EngineConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._continued = False
        self._lingering = False
        self._started_s = 0.0
        self._added_s = 0.0
        self._deadline_s = 0.0
        self._stalled_s: float | None = None

    @property
    def busy(self) -> bool:
        """A request has begun to come, or is being answered."""
        return self._exchange is not None or not self._reader.idle

    # -- asyncio ----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods but not the class.
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._reader = self._capture.reader(peer[0] if peer else None)
        self._deadline_s = self._capture.clock() + self._capture.patience.idle_s
        self._capture.connections.add(self)
        if len(self._capture.connections) > self._capture.patience.connections:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            return
        if self._exchange is None:
            self._read(data)
            return
        self._pending.append(data)
        self._pending_bytes += len(data)
        if self._pending_bytes > _PENDING_BYTES and self._transport is not None:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        if self._exchange is not None:
            self._client_left()
            self._abort()
        return False

    def connection_lost(self, _exc: Exception | None) -> None:
        self._transport = None
        self._capture.connections.discard(self)
        self._client_left()
        self._reader.drop()

    def pause_writing(self) -> None:
        self._stalled_s = self._capture.clock()
        if self._engine is not None:
            self._engine.pause()

    def resume_writing(self) -> None:
        self._stalled_s = None
        if self._engine is not None:
            self._engine.heard_s = self._capture.clock()
            self._engine.resume()

    # -- requests ---------------------------------------------------------------------------------------------------

    def _read(self, data: bytes) -> None:
        reader = self._reader
        fresh = reader.idle
        reader.feed(data)
        if fresh:
            self._started_s = self._capture.clock()
            self._continued = False
        self._serve()

    def _serve(self) -> None:
        """Take up requests until one runs, or more bytes are needed."""
        reader = self._reader
        while self._exchange is None and self._transport is not None and not self._transport.is_closing():
            if self._lingering:
                return
            if reader.ready:
                self._take_up(reader.ready.popleft())
            elif reader.fault is not None:
                self._refuse_and_close(reader.fault)
            elif self._pending:
                data = b"".join(self._pending)
                self._pending.clear()
                self._pending_bytes = 0
                self._transport.resume_reading()
                self._read(data)
                return
            else:
                self._wait_for_more()
                return

    def _wait_for_more(self) -> None:
        """Nothing to do until the client sends more; what it must know before it does, it is told here."""
        request = self._reader.current
        patience, now = self._capture.patience, self._capture.clock()
        if request is None:
            self._deadline_s = (
                self._started_s + patience.head_s if self._reader.in_head else now + patience.idle_s
            )
            return
        refused = request.refused
        if refused is not None and (refused.close or request.expects_continue):
            self._refuse_and_close(refused)
            return
        if request.expects_continue and not self._continued:
            self._continued = True
            self._write(_CONTINUE)
        self._deadline_s = min(now + patience.body_gap_s, self._started_s + patience.body_s)

    def _take_up(self, request: Request) -> None:
        capture = self._capture
        self._started_s = capture.clock()
        self._continued = False
        opened = request.refused or capture.open(request)
        if isinstance(opened, OwnAnswer | Refused):
            request.let_go(self._reader.budget)
            keep = request.keep_alive and not opened.close and not capture.stopping
            if isinstance(opened, Refused):
                capture.refuse(opened)
            self._write(
                answer_bytes(
                    opened,
                    keep_alive=keep,
                    anthropic=request.endpoint.anthropic,
                    head_only=request.method == b"HEAD",
                )
            )
            if not keep:
                self._close()
            return
        self._exchange = opened
        if capture.stopping:
            opened.close_after()
        connection = capture.engine.take(*opened.route)
        if connection is None:
            self._connecting = asyncio.get_running_loop().create_task(self._connect(opened))
        else:
            self._begin(opened, connection)

    async def _connect(self, exchange: Exchange) -> None:
        try:
            connection = await self._capture.engine.connect(*exchange.route)
        except OSError:
            self._connecting = None
            self.engine_lost("unreachable")
            return
        self._connecting = None
        if self._exchange is exchange:
            self._begin(exchange, connection)
        else:
            connection.close()

    def _begin(self, exchange: Exchange, connection: EngineConnection) -> None:
        self._engine = connection
        connection.begin(exchange, self)
        self._added_s = self._capture.clock() - self._started_s
        if self._stalled_s is not None:
            connection.pause()

    # -- the answer -------------------------------------------------------------------------------------------------

    def answer_came(self) -> None:
        exchange = self._exchange
        assert exchange is not None
        if exchange.runs_on:
            self._write(exchange.passing())
            return
        step = exchange.step(self._capture.now_us())
        if step.event is not None and not self._capture.write_down(
            step.event, lines=step.lines, unread_usage=step.unread_usage
        ):
            # What is not written down is not told to the end: the answer stays torn.
            self._let_go()
            self._abort()
            return
        if step.watch is not None:
            self._capture.watch(step.watch)
        self._write(step.to_client)
        if step.over:
            if self._engine is not None:
                self._capture.added.observe(self._added_s + self._capture.clock() - self._engine.heard_s)
            self._let_go()
            if step.keep_client and not self._capture.stopping:
                self._serve()
            else:
                self._close()

    def engine_lost(self, cause: str) -> None:
        if self._exchange is not None:
            self._exchange.engine_lost(cause)
            self.answer_came()

    def finish(self) -> None:
        """The sidecar is about to stop: answer what has begun to come, and close."""
        if self._exchange is not None:
            self._exchange.close_after()
        elif self._reader.idle:
            self._close()

    def stop(self) -> None:
        """The sidecar stops now: end what runs, in whatever state it is."""
        if self._exchange is not None:
            self._exchange.stop()
            self.answer_came()
        self._close()

    def _client_left(self, *, stalled: bool = False) -> None:
        """Nobody waits for the answer any more: write down what had been passed on, and stop the engine's work."""
        exchange = self._exchange
        if exchange is None:
            return
        exchange.client_gone(stalled=stalled)
        step = exchange.step(self._capture.now_us())
        self._let_go()
        if step.watch is not None:
            self._capture.watch(step.watch)
        if step.event is not None:
            self._capture.write_down(step.event, lines=step.lines, unread_usage=False)

    def _let_go(self) -> None:
        """The exchange is over, on whatever terms."""
        exchange, self._exchange = self._exchange, None
        engine, self._engine = self._engine, None
        connecting, self._connecting = self._connecting, None
        if exchange is not None:
            exchange.request.let_go(self._reader.budget)
        if connecting is not None:
            connecting.cancel()
        if engine is not None:
            if exchange is not None:
                engine.pool.fingerprint = exchange.fingerprint
            engine.release()

    # -- the socket -------------------------------------------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        transport = self._transport
        if data and transport is not None and not transport.is_closing():
            transport.write(data)

    def _refuse_and_close(self, refused: Refused) -> None:
        """Answer before the request is whole. Its rest is read and dropped for a moment, because closing on unread
        bytes would reset the connection and lose the answer."""
        self._capture.refuse(refused)
        current = self._reader.current
        anthropic = current is not None and current.endpoint.anthropic
        self._write(answer_bytes(refused, keep_alive=False, anthropic=anthropic))
        self._reader.drop()
        self._lingering = True
        self._deadline_s = self._capture.clock() + self._capture.patience.linger_s
        if (
            self._transport is not None
            and not self._transport.is_closing()
            and self._transport.can_write_eof()
        ):
            self._transport.write_eof()

    def _close(self) -> None:
        if self._transport is not None and not self._lingering:
            self._transport.close()

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def sweep(self, now_s: float) -> None:
        """Called about four times a second: is anybody keeping us waiting for too long?"""
        patience = self._capture.patience
        if self._stalled_s is not None and now_s - self._stalled_s > patience.stalled_s:
            self._client_left(stalled=True)
            self._abort()
        elif self._exchange is not None:
            engine = self._engine
            if engine is not None and self._stalled_s is None and now_s - engine.heard_s > patience.engine_s:
                self.engine_lost("silent")
        elif now_s < self._deadline_s:
            return
        elif self._lingering:
            self._abort()
        elif self._reader.idle:
            self._close()
        else:
            what = Refused(408, "request_timeout", "The request did not come in time.", close=True)
            self._refuse_and_close(what)
