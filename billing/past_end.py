"""Usage past the `valid_until` of its node or customer: it is billed, for it was used, and finance is told of it.

A node that ended has no region, so that only price rows without regions price its usage. A customer that ended has no
segment, unless a later version of it holds in the period's last hour, whose segment discounts the whole period. Whoever
declared the end may have meant that there is no more usage, so a close and a preview warn of it:

    1,240 requests of node vilnius-1 from 2026-10-20T09:00:00Z on, past its valid_until 2026-10-15, billed without
    a region

Only what asks for money is told: not what came too late, was voided to nothing, or has an outcome that its tariff does
not bill. A period may have millions of rows and a site thousands of names that ended long ago, so the names that the
usage has are looked up first, and all of theirs are summed at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache, reduce
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from billing.facts import Facts
from billing.hourly import Flags, Hourly, Integers, distinct, hour_instant, hour_number, read_hourly, sums
from billing.period import Period, midnight
from billing.placing import billed_outcomes, terms_by_stretch
from billing.site import Version, in_force
from billing.terms import stretches

_LACKS = {"node": " without a region", "customer": " without a segment's discount"}
_REMEDIES = {
    "node": "if it serves on, apply it with a later valid_until or none; if not, `tally node retire` its lanes",
    "customer": "if it stays, apply it with a later valid_until or none; if not, `tally key revoke` its keys",
}
_REMEDY_BACK = (
    "it is back since; if it was never to end, apply the version that ended with a later valid_until or none"
)
_HOURS = 1 << 32
"""More hours than there are since 1970: a code times this, plus an hour, sorts by code and hour."""

_QUANTITIES = ("requests", "prompt_tokens", "completion_tokens", "generated_tokens", "audio_seconds")
"""The other quantities are parts of these: where these sum to 0, so do they."""
_COLUMNS = ("hour", "customer", "node", "model", "outcome", "band", "late", *_QUANTITIES)


@dataclass(frozen=True, slots=True)
class PastEnd:
    """Billed usage of a `node` or `customer` (`kind`) in a period, past the end of the version that held last.

    `first_hour` is in UTC. `back`: a later version holds in the period's last hour.
    """

    kind: str
    id: str
    valid_until: date
    requests: int
    first_hour: datetime
    back: bool = False


@dataclass(frozen=True, slots=True)
class _Gap:
    """Hours [first, end) of a period, counted from 1970, when a version had ended and no other had begun."""

    id: str
    valid_until: date
    first: int
    end: int
    back: bool


def past_end(usage: pa.Table, facts: Facts, period: Period) -> tuple[PastEnd, ...]:
    """Of hourly usage (as `billing.hourly` reads it), what is billed of nodes and customers that had ended in its hour:
    by kind, id and end.

    Late usage, usage that was voided to nothing and outcomes that are not billed are left out.
    """
    known: dict[str, Mapping[str, Sequence[Version]]] = {"node": facts.nodes, "customer": facts.customers}
    zone = facts.operator[-1].zone
    gaps = {kind: [*_gaps(of_kind, usage[kind], period, zone)] for kind, of_kind in known.items()}
    gaps = {kind: of_kind for kind, of_kind in gaps.items() if of_kind}
    if not gaps:
        return ()
    _, end = period.bounds(zone)
    first = hour_instant(min(gap.first for of_kind in gaps.values() for gap in of_kind))
    late_enough = pc.greater_equal(usage["hour"], pa.scalar(first, pa.timestamp("us", "UTC")))
    named = reduce(pc.or_, (_named(usage[kind], of_kind) for kind, of_kind in gaps.items()))
    hourly, _ = read_hourly(usage.select(_COLUMNS).filter(pc.and_(late_enough, named)), first, end)
    names = {"node": (hourly.nodes, hourly.node), "customer": (hourly.customers, hourly.customer)}
    return tuple(
        found
        for kind, of_kind in gaps.items()
        for found in _told(kind, of_kind, *names[kind], hourly, facts, period)
    )


def _gaps(
    known: Mapping[str, Sequence[Version]], named: pa.ChunkedArray, period: Period, zone: ZoneInfo
) -> Iterator[_Gap]:
    """The gaps of the names that occur in `named`, by name and time."""

    @cache
    def hour_of(day: date) -> int:
        return hour_number(midnight(day, zone))

    ending = {name for name, versions in known.items() if any(each.valid_until for each in versions)}
    if not ending:
        return
    first_day, last_day, after = period.first_day, period.last_day, period.next.first_day
    for name in sorted(ending.intersection(pc.unique(named).to_pylist())):
        versions = known[name]
        back = in_force(versions, last_day) is not None
        for version, following in zip(versions, (*versions[1:], None), strict=True):
            if version.valid_until is None:
                continue
            first = max(version.valid_until, first_day)
            end = min((following and following.valid_from) or after, after)
            if first < end:
                yield _Gap(name, version.valid_until, hour_of(first), hour_of(end), back)


def _named(names: pa.ChunkedArray, gaps: Sequence[_Gap]) -> pa.ChunkedArray:
    """Which of the names have a gap."""
    return pc.is_in(names, pa.array([gap.id for gap in gaps], pa.string()))


def _told(
    kind: str,
    gaps: Sequence[_Gap],
    words: Sequence[str],
    codes: Integers,
    hourly: Hourly,
    facts: Facts,
    period: Period,
) -> Iterator[PastEnd]:
    """Usage in gaps, which are of one kind and by name and time; `codes` are each row's name, a place in `words`."""
    code = {word: place for place, word in enumerate(words)}
    gaps = [gap for gap in gaps if gap.id in code]
    if not gaps:
        return
    starts = np.array([code[gap.id] * _HOURS + gap.first for gap in gaps], np.int64)
    ends = np.array([code[gap.id] * _HOURS + gap.end for gap in gaps], np.int64)
    keys = codes * _HOURS + hourly.hours
    gap_of = np.searchsorted(starts, keys, side="right") - 1
    rows = np.flatnonzero((gap_of >= 0) & (keys < ends[gap_of]))
    rows = rows[_billed(hourly, rows, facts, period)]
    cells, cell = distinct(gap_of[rows] * _HOURS + hourly.hours[rows])
    totals = {name: sums(cell, values[rows], len(cells)) for name, values in hourly.quantities.items()}
    used = np.flatnonzero(np.any([*totals.values()], axis=0))
    gap_of_cell, hour = np.divmod(cells[used], _HOURS)
    requests = sums(gap_of_cell, totals["requests"][used], len(gaps))
    first_hour = np.full(len(gaps), _HOURS)
    np.minimum.at(first_hour, gap_of_cell, hour)
    for place in np.unique(gap_of_cell).tolist():
        gap = gaps[place]
        first = hour_instant(int(first_hour[place]))
        yield PastEnd(kind, gap.id, gap.valid_until, int(requests[place]), first, gap.back)


