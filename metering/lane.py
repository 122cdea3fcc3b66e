"""A lane: one writer on a node, its write-ahead file and its chain of seals.

A request is written down twice: `intent` before the engine hears of it, `outcome` before the client has the whole
answer. Both have been given to the kernel by write(2) when they return, so a killed process loses nothing; `sync`,
called every 50 ms, puts them on disk (sync="each": every write does). `seal` turns what is on disk into batches in the
spool, and into an empty one, a heartbeat, when 10 s have passed without an event: it says that nothing happened.

Numbers. Events are numbered from 1 within an epoch, seals from 0; an epoch is 128 random bits, new at every start.
Times rise strictly over the whole life of a lane: an event that claims a time not above the one before is written one
microsecond above it. So `complete_to` of a seal can be the present when nothing is left unsealed, and one microsecond
below the next event's time otherwise, and every later time is above it. `opened` and `closed` count requests over the
lane's life; opened − closed are in the air.

Starting again after a kill, in this order, each line on disk before the next begins:

    1. the lane's folder is locked, a half published batch is finished or forgotten (lane_folder.py)
    2. the newest whole segment is read; a torn tail is set aside as `torn-<segment>` and named in a warning
    3. its events that no seal holds are sealed under their old epoch
    4. a new segment opens a new epoch, naming the lane's last seal; it carries one `interrupted` event for each
       intent that is still open: it appears by one rename, with all of them or not at all
    5. older segments are deleted

A kill between any two lines, or within one, leads to the same place: 3 seals only what the head does not cover yet, 4
makes a segment that takes over as a whole, 5 deletes what nobody reads. A start after a clean stop is the same road.

When wall clock and monotonic clock have come apart by more than 2 s the lane warns and opens a new epoch at its next
seal: all events so far are sealed under the old one, open intents are carried over. A step ahead is doubted first
(clock.py): until it is believed, which begins another epoch, the lane's times go on from before it.

Measured on one core: intent and outcome together 7 µs (10 beside busy neighbours) with two write(2) calls; a seal of
10,000 events 25 ms.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from metering.batch import MAX_EVENTS, SealedBatch
from metering.clock import Clock, ClockChange, SteadyClock, SystemClock
from metering.event import EARLIEST_TIME_US, END_OF_TIME_US, Event
from metering.event_check import check_event
from metering.lane_folder import LaneFolder
from metering.lane_state import LaneState, interrupted, recovered, seal_leaves
from metering.refusal import Refusal
from metering.steps import step
from metering.write_ahead import Intent, event_frame, intent_frame
from metering.write_ahead_file import SEGMENT_BYTES, WriteAhead, newest_segment, set_aside

__all__ = ["Intent", "Lane", "Warn"]

SEAL_EVERY_US = 10_000_000
AHEAD_US = 300_000_000

#: Told of what an operator should know: a stable word and a sentence.
Warn = Callable[[str, str], None]

_CLOCK_WORDS = {
    ClockChange.DOUBTED: "the wall clock was stepped by {:+.1f} s, which is not believed before it has stood for 5 minutes",
    ClockChange.BELIEVED: "the wall clock has stood for 5 minutes where it was stepped to, by {:+.1f} s, and is believed",
    ClockChange.BACK: "the wall clock was stepped by {:+.1f} s",
}

_log = logging.getLogger(__name__)


def _log_warning(code: str, what: str) -> None:
    _log.warning("%s: %s", code, what)


class Lane:
    """The one writer of a lane. `intent` and `outcome` may run beside `sync` and `seal` in other threads."""

    def __init__(
        self,
        folder: LaneFolder,
        state: LaneState,
        write_ahead: WriteAhead,
        key: Ed25519PrivateKey,
        clock: SteadyClock,
        *,
        each: bool,
        warn: Warn,
        segment_bytes: int,
    ) -> None:
        self._folder = folder
        self._state = state
        self._write_ahead = write_ahead
        self._segment_bytes = segment_bytes
        self._key = key
        self._clock = clock
        self._each = each
        self._warn = warn
        # `_append` guards what intent and outcome touch, for microseconds; `_syncing` keeps the file where it is while
        # it is put on disk; `_sealing` keeps seal and close apart. Who needs several takes them from the last to the
        # first. So a sync never waits for a seal, nor an intent for either.
        self._append = threading.RLock()
        self._syncing = threading.RLock()
        self._sealing = threading.RLock()
        self._is_open = False
        self._durable = (state.next_sequence - 1, state.opened)
        self._last_seal_us = clock.monotonic_us()

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
        warn: Warn = _log_warning,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> Lane:
        """Take the lane `lane` of `operator`/`node` in the spool folder `folder`, recover it, open a new epoch.

        Refusals: `lane_in_use`, `lane_ended` (its last seal was final), `lane_state` (write-ahead file and head do
        not belong together), `write_ahead_damaged`, `clock_wrong` (the wall clock lies outside 2020 to 2099).
        """
        steady = SteadyClock(clock or SystemClock())
        if not EARLIEST_TIME_US <= steady.wall_us() < END_OF_TIME_US:
            raise Refusal(
                "clock_wrong", "the clock lies outside 2020 to 2099", remedy="set the machine's clock"
            )
        taken = LaneFolder.open(folder, operator, node, lane)
        try:
            number, path, segment = newest_segment(taken.path)
            state = recovered(segment, taken.head, str(taken.path))
            self = cls(
                taken,
                state,
                WriteAhead(taken.path, number),
                key,
                steady,
                each=sync == "each",
                warn=warn,
                segment_bytes=segment_bytes,
            )
            if segment and path and segment.unread:
                warn("torn_tail", set_aside(path, segment))
            self._seal_all()
            self._begin_epoch(interrupt=True)
        except BaseException:
            taken.close()
            raise
        return self

    def now_us(self) -> int:
        """The time that the lane goes by, in µs since 1970: the wall clock's, unless that was just stepped ahead."""
        return self._clock.wall_us()

    @property
    def epoch(self) -> str:
        """The epoch as 32 hex digits."""
        return self._state.epoch.hex()

    @property
    def opened(self) -> int:
        """Requests opened over the lane's life."""
        return self._state.opened

    @property
    def closed(self) -> int:
        """Requests closed over the lane's life."""
        return self._state.closed

    @property
    def unsealed(self) -> int:
        """Events that no seal holds yet."""
        return len(self._state.unsealed)

    def intent(self, intent: Intent) -> None:
        """Write down that a request is about to reach the engine; it will have exactly one event from here on.

        Unavailable `write_ahead_failed` if it could not be written: then the request must not be sent.
        """
        written = intent_frame(intent)
        with self._append:
            self._write(written)
            self._state.take_intent(intent)
            if self._each:
                self._durable = (self._state.next_sequence - 1, self._state.opened)
        step("intent")

    def outcome(self, event: Event) -> int:
        """Write down what became of a request, or an amendment or void; returns the event's sequence number.

        A usage event closes the intent with its request id. Its time is raised above the lane's last one if it is
        not, and is the lane's present if it lies more than 5 minutes ahead of it: it would push every later time of the
        lane ahead with it. Refusal `bad_event` for an event that could never be sealed, Unavailable as for `intent`.
        """
        check_event(event)
        now_us = self._clock.wall_us()
        with self._append:
            state = self._state
            sequence = state.next_sequence
            leaf = state.pack(event, event.time_us if event.time_us <= now_us + AHEAD_US else now_us)
            self._write(event_frame(leaf))
            state.take_event(leaf)
            if self._each:
                self._durable = (sequence, state.opened)
        step("outcome")
        return sequence

    def sync(self) -> None:
        """Put everything written so far on disk. Unavailable `write_ahead_failed` if that fails: for good."""
        with self._syncing:
            with self._append:
                reached = (self._state.next_sequence - 1, self._state.opened)
            if reached == self._durable and self._write_ahead.settled:
                return
            self._write_ahead.fsync()
            with self._append:
                self._durable = max(self._durable, reached)
            step("fsync")

    def seal_due(self) -> bool:
        """Whether `seal` would do something: 10,000 events, 10 s since the last seal, or clocks that came apart.

        900 kB of body are out of reach of 10,000 ordinary events; `seal` takes fewer of extraordinary ones.
        """
        return self.unsealed >= MAX_EVENTS or self._heartbeat_due() or self._clock.look() is not None

    def seal(self) -> SealedBatch | None:
        """Put events on disk and seal up to 10,000 of them into the spool.

        Without any, an empty batch (a heartbeat) if 10 s have passed since the last seal, else None. When the clocks
        came apart everything is sealed and a new epoch begun; the newest batch is returned.
        """
        with self._sealing:
            change = self._clock.look()
            if change is ClockChange.UNDONE:
                self._clock.settle(change)
                self._warn(
                    "clock_back", "the step ahead of the wall clock was undone: its time is taken again"
                )
            elif change is not None:
                return self._follow_clock(change)
            self.sync()
            if self._durable[0] <= self._state.sealed and not self._heartbeat_due():
                return None
            batch = self._seal_some(final=False)
            self._rotate_if_large()
            return batch

    def close(self, *, final: bool = False) -> None:
        """Seal what is left and let go of the lane. Intents still open become `interrupted` at its next start.

        With `final` they do so now, and a final seal ends the lane for ever.
        """
        with self._sealing, self._syncing, self._append:
            if not self._is_open:
                return
            try:
                if final:
                    for intent in list(self._state.open_intents.values()):
                        self.outcome(interrupted(intent, self._clock.wall_us()))
                self.sync()
                self._seal_all()
                if final:
                    self._seal_some(final=True)
            finally:
                # What could not be sealed is in the write-ahead file, and is sealed at the next start.
                self._is_open = False
                self._write_ahead.close()
                self._folder.close()

    def _write(self, content: bytes) -> None:
        file = self._write_ahead.file
        file.append(content)
        if self._each:
            file.fsync()

    def _heartbeat_due(self) -> bool:
        return self._clock.monotonic_us() - self._last_seal_us >= SEAL_EVERY_US

    def _seal_all(self) -> SealedBatch | None:
        batch = None
        while self._state.unsealed:
            batch = self._seal_some(final=False)
        return batch

    def _seal_some(self, *, final: bool) -> SealedBatch:
        """Seal the first events that are on disk, as many as a batch may hold; an empty batch if there are none."""
        published = self._folder.settle()
        if published:
            with self._append:
                self._state.take_seal(published)
        count = min(self._durable[0] - self._state.sealed, MAX_EVENTS)
        opened = self._durable[1]
        while True:
            with self._append:
                leaves, complete_to_us = self._state.next_batch(count, self._clock.wall_us())
            try:
                batch = seal_leaves(
                    self._folder, self._state, leaves, complete_to_us, opened, self._key, final=final
                )
                break
            except Refusal as refused:
                if refused.code != "batch_too_large" or count < 2:
                    raise
                count //= 2
        self._folder.publish(batch)
        with self._append:
            self._state.take_seal(batch.seal)
        self._last_seal_us = self._clock.monotonic_us()
        return batch

    def _begin_epoch(self, *, interrupt: bool) -> None:
        """Open a new epoch in a new segment. Every event so far is sealed; open intents are ended or carried over."""
        with self._state.beginning_epoch(os.urandom(16)):
            if interrupt:
                self._state.interrupt_open(self._clock.wall_us())
            self._begin_segment(durable=True)
        self._durable = (self._state.next_sequence - 1, self._state.opened)
        self._is_open = True
        step("interrupted")
        self._write_ahead.remove_old()
        ahead_us = self._state.floor_us - self._clock.wall_us()
        if ahead_us > AHEAD_US:
            self._warn(
                "lane_ahead",
                f"the lane has sealed times {ahead_us / 1e6:.1f} s ahead of the clock and goes on above them: intake"
                " holds its batches until then. If the clock is right, end this lane and give the sidecar a new one",
            )

    def _begin_segment(self, *, durable: bool) -> None:
        """Go on in a new segment that carries all that is open or unsealed."""
        head = self._folder.head
        opening, carried = self._state.opening(head.hash if head else None)
        self._write_ahead.begin(opening, carried, durable=durable)

    def _rotate_if_large(self) -> None:
        """Go on in a new segment if this one is large; the old one goes when the new one is on disk."""
        if self._write_ahead.file.size < self._segment_bytes:
            return
        with self._syncing, self._append:
            self._begin_segment(durable=self._each)
        step("rotate")
        self.sync()
        self._write_ahead.remove_old()

    def _follow_clock(self, change: ClockChange) -> SealedBatch | None:
        """Begin a new epoch because the wall clock was stepped; a step back or believed is the time from then on."""
        with self._syncing, self._append:
            self.sync()
            batch = self._seal_all()
            self._warn(
                "clock_stepped",
                f"{_CLOCK_WORDS[change].format(self._clock.apart_us / 1e6)}: a new epoch begins",
            )
            self._begin_epoch(interrupt=False)
            self._clock.settle(change)
        return batch
