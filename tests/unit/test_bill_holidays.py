"""Public holidays by calendar, and what a close keeps of them."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

from billing.facts import Facts
from billing.holiday import calendar_days, calendar_names, holiday_texts, is_calendar, with_holidays
from billing.period import Period
from billing.tariff import HOLIDAY, WEEKDAYS, Tariff, Window

WEEKEND = Window("weekend", frozenset({"sat", "sun", HOLIDAY}), 0, 24, Decimal("0.7"))
ALL_DAYS = Window("peak", frozenset((*WEEKDAYS, HOLIDAY)), 9, 17, Decimal(2))


def facts(*windows: Window, calendar: str | None = "LT") -> Facts:
    tariff = Tariff("t", "op", "EUR", "Europe/Vilnius", (), windows=windows, holidays=calendar)
    return Facts(tariffs={"t": (tariff,)})


def test_calendars_are_countries_and_their_subdivisions() -> None:
    assert {"LT", "IT", "DE", "DE-BY"} <= set(calendar_names())
    assert is_calendar("DE-BY")
    assert not is_calendar("lt")
    assert not is_calendar("DE-Augsburg")
    assert list(calendar_names()) == sorted(calendar_names())


def test_a_subdivision_has_its_own_days() -> None:
    assumption = date(2026, 8, 15)
    assert assumption not in calendar_days("DE", 2026)
    assert date(2026, 1, 6) in calendar_days("DE-BY", 2026)
    assert date(2026, 1, 6) not in calendar_days("DE", 2026)


def test_a_close_keeps_the_days_of_the_period_and_a_week_around_it() -> None:
    assert holiday_texts(with_holidays(facts(WEEKEND), Period(2026, 12))) == {
        "LT": ["2026-12-24", "2026-12-25", "2026-12-26", "2027-01-01"]
    }


def test_a_calendar_that_no_window_asks_for_is_not_looked_up() -> None:
    assert holiday_texts(with_holidays(facts(ALL_DAYS, calendar=None), Period(2026, 12))) == {}
    assert with_holidays(facts(), Period(2026, 12)).holidays == {}


def test_what_a_close_kept_wins_even_where_it_kept_no_day_at_all() -> None:
    fixed = {"LT": list[str](), "IT": ["2026-12-08"]}
    kept = with_holidays(facts(WEEKEND), Period(2026, 12), fixed)
    assert holiday_texts(kept) == {"LT": []}
    assert holiday_texts(with_holidays(facts(WEEKEND, calendar="IT"), Period(2026, 12), fixed)) == {
        "IT": ["2026-12-08"]
    }
