"""The shipper: sealed batches from the spool to intake over Kafka, and out of the spool once intake has them.

    spool ── send ──▶ tally.batches ──▶ intake ──▶ archive, ledger
      ▲                                   │ signs: this lane is accepted up to this seal
      └──────── delete ◀── tally.accepted ┘

What it sends to and hears from is a port, `Outgoing`; `adapters/kafka/outgoing.py` is Kafka, a twin in memory stands in
for it in simulations. A batch is one message: key `operator/node/lane`, header `seal` (the signed note), value the body
(empty for a heartbeat). The lanes take turns, batch by batch; a lane's batches go in the order of its chain.

The spool is the only thing that it keeps. What is sent and not acknowledged stays there, so it may be killed, Kafka may
be away for a week, a topic may be deleted or lose its end: what is missing is sent again (lane_progress.py says when).
It begins from the oldest batch after a start, and when the topic turns out to be another one than before. Its memory is
bounded: names of the batches that wait, and as many bytes as one sweep hands over.

A batch is deleted only where an acknowledgement covers it (acknowledgement.py) that the operator's intake key signed,
and that names the very seal in the spool by its hash. Two different batches with one number are a fork: nothing is
deleted then, and it is said once, loudly.

One shipper a spool (one_shipper.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from metering.acknowledgement import Acknowledgement, peek_acknowledgement, read_acknowledgement
from metering.clock import Clock, SystemClock
from metering.lane_progress import LaneProgress, acknowledged, due, handed_over
from metering.refusal import Refusal, Unavailable
from metering.said_once import SaidOnce
from metering.seal import seal_hash
from metering.spool import LaneRef, Spool, place_of

_log = logging.getLogger(__name__)

#: A sweep hands over about so much before it asks the broker for its word.
SWEEP_BYTES = 32_000_000
#: Of a lane whose disk refuses to delete, so many acknowledgements are kept for a better time.
MOST_HEARD = 100
POLL_EVERY = timedelta(milliseconds=500)
LONGEST_WAIT = timedelta(seconds=5)


class Outgoing(Protocol):
    """Where sealed batches go, and where acknowledgements come from. Every call may raise `Unavailable`."""

    def send(self, lane: LaneRef, note: bytes, body: bytes) -> None:
        """Hand a batch over; a lane's batches arrive in the order of their handing over. Blocks while a bounded buffer
        is full. Nothing is promised before `flush`.
        """
        ...

    def flush(self) -> None:
        """Returns when the broker has acknowledged all that was handed over; Unavailable if that can't be said of one
        of them. Whatever was handed over since the last success may then be there, once or twice, or not.
        """
        ...

    def place(self) -> str:
        """What holds the batches, by its identity (cluster and topic): another one than before holds none of them."""
        ...

    def acknowledgements(self) -> Sequence[bytes]:
        """Notes newly read, without waiting; after a start, of every lane's newest from the beginning."""
        ...

    def close(self) -> None:
        """Let go of connections; what was not flushed may be lost."""
        ...


#: The public key (32 bytes) by which an operator's intake is known here; None: not told yet.
IntakeKey = Callable[[str], bytes | None]


def lane_text(lane: LaneRef) -> str:
    """The key of a lane's messages: `operator/node/lane`."""
    return f"{lane.operator}/{lane.node}/{lane.lane}"


@dataclass(frozen=True, slots=True)
class Shipped:
    """What a sweep came to: batches and bytes sent, batches deleted, and whether more could go at once."""

    sent: int = 0
    bytes: int = 0
    deleted: int = 0
    more: bool = False


