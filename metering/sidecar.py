"""The sidecar: sockets around `exchange`, one process, one lane.

It listens where clients used to find vLLM and passes on what is listed in `endpoints`. Nothing here decides what
happened; `exchange` does. Here are the things with a life: the listening socket, the connections, the engines, and the
orderly end.

What is written down, and what becomes of requests when it cannot be, is `capture`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections import Counter
from dataclasses import dataclass, field

from metering.background import Background
from metering.caller import find_caller
from metering.capture import LaneCapture
from metering.client_connection import ClientConnection
from metering.endpoints import MODELS, RESPONSE, Endpoint, find_endpoint, response_id
from metering.engine_pools import LOOK_S, open_pools
from metering.event import Event
from metering.exchange import Exchange
from metering.exchange_step import STOPPING, Watch
from metering.figures import Latency
from metering.http_refusal import OwnAnswer, Refused
from metering.http_request import Budget, Request, RequestReader
from metering.identity import new_id
from metering.keybook import KeyBook
from metering.lane import Lane
from metering.opening import open_exchange
from metering.sidecar_options import SidecarOptions

_SWEEP_S = 0.25


@dataclass(slots=True)
class Counters:
    """What happened since the start. `refused` by error code; outcomes by their name; `unread_usage`: finished
    answers in which no usage could be read."""

    requests: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    unread_usage: int = 0


class Sidecar:
    """Start it, let it serve, drain it. Once."""

    def __init__(
        self,
        options: SidecarOptions,
        lane: Lane,
        keys: KeyBook,
    ) -> None:
        self.options = options
        self.patience = options.patience
        self.counters = Counters()
        #: What this process adds to a request.
        self.added = Latency()
        self.lane = lane
        self.connections: set[ClientConnection] = set()
        self.stopping = False
        self.now_us = lane.now_us
        self.clock = time.monotonic
        self.engine = open_pools(
            options.engines,
            self.clock,
            idle_s=options.patience.engine_idle_s,
            connect_s=options.patience.connect_s,
            key_file=options.engine_key_file,
            looks_at_one=options.counters_s is not None,
        )
        self.capture = LaneCapture(options, lane, self.engine.pools, self.clock)
        self._background = Background(
            self.engine.pools,
            lambda event, lines, unread: self.write_down(event, lines=lines, unread_usage=unread),
            self.capture.keep,
            lane.now_us,
            background_s=options.background_s,
            secret=options.node_secret,
        )
        self._keys = keys
        self._budget = Budget(options.bodies_bytes)
        self._server: asyncio.Server | None = None
        self._loops: list[asyncio.Task[None]] = []
        self._draining: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Listen on `host`:`port` (0: a free one) and serve, with `tls` or in the clear; the port. OSError if it is
        taken."""
        loop = asyncio.get_running_loop()
        await self.engine.look()
        self._server = await loop.create_server(
            lambda: ClientConnection(self),
            host,
            port,
            backlog=4096,
            family=socket.AF_UNSPEC,
            ssl=tls,
            start_serving=False,
        )
        await self.capture.start()
        for told in self.capture.take_watched():
            self._background.take_up(told)
        self._loops = [
            loop.create_task(self.capture.repeat(_SWEEP_S, self._sweep)),
            loop.create_task(self.capture.repeat(LOOK_S, self.engine.look)),
        ]
        await self._server.start_serving()
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def drain(self) -> None:
        """Stop accepting, finish what runs (for at most `drain_s`), write everything down and close the lane.

        Unavailable if the lane cannot be closed for its disk; what is written there is found at its next start. A
        second call waits for the first.
        """
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain())
        await asyncio.shield(self._draining)

    async def _drain(self) -> None:
        self.stopping = True
        if self._server is not None:
            self._server.close()
        deadline = self.clock() + self.patience.drain_s
        while self.connections and self.clock() < deadline:
            for connection in list(self.connections):
                connection.finish()
            await asyncio.sleep(0.01)
        for connection in list(self.connections):
            connection.stop()
        await self._background.stop(deadline - self.clock())
        for task in self._loops:
            task.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        try:
            await self.capture.close()
        finally:
            self.engine.close()

    @property
    def failed(self) -> asyncio.Event:
        """Set when the sidecar met a bug of its own: drain it, and let the process end with a failure."""
        return self.capture.failed

    @property
    def refusing(self) -> bool:
        """Metered requests are refused, or served unmetered, because the lane cannot be written or sealed."""
        return self.capture.stuck

    # -- what connections ask for -----------------------------------------------------------------------------------

    def reader(self, peer: str | None) -> RequestReader:
        """A reader for a new connection from that address."""
        trust = self.options.trust
        if trust is None:
            return RequestReader(self._judge, self.options.limits, self._budget)
        return RequestReader(
            self._judge,
            self.options.limits,
            self._budget,
            trust_header=trust.header,
            trusted=trust.trusts(peer),
        )

    def open(self, request: Request) -> Exchange | OwnAnswer | Refused:
        """Let a whole request through: its intent is written when this returns an exchange."""
        if self.stopping:
            return STOPPING
        if request.endpoint is MODELS and (listed := self.engine.model_list()) is not None:
            return OwnAnswer(listed)
        options = self.options
        witness = options.engine_lines is not None
        exchange = open_exchange(request, new_id(), self.now_us(), options.node_secret, witness=witness)
        if isinstance(exchange, Refused):
            return exchange
        if exchange.intent is not None and (refused := self.capture.admit(exchange)) is not None:
            return refused
        if request.endpoint is RESPONSE:
            exchange.passed = self._background.passed_on(response_id(request.target))
        self.counters.requests += 1
        return exchange

    def write_down(self, event: Event, *, lines: int | None, unread_usage: bool) -> bool:
        """Write an outcome, of which the engine's witness writes so many `lines` (None: not known); false if it has to
        wait, and then its answer must not be completed."""
        self.counters.outcomes[event.outcome] += 1
        self.counters.unread_usage += unread_usage
        return self.capture.write_down(event, lines)

    def watch(self, watch: Watch) -> None:
        """A response goes on in the background: its event is written when the engine says how it ended."""
        self._background.watch(watch)

    def refuse(self, refused: Refused) -> None:
        """Count what is refused, by its code."""
        self.counters.refused[refused.code] += 1

    def _judge(self, request: Request) -> Refused | None:
        endpoint = find_endpoint(request.method, request.target)
        if not isinstance(endpoint, Endpoint):
            return endpoint
        request.endpoint = endpoint
        if endpoint.needs_key:
            key = find_caller(request, self._keys, self.now_us)
            if isinstance(key, Refused):
                return key
            request.key = key
        return None

    async def _sweep(self) -> None:
        now = self.clock()
        for connection in list(self.connections):
            connection.sweep(now)
        self.engine.sweep()
