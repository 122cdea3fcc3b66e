"""What a worker has read of its partitions and not settled: how far it may say to have come, and what comes again. Pure.

Offsets of one partition, as they stand while a transaction runs:

    … 40 41 42 43 44 45 | 46            41, 43, 44, 45 are read and not settled; 46 is what would be read next
         ×     ×  ×  ×

A transaction that settles 41 and 43 may move the position to 44; one that settles 43 alone may move it to 41 and no
further: a position never passes a message that is not settled, so whatever fails comes again after a restart too.

What is not settled is kept, up to a bound for all partitions together, and given out again by the next sweep. What is
beyond the bound is read again from Kafka, as soon as nothing of its partition that was kept is left: one operator whose
batches fail, whatever the reason, neither stops the others nor fills the memory.

Each time that a partition is given to this worker it begins anew, with another *turn*: what was read before is nobody's
business here any more. It may still be taken in and settled; it is only not heard of when positions are asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from billing.inspection import Delivery
from billing.intake_ports import Position

#: So many bytes of batches that are not settled are kept, for all partitions together.
KEPT_BYTES = 64_000_000


@dataclass(frozen=True, slots=True)
class Token:
    """A message that was read: from which source, where in it, and in which turn of its partition."""

    source: str
    partition: int
    offset: int
    turn: int


@dataclass(slots=True)
class Turn:
    """A partition from when it was given to this worker. `unsettled`: offset → the batch, None where it is not kept."""

    source: str
    number: int
    beyond: int = 0  # what would be read next
    unsettled: dict[int, Delivery | None] = field(default_factory=dict)

    def after(self, settled: Collection[int]) -> int:
        """Where to go on once these are settled too."""
        return min(self.unsettled.keys() - settled, default=self.beyond)


class Progress:
    """Every partition's turn. The reading thread adds; whoever commits asks and settles; both at once are fine."""

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._most = kept_bytes
        self._kept = 0
        self._turns: dict[int, Turn] = {}
        self._numbers = count(1)
        self._lock = threading.Lock()

    def begin(self, source: str, partition: int) -> None:
        """The partition is given to this worker, or begins anew."""
        with self._lock:
            self._end(partition)
            self._turns[partition] = Turn(source, next(self._numbers))

    def end(self, partitions: Collection[int]) -> None:
        """The partitions are another worker's now."""
        with self._lock:
            for partition in partitions:
                self._end(partition)

    def read(self, partition: int, messages: Sequence[tuple[int, bytes, bytes]]) -> list[Delivery]:
        """Adds what was read: (offset, note, body) in their order. Nothing of a partition that is not this worker's."""
        with self._lock:
            turn = self._turns.get(partition)
            if turn is None:
                return []
            found = []
            for offset, note, body in messages:
                token = Token(turn.source, partition, offset, turn.number)
                delivery = Delivery(note, body, token)
                fits = self._kept + _size(delivery) <= self._most
                turn.unsettled[offset] = delivery if fits else None
                self._kept += _size(delivery) if fits else 0
                turn.beyond = offset + 1  # not the highest: a log that was cut short is read from its new end
                found.append(delivery)
            return found

    def again(self) -> list[Delivery]:
        """What is kept and not settled, a partition's in its order."""
        with self._lock:
            turns = [turn for _, turn in sorted(self._turns.items())]
            return [kept for turn in turns for _, kept in sorted(turn.unsettled.items()) if kept is not None]

    def rewind(self) -> dict[int, int]:
        """partition → offset from which to read again: those of which only what was not kept is left. It is forgotten
        here, for it will be read."""
        with self._lock:
            back = {
                partition: min(turn.unsettled)
                for partition, turn in self._turns.items()
                if turn.unsettled and all(kept is None for kept in turn.unsettled.values())
            }
            for partition, offset in back.items():
                self._turns[partition].unsettled.clear()
                self._turns[partition].beyond = offset
            return back

    def holds(self, token: object) -> bool:
        """Whether it was read in the turn that its partition has now."""
        assert isinstance(token, Token)
        with self._lock:
            return self._is_current(token)

    def positions(self, tokens: Sequence[object]) -> list[Position]:
        """Where the partitions of these go on once they are settled too, in key order."""
        with self._lock:
            settled = self._by_partition(tokens)
            turns = {partition: self._turns[partition] for partition in sorted(settled)}
            return [Position(turn.source, at, turn.after(settled[at])) for at, turn in turns.items()]

    def settle(self, tokens: Sequence[object]) -> Mapping[int, int]:
        """These are committed. partition → where it goes on, of those that moved."""
        with self._lock:
            settled = self._by_partition(tokens)
            for partition, offsets in settled.items():
                for offset in offsets:
                    self._kept -= _size(self._turns[partition].unsettled.pop(offset, None))
            return {partition: self._turns[partition].after(()) for partition in settled}

    def _end(self, partition: int) -> None:
        turn = self._turns.pop(partition, None)
        if turn is not None:
            self._kept -= sum(_size(kept) for kept in turn.unsettled.values())

    def _is_current(self, token: Token) -> bool:
        turn = self._turns.get(token.partition)
        return turn is not None and turn.number == token.turn

    def _by_partition(self, tokens: Sequence[object]) -> dict[int, set[int]]:
        found: dict[int, set[int]] = {}
        for token in self._current(tokens):
            found.setdefault(token.partition, set()).add(token.offset)
        return found

    def _current(self, tokens: Sequence[object]) -> Iterator[Token]:
        for token in tokens:
            assert isinstance(token, Token)
            if self._is_current(token):
                yield token


def _size(delivery: Delivery | None) -> int:
    return 0 if delivery is None else len(delivery.note) + len(delivery.body)
