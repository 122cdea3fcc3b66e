"""Reconciliation: what the engine counted, against what was written down. Pure arithmetic over what seals hold.

Two witnesses are compared, per node, model and hour: the engine's counters, which spans carry (fact.py), and the events
of sealed batches. What is known to be in one and not in the other is measured each by itself, never by subtraction:

    unaccounted_prompt    = engine + late + lost − repeated − audio − unmetered − events
    unaccounted_generated = engine + late + lost − unmetered − events

They are compared over stretches (stretch.py): from one point at which nothing was under way to another. A stretch
belongs to the hour of its first event, and rows are the sums of an hour's stretches: so two errors that cancel within
an hour are not seen, and none that doesn't. Nothing is spread or guessed: what no span reaches is named as unchecked,
and so is what comes after the last cut, until the engine is quiet again, and a stretch of whose engine nobody but our
own events tells (`is_blind`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from metering.fact import SERIES, Serves
from metering.reconcile_row import Row, is_blind, joined, row_of_span, row_of_sum
from metering.stretch import SealedSpan, SealedSum, Stretch, stretches

HOUR_US = 3_600_000_000
ALWAYS = (0, 2**63)

NO_SPANS = "no_spans"
BEFORE_FIRST_SPAN = "before_first_span"
SINCE_QUIET_POINT = "since_quiet_point"
COUNTERS_LOST = "counters_lost"


@dataclass(frozen=True, slots=True)
class SealedServes:
    """That a name is served under a model, and when that was sealed (µs)."""

    serves: Serves
    at_us: int


@dataclass(frozen=True, slots=True)
class Unchecked:
    """Events that nothing could be compared with (yet): `no_spans`, `before_first_span`, `since_quiet_point` or
    `counters_lost`. `waits_from_us` is the first of those with a token, None if there is none to compare."""

    why: str
    from_us: int
    to_us: int
    requests: int
    prompt_tokens: int
    generated_tokens: int
    waits_from_us: int | None


@dataclass(frozen=True, slots=True)
class Numbers:
    """Numbers of a lane's spans, `first` to `last`."""

    lane: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class NodeReconciled:
    """One node: its rows by hour and model, and what is unchecked.

    A lane numbers its spans without a hole within a series: `missing_spans` are left out between others,
    `doubled_spans` stand for two spans that say different things.
    """

    rows: tuple[Row, ...]
    unchecked: tuple[Unchecked, ...]
    missing_spans: tuple[Numbers, ...] = ()
    doubled_spans: tuple[Numbers, ...] = ()

    @property
    def differs(self) -> bool:
        return bool(self.missing_spans or self.doubled_spans) or any(row.differs for row in self.rows)


def reconcile_node(
    spans: Iterable[SealedSpan],
    sums: Iterable[SealedSum],
    serves: Iterable[SealedServes] = (),
    *,
    within_us: tuple[int, int] = ALWAYS,
) -> NodeReconciled:
    """Compare the two sides of one node, given in any order; spans that were sealed twice count once.

    `within_us`: only rows and unchecked events whose first event lies in [from, to), two whole hours. What is given may
    go beyond, and has to where a stretch does.
    """
    found = sorted(set(spans), key=lambda each: (each.span.to_us, each.span.number, each.lane))
    written = _under_engine_models(sorted(sums, key=lambda each: each.last_us), serves)
    missing, doubled = _numbers(found)
    if not found:
        return NodeReconciled((), _unchecked(NO_SPANS, written, within_us))
    begins_us = min(each.span.from_us for each in found)
    early = [each for each in written if each.last_us < begins_us]
    closed, tail = stretches(found, [each for each in written if each.last_us >= begins_us])
    after = list(tail.sums)
    if closed and not closed[-1].sure and _differs(closed[-1]):
        # Other lanes wrote in the seconds after its end: whether of what was before, the next quiet point will tell.
        after += closed.pop().sums
    blind = [found for stretch in closed if _is_blind(stretch) for found in stretch.sums]
    return NodeReconciled(
        rows=tuple(row for row in _rows(closed) if within_us[0] <= row.hour_us < within_us[1]),
        unchecked=(
            *_unchecked(BEFORE_FIRST_SPAN, early, within_us),
            *_unchecked(COUNTERS_LOST, blind, within_us),
            *_unchecked(SINCE_QUIET_POINT, after, within_us),
        ),
        missing_spans=missing,
        doubled_spans=doubled,
    )


