"""A lane: one writer on a node, its write-ahead file and its chain of seals.

A request is written down twice: `intent` before the engine hears of it, `outcome` before the client has the whole
answer. Where the engine's lines are waited for it is thrice: `told` before the client has the whole answer, and
`joined` or `outcomes`, many with one write, when the engine's figures are there. All have been given to the kernel by
write(2) when they return, so a killed process loses nothing; `sync`, called every 50 ms, puts them on disk (sync="each":
every write does). `seal` turns what is on disk into batches in the spool, and into an empty one, a heartbeat, when 10 s
have passed without an event: it says that nothing happened. What is no request's usage travels in seals as facts.

Numbers. Events are numbered from 1 within an epoch, seals from 0; an epoch is 128 random bits, new at every start.
Times rise strictly over the whole life of a lane: an event that claims a time not above the one before is written one
microsecond above it. So `complete_to` of a seal can be the present when nothing is left unsealed, and one microsecond
below the next event's time otherwise, and every later time is above it. `opened` and `closed` count requests over the
lane's life; opened − closed are in the air.

Starting again after a kill, in this order, each line on disk before the next begins:

    1. the lane's folder is locked, a half published batch is finished or forgotten (lane_folder.py)
    2. the newest whole segment is read; a torn tail is set aside as `torn-<segment>` and named in a warning
    3. its events that no seal holds are sealed under their old epoch
    4. a new segment opens a new epoch, naming the lane's last seal; it carries one event for each request that is
       still open: as it was told, else `interrupted`; it appears by one rename, with all of them or not at all
    5. older segments are deleted

A kill between any two lines, or within one, leads to the same place: 3 seals only what the head does not cover yet, 4
makes a segment that takes over as a whole, 5 deletes what nobody reads. A start after a clean stop is the same road.

When wall clock and monotonic clock have come apart by more than 2 s the lane warns and opens a new epoch at its next
seal: all events so far are sealed under the old one, open intents are carried over. A step ahead is doubted first
(clock.py): until it is believed, which begins another epoch, the lane's times go on from before it.

Measured on one core: intent 2.8 µs, outcome 4.5 µs, told 4.0 µs and joined 1.9 µs each; a seal of 10,000 events 28 ms.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from metering.batch import MAX_EVENTS, SealedBatch
from metering.clock import Clock, ClockChange, SteadyClock, SystemClock
from metering.event import EARLIEST_TIME_US, END_OF_TIME_US
from metering.lane_folder import LaneFolder, disk_failures
from metering.lane_recovery import LastWritten, last_written, recovered
from metering.lane_sealer import Sealer
from metering.lane_state import LaneState
from metering.lane_warnings import (
    Warn,
    clock_back,
    clock_stepped,
    lane_ahead,
    lane_waits,
    log_warning,
    segment_stays,
)
from metering.lane_writer import AHEAD_US, LaneWriter
from metering.refusal import Refusal, Unavailable
from metering.reseal import check_not_resealing
from metering.steps import step
from metering.told import Joined
from metering.unmetered_reserve import UnmeteredReserve
from metering.write_ahead import Intent, Segment
from metering.write_ahead_file import SEGMENT_BYTES, WriteAhead, newest_segment, set_aside

__all__ = ["Intent", "Joined", "Lane", "Warn"]


class Lane(LaneWriter):
    """The one writer of a lane. What LaneWriter has may run beside `sync` and `seal` in other threads."""

    def __init__(
        self,
        folder: LaneFolder,
        state: LaneState,
        write_ahead: WriteAhead,
        reserve: UnmeteredReserve,
        key: Ed25519PrivateKey,
        clock: SteadyClock,
        *,
        keep_open: bool,
        warn: Warn,
        segment_bytes: int,
    ) -> None:
        super().__init__(folder, state, write_ahead, reserve, clock)
        self._sealer = Sealer(folder, state, self._append, key, clock, reserve)
        self._keep_open = keep_open
        self._segment_bytes = segment_bytes
        self._warn = warn
        # `_sealing` keeps seal and close apart, and is taken before the writer's two locks. So a sync never waits for
        # a seal.
        self._sealing = threading.RLock()
        self._is_open = True
        self._has_begun = False
        self._found: tuple[Path, Segment] | None = None
        #: The newest events of the last process.
        self.last_written = LastWritten()

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        operator: str,
        node: str,
        lane: str,
        key: Ed25519PrivateKey,
        clock: Clock | None = None,
        sync: Literal["group", "each"] = "group",
        keep_open: bool = False,
        wait_for_disk: bool = False,
        warn: Warn = log_warning,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> Lane:
        """Take the lane `lane` of `operator`/`node` in the spool folder `folder`, recover it, open a new epoch.

        With `keep_open` the requests that the last epoch left open stay open: `left_open` names them, and the caller
        ends each. With `wait_for_disk` a disk that has no room for the new epoch is no reason not to open: the lane
        takes nothing, but counts what is served unmetered, until a `sync` succeeds in beginning it.

        Refusals: `lane_in_use`, `reseal_unfinished`, `lane_ended` (its last seal was final), `lane_state` (write-ahead file
        and head do not belong together), `write_ahead_damaged`, `unmetered_damaged`, `clock_wrong` (the wall clock lies
        outside 2020 to 2099). Unavailable `write_ahead_failed`, `spool_failed` if the disk refuses.
        """
        steady = SteadyClock(clock or SystemClock())
        if not EARLIEST_TIME_US <= steady.wall_us() < END_OF_TIME_US:
            raise Refusal(
                "clock_wrong", "the clock lies outside 2020 to 2099", remedy="set the machine's clock"
            )
        with ExitStack() as undo, disk_failures(folder):
            taken = LaneFolder.open(folder, operator, node, lane)
            undo.callback(taken.close)
            check_not_resealing(taken)
            number, path, segment = newest_segment(taken.path)
            state = recovered(segment, taken.head, str(taken.path))
            reserve = UnmeteredReserve.open(taken.path, taken.head.seal if taken.head else None)
            undo.callback(reserve.close)
            write_ahead = WriteAhead(taken.path, number, each=sync == "each")
            self = cls(
                taken,
                state,
                write_ahead,
                reserve,
                key,
                steady,
                keep_open=keep_open,
                warn=warn,
                segment_bytes=segment_bytes,
            )
            if segment and path:
                self._found = path, segment
                self.last_written = last_written(segment)
            try:
                self._begin()
            except Unavailable as error:
                if not wait_for_disk:
                    raise
                warn(*lane_waits(error))
            undo.pop_all()
        return self

    def add_facts(self, facts: Sequence[str]) -> int:
        """Queue facts (metering/fact.py, a line each) for the next seals; a seal with facts is due after a second.

        They are in published seals once `facts_published` has reached what this returns. A kill forgets those that
        wait: whoever added them does so again.
        """
        return self._sealer.facts.add(facts)

    @property
    def facts_published(self) -> int:
        """How many of the facts that were added since the lane was opened are in published seals, the first first."""
        return self._sealer.facts.published

    @property
    def facts_waiting(self) -> int:
        """Facts that no published seal has yet."""
        return len(self._sealer.facts)

    def take_key(self, key: Ed25519PrivateKey) -> None:
        """Sign with this key from the next seal on; the chain goes on."""
        with self._sealing:
            self._sealer.take_key(key)

    def seal_due(self) -> bool:
        """Whether `seal` would do something: 10,000 events, 10 s since the last seal, facts, or clocks that came apart.

        900 kB of body are out of reach of 10,000 ordinary events; `seal` takes fewer of extraordinary ones.
        """
        return self.unsealed >= MAX_EVENTS or self._sealer.batch_due() or self._clock.look() is not None

    def seal(self) -> SealedBatch | None:
        """Put events on disk and seal up to 10,000 of them into the spool, with the facts that wait.

        Without any event, an empty batch if one is due (10 s passed since the last seal, or 1 s while facts wait), else
        None. When the clocks came apart everything is sealed and a new epoch begun; the newest batch is returned.
        """
        with self._sealing:
            change = self._clock.look()
            if change is ClockChange.UNDONE:
                self._clock.settle(change)
                self._warn(*clock_back())
            elif change is not None:
                return self._follow_clock(change)
            self.sync()
            if self._durable[0] <= self._state.sealed and not self._sealer.batch_due():
                return None
            batch = self._sealer.seal(self._durable)
            self._rotate_if_large()
            return batch

    def close(self, *, final: bool = False) -> None:
        """Seal what is left and let go of the lane. Requests still open get their event at its next start.

        With `final` they do so now, and a final seal ends the lane for ever.
        """
        with self._sealing, self._syncing, self._append:
            if not self._is_open:
                return
            try:
                self._mend_from_us = 0  # there is no later try
                self.sync()
                if final:
                    for frame in list(self._state.open.values()):
                        self._take_all([self._state.ended(frame, self._clock.wall_us(), "sidecar_stopped")])
                    self.sync()
                self._sealer.seal_all(self._durable)
                if final:
                    self._sealer.seal(self._durable, final=True)
            finally:
                # What could not be sealed is in the write-ahead file, and is sealed at the next start.
                self._is_open = False
                self._write_ahead.close()
                self._reserve.close()
                self._folder.close()

    def _mend(self) -> None:
        if self._has_begun:
            super()._mend()
        else:
            self._begin()

    def _begin(self) -> None:
        """Begin the lane's first epoch of this start: lines 2 to 5 of the module's text, as far as they are not done."""
        self._reserve.sync()
        if self._found:
            path, segment = self._found
            with disk_failures(path):
                self._write_ahead.sync_found(path)
                if segment.unread:
                    self._warn("torn_tail", set_aside(path, segment))
            self._found = None
        self._sealer.seal_events(self._durable)
        self._begin_epoch(end_open=not self._keep_open)
        self._has_begun = True

    def _begin_epoch(self, *, end_open: bool) -> None:
        """Open a new epoch in a new segment. Every event so far is sealed; open requests are ended or carried over."""
        with self._append:
            with self._state.beginning_epoch(os.urandom(16)):
                if end_open:
                    self._state.end_open(self._clock.wall_us(), "sidecar_killed")
                self._begin_segment(durable=True)
            self._reach_disk()
        step("interrupted")
        self._write_ahead.remove_old()
        ahead_us = self._state.floor_us - self._clock.wall_us()
        if ahead_us > AHEAD_US:
            self._warn(*lane_ahead(ahead_us))

    def _rotate_if_large(self) -> None:
        """Go on in a new segment if this one is large; the old one goes when the new one is on disk."""
        if self._file.size < self._segment_bytes:
            return
        try:
            with self._syncing, self._append:
                self._begin_segment(durable=self._each)
        except Unavailable as error:
            if self._file.is_broken:
                raise
            self._warn(*segment_stays(error))
            return
        step("rotate")
        self.sync()
        self._write_ahead.remove_old()

    def _follow_clock(self, change: ClockChange) -> SealedBatch | None:
        """Begin a new epoch because the wall clock was stepped; a step back or believed is the time from then on."""
        with self._syncing, self._append:
            self.sync()
            batch = self._sealer.seal_events(self._durable)
            self._warn(*clock_stepped(change, self._clock.apart_us))
            self._begin_epoch(end_open=False)
            self._clock.settle(change)
        return batch
