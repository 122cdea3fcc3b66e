"""Batches from what a lane knows: chosen, made, published, counted."""

from __future__ import annotations

import threading

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from metering.batch import MAX_EVENTS, SealedBatch, make_batch
from metering.canonical import is_usage, table_of
from metering.clock import SteadyClock
from metering.fact import Fact, Sibling, fact_line
from metering.lane_facts import WaitingFacts
from metering.lane_folder import LaneFolder
from metering.lane_state import LaneState
from metering.node_word import Speaker
from metering.refusal import Refusal
from metering.siblings import siblings
from metering.unmetered_reserve import UnmeteredReserve

#: So many siblings are listed in one seal at most.
MAX_LISTED = 128
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
        reserve: UnmeteredReserve,
    ) -> None:
        self._folder = folder
        self._state = state
        self._append = append
        self._key = key
        self._clock = clock
        self._reserve = reserve
        self._last_seal_us = clock.monotonic_us()
        self._listed_us: int | None = None
        self._list_from = 0
        self.facts = WaitingFacts()

    def take_key(self, key: Ed25519PrivateKey) -> None:
        """Sign with this key from now on."""
        self._key = key

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
        facts = self.facts.sealing(self._own_facts(final=final))
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

    def seal_events(self, durable: tuple[int, int]) -> SealedBatch | None:
        """Publish batches until no event is left; the newest of them. `durable` covers all events."""
        batch = None
        while self._state.unsealed:
            batch = self.seal(durable)
        return batch

    def seal_all(self, durable: tuple[int, int]) -> None:
        """Publish batches until no event and no fact is left. `durable` covers all events."""
        while self._state.unsealed or self.facts or self._reserve:
            self.seal(durable)

    def _own_facts(self, *, final: bool) -> list[str]:
        """What the lane itself has to say in its next seal."""
        facts: list[Fact] = []
        unmetered = self._reserve.sealing(self._state.epoch, self._state.number)
        if unmetered:
            facts.append(unmetered)
        now_us = self._clock.monotonic_us()
        if self._folder.word.take() is not Speaker.ANOTHER and (
            final
            or self._state.number == 0
            or self._listed_us is None
            or now_us - self._listed_us >= SEAL_EVERY_US
        ):
            facts += self._listing()
            self._listed_us = now_us
        return [fact_line(fact) for fact in facts]

    def _listing(self) -> list[Sibling]:
        """The node's other lanes; where they are very many, the next of them each time."""
        folder = self._folder
        found = siblings(folder.spool, folder.operator, folder.node, folder.lane)
        if len(found) <= MAX_LISTED:
            return found
        at = self._list_from % len(found)
        self._list_from = at + MAX_LISTED
        return (found + found)[at : at + MAX_LISTED]

    def _settle(self) -> None:
        batch = self._folder.settle()
        if batch:
            self._count(batch)

    def _count(self, batch: SealedBatch) -> None:
        with self._append:
            self._state.take_seal(batch.seal)
        self.facts.sealed()
        self._reserve.sealed()
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