def _billed(hourly: Hourly, rows: Integers, facts: Facts, period: Period) -> Flags:
    """Of each of those rows, whether the tariff that holds for its customer in its hour bills its outcome."""
    zone = facts.operator[-1].zone
    begin, end = period.bounds(zone)
    starts = stretches(facts, begin, end, zone)
    stretch_of_hour = np.repeat(np.arange(len(starts)), np.diff([*starts, hour_number(end)]))
    customers, customer = distinct(hourly.customer[rows], len(hourly.customers))
    names = [hourly.customers[place] for place in customers.tolist()]
    found, terms_of = terms_by_stretch(names, facts, starts, zone)
    stretch = stretch_of_hour[hourly.hours[rows] - starts[0]]
    return billed_outcomes(found, hourly.outcomes)[terms_of[customer, stretch], hourly.outcome[rows]]


def past_end_json(found: Sequence[PastEnd]) -> list[dict[str, Any]]:
    """As warnings of docs/commands.md: {what, where, remedy, requests}."""
    return [
        {
            "what": (
                f"{each.requests:,} {'request' if each.requests == 1 else 'requests'} of {each.kind} {each.id} from"
                f" {each.first_hour:%Y-%m-%dT%H:%M:%SZ} on, past its valid_until {each.valid_until}, billed"
                f"{_lacks(each)}"
            ),
            "where": f"{each.kind}/{each.id}",
            "remedy": _REMEDY_BACK if each.back else _REMEDIES[each.kind],
            "requests": each.requests,
        }
        for each in found
    ]


def _lacks(told: PastEnd) -> str:
    """A region is that of the usage's hour; a segment is that of the period's last hour (arithmetic rule 7)."""
    return "" if told.kind == "customer" and told.back else _LACKS[told.kind]
