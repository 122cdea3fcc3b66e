"""From when other prices hold than those in force: the next window, and the next of the versions that they go by.

Those versions are the tariff's and, of a customer, all that rules 2, 3 and 7 ask: contracts (also the first, which
begins later), the operator's default tariff where no contract holds, and the customer's segment, which discounts
the whole month in whose last hour it holds; and where nodes are, since rows may name regions.

    2026-12-01T00:00+02:00   contract baltic-letters@2026-12-01 begins
    2026-12-10T00:00+02:00   node vilnius-1 is in LT-KA instead of LT-VL
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from billing.facts import Facts
from billing.hourly import hour_instant, hour_number
from billing.period import midnight
from billing.prices_in_force import window_in_force, window_text
from billing.site import V, Version, in_force, in_force_at
from billing.tariff import Tariff
from billing.terms import Terms
from billing.window import window_table

LOOK_AHEAD = timedelta(days=400)
"""How far another window is looked for: one of one day of the year is found."""


@dataclass(frozen=True, slots=True)
class Change:
    """From `at` on other prices hold; `what` says why, for a person."""

    at: datetime
    what: str


def next_changes(
    facts: Facts, terms: Terms, instant: datetime, zone: ZoneInfo, customer: str | None, region: str | None
) -> list[Change]:
    """The next change of versions and, where it comes before that, of windows; soonest first. Of nodes those
    of `region` count, of None all.

    `zone` is the operator's, in which all but tariffs begin and end; `facts.holidays` reaches as far as LOOK_AHEAD.
    """
    versions = [*_of_tariff(facts, terms, instant), *_of_nodes(facts, region, instant, zone)]
    if customer is not None:
        versions += _of_customer(facts, customer, instant, zone)
    found = [change for change in versions if change.at == min(each.at for each in versions)]
    end = min([instant + LOOK_AHEAD, *(change.at for change in found)])
    window = _window_change(terms.tariff, facts, instant, end)
    return [window, *found] if window else found


def _of_tariff(facts: Facts, terms: Terms, instant: datetime) -> Iterator[Change]:
    for tariff in facts.tariffs[terms.tariff.id]:
        yield from _edges(tariff, f"tariff {tariff.version}", instant, tariff.zone)


def _of_customer(facts: Facts, customer: str, instant: datetime, zone: ZoneInfo) -> Iterator[Change]:
    contracts = facts.contracts.get(customer, ())
    for contract in contracts:
        yield from _edges(contract, f"contract {contract.version}", instant, zone)
    for at, before, after in _turns(facts.operator, lambda each: each.default_tariff, instant, zone):
        if in_force_at(contracts, at, zone) is None:
            what = (
                f"{facts.operator[-1].id}'s default tariff is {after or 'none'} instead of {before or 'none'}"
            )
            yield Change(at, what)
    for at, before, after in _turns(facts.customers[customer], lambda each: each.segment, instant, zone):
        what = f"customer {customer} is in segment {after or 'none'} instead of {before or 'none'}, for that whole month"
        yield Change(at, what)


def _of_nodes(facts: Facts, region: str | None, instant: datetime, zone: ZoneInfo) -> Iterator[Change]:
    for node, versions in facts.nodes.items():
        for at, before, after in _turns(versions, lambda each: each.region, instant, zone):
            # Before a node is declared first, it has no usage whose price could change.
            if before is not None and region in (None, before, after):
                yield Change(at, f"node {node} is in {after or 'no region'} instead of {before}")


def _edges(version: Version, name: str, instant: datetime, zone: ZoneInfo) -> Iterator[Change]:
    for day, happens in ((version.valid_from, "begins"), (version.valid_until, "ends")):
        if day is not None and (at := midnight(day, zone)) > instant:
            yield Change(at, f"{name} {happens}")


def _turns(
    versions: Sequence[V], said: Callable[[V], str | None], instant: datetime, zone: ZoneInfo
) -> Iterator[tuple[datetime, str | None, str | None]]:
    """(when, before, after) of each later day on which what versions of one id say becomes something else."""
    days = {day for each in versions for day in (each.valid_from, each.valid_until) if day is not None}
    for day in sorted(days):
        found = [in_force(versions, each) for each in (day - timedelta(days=1), day)]
        before, after = (None if each is None else said(each) for each in found)
        if before != after and (at := midnight(day, zone)) > instant:
            yield at, before, after


def _window_change(tariff: Tariff, facts: Facts, instant: datetime, end: datetime) -> Change | None:
    first = hour_number(instant)
    [codes] = window_table([tariff], facts, first, hour_number(end) - 1).codes.tolist()
    for hour, code in enumerate(codes, first):
        if code != codes[0]:
            return Change(hour_instant(hour), window_text(window_in_force(tariff, facts, hour_instant(hour))))
    return None
