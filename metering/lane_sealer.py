"""Batches from what a lane knows: chosen, made, published, counted."""

from __future__ import annotations

import threading

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from metering.batch import MAX_EVENTS, SealedBatch, make_batch
from metering.canonical import is_usage, table_of
from metering.clock import SteadyClock
from metering.lane_facts import WaitingFacts
from metering.lane_folder import LaneFolder
from metering.lane_state import LaneState
from metering.refusal import Refusal

SEAL_EVERY_US = 10_000_000
FACTS_EVERY_US = 1_000_000


class Sealer:
    """Seals for one lane; one thread at a time. `append` guards `state` against those who write events meanwhile."""

    def __init__(
        self,
        folder: LaneFolder,
        state: LaneState,
        append: threading.RLock,
        key: Ed25519PrivateKey,
        clock: SteadyClock,
    ) -> None:
        self._folder = folder
        self._state = state
        self._append = append
        self._key = key
        self._clock = clock
        self._last_seal_us = clock.monotonic_us()
        self.facts = WaitingFacts()

    def batch_due(self) -> bool:
        """Whether an empty batch is due: 10 s without a seal, or 1 s while facts wait."""
        passed_us = self._clock.monotonic_us() - self._last_seal_us
        return passed_us >= SEAL_EVERY_US or (len(self.facts) > 0 and passed_us >= FACTS_EVERY_US)

    def seal(self, durable: tuple[int, int], *, final: bool = False) -> SealedBatch:
        """Publish the lane's next batch: the first events that are on disk, as many as it may hold, and the facts.

        `durable`: the last sequence number, and the requests opened, that are on disk. Unavailable `spool_failed` if
        the disk refuses; then nothing is lost, and the next call begins with what this one left.
        """
        self._settle()
        sequence, opened = durable
        count = min(sequence - self._state.sealed, MAX_EVENTS)
        facts = self.facts.sealing()
        while True:
            with self._append:
                leaves, complete_to_us = self._state.next_batch(count, self._clock.wall_us())
            try:
                batch = self._made(leaves, complete_to_us, opened, facts, final=final)
                break
            except Refusal as refused:
                if refused.code != "batch_too_large" or count < 2:
                    raise
                count //= 2
        self._folder.publish(batch)
        self._count(batch)
        return batch

    def seal_all(self, durable: tuple[int, int]) -> SealedBatch | None:
        """Publish batches until no event and no fact is left; the newest of them. `durable` covers all events."""
        batch = None
        while self._state.unsealed or self.facts:
            batch = self.seal(durable)
        return batch

    def _settle(self) -> None:
        batch = self._folder.settle()
        if batch:
            self._count(batch)

    def _count(self, batch: SealedBatch) -> None:
        with self._append:
            self._state.take_seal(batch.seal)
        self.facts.sealed()
        self._last_seal_us = self._clock.monotonic_us()

    def _made(
        self, leaves: list[bytes], complete_to_us: int, opened: int, facts: tuple[str, ...], *, final: bool
    ) -> SealedBatch:
        """The lane's next batch, of these events; `opened` counts the requests whose intents are on disk."""
        folder, state = self._folder, self._state
        closed = state.sealed_closed + sum(map(is_usage, leaves))
        return make_batch(
            operator=folder.operator,
            node=folder.node,
            lane=folder.lane,
            kind="sidecar",
            epoch=state.epoch.hex(),
            number=state.number,
            first=state.sealed + 1,
            complete_to_us=complete_to_us,
            opened=max(opened, closed),
            closed=closed,
            previous=folder.previous,
            key=self._key,
            table=table_of(leaves) if leaves else None,
            leaves=leaves,
            final=final,
            facts=facts,
        )
