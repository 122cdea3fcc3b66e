"""Public holidays by calendar: the only place that asks the `holidays` library, and how a period keeps its answer.

A calendar is named as ISO 3166 does, a country (LT) or one of its subdivisions (DE-BY), and has the days that the
library lists for it by default. Parliaments and the library change their minds, so the days that a period's first
close used are kept with that close and win from then on:

    facts = with_holidays(facts, period, fixed)      what whoever rates calls first; `fixed` from the last close
    holiday_texts(facts)                             {"LT": ["2026-11-01", "2026-11-02"]}, what the close keeps
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from functools import lru_cache

import holidays

from billing.facts import Facts
from billing.period import Period
from billing.tariff import HOLIDAY, WEEKDAYS, Tariff, Window

_NAME = re.compile(r"[A-Z]{2}(-[A-Z0-9]{1,3})?")
_BEYOND = timedelta(days=7)
"""Days kept on both sides of a period: another zone's day may differ by one, a window begins the evening before."""


@lru_cache(maxsize=1)
def calendar_names() -> tuple[str, ...]:
    """Every calendar there is, sorted: LT, DE-BY, …"""
    countries = holidays.list_supported_countries(include_aliases=False)
    names = [*countries, *(f"{country}-{part}" for country, parts in countries.items() for part in parts)]
    # A few subdivisions are the library's own (a town with a holiday of its own) and have no ISO 3166-2 code.
    return tuple(sorted(name for name in names if _NAME.fullmatch(name)))


@lru_cache(maxsize=1)
def _calendars() -> frozenset[str]:
    return frozenset(calendar_names())


def is_calendar(name: str) -> bool:
    """Whether the library knows public holidays of this country or subdivision."""
    return name in _calendars()


@lru_cache(maxsize=1024)
def calendar_days(name: str, year: int) -> frozenset[date]:
    """The public holidays of a calendar in a year, as the library lists them by default."""
    assert is_calendar(name), name
    country, _, subdivision = name.partition("-")
    return frozenset(holidays.country_holidays(country, subdiv=subdivision or None, years=year))


def with_holidays(facts: Facts, period: Period, fixed: Mapping[str, Sequence[str]] | None = None) -> Facts:
    """`facts` with the holidays of the period and some days around it, of every calendar that a window asks for.

    `fixed`: ISO dates by calendar, as a former close kept them; a calendar named there has these and no others.
    """
    known = fixed or {}
    first, last = period.first_day - _BEYOND, period.last_day + _BEYOND
    days = {
        name: frozenset(map(date.fromisoformat, known[name]))
        if name in known
        else frozenset(
            day
            for year in range(first.year, last.year + 1)
            for day in calendar_days(name, year)
            if first <= day <= last
        )
        for name in _asked_for(facts)
    }
    return replace(facts, holidays={**facts.holidays, **days})


def holiday_texts(facts: Facts) -> dict[str, list[str]]:
    """The dates that `with_holidays` found, by calendar, as a close keeps them; a calendar may have none."""
    return {name: sorted(map(date.isoformat, facts.holidays[name])) for name in _asked_for(facts)}


def asks_for_holidays(window: Window) -> bool:
    """Whether the window needs a calendar: it names holidays, and not every weekday beside them."""
    return HOLIDAY in window.days and not window.days.issuperset(WEEKDAYS)


def _asked_for(facts: Facts) -> list[str]:
    return sorted(
        {
            _calendar(tariff)
            for versions in facts.tariffs.values()
            for tariff in versions
            if any(map(asks_for_holidays, tariff.windows))
        }
    )


def _calendar(tariff: Tariff) -> str:
    assert tariff.holidays is not None, f"{tariff.version} has windows for holidays and no calendar"
    return tariff.holidays
