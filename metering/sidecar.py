"""The sidecar: sockets around `exchange`, one process, one lane.

It listens where clients used to find vLLM and passes on what is listed in `endpoints`. Nothing here decides what
happened; `exchange` does. Here are the things with a life: the listening socket, the connections, the loops that bring
written events to the disk (every 50 ms) and into sealed batches, and the orderly end.

If the lane cannot be written, requests are refused (503) before the engine hears of them. An outcome that cannot be
written tears its answer off before the last byte, is kept, and is tried again with each sync; until that succeeds no
request is let through. So nothing is served that is not on the books, and each opened request is closed exactly once.
Requests are refused as well while the lane cannot sync or seal, and while more events wait to be sealed than
`unsealed_events` (503 `capture_behind`).

Any other exception in that work is a bug, and a sidecar that went on without sealing would hide it. It is logged as
CRITICAL with its class alone, metered requests are refused from then on, and `failed` is set: whoever runs the sidecar
drains it and ends the process with an exit code that is not zero, so that it is started again. The request whose
outcome could not be written is `interrupted` at that start.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from metering.background import Background
from metering.caller import find_caller
from metering.capture_faults import CaptureFaults
from metering.client_connection import ClientConnection
from metering.endpoints import MODELS, Endpoint, find_endpoint
from metering.engine_pools import LOOK_S, open_pools
from metering.event import Event
from metering.exchange import Exchange
from metering.exchange_step import STOPPING, Watch
from metering.http_refusal import OwnAnswer, Refused
from metering.http_request import Budget, Request, RequestReader
from metering.identity import new_id
from metering.keybook import KeyBook
from metering.lane import Lane
from metering.opening import open_exchange
from metering.refusal import Unavailable
from metering.sidecar_options import SidecarOptions

_log = logging.getLogger(__name__)
_SEAL_LOOK_S = 0.25
_SWEEP_S = 0.25
_NOT_METERED = Refused(
    503,
    "capture_unavailable",
    "Requests are not served while their usage cannot be written down.",
    headers=((b"retry-after", b"1"),),
)
_BEHIND = Refused(
    503,
    "capture_behind",
    "Requests are not served while too many events wait to be sealed.",
    headers=((b"retry-after", b"1"),),
)
_WRITE, _SYNC, _SEAL, _KEEP_UP = "write", "sync", "seal", "seal as fast as requests end"
#: What the lane raises when its disk fails.
_DISK = (OSError, Unavailable)


@dataclass(slots=True)
class Counters:
    """What happened since the start. `refused` by error code; outcomes by their name; `unread_usage`: finished
    answers in which no usage could be read; `write_errors`: intents and outcomes that the lane did not take at once."""

    requests: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    unread_usage: int = 0
    write_errors: int = 0


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
        )
        self._background = Background(
            self.engine.pools,
            lambda event, _lines, unread: self.write_down(event, unread_usage=unread),
            lane.now_us,
            background_s=options.background_s,
        )
        self._lane = lane
        self._keys = keys
        self._budget = Budget(options.bodies_bytes)
        self._unwritten: deque[Event] = deque()
        self._faults = CaptureFaults()
        #: Set when the sidecar met a bug of its own: drain it, and let the process end with a failure.
        self.failed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._loops: list[asyncio.Task[None]] = []
        self._draining: asyncio.Task[None] | None = None
        # Sealing takes longer than a group's fsync may wait for it.
        self._sync_thread = ThreadPoolExecutor(1, thread_name_prefix="lane-sync")
        self._seal_thread = ThreadPoolExecutor(1, thread_name_prefix="lane-seal")

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Listen on `host`:`port` (0: a free one) and serve, with `tls` or in the clear; the port. OSError if it is
        taken."""
        loop = asyncio.get_running_loop()
        await self.engine.look()
        self._server = await loop.create_server(
            lambda: ClientConnection(self), host, port, backlog=4096, family=socket.AF_UNSPEC, ssl=tls
        )
        self._loops = [
            loop.create_task(self._every(self.options.sync_s, self._sync)),
            loop.create_task(self._every(_SEAL_LOOK_S, self._seal)),
            loop.create_task(self._every(_SWEEP_S, self._sweep)),
            loop.create_task(self._every(LOOK_S, self.engine.look)),
        ]
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
        self.engine.close()
        try:
            self._write_waiting()
        except _DISK as error:
            self._faults.stands(_WRITE, error)
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._seal_thread, self._lane.close)
        finally:
            self._sync_thread.shutdown()
            self._seal_thread.shutdown()

    @property
    def refusing(self) -> bool:
        """Metered requests are refused, because the lane cannot be written or sealed."""
        return bool(self._faults) or bool(self._unwritten) or self.failed.is_set()

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
        exchange = open_exchange(request, new_id(), self.now_us(), self.options.node_secret)
        if isinstance(exchange, Refused):
            return exchange
        if exchange.intent is not None:
            if self.refusing:
                return _BEHIND if _KEEP_UP in self._faults else _NOT_METERED
            try:
                self._lane.intent(exchange.intent)
            except _DISK as error:
                self._write_failed(error)
                return _NOT_METERED
            self._faults.ends(_WRITE)
        self.counters.requests += 1
        return exchange

    def write_down(self, event: Event, *, unread_usage: bool) -> bool:
        """Write an outcome; false if it has to wait, and then its answer must not be completed."""
        self.counters.outcomes[event.outcome] += 1
        self.counters.unread_usage += unread_usage
        if self._unwritten:
            self._unwritten.append(event)
            return False
        try:
            self._lane.outcome(event)
        except _DISK as error:
            self._write_failed(error)
            self._unwritten.append(event)
            return False
        except Exception as error:
            self._give_up("write an outcome", error)
            return False
        self._faults.ends(_WRITE)
        return True

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
            key = find_caller(request, self._keys, self.now_us())
            if isinstance(key, Refused):
                return key
            request.key = key
        return None

    # -- the lane ---------------------------------------------------------------------------------------------------

    async def _every(self, pause_s: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(pause_s)
            try:
                await work()
            except Exception as error:
                # The loop goes on: what can still be brought to the disk while the sidecar drains, is.
                self._give_up(work.__name__.lstrip("_"), error)

    async def _sync(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._write_waiting()
            await loop.run_in_executor(self._sync_thread, self._lane.sync)
        except _DISK as error:
            self._faults.stands(_SYNC, error)
        else:
            self._faults.ends(_SYNC)
            self._faults.eases(_WRITE)
        if (waiting := self._lane.unsealed) >= self.options.unsealed_events:
            self._faults.stands(_KEEP_UP, f"{waiting} events wait")
        else:
            self._faults.ends(_KEEP_UP)

    async def _seal(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._lane.seal_due():
                if await loop.run_in_executor(self._seal_thread, self._lane.seal) is None:
                    break
        except _DISK as error:
            self._faults.stands(_SEAL, error)
        else:
            self._faults.ends(_SEAL)

    async def _sweep(self) -> None:
        now = self.clock()
        for connection in list(self.connections):
            connection.sweep(now)
        self.engine.sweep()

    def _write_waiting(self) -> None:
        while self._unwritten:
            try:
                self._lane.outcome(self._unwritten[0])
            except _DISK:
                raise
            except Exception as error:
                # It never will be written; those behind it can.
                self._give_up("write an outcome", error)
            self._unwritten.popleft()

    def _write_failed(self, error: Exception) -> None:
        self.counters.write_errors += 1
        self._faults.stands(_WRITE, error)

    def _give_up(self, what: str, error: Exception) -> None:
        """A bug: refuse from here on, and let whoever runs the sidecar end it. Said once; never the event's content."""
        if not self.failed.is_set():
            _log.critical("capture failed to %s (%s): the sidecar stops", what, type(error).__name__)
        self.failed.set()
