"""Windows beside each other and beside their calendar and price series.

What a window matches depends on the weekday, on whether that day and the day before are holidays (a window across
midnight belongs to the day on which it began) and on the hour: 7 × 2 × 2 × 24 kinds of hour. A window is the set of
those that it matches, as the bits of a number, so what overlaps or shadows what is plain arithmetic on sets.
"""

from __future__ import annotations

import functools
import operator
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

from adapters.site_files.findings_rows import Place
from billing.holiday import asks_for_holidays
from billing.hourly import hour_number
from billing.money import format_price
from billing.tariff import HOLIDAY, WEEKDAYS, Series, Tariff, Window
from metering.refusal import Fault

KINDS_OF_HOUR = [
    (weekday, holiday, after, hour)
    for holiday in (False, True)
    for after in (False, True)
    for weekday in range(7)
    for hour in range(24)
]
"""(weekday from Monday, is the day a holiday, is the day before one, local hour); ordinary days first."""

ORDINARY = (1 << 7 * 24) - 1
"""The kinds of hour without any holiday: all there are where a calendar has none."""

SOON = timedelta(days=1)
"""Day-ahead prices are known a day ahead; a series that ends sooner needs its next file."""


MOST_NAMED = 3
"""So many earlier windows are named that share hours with one."""


@dataclass(frozen=True, slots=True)
class Calendar:
    """A tariff's holidays as warnings see them: `name`, and whether there are any in `year`."""

    name: str | None
    year: int
    has_days: bool


def odd_windows(
    tariff: Tariff, calendar: Calendar, now: datetime, end: date | None, place: Place
) -> Iterator[Fault]:
    """`now` is an aware instant; `end`: the first local day after the version, None: it has no end."""
    possible = -1 if calendar.has_days else ORDINARY
    won: list[tuple[Window, int]] = []
    for at, window in enumerate(tariff.windows):
        yield from _odd_factor(window.factor, place("windows", at, "factor"))
        yield from _odd_calendar(window, at, calendar, place)
        hours = _hours_of(window.days, window.begin, window.end) & possible
        yield from _odd_overlap(window, hours, won, place("windows", at))
        left = hours & ~functools.reduce(operator.or_, (taken for _, taken in won), 0)
        if left:
            won.append((window, left))
        if window.series is not None:
            yield from _odd_series(window, tariff, now, end, place("windows", at, "series"))
            yield from _odd_steps(window, window.series, at, place)
    if place("holidays") != place() and not any(map(asks_for_holidays, tariff.windows)):
        yield Fault(
            "holidays: no window names holiday among its days, so the calendar has no effect",
            place("holidays"),
            "add holiday to a window's days, or leave the key out",
        )


@functools.lru_cache(maxsize=4096)
def _hours_of(days: frozenset[str], begin: int, end: int) -> int:
    found = 0
    for bit, (weekday, holiday, after, hour) in enumerate(KINDS_OF_HOUR):
        today = WEEKDAYS[weekday] in days or (holiday and HOLIDAY in days)
        yesterday = WEEKDAYS[weekday - 1] in days or (after and HOLIDAY in days)
        across = end <= begin
        holds = (today and begin <= hour and (across or hour < end)) or (across and yesterday and hour < end)
        found |= int(holds) << bit
    return found


def _example(hours: int) -> str:
    """The first kind of hour of a set, in words."""
    weekday, holiday, after, hour = KINDS_OF_HOUR[(hours & -hours).bit_length() - 1]
    notes = [word for word, true in (("a holiday", holiday), ("after a holiday", after)) if true]
    return f"{WEEKDAYS[weekday]} {hour:02}:00" + (f" ({', '.join(notes)})" if notes else "")


