"""Windows: which one holds in an hour of a tariff version, and its factor (arithmetic rule 4).

The first window whose days and local hours hold at the hour's local start; none: `base`, factor 1. Of a window across
midnight the hours after it belong to the day on which it began, so a night before a holiday is a night of the day
before. Hours are taken from the clock of the tariff's zone: a window "03:00-04:00" has two hours in the night in which
the clock goes back, and none in the one in which it goes forward past them.

A window that follows a price series is as many windows as it has steps, `spot:1` … `spot:n`, so that a line has one
factor. Where its series has no price for an hour, the hour is uncovered: nothing after it in the list is tried, and
usage in it is unpriced.

    windows night 22-06 0.5, spot with two steps     codes: 0 base, 1 night, 2 spot:1, 3 spot:2; −2 spot uncovered
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal

import numpy as np

from billing.facts import Facts
from billing.hourly import Integers, hour_instant
from billing.line import BASE_WINDOW, NO_FACTOR
from billing.tariff import HOLIDAY, WEEKDAYS, Tariff, Window
from billing.terms import TermsRow

BASE = 0
"""The code of `base`, in every tariff version."""
_A_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class PricedWindow:
    """A window as lines name it, and its factor."""

    name: str
    factor: Decimal


@dataclass(frozen=True, slots=True)
class WindowTable:
    """Windows of some tariff versions (by place) in the hours from `first` on.

    `codes[tariff, hour − first]` is a place in `windows[tariff]`, or −1 − w in an hour that the series of the tariff's
    window w does not cover.
    """

    first: int
    windows: Sequence[Sequence[PricedWindow]]
    codes: Integers
    tariffs: Sequence[Tariff]

    def tariff_of(self, rows: Sequence[TermsRow]) -> Integers:
        """The place of each price row's tariff version."""
        places = {tariff.version: place for place, tariff in enumerate(self.tariffs)}
        return np.array([places[row.tariff_version] for row in rows], np.int64)


def window_table(tariffs: Sequence[Tariff], facts: Facts, first: int, last: int) -> WindowTable:
    """Windows of every tariff version in the hours `first` to `last`, both included (numbers since 1970)."""
    hours = range(first, last + 1)
    codes = np.zeros((len(tariffs), len(hours)), np.int64)
    for place, tariff in enumerate(tariffs):
        if tariff.windows:
            code_of = _codes(tariff, facts)
            codes[place] = [code_of(hour) for hour in hours]
    return WindowTable(first, [priced_windows(tariff) for tariff in tariffs], codes, tariffs)


def window_at(tariff: Tariff, facts: Facts, hour: int) -> PricedWindow | None:
    """The window of one hour (a number since 1970); None where a series does not cover it."""
    code = _codes(tariff, facts)(hour)
    return None if code < 0 else priced_windows(tariff)[code]


def priced_windows(tariff: Tariff) -> tuple[PricedWindow, ...]:
    """What lines may name: `base`, then the tariff's windows in file order, a series' steps from 1."""
    found = [PricedWindow(BASE_WINDOW, NO_FACTOR)]
    for window in tariff.windows:
        if window.factor is not None:
            found.append(PricedWindow(window.name, window.factor))
        else:
            found += [
                PricedWindow(f"{window.name}:{n}", step.factor) for n, step in enumerate(window.steps, 1)
            ]
    return tuple(found)


def _codes(tariff: Tariff, facts: Facts) -> Callable[[int], int]:
    """Hour → code, for one tariff version."""
    zone = tariff.zone
    starts = [1]
    for window in tariff.windows:
        starts.append(starts[-1] + (len(window.steps) or 1))

    def code(hour: int) -> int:
        local = hour_instant(hour).astimezone(zone)
        for place, window in enumerate(tariff.windows):
            if not holds(window, local, tariff, facts):
                continue
            if window.series is None:
                return starts[place]
            price = window.series.at(hour)
            return -1 - place if price is None else starts[place] + window.step_of(price)
        return BASE

    return code


def holds(window: Window, local: datetime, tariff: Tariff, facts: Facts) -> bool:
    """Whether the window's days and hours hold at a local instant of the tariff's zone."""
    day = local.date()
    if window.begin < window.end:
        return window.begin <= local.hour < window.end and _is_day_of(window, day, tariff, facts)
    if local.hour >= window.begin:
        return _is_day_of(window, day, tariff, facts)
    return local.hour < window.end and _is_day_of(window, day - _A_DAY, tariff, facts)


def _is_day_of(window: Window, day: date, tariff: Tariff, facts: Facts) -> bool:
    if WEEKDAYS[day.weekday()] in window.days:
        return True
    if HOLIDAY not in window.days:
        return False
    assert tariff.holidays is not None, tariff.version
    assert tariff.holidays in facts.holidays, "with_holidays comes before rating"
    return day in facts.holidays[tariff.holidays]
