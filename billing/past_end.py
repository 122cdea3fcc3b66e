"""Usage past the `valid_until` of its node or customer: it is billed, for it was used, and finance is told of it.

A node that ended has no region, so that only price rows without regions price its usage; a customer that ended has no
segment. Whoever declared the end may have meant that there is no more usage, so a close and a preview warn of it:

    1,240 requests of node vilnius-1 from 2026-10-20T09:00:00Z on, past its valid_until 2026-10-15, are billed
    without a region
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from billing.facts import Facts
from billing.period import Period, midnight
from billing.site import Version, in_force
from metering.event import QUANTITIES

_LACKS = {"node": "a region", "customer": "a segment's discount"}
_REMEDIES = {
    "node": "if it serves on, apply it with a later valid_until or none; if not, `tally node retire` its lanes",
    "customer": "if it stays, apply it with a later valid_until or none; if not, `tally key revoke` its keys",
}


@dataclass(frozen=True, slots=True)
class PastEnd:
    """Billed usage of a `node` or `customer` (`kind`) in a period, past the end of the version that held last."""

    kind: str
    id: str
    valid_until: date
    requests: int
    first_hour: datetime


def past_end(usage: pa.Table, facts: Facts, period: Period) -> tuple[PastEnd, ...]:
    """Hourly usage (as `billing.hourly` reads it) of the period by nodes and customers that had ended, by kind and id.

    Late usage, which is not billed, and usage that was voided to nothing are left out.
    """
    kinds: Sequence[tuple[str, Mapping[str, Sequence[Version]]]] = (
        ("node", facts.nodes),
        ("customer", facts.customers),
    )
    return tuple(found for kind, known in kinds for found in _of_kind(kind, known, usage, facts, period))


def _of_kind(
    kind: str, known: Mapping[str, Sequence[Version]], usage: pa.Table, facts: Facts, period: Period
) -> Iterator[PastEnd]:
    ended = {name: ends for name in sorted(known) if (ends := _ends(known[name], period))}
    if not ended:
        return
    zone = facts.operator[-1].zone
    names = usage[kind].cast(pa.string())
    wanted = pc.and_not(pc.is_in(names, pa.array(list(ended), pa.string())), usage["late"])
    some = usage.filter(wanted)
    for name, ends in ended.items():
        own = some.filter(pc.equal(some[kind].cast(pa.string()), name))
        for valid_until, (first, end) in ends.items():
            inside = _between(own, midnight(first, zone), midnight(end, zone))
            if any(_sum(inside, quantity) for quantity in QUANTITIES):
                hour = pc.min(inside["hour"]).as_py()
                yield PastEnd(kind, name, valid_until, _sum(inside, "requests"), hour)


def _ends(versions: Sequence[Version], period: Period) -> dict[date, tuple[date, date]]:
    """Days [first, end) of the period on which a version had ended and no other had begun, by its `valid_until`."""
    found: dict[date, tuple[date, date]] = {}
    if all(version.valid_until is None for version in versions):
        return found
    for day in _days(period):
        begun = [each for each in versions if each.valid_from is None or each.valid_from <= day]
        if begun and in_force(versions, day) is None:
            until = begun[-1].valid_until
            assert until is not None, "what has no end is in force"
            found[until] = found.get(until, (day, day))[0], day + timedelta(days=1)
    return found


def _days(period: Period) -> Iterator[date]:
    return (period.first_day + timedelta(days=number) for number in range(period.days))


def _between(usage: pa.Table, start: datetime, end: datetime) -> pa.Table:
    kind = pa.timestamp("us", "UTC")
    hours = usage["hour"]
    return usage.filter(
        pc.and_(pc.greater_equal(hours, pa.scalar(start, kind)), pc.less(hours, pa.scalar(end, kind)))
    )


def _sum(usage: pa.Table, quantity: str) -> int:
    return int(pc.sum(usage[quantity], min_count=0).as_py())


def past_end_json(found: Sequence[PastEnd]) -> list[dict[str, Any]]:
    """As warnings of docs/commands.md: {what, where, remedy, requests}."""
    return [
        {
            "what": (
                f"{each.requests:,} {'request' if each.requests == 1 else 'requests'} of {each.kind} {each.id} from"
                f" {each.first_hour:%Y-%m-%dT%H:%M:%SZ} on, past its valid_until {each.valid_until}, billed without"
                f" {_LACKS[each.kind]}"
            ),
            "where": f"{each.kind}/{each.id}",
            "remedy": _REMEDIES[each.kind],
            "requests": each.requests,
        }
        for each in found
    ]