def _odd_overlap(
    window: Window, hours: int, won: Sequence[tuple[Window, int]], where: str
) -> Iterator[Fault]:
    """`won`: of each earlier window the hours that it takes, if there are any."""
    name = window.name
    taken = [(earlier, theirs) for earlier, theirs in won if theirs & hours]
    if not hours:
        yield Fault(f"window {name} matches no hour", where, "mend its days or hours, or leave it out")
    elif not hours & ~functools.reduce(operator.or_, (theirs for _, theirs in taken), 0):
        by = [earlier.name for earlier, _ in taken[:MOST_NAMED]]
        what = f"window {name} is never reached: {' and '.join(by)} before it take all of its hours"
        yield Fault(what, where, "put it first, narrow the earlier ones, or leave it out")
    else:
        crossing = [each for each in taken if each[1] & ~hours and not _same_factor(each[0], window)]
        for earlier, theirs in crossing[:MOST_NAMED]:
            what = f"windows {earlier.name} and {name} overlap, for instance {_example(theirs & hours)}: {earlier.name} wins"
            yield Fault(what, where, f"put {name} first if it shall win, or change their days or hours")


def _same_factor(one: Window, other: Window) -> bool:
    return one.factor is not None and one.factor == other.factor


def _odd_calendar(window: Window, at: int, calendar: Calendar, place: Place) -> Iterator[Fault]:
    if not asks_for_holidays(window) or calendar.has_days:
        return
    what = f"window {window.name}: the calendar {calendar.name} has no holidays in {calendar.year}"
    yield Fault(
        what, place("windows", at, "days"), "name another calendar (holidays: …), or leave holiday out"
    )


def _may_be_percent(factor: Decimal) -> bool:
    """Whether a hundredth of the factor is one that people write: up to three times the price, to a hundredth percent."""
    return factor <= 300 and factor * 100 % 1 == 0


def _odd_factor(factor: Decimal | None, where: str) -> Iterator[Fault]:
    if factor == 0:
        yield Fault("factor 0: everything is free", where, "compare it; a low price is a small factor")
    elif factor is not None and factor >= 10 and _may_be_percent(factor):
        what = f"factor {format_price(factor)} looks like a percent: prices are multiplied by it"
        yield Fault(what, where, f"presumably {format_price(factor / 100)} is meant")
    elif factor is not None and factor > 3:
        yield Fault(f"factor {format_price(factor)} is more than three times the price", where, "compare it")


def _odd_series(
    window: Window, tariff: Tariff, now: datetime, end: date | None, where: str
) -> Iterator[Fault]:
    series = window.series
    assert series is not None
    begin = now if tariff.valid_from is None else datetime.combine(tariff.valid_from, time(), tariff.zone)
    until = None if end is None else datetime.combine(end, time(), tariff.zone)
    first, last = _instant(series.first), _instant(series.first + len(series.prices))
    unpriced = f"usage in hours of window {window.name} then stops a close"
    if series.first > hour_number(begin):
        what = f"the series begins {first:%Y-%m-%dT%H:%MZ}, after this version ({begin.astimezone(UTC):%Y-%m-%dT%H:%MZ})"
        yield Fault(f"{what}: {unpriced}", where, "add the earlier hours")
    if until is not None and last >= until:
        return
    if last <= max(now, begin):
        yield Fault(f"the series ended {last:%Y-%m-%dT%H:%MZ}: {unpriced}", where, "append the hours since")
    elif last < now + SOON:
        yield Fault(
            f"the series ends soon, {last:%Y-%m-%dT%H:%MZ}: {unpriced}",
            where,
            "append the next hours in time",
        )


def _instant(hour: int) -> datetime:
    return datetime.fromtimestamp(hour * 3600, UTC)


def _odd_steps(window: Window, series: Series, at: int, place: Place) -> Iterator[Fault]:
    bounds = [step.up_to for step in window.steps if step.up_to is not None]
    counts = Counter(bisect_left(bounds, price) for price in series.prices)
    least, most = format_price(min(series.prices)), format_price(max(series.prices))
    for number, step in enumerate(window.steps):
        where = place("windows", at, "steps", number)
        yield from _odd_factor(step.factor, place("windows", at, "steps", number, "factor"))
        if number and step.factor == window.steps[number - 1].factor:
            what = f"step {number + 1} has the factor of the step before it, {format_price(step.factor)}"
            yield Fault(what, where, "leave one of them out")
        if not counts[number]:
            what = f"no price of the series falls in step {number + 1} of window {window.name} (they are {least} to {most})"
            yield Fault(what, where, "compare the unit of the series with up_to")
