"""Cuts and stretches: where the engine's counters and sealed batches can be compared to the token.

The engine's side are spans (fact.py): how far its counters rose between two quiet points. Ours are the sums of sealed
batches by model. An hour's turn is no quiet point, so nothing can be compared by the hour's edges. What can be compared
exactly lies between two **cuts**: the end of a span (then nothing was under way) through which no other span and no
batch reaches, with an event before it and one after. Another lane than the one that made the span may still write for
up to a minute (STILL_WRITTEN_US), so a batch of such a lane must not touch those either; only at
the last cut of all, where nothing follows, may it, and then it is for the figures to tell whether it is a cut.

    spans      |----- 7 -----|-------- 8 --------|---- 9 ----|------ 10 ---   (still open: not sealed yet)
    batches      [..] [....]   [..] [....] [.......] [...]      [..] [..]
    cuts                     |       no: a batch |           |
    stretches         A      |             B                 |  not checked yet
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from metering.fact import Span

#: How long after a quiet point another lane may still write events of what was before it: a response in the background is
#: asked after every 10 s (background.py), then what can be read of it is read, in 20 tries of at most 1 s with 1 s between
#: them; lines are waited for 5 s (engine_join.py).
STILL_WRITTEN_US = 60_000_000


@dataclass(frozen=True, slots=True)
class SealedSum:
    """What a batch's events of one model sum to; times are those of its first and last one, µs since 1970, UTC."""

    lane: str
    model: str
    first_us: int
    last_us: int
    requests: int
    prompt_tokens: int
    generated_tokens: int
    unwitnessed_requests: int


@dataclass(frozen=True, slots=True)
class SealedSpan:
    """A span and the lane that sealed it."""

    lane: str
    span: Span


@dataclass(frozen=True, slots=True)
class Stretch:
    """What lies between two cuts. `sure`: its end is a cut; else it may be one, and is the last."""

    spans: list[SealedSpan] = field(default_factory=list)
    sums: list[SealedSum] = field(default_factory=list)
    sure: bool = True


@dataclass(frozen=True, slots=True)
class _End:
    """The end of a span: what these lanes wrote up to here is of before it."""

    at_us: int
    lanes: frozenset[str]

    def bound_us(self, lane: str) -> int:
        return self.at_us if lane in self.lanes else self.at_us + STILL_WRITTEN_US


def stretches(spans: Sequence[SealedSpan], sums: Sequence[SealedSum]) -> tuple[list[Stretch], Stretch]:
    """What lies between cuts, oldest first, and what comes after the last one. Both in any order; some spans."""
    *inner, last = _ends(spans)
    reach = _Reach(sums)
    cuts = [end for end in inner if not reach.touches(end)]
    sure = not reach.touches(last)
    if sure or not reach.crosses(last):
        cuts.append(last)
    found = [Stretch(sure=sure or n + 1 < len(cuts)) for n in range(len(cuts))]
    found.append(Stretch())
    at_us = [cut.at_us for cut in cuts]
    for span in spans:
        found[bisect_left(at_us, span.span.to_us)].spans.append(span)
    for each in sums:
        place = bisect_left(at_us, each.last_us - STILL_WRITTEN_US)
        while place < len(cuts) and each.last_us > cuts[place].bound_us(each.lane):
            place += 1
        found[place].sums.append(each)
    *closed, tail = found
    return closed, tail


def _ends(spans: Sequence[SealedSpan]) -> list[_End]:
    """The ends of spans that no other span reaches across, oldest first."""
    by_end: dict[int, list[SealedSpan]] = defaultdict(list)
    for each in spans:
        by_end[each.span.to_us].append(each)
    ends: list[_End] = []
    begins_us = max(by_end)  # the earliest beginning of those that end later
    for at_us, ending in sorted(by_end.items(), reverse=True):
        if begins_us >= at_us:
            ends.append(_End(at_us, frozenset(each.lane for each in ending)))
        begins_us = min(begins_us, *(each.span.from_us for each in ending))
    return ends[::-1]


class _Reach:
    """How far back batches reach that end after an instant, lane by lane."""

    def __init__(self, sums: Sequence[SealedSum]) -> None:
        by_lane: dict[str, list[SealedSum]] = defaultdict(list)
        for each in sums:
            by_lane[each.lane].append(each)
        self._lanes: dict[str, tuple[list[int], list[int]]] = {}
        for lane, of_lane in by_lane.items():
            of_lane.sort(key=lambda each: each.last_us)
            lasts = [each.last_us for each in of_lane]
            firsts = list(accumulate((each.first_us for each in reversed(of_lane)), min))[::-1]
            self._lanes[lane] = lasts, firsts

    def touches(self, end: _End) -> bool:
        """Whether a batch reaches across it, or another lane's into the seconds in which it may still be written."""
        return any(self._from(lane, end.at_us, end.bound_us(lane)) for lane in self._lanes)

    def crosses(self, end: _End) -> bool:
        """Whether a batch reaches across it, where those seconds count as before it."""
        return any(self._from(lane, bound, bound) for lane in self._lanes for bound in (end.bound_us(lane),))

    def _from(self, lane: str, after_us: int, up_to_us: int) -> bool:
        """Whether a batch of the lane ends after the one and begins at the other or before."""
        lasts, firsts = self._lanes[lane]
        place = bisect_right(lasts, after_us)
        return place < len(firsts) and firsts[place] <= up_to_us