def whole_rows(rows: Iterable[Row]) -> tuple[Row, ...]:
    """The rows of all hours in one for each model, by name; `hour_us` is the first's."""
    by_model: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_model[row.model].append(row)
    return tuple(joined(each) for _, each in sorted(by_model.items()))


def _numbers(spans: Sequence[SealedSpan]) -> tuple[tuple[Numbers, ...], tuple[Numbers, ...]]:
    """Numbers that a lane's spans leave out between the first and the last, and those that two of them have."""
    by_lane: dict[tuple[str, int], list[int]] = defaultdict(list)
    for each in spans:
        by_lane[each.lane, each.span.number // SERIES].append(each.span.number)
    missing, doubled = [], []
    for (lane, _), numbers in sorted(by_lane.items()):
        for before, number in pairwise(sorted(numbers)):
            if number == before:
                doubled.append(Numbers(lane, number, number))
            elif number > before + 1:
                missing.append(Numbers(lane, before + 1, number - 1))
    return tuple(missing), tuple(doubled)


def _under_engine_models(sums: Sequence[SealedSum], serves: Iterable[SealedServes]) -> list[SealedSum]:
    """The sums under the models that the engine counts them under: the newest word for that name, then."""
    by_name: dict[str, list[SealedServes]] = defaultdict(list)
    for each in sorted(serves, key=lambda each: (each.at_us, each.serves.model)):
        by_name[each.serves.name].append(each)
    renamed = []
    for found in sums:
        words = by_name.get(found.model)
        if words:
            # What is served is sealed after it was first served: before the first word, that one holds.
            newest = bisect_right(words, found.last_us, key=lambda word: word.at_us) - 1
            found = replace(found, model=words[max(newest, 0)].serves.model)
        renamed.append(found)
    return renamed


def _differs(stretch: Stretch) -> bool:
    return any(row.unaccounted for row in _rows([stretch]))


def _is_blind(stretch: Stretch) -> bool:
    return any(is_blind(each.span) for each in stretch.spans)


def _rows(stretches: Iterable[Stretch]) -> tuple[Row, ...]:
    """Rows by hour and model; a model of which nobody counted a token has none."""
    parts: dict[tuple[int, str], list[Row]] = defaultdict(list)
    for stretch in stretches:
        first_us = min(
            [found.first_us for found in stretch.sums] or [each.span.to_us for each in stretch.spans]
        )
        hour_us = first_us - first_us % HOUR_US
        compared = not _is_blind(stretch)
        for each in stretch.spans:
            parts[hour_us, each.span.model].append(
                row_of_span(hour_us, each.lane, each.span, compared=compared)
            )
        for found in stretch.sums if compared else ():
            parts[hour_us, found.model].append(row_of_sum(hour_us, found))
    rows = [joined(each) for _, each in sorted(parts.items())]
    return tuple(row for row in rows if row.tells)


def _unchecked(why: str, given: Sequence[SealedSum], within_us: tuple[int, int]) -> tuple[Unchecked, ...]:
    sums = [found for found in given if within_us[0] <= found.first_us < within_us[1]]
    if not sums:
        return ()
    return (
        Unchecked(
            why=why,
            from_us=min(found.first_us for found in sums),
            to_us=max(found.last_us for found in sums),
            requests=sum(found.requests for found in sums),
            prompt_tokens=sum(found.prompt_tokens for found in sums),
            generated_tokens=sum(found.generated_tokens for found in sums),
            waits_from_us=min(
                (found.first_us for found in sums if found.prompt_tokens or found.generated_tokens),
                default=None,
            ),
        ),
    )
