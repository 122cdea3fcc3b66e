"""Facts on their way into a lane's seals: what is no request's usage, one line each.

They wait in memory, in the order in which they were added. A fact is in a published seal when `published` has reached
the number that `add` gave for it; until then whoever found it keeps it, and adds it again after a restart, so readers
take the same fact twice for one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from itertools import islice

from metering.fact import MAX_FACTS, how_many_fit, parse_fact


class WaitingFacts:
    """A queue that is emptied by seals. Any thread adds; one seals."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: deque[str] = deque()
        self._sealing = 0
        self.published = 0

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, lines: Sequence[str]) -> int:
        """Queue facts; the count that `published` has when the last of them is in a published seal.

        Refusal `bad_fact` for a line that is none: none of them is queued then.
        """
        for line in lines:
            parse_fact(line)
        with self._lock:
            self._lines.extend(lines)
            return self.published + len(self._lines)

    def sealing(self, before: Sequence[str] = ()) -> tuple[str, ...]:
        """The facts of the seal that is made next: `before`, and as many of those that wait as fit behind."""
        with self._lock:
            lines = [*before, *islice(self._lines, MAX_FACTS)]
            count = how_many_fit(lines)
            assert count >= len(before)
            self._sealing = count - len(before)
            return tuple(lines[:count])

    def sealed(self) -> None:
        """The seal with what `sealing` gave last is published."""
        with self._lock:
            for _ in range(self._sealing):
                self._lines.popleft()
            self.published += self._sealing
            self._sealing = 0