class Shipper:
    """Empties one spool. Every method blocks; call them from one thread at a time."""

    def __init__(
        self,
        spool: Spool,
        outgoing: Outgoing,
        intake_key: IntakeKey,
        clock: Clock | None = None,
        *,
        sweep_bytes: int = SWEEP_BYTES,
    ) -> None:
        self._spool = spool
        self._outgoing = outgoing
        self._intake_key = intake_key
        self._clock = clock or SystemClock()
        self._sweep_bytes = sweep_bytes
        self._place: str | None = None
        self._lanes: dict[LaneRef, LaneProgress] = {}
        self._heard: dict[LaneRef, list[Acknowledgement]] = {}
        self._warn = SaidOnce(_log)

    def sweep(self) -> Shipped:
        """Hears what intake accepted, deletes it, sends what is to be sent, and has the broker's word for it.

        Unavailable where Kafka can't be reached: what is not known to be there goes again in the next sweep.
        """
        self._look_at_place()
        self._hear(self._outgoing.acknowledgements())
        deleted = self._delete()
        sent, size, more = self._send()
        return Shipped(sent, size, deleted, more)

    def close(self) -> None:
        self._outgoing.close()

    def _look_at_place(self) -> None:
        place = self._outgoing.place()
        if place != self._place:
            if self._place is not None:
                _log.warning(
                    "Kafka's topic is another one than before: what is in the spool is sent to it again"
                )
            self._place = place
            self._lanes.clear()

    def _hear(self, notes: Sequence[bytes]) -> None:
        """Keeps what is said of lanes in this spool by the intake of their operators."""
        for note in notes:
            try:
                claimed = peek_acknowledgement(note)
                lane = LaneRef(claimed.operator, claimed.node, claimed.lane)
                if not self._spool.has(lane):
                    continue
                key = self._intake_key(lane.operator)
                if key is None:
                    self._warn(
                        f"the intake key of {lane.operator} is not here, so nothing is deleted: enrol the node again"
                    )
                    continue
                kept = self._heard.get(lane, [])[-MOST_HEARD:]
                self._heard[lane] = [*kept, read_acknowledgement(note, key)]
            except Refusal as refused:
                self._warn(f"an acknowledgement is passed over: {refused.what}")

    def _delete(self) -> int:
        """Deletes what the acknowledgements cover. A lane whose disk refuses keeps them for the next sweep."""
        deleted = 0
        for lane in list(self._heard):
            try:
                deleted += self._delete_of(lane, self._heard[lane])
            except OSError as error:
                self._warn(f"what intake has of {lane_text(lane)} can't be deleted: {error.strerror}")
            else:
                del self._heard[lane]
        return deleted

    def _delete_of(self, lane: LaneRef, heard: Sequence[Acknowledgement]) -> int:
        names = self._spool.waiting(lane)
        places = {place_of(name): index for index, name in enumerate(names)}
        covered = [
            index
            for each in heard
            if (index := places.get((each.epoch, each.number))) is not None
            and self._is_same(lane, names[index], each)
        ]
        if not covered:
            return 0
        gone = names[: max(covered) + 1]
        for name in gone:  # the oldest first: a kill leaves the chain's end, whole
            self._spool.acknowledge(self._spool.spooled(lane, name))
        now_us = self._clock.monotonic_us()
        self._lanes[lane] = acknowledged(self._lanes.get(lane, LaneProgress()), gone[-1], now_us)
        return len(gone)

    def _is_same(self, lane: LaneRef, name: str, heard: Acknowledgement) -> bool:
        found = self._spool.spooled(lane, name).read()
        if found is None or seal_hash(found[0]) == heard.hash:
            return found is not None
        self._warn(
            f"FORK: intake has accepted another batch as {heard.epoch}-{heard.number} of {lane_text(lane)} than the one"
            " in this spool; nothing of it is deleted. Is there a copy of this machine, or was its disk restored?"
        )
        return False

    def _send(self) -> tuple[int, int, bool]:
        """The lanes take turns until a sweep's worth is handed over, or nothing is left; then the broker's word."""
        now_us = self._clock.monotonic_us()
        turns = deque(
            (lane, deque(names)) for lane in self._spool.lanes() if (names := self._due(lane, now_us))
        )
        sent: dict[LaneRef, list[str]] = {}
        size = 0
        while turns and size < self._sweep_bytes:
            lane, names = turns.popleft()
            name = names.popleft()
            try:
                found = self._spool.spooled(lane, name).read()
            except OSError as error:
                self._warn(f"{name} of {lane_text(lane)} can't be read: {error.strerror}")
                continue  # what comes behind it would only be held
            if found is not None:
                self._outgoing.send(lane, *found)
                size += sum(map(len, found))
            sent.setdefault(lane, []).append(name)
            if names:
                turns.append((lane, names))
        if sent:
            self._outgoing.flush()
        for lane, went in sent.items():
            self._lanes[lane] = handed_over(self._lanes.get(lane, LaneProgress()), went, now_us)
        return sum(map(len, sent.values())), size, bool(turns)

    def _due(self, lane: LaneRef, now_us: int) -> Sequence[str]:
        try:
            waiting = self._spool.waiting(lane)
            if not waiting:
                self._forget(lane)
            return due(self._lanes.get(lane, LaneProgress()), waiting, now_us)
        except OSError as error:
            self._warn(f"{lane_text(lane)} in the spool can't be read: {error.strerror}")
            return ()

    def _forget(self, lane: LaneRef) -> None:
        """Nothing of it waits, so nothing of it is on its way, whoever has taken it out of the spool."""
        self._lanes.pop(lane, None)


async def run(shipper: Shipper, stop: asyncio.Event, *, poll_every: timedelta = POLL_EVERY) -> None:
    """Sweeps until told to stop, and once more then. A Kafka that is away is tried again, and said once."""
    away_since: float | None = None
    loop = asyncio.get_running_loop()
    wait_s = poll_every.total_seconds()
    while True:
        last, began = stop.is_set(), loop.time()
        try:
            shipped = await asyncio.to_thread(shipper.sweep)
        except Unavailable as away:
            if away_since is None:
                away_since = loop.time()
                _log.warning("%s; batches wait in the spool (%s)", away.what, away.remedy)
            wait_s, busy = 2 * wait_s, False
        else:
            if away_since is not None:
                _log.info("Kafka is there again after %.0f s", loop.time() - away_since)
            away_since, busy = None, shipped.more or shipped.deleted > 0
            # Looking through a long spool takes its time; a core has better things to do.
            looked_s = 0.0 if shipped.sent else loop.time() - began
            wait_s = max(poll_every.total_seconds(), 20 * looked_s)
        if last:
            return
        if not busy:
            wait_s = min(wait_s, LONGEST_WAIT.total_seconds())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), wait_s)
