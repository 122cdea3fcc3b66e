"""The hot half of a lane: what is written down of requests while they run, and the sync that puts it on disk.

Each call packs its bytes once, gives them to the kernel with one write(2), and counts them in the lane's state; what it
keeps in memory of them are the bytes. The other half, lane.py, seals.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from metering.canonical import pack
from metering.clock import SteadyClock
from metering.event import Event
from metering.event_check import check_event
from metering.lane_folder import LaneFolder
from metering.lane_state import LaneState
from metering.node_word import Speaker
from metering.refusal import Unavailable
from metering.steps import step
from metering.told import TOLD_SEQUENCE, Joined, events_of
from metering.unmetered_reserve import UnmeteredReserve
from metering.write_ahead import (
    Intent,
    Opening,
    event_frame,
    intent_frame,
    intent_of,
    is_told,
    leaf_of,
    told_frame,
)
from metering.write_ahead_file import WriteAhead

#: An event whose time is so far ahead of the lane's clock is written at the lane's present.
AHEAD_US = 300_000_000
#: So often at most is a failed disk asked whether it takes everything again.
MEND_EVERY_US = 1_000_000


class LaneWriter:
    """Writes for one lane. Any thread may, beside one that calls `sync`."""

    def __init__(
        self,
        folder: LaneFolder,
        state: LaneState,
        write_ahead: WriteAhead,
        reserve: UnmeteredReserve,
        clock: SteadyClock,
    ) -> None:
        self._folder = folder
        self._state = state
        self._reserve = reserve
        self._file = write_ahead.none_yet()
        self._write_ahead = write_ahead
        self._clock = clock
        self._each = write_ahead.each
        # `_append` guards what the calls of a request touch, for microseconds; `_syncing` keeps the file where it is
        # while it is put on disk. Who needs both takes `_syncing` first. So no request waits for a sync.
        self._append = threading.RLock()
        self._syncing = threading.RLock()
        self._durable = (state.next_sequence - 1, state.opened)
        # No time up to here is too far ahead; the clock is asked only about later ones.
        self._latest_us = 0
        self._left = frozenset(state.open)
        self._mend_from_us = 0
        #: Whether the lane has begun for the first time.
        self.is_new = not state.epoch
        folder.word.take(is_new=self.is_new)

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

    def left_open(self) -> tuple[list[Event], list[Intent]]:
        """The requests of the last epoch that are still open: those told, as told, and those of which nothing is known."""
        with self._append:
            frames = [frame for request, frame in self._state.open.items() if request in self._left]
        told = events_of([leaf_of(frame) for frame in frames if is_told(frame)])
        return told, [intent_of(frame) for frame in frames if not is_told(frame)]

    @property
    def spool(self) -> Path:
        """The spool folder, of all lanes."""
        return self._folder.spool

    @property
    def path(self) -> Path:
        """The lane's own folder in it."""
        return self._folder.path

    def speaker(self) -> Speaker:
        """Whether this lane says what concerns its node as a whole (node_word.py). Looks at files."""
        return self._folder.word.take()

    def count_unmetered(self, time_us: int) -> None:
        """A request is served without being written down. It is in an `unmetered` fact of the next published seal.

        Needs no free space. Unavailable `unmetered_failed` if not even that can be written.
        """
        self._reserve.count(time_us)
        if self._each:
            with suppress(Unavailable):  # it is counted; the next sync tries again
                self._reserve.sync()

    @property
    def unmetered(self) -> int:
        """Requests served without being written down, of which no published seal tells yet."""
        return len(self._reserve)

    def sync(self) -> None:
        """Put everything written so far on disk.

        Unavailable `write_ahead_failed` if that fails. What is on disk then nobody knows, so the next sync writes all
        that is open or unsealed once more, into a new segment, tried once a second; until it succeeds nothing is taken.
        """
        self._reserve.sync()
        with self._syncing:
            if self._file.is_broken:
                self._mend_now_and_then()
                return
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

    def _reach_disk(self) -> None:
        self._durable = (self._state.next_sequence - 1, self._state.opened)

    def _take_all(self, leaves: list[bytes]) -> None:
        if not leaves:
            return
        self._file.append(b"".join(map(event_frame, leaves)))
        for leaf in leaves:
            self._state.take_event(leaf)
        if self._each:
            self._reach_disk()
        step("outcomes")

    def _mend_now_and_then(self) -> None:
        """Mend, but not 20 times a second what a disk refuses: all that is open or unsealed may be much."""
        now_us = self._clock.monotonic_us()
        if now_us < self._mend_from_us:
            raise self._file.failure("an earlier write or fsync failed, and the next try is soon")
        self._mend_from_us = now_us + MEND_EVERY_US
        self._mend()

    def _mend(self) -> None:
        """Go on after a failure that left nobody knowing what is on disk: memory knows all, and it is written anew.

        The broken file takes nothing meanwhile, so no request needs to wait for the disk. (A seal may be published
        meanwhile: a start leaves out of a segment what the head covers.)
        """
        with self._append:
            opening, carried = self._opening()
        self._write_ahead.begin(opening, carried, durable=True)
        with self._append:
            self._file = self._write_ahead.file
            self._reach_disk()
        self._write_ahead.remove_old()
        step("mended")

    def _begin_segment(self, *, durable: bool) -> None:
        """Go on in a new segment that carries all that is open or unsealed."""
        opening, carried = self._opening()
        self._write_ahead.begin(opening, carried, durable=durable)
        self._file = self._write_ahead.file

    def _opening(self) -> tuple[Opening, list[bytes]]:
        head = self._folder.head
        return self._state.opening(head.hash if head else None)
