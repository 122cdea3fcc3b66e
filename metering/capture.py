"""The sidecar's writing side: intents, what HTTP told, outcomes; into the lane, to the disk, into seals.

If the lane cannot be written, requests are refused (503) before the engine hears of them. An outcome that cannot be
written tears its answer off before the last byte, is kept, and is tried again with each sync; until that succeeds no
request is let through. So nothing is served that is not on the books, and each opened request is closed exactly once.
Requests are refused as well while the lane cannot sync or seal, while more events wait to be sealed than
`unsealed_events` (503 `capture_behind`), and while the spool holds `spool_limit_bytes` that intake has not taken (503
`spool_full`).

With `when_full` "serve-unmetered" all of these are served instead: answers are whole, an outcome that waits stays in
memory until it can be written, and each further request is counted in the lane's reserve, which becomes a sealed fact
(an interval and a number) that stands in the way of a close like a hole. The engine gets an id that marks it.

With a witness in the engine, what HTTP told is written first and its event when the engine's lines are joined to it
(engine_watch.py); that an event waits for its lines holds up no answer.

Any other exception in this work is a bug, and a sidecar that went on without sealing would hide it. It is logged as
CRITICAL with its class alone, metered requests are refused from then on, and `failed` is set: whoever runs the sidecar
drains it and ends the process with an exit code that is not zero, so that it is started again. The request whose
outcome could not be written is `interrupted` at that start.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from metering.background import is_watched
from metering.capture_faults import JOIN, KEEP_UP, SEAL, SPOOL, SYNC, WRITE, CaptureFaults
from metering.engine_pool import EnginePool
from metering.engine_watch import POLL_S, EngineWatch
from metering.event import Event
from metering.exchange import Exchange
from metering.http_refusal import Refused
from metering.lane import Lane
from metering.lane_state import interrupted
from metering.refusal import Unavailable
from metering.sidecar_options import SidecarOptions
from metering.spool import Backlog, Spool

_log = logging.getLogger(__name__)
_SEAL_LOOK_S = 0.25
_SPOOL_LOOK_S = 2.0
#: What the lane raises when its disk fails.
_DISK = (OSError, Unavailable)


class LaneCapture:
    """What one sidecar writes down. Its methods are the event loop's; its threads sync, seal and look at the spool."""

    def __init__(
        self,
        options: SidecarOptions,
        lane: Lane,
        pools: Sequence[EnginePool],
        clock: Callable[[], float],
    ) -> None:
        """Refusal `bad_engine_state` if what is kept of the engine's lines cannot be read."""
        self._options = options
        self._lane = lane
        self._spool = Spool(lane.spool)
        self._serves = options.when_full == "serve-unmetered"
        self._unwritten: deque[tuple[Event, int | None]] = deque()
        self._watched: list[Event] = []
        self._faults = CaptureFaults(
            "requests are served unmetered" if self._serves else "requests are refused"
        )
        self.watch: EngineWatch | None = None
        if options.engine_lines is not None or options.counters_s is not None:
            self.watch = EngineWatch(
                lane,
                pools,
                clock,
                folder=options.engine_lines,
                counters_s=options.counters_s,
            )
        self._witness = self.watch if options.engine_lines is not None else None
        #: Set by a bug: drain, and let the process end with a failure.
        self.failed = asyncio.Event()
        #: Requests served unmetered since the start.
        self.unmetered = 0
        self.backlog = Backlog(0, 0, None)
        # Sealing takes longer than a group's fsync may wait for it.
        self._sync_thread = ThreadPoolExecutor(1, thread_name_prefix="lane-sync")
        self._seal_thread = ThreadPoolExecutor(1, thread_name_prefix="lane-seal")
        self._loops: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Take up what the last process left, and begin to sync and to seal."""
        self._take_up_left()
        await self.look_at_spool()
        if self.watch is not None:
            await self.watch.start()
        works = [
            (self._options.sync_s, self.sync),
            (_SEAL_LOOK_S, self.seal),
            (_SPOOL_LOOK_S, self.look_at_spool),
        ]
        if self.watch is not None:
            works += [(POLL_S, self.join), (POLL_S, self.look_at_engines)]
        self._loops = [asyncio.create_task(self.repeat(pause_s, work)) for pause_s, work in works]

    async def close(self) -> None:
        """No request runs any more: join and write what is left, and close the lane.

        OSError or Unavailable if the lane cannot be closed for its disk; what is written is found at its next start.
        """
        for task in self._loops:
            task.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        try:
            self._write_waiting()
            if self.watch is not None:
                await self.watch.drain()
        except _DISK as error:
            self._faults.stands(WRITE, error)
        except Exception as error:
            self._give_up("join at its end", error)
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._seal_thread, self._lane.close)
        finally:
            self._sync_thread.shutdown()
            self._seal_thread.shutdown()

    @property
    def faults(self) -> tuple[str, ...]:
        """The causes that stand, for which requests are refused or served unmetered."""
        return self._faults.standing

    @property
    def stuck(self) -> bool:
        """Nothing new can be written down: metered requests are refused, or served unmetered."""
        return bool(self._faults) or bool(self._unwritten) or self.failed.is_set()

    # -- what connections ask for -----------------------------------------------------------------------------------

    def admit(self, exchange: Exchange) -> Refused | None:
        """Write down that a request goes to the engine, or why it may not; it may be told to go unmetered."""
        intent = exchange.intent
        assert intent is not None
        if not self.stuck:
            try:
                self._lane.intent(intent)
            except _DISK as error:
                self._write_failed(error)
            else:
                self._faults.ends(WRITE)
                if self._witness is not None:
                    self._witness.joiner.opened(intent.request)
                if exchange.background:
                    self.keep(interrupted(intent, intent.time_us, "background_lost"))
                return None
        if self._serves and self._count_unmetered():
            exchange.serve_unmetered()
            return None
        return self._faults.refusal

    def keep(self, event: Event) -> None:
        """Tell the lane what is known of a response that goes on in the background, for the next start to find."""
        try:
            self._lane.told(event)
        except _DISK as error:
            self._write_failed(error)  # what it was told before stands

    def take_watched(self) -> list[Event]:
        """What the last process told of the responses that it watched, once. Each is still to have its event."""
        watched, self._watched = self._watched, []
        return watched

    def write_down(self, event: Event, lines: int | None) -> bool:
        """Write an outcome; false if it has to wait and its answer must not be completed.

        `lines`: how many the engine's witness writes of it, None: not known.
        """
        if self._unwritten:
            self._unwritten.append((event, lines))
            return self._serves
        try:
            self._book(event, lines)
        except _DISK as error:
            self._write_failed(error)
            self._unwritten.append((event, lines))
            return self._serves
        except Exception as error:
            self._give_up("write an outcome", error)
            return False
        self._faults.ends(WRITE)
        return True

    def _book(self, event: Event, lines: int | None) -> None:
        watch = self.watch
        if watch is None:
            self._lane.outcome(event)
        elif self._witness is None:
            self._lane.outcome(event)
            watch.spans.event(event)
        elif lines == 0:
            event = event._replace(generated_tokens=0)
            self._lane.outcome(event)
            watch.joiner.closed(event.request)
        else:
            self._lane.told(event)
            watch.told(event, lines)

    def _count_unmetered(self) -> bool:
        if self.failed.is_set():
            return False
        try:
            self._lane.count_unmetered(self._lane.now_us())
        except _DISK:
            return False
        self.unmetered += 1
        return True

    # -- what goes on beside ----------------------------------------------------------------------------------------

    async def repeat(self, pause_s: float, work: Callable[[], Awaitable[None]]) -> None:
        """Do some work again and again; a bug in it is an alarm."""
        while True:
            await asyncio.sleep(pause_s)
            try:
                await work()
            except Exception as error:
                # The loop goes on: what can still be brought to the disk while the sidecar drains, is.
                self._give_up(work.__name__.strip("_").replace("_", " "), error)

    async def sync(self) -> None:
        """Put everything on disk, and write what waits."""
        loop = asyncio.get_running_loop()
        try:
            # First: after a failure it is the sync that makes the lane take writes again.
            await loop.run_in_executor(self._sync_thread, self._lane.sync)
            self._write_waiting()
        except _DISK as error:
            self._faults.stands(SYNC, error)
        else:
            self._faults.ends(SYNC)
            self._faults.eases(WRITE)
        waiting = self._lane.unsealed
        self._hold(KEEP_UP, waiting >= self._options.unsealed_events, f"{waiting} events wait")

    async def seal(self) -> None:
        """Seal as long as a seal is due."""
        loop = asyncio.get_running_loop()
        try:
            while self._lane.seal_due():
                if await loop.run_in_executor(self._seal_thread, self._lane.seal) is None:
                    break
        except _DISK as error:
            self._faults.stands(SEAL, error)
        else:
            self._faults.ends(SEAL)

    async def look_at_spool(self) -> None:
        """How much waits for intake."""
        loop = asyncio.get_running_loop()
        self.backlog = await loop.run_in_executor(self._seal_thread, self._spool.backlog)
        full = self.backlog.bytes >= self._options.spool_limit_bytes
        self._hold(SPOOL, full, f"{self.backlog.bytes} bytes wait for intake")

    async def join(self) -> None:
        """Read the engine's lines, and write the events that are whole with them."""
        assert self.watch is not None
        try:
            await self.watch.poll()
        except _DISK as error:
            self._faults.stands(JOIN, error)
        else:
            self._faults.ends(JOIN)

    async def look_at_engines(self) -> None:
        """Read the engines' counters where it is time."""
        assert self.watch is not None
        try:
            await self.watch.look_if_due()
        except _DISK as error:
            self._faults.stands(JOIN, error)

    def _hold(self, cause: str, stands: bool, why: str) -> None:
        if stands:
            self._faults.stands(cause, why)
        else:
            self._faults.ends(cause)

    def _take_up_left(self) -> None:
        """What the last process left open: told, it is joined or ends so; of the rest only the engine may know more."""
        told, orphans = self._lane.left_open()
        now_us = self._lane.now_us()
        self._watched = [event for event in told if is_watched(event)]
        told = [event for event in told if not is_watched(event)]
        events = [*told, *(interrupted(intent, now_us, "sidecar_killed") for intent in orphans)]
        if self._witness is not None:
            self._witness.take_up([event.request for event in (*events, *self._watched)])
            for event in told:
                self._witness.told(event, None)
            events = events[len(told) :]
        self._unwritten.extend((event, None) for event in events)
        try:
            self._write_waiting()
        except _DISK as error:
            self._write_failed(error)

    def _write_waiting(self) -> None:
        while self._unwritten:
            try:
                self._book(*self._unwritten[0])
            except _DISK:
                raise
            except Exception as error:
                # It never will be written; those behind it can.
                self._give_up("write an outcome", error)
            self._unwritten.popleft()

    def _write_failed(self, error: Exception) -> None:
        self._faults.stands(WRITE, error)

    def _give_up(self, what: str, error: Exception) -> None:
        """A bug: refuse from here on, and let whoever runs the sidecar end it. Said once; never the event's content."""
        if not self.failed.is_set():
            _log.critical("capture failed to %s (%s): the sidecar stops", what, type(error).__name__)
        self.failed.set()
