"""What issued documents and closes mean for an apply: versions that are held fast, and periods to be closed again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from adapters.site_files.store import Span, Subject
from adapters.site_files.superseding import RATED_BY, Change, further_hours
from adapters.site_files.tariff_scalars import FIRST
from adapters.site_files.versions import (
    UTC,
    Placed,
    begin,
    end,
    identity_of,
    merged,
    shown,
    timelines,
    zone_of,
    zones_of,
)
from billing.period import midnight, within_calendar
from billing.stored import StoredDocument
from metering.refusal import Fault


def check_issued(
    placed: Sequence[Placed],
    stored: Sequence[StoredDocument],
    issued: Mapping[Subject, Span],
    faults: list[Fault],
) -> None:
    """Refuse what would change a version that issued documents rest on, by its content or by cutting it
    short.
    """
    known, zones = timelines(stored), zones_of([], stored)
    for each in placed:
        span = issued.get(_rests_on(each.version))
        timeline = known.get(identity_of(each.version), [])
        if each.state == "unchanged" or span is None or each.supersedes or each.takes_back:
            continue  # what takes a correction back is refused already, with the remedy that fits
        held = [other for other in timeline if begin(other) <= begin(each.version)]
        if not held:
            continue
        before = held[-1]
        if begin(each.version) >= span.end or end(before, timeline) <= max(span.first, begin(each.version)):
            continue
        if each.former is not None and _only_later(each.former, each.version, span.end, zones):
            continue
        remedy = (
            f"let a later version follow: valid_from {span.end} or later, or none for the next midnight; "
            f"or correct it: `supersedes: {before.valid_from or FIRST}` and `reason: …`"
        )
        what = f"{shown(before)} was used by issued documents and can't be changed"
        faults.append(Fault(what, each.document.where, remedy))


def _only_later(
    before: StoredDocument, after: StoredDocument, issued_until: date, zones: Mapping[str, ZoneInfo]
) -> bool:
    """Whether a version only grows by hours of its price series, all of them after the days that were issued."""
    further = further_hours(before, after)
    zone = zone_of(after.body, zones.get(after.operator, UTC))
    return further is not None and further >= midnight(issued_until, zone)


def agreed_after_billing(placed: Sequence[Placed], issued: Mapping[Subject, Span]) -> list[Fault]:
    """A warning of each contract that begins among days that its customer was billed for without it."""
    odd: list[Fault] = []
    for each in placed:
        version = each.version
        span = issued.get(Subject(version.operator, "customer", version.id))
        if (
            version.kind != "contract"
            or each.state != "created"
            or span is None
            or begin(version) >= span.end
        ):
            continue
        since = "from ever" if version.valid_from is None else f"from {version.valid_from}"
        last = span.end - timedelta(days=1)
        what = (
            f"{shown(version)} holds {since}, and its customer was billed for {span.first} to {last} already"
        )
        remedy = f"`valid_from: {span.end}` or later, unless the next close of those months shall bill the difference"
        odd.append(Fault(what, each.document.where, remedy))
    return odd


def changes(
    placed: Sequence[Placed], stored: Sequence[StoredDocument], issued: Mapping[Subject, Span]
) -> list[Change]:
    """Which days are rated otherwise than before, of every version that somebody put into the past on purpose: one that
    takes another's place, prices with a date, and a first contract without one. `issued`: days that documents speak
    about."""
    before, after = timelines(stored), timelines(merged(placed, stored))
    zones = zones_of([], stored)
    found: list[Change] = []
    for each in placed:
        version = each.version
        dated = version.kind in ("tariff", "contract") and version.valid_from is not None
        if each.state == "created" and version.kind == "contract" and not dated:
            found += _from_ever(version, after[identity_of(version)], issued)
        if each.state == "unchanged" or version.kind not in RATED_BY or not (dated or each.supersedes):
            continue
        identity = identity_of(version)
        ends = [end(version, after[identity])]
        ends += [end(each.former, before[identity])] if each.former is not None else []
        further = further_hours(each.former, version) if each.former is not None else None
        operators = zones.get(version.operator, UTC)
        own = zone_of(version.body, operators)
        begins = (
            _first_day(begin(version), own, operators) if further is None else _day_of(further, operators)
        )
        change = Change(version.operator, begins, _end_day(max(ends), own, operators))
        if version.kind == "tariff":
            found += _where_used(version, change, [*before.values(), *after.values()])
        else:
            found.append(change)
    return found


def _first_day(day: date, zone: ZoneInfo, operators: ZoneInfo) -> date:
    """The operator's day in which a day of another zone begins; what holds from ever does so in every zone."""
    return day if zone == operators or not within_calendar(day) else _day_of(midnight(day, zone), operators)


def _end_day(day: date, zone: ZoneInfo, operators: ZoneInfo) -> date:
    """The first of the operator's days that is wholly past the midnight with which a day of another zone begins."""
    if zone == operators or not within_calendar(day):
        return day
    at = midnight(day, zone)
    held = _day_of(at, operators)
    return held if midnight(held, operators) == at else held + timedelta(days=1)


def _day_of(instant: datetime, zone: ZoneInfo) -> date:
    return instant.astimezone(zone).date()


def _from_ever(
    contract: StoredDocument, timeline: Sequence[StoredDocument], issued: Mapping[Subject, Span]
) -> Iterator[Change]:
    """The days on which a contract without a first day changes something: those that its customer was billed for; all,
    where it asks for money without usage."""
    until = end(contract, timeline)
    span = issued.get(Subject(contract.operator, "customer", contract.id))
    if "fees" in contract.body or "commitment" in contract.body:
        yield Change(contract.operator, begin(contract), until)
    elif span is not None:
        yield Change(contract.operator, span.first, min(until, span.end))


def _where_used(
    tariff: StoredDocument, change: Change, known: Iterable[Sequence[StoredDocument]]
) -> Iterator[Change]:
    """The days of a tariff's change on which somebody is on it, by default or by contract."""
    for timeline in known:
        for version in timeline:
            words = {"operator": "default_tariff", "contract": "tariff"}
            on_it = version.body.get(words.get(version.kind, "")) == tariff.id
            if version.operator != tariff.operator or not on_it:
                continue
            first = max(change.begin, begin(version))
            until = min(change.end, end(version, timeline))
            if first < until:
                yield Change(change.operator, first, until)


def _rests_on(version: StoredDocument) -> Subject:
    """The subject whose issued documents hold a version fast; a node's region is in all of its operator's."""
    if version.kind == "node":
        return Subject(version.operator, "operator", version.operator)
    return Subject(*identity_of(version))
