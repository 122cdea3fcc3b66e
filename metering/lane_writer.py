"""The hot half of a lane: what is written down of requests while they run, and the sync that puts it on disk.

Each call packs its bytes once, gives them to the kernel with one write(2), and counts them in the lane's state; what it
keeps in memory of them are the bytes. The other half, lane.py, seals.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from metering.canonical import pack
from metering.clock import SteadyClock
from metering.event import Event
from metering.event_check import check_event
from metering.lane_state import LaneState
from metering.steps import step
from metering.told import TOLD_SEQUENCE, Joined
from metering.write_ahead import Intent, event_frame, intent_frame, told_frame
from metering.write_ahead_file import WriteAhead, WriteAheadFile

#: An event whose time is so far ahead of the lane's clock is written at the lane's present.
AHEAD_US = 300_000_000


class LaneWriter:
    """Writes for one lane. Any thread may, beside one that calls `sync`."""

    _file: WriteAheadFile

    def __init__(self, state: LaneState, write_ahead: WriteAhead, clock: SteadyClock, *, each: bool) -> None:
        self._state = state
        self._write_ahead = write_ahead
        self._clock = clock
        self._each = each
        # `_append` guards what the calls of a request touch, for microseconds; `_syncing` keeps the file where it is
        # while it is put on disk. Who needs both takes `_syncing` first. So no request waits for a sync.
        self._append = threading.RLock()
        self._syncing = threading.RLock()
        self._durable = (state.next_sequence - 1, state.opened)
        # No time up to here is too far ahead; the clock is asked only about later ones.
        self._latest_us = 0

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
        frame = intent_frame(intent)
        with self._append:
            self._file.append(frame)
            if self._each:
                self._fsync_each()
            self._state.take_open(intent.request, frame)
            if self._each:
                self._reach_disk()
        step("intent")

    def told(self, event: Event) -> None:
        """Write down what HTTP told of a request whose engine lines are still waited for. It stays open.

        It ends by `joined`, or by `outcome`; and if this process dies, by the event as told here. Errors as `outcome`.
        """
        check_event(event)
        assert event.kind == "usage"
        frame = told_frame(pack(event, TOLD_SEQUENCE, event.time_us))
        with self._append:
            self._file.append(frame)
            if self._each:
                self._fsync_each()
            self._state.take_open(event.request, frame)
        step("told")

    def outcome(self, event: Event) -> int:
        """Write down what became of a request, or an amendment or void; returns the event's sequence number.

        A usage event closes the request with its id. Its time is raised above the lane's last one if it is not, and is
        the lane's present if it lies more than 5 minutes ahead of it: it would push every later time of the lane ahead
        with it. Refusal `bad_event` for an event that could never be sealed, Unavailable as for `intent`.
        """
        check_event(event)
        time_us = event.time_us
        if time_us > self._latest_us:
            time_us = self._believed(time_us)
        with self._append:
            state = self._state
            sequence = state.next_sequence
            leaf = pack(event, sequence, time_us if time_us > state.floor_us else state.floor_us + 1)
            self._file.append(event_frame(leaf))
            if self._each:
                self._fsync_each()
            state.take_event(leaf)
            if self._each:
                self._reach_disk()
        step("outcome")
        return sequence

    def outcomes(self, events: Sequence[Event]) -> None:
        """`outcome` for many, in their order, with one write: all of them or, if it fails, none."""
        for event in events:
            check_event(event)
        with self._append:
            self._take_all(self._state.pack_all(events, self._believed))

    def joined(self, joins: Sequence[Joined]) -> None:
        """End told requests, in their order, with one write: each by the event as told and what the engine adds.

        All of them or, if it fails, none. Refusal `bad_event` for figures that no event may have, Unavailable as for
        `intent`.
        """
        with self._append:
            self._take_all(self._state.join_all(joins, self._believed))

    def sync(self) -> None:
        """Put everything written so far on disk. Unavailable `write_ahead_failed` if that fails: for good."""
        with self._syncing:
            with self._append:
                reached = (self._state.next_sequence - 1, self._state.opened)
                size = self._file.size
            if size == self._file.synced_size and self._write_ahead.settled:
                return
            self._write_ahead.fsync(size)
            self._latest_us = self._clock.wall_us() + AHEAD_US
            with self._append:
                self._durable = max(self._durable, reached)
            step("fsync")

    def _believed(self, time_us: int) -> int:
        """The time of an event that claims this one: the present if it lies too far ahead of it."""
        if time_us > self._latest_us:
            present_us = self._clock.wall_us()
            self._latest_us = present_us + AHEAD_US
            if time_us > self._latest_us:
                return present_us
        return time_us

    def _fsync_each(self) -> None:
        self._file.fsync(self._file.size)

    def _reach_disk(self) -> None:
        self._durable = (self._state.next_sequence - 1, self._state.opened)

    def _take_all(self, leaves: list[bytes]) -> None:
        if not leaves:
            return
        self._file.append(b"".join(map(event_frame, leaves)))
        if self._each:
            self._fsync_each()
        for leaf in leaves:
            self._state.take_event(leaf)
        if self._each:
            self._reach_disk()
        step("outcomes")

    def _begin_segment(self, previous: str | None, *, durable: bool) -> None:
        """Go on in a new segment that carries all that is open or unsealed; `previous` is the newest seal's hash."""
        opening, carried = self._state.opening(previous)
        self._write_ahead.begin(opening, carried, durable=durable)
        self._file = self._write_ahead.file
