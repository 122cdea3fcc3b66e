"""Watching the engine from its own side: its lines, its counters, and what they add to the lane.

The join, the spans and the following of files are elsewhere and know no clock; here is what has a life. Every 50 ms new
lines are read (in a thread, POLL_LINES at a time), joined, and what is due is written into the lane with one write. Every
10 s, and a second after the last request ended, the engines' counters are read; spans that end become facts of the lane.

What must outlive the process is in one file (engine_state.py), replaced as a whole about once a second: a line that was
joined before a kill finds no open request after it. A start without the file begins at the end of the lines there are.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from metering.durable import replace_file
from metering.engine_counters import Look
from metering.engine_join import PATIENCE_S, Due, Joiner
from metering.engine_lacking import LackingLines
from metering.engine_lines import Faults, Freed, SteppedAside, is_unmetered, request_id
from metering.engine_pool import EnginePool
from metering.engine_request import RequestLines
from metering.engine_scrape import scrape
from metering.engine_span import Spans
from metering.engine_state import STATE_FILE, EngineState, series_of
from metering.engine_tail import EngineLines, Found
from metering.event import Event
from metering.fact import Serves, fact_line
from metering.lane import Lane
from metering.refusal import Unavailable
from metering.said_once import SaidOnce

POLL_S = 0.05
#: So many lines at a time: reading them holds up no request for more than a millisecond.
POLL_LINES = 64
COMMIT_S = 1.0
IDLE_LOOK_S = 1.0
LAST_LOOK_S = 0.2
REMOVE_EVERY_S = 60.0
#: Files of lines that were read to their end go after this; other lanes of the node have read them by then.
REMOVE_AFTER_S = 3600.0

_METRICS_S = 5.0
_log = logging.getLogger(__name__)


class EngineWatch:
    """The engine's side of one lane. `start` it, call `poll` every POLL_S and `look_if_due` as often, then `drain`.

    What is told, opened and closed comes from the event loop's thread, as does all else.
    """

    def __init__(
        self,
        lane: Lane,
        pools: Sequence[EnginePool],
        clock: Callable[[], float],
        *,
        folder: Path | None,
        counters_s: float | None,
    ) -> None:
        """`folder` is that of the engine's lines, None where it has no witness; `counters_s` the pause between two
        looks at its counters, None for none. Refusal `bad_engine_state` if the lane's folder holds another state."""
        self.joiner = Joiner()
        self.spans = Spans(lane.now_us(), witness=folder is not None, series=series_of(lane))
        self.lines_read = self.lines_missing = 0
        self._lane = lane
        self._pools = pools
        self._state_file = lane.path / STATE_FILE
        self._clock = clock
        self._counters_s = counters_s
        self._lines = None if folder is None else EngineLines(folder)
        self._held: dict[bytes, RequestLines] = {}
        self._lacking = LackingLines(self.joiner.amender)
        self._pending: deque[tuple[int, str]] = deque()
        self._unwritten: deque[Due] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine-lines")
        self._busy = asyncio.Lock()
        self._reading: asyncio.Future[list[Found]] | None = None
        self._dirty = True
        self._say = SaidOnce(_log)
        self._looked_s = self._committed_s = self._removed_s = self._active_s = clock()
        if not EngineState.read(self._state_file, self._take) and self._lines is not None:
            self._lines.skip()
        if self._lines is not None:
            self._lacking.take_last(lane.last_written, clock())

    @property
    def has_witness(self) -> bool:
        """Whether told requests are to be joined with lines."""
        return self._lines is not None

    def take_up(self, requests: Sequence[bytes]) -> None:
        """Requests that the last process left open, with the lines that it had read of them."""
        now_s = self._clock()
        for request in requests:
            self.joiner.opened(request)
        for request, lines in self._held.items():
            self.joiner.hold(request, lines, now_s)
        self._held.clear()

    async def start(self) -> None:
        """Where nothing was kept of an engine, a span begins here: look at it before the first request."""
        if not self.spans.knows(pool.address.name.decode() for pool in self._pools):
            for _ in range(2 if self._counters_s else 0):
                await self.look(timeout_s=1.0)
        await self._commit()

    def told(self, event: Event, lines: int | None) -> None:
        """What HTTP told is in the lane; its event follows when the lines are there."""
        self.joiner.told(event, lines, self._clock())

    # -- lines ------------------------------------------------------------------------------------------------------

    async def poll(self) -> None:
        """Read what has come, write down what is due, keep the place. OSError and Unavailable where the disk refuses:
        what is due then is tried again with the next call."""
        async with self._busy:
            while await self._read_some():
                self._write(self._due())
            self._write(self._due())
            while self._pending and self._pending[0][0] <= self._lane.facts_published:
                self._pending.popleft()
                self._dirty = True
            if self._dirty and self._clock() - self._committed_s >= COMMIT_S:
                await self._commit()
            if self._clock() - self._removed_s >= REMOVE_EVERY_S:
                await self._remove_read()

    async def _read_some(self) -> bool:
        """Take in the next lines; whether there may be more."""
        lines = self._lines
        if lines is None:
            return False
        if self._reading is None:
            loop = asyncio.get_running_loop()
            self._reading = loop.run_in_executor(self._thread, lines.read_some, POLL_LINES)
        try:
            # Whoever waits may be cancelled; what was read is for the next one then.
            found = await asyncio.shield(self._reading)
        except OSError as error:
            self._reading = None
            self._say(f"the engine's lines cannot be read: {error.strerror}")
            return False
        self._reading = None
        now_s = self._clock()
        for each in found:
            said = each.line.said
            self.spans.line(each.stream, said)
            if isinstance(said, Freed):
                request = None if is_unmetered(said.external) else request_id(said.external)
                if request is not None:
                    self.joiner.line(request, said, now_s)
            elif isinstance(said, SteppedAside):
                self._say(f"the engine's witness stepped aside: {said.why}")
            elif isinstance(said, Faults):
                self._say(f"the engine's witness failed {said.count} times, last in {said.what}")
        for fault in lines.take_faults():
            self._say(f"engine's lines: {fault}")
        missing = lines.take_missing()
        self.spans.missing(missing)
        self.lines_missing += missing
        self.lines_read += len(found)
        if found:
            self._dirty = True
            self._active_s = now_s
        return len(found) >= POLL_LINES

    def _due(self, *, all_of_it: bool = False) -> Due:
        return self.joiner.due(self._clock(), now_us=self._lane.now_us(), all_of_it=all_of_it)

    def _write(self, due: Due) -> None:
        """Write down what is due, and before it what could not be written earlier."""
        if due:
            self._unwritten.append(due)
        while self._unwritten:
            first = self._unwritten[0]
            if first.joined:
                self._lane.joined([joined for _, joined in first.joined])
            self.spans.due(Due(joined=first.joined), self.joiner.engine_model)
            first.joined.clear()
            if first.amendments:
                self._lane.outcomes([amendment.event for amendment in first.amendments])
            self.spans.due(first, self.joiner.engine_model)
            self._unwritten.popleft()
            self._dirty = True
            self._active_s = self._clock()
        if names := self.joiner.take_names():
            self._lane.add_facts([fact_line(Serves(model, name)) for model, name in names])

    # -- counters ---------------------------------------------------------------------------------------------------

    async def look_if_due(self) -> None:
        """Look at the counters where it is time: every `counters_s`, and each second while a span could end."""
        if self._counters_s is None:
            return
        now_s = self._clock()
        passed_s = now_s - self._looked_s
        pause_s = min(IDLE_LOOK_S, self._counters_s)
        idle = self._settled and now_s - self._active_s >= pause_s
        if passed_s >= self._counters_s or (passed_s >= pause_s and idle and self.spans.begun):
            await self.look()

    async def look(self, *, timeout_s: float = _METRICS_S) -> None:
        """Read every engine's counters, and end the span if this is a quiet point."""
        asked_us, settled = self._lane.now_us(), self._settled
        scrapes = await scrape(self._pools, timeout_s=timeout_s, say=self._say)
        await self.poll()  # what came before the counters were read is read before they are judged
        self.spans.speaker = self._lane.speaker()
        spans = self.spans.look(Look(scrapes, asked_us, self._in_air, settled and self._settled))
        self._looked_s = self._clock()
        self._dirty = True
        if spans:
            self._add_pending([fact_line(span) for span in spans])
        self.joiner.had_nothing(self.spans.take_unseen())

    @property
    def _in_air(self) -> int:
        return self._lane.opened - self._lane.closed

    @property
    def _settled(self) -> bool:
        return self.joiner.idle and not self._unwritten if self.has_witness else self._in_air == 0

    def _add_pending(self, lines: list[str]) -> None:
        last = self._lane.add_facts(lines)
        self._pending.extend(zip(range(last - len(lines) + 1, last + 1), lines, strict=True))

    # -- what outlives the process ----------------------------------------------------------------------------------

    def _take(self, state: EngineState) -> None:
        self.spans.take_json(state.spans)
        self._held = state.held
        self._lacking.take(state.lacking, self._clock())
        if self._lines is not None and state.lines is not None:
            self._lines.go_on_at(state.lines)
        elif self._lines is not None:
            self._lines.skip()
        self._add_pending(list(state.pending))

    async def _commit(self) -> bool:
        """Keep the state, once the lane has on disk what was made of it; whether that was done.

        So a power cut leaves no line behind that is in no event. A disk that refuses is asked again: an older state is
        as true, only longer to catch up.
        """
        if self._unwritten:
            return False
        state = EngineState(
            None if self._lines is None else self._lines.place(),
            dict(self.joiner.held()),
            self.spans.to_json(),
            tuple(line for _, line in self._pending),
            self._lacking.texts(),
        )
        content = state.to_bytes()
        self._dirty = False
        self._committed_s = self._clock()

        def keep() -> None:
            self._lane.sync()
            replace_file(self._state_file, content)

        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, keep)
        except (OSError, Unavailable) as error:
            self._dirty = True
            self._say(f"the state of the engine's lines cannot be kept: {error}")
            return False
        return True

    async def _remove_read(self) -> None:
        self._removed_s = self._clock()
        lines, loop = self._lines, asyncio.get_running_loop()
        if lines is None or not await self._commit():
            return
        try:
            await loop.run_in_executor(self._thread, lambda: lines.remove_read(unchanged_s=REMOVE_AFTER_S))
        except OSError as error:
            self._say(f"files of the engine's lines that were read cannot be removed: {error.strerror}")

    async def drain(self) -> None:
        """No request comes any more: join what can be joined within PATIENCE_S, write the rest as it was told."""
        deadline_s = self._clock() + PATIENCE_S
        try:
            await self.poll()
            while self.joiner.waiting and self._clock() < deadline_s:
                await asyncio.sleep(POLL_S / 2)
                await self.poll()
            self._write(self._due(all_of_it=True))
            for _ in range(3):
                if self._counters_s is not None and self.spans.begun:
                    await asyncio.sleep(min(LAST_LOOK_S, self._counters_s))
                    await self.look(timeout_s=1.0)
            await self._commit()
        finally:
            self._thread.shutdown()
