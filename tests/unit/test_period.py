"""Billing periods: months in the operator's zone."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.period import Period, midnight
from metering.refusal import Refusal

VILNIUS = ZoneInfo("Europe/Vilnius")


def test_october_in_vilnius_has_one_hour_more() -> None:
    start, end = Period(2026, 10).bounds(VILNIUS)
    assert start == datetime(2026, 9, 30, 21, tzinfo=UTC)
    assert end == datetime(2026, 10, 31, 22, tzinfo=UTC)
    assert end - start == timedelta(hours=745)


def test_march_in_rome_has_one_hour_less() -> None:
    start, end = Period(2027, 3).bounds(ZoneInfo("Europe/Rome"))
    assert end - start == timedelta(hours=743)


def test_a_midnight_that_is_skipped_begins_where_the_gap_ends() -> None:
    # Cairo put its clocks from 2026-04-24T00:00 to 01:00
    assert midnight(date(2026, 4, 24), ZoneInfo("Africa/Cairo")) == datetime(2026, 4, 23, 22, tzinfo=UTC)


@given(st.integers(2020, 2100), st.integers(1, 12), st.sampled_from(["Europe/Vilnius", "Europe/Rome", "UTC"]))
def test_periods_follow_each_other_without_gap(year: int, month: int, zone: str) -> None:
    period = Period(year, month)
    assert period.bounds(ZoneInfo(zone))[1] == period.next.bounds(ZoneInfo(zone))[0]
    assert period.next.previous == period
    assert Period.parse(str(period)) == period
    assert period < period.next


@given(st.integers(0, 15 * 366 * 24))
def test_an_instant_belongs_to_the_period_whose_bounds_hold_it(hours: int) -> None:
    instant = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(hours=hours)
    start, end = Period.holding(instant, VILNIUS).bounds(VILNIUS)
    assert start <= instant < end


@pytest.mark.parametrize("text", ["2026-13", "2026-00", "2026-1", "26-10", "2026-10-01", "", "october"])
def test_what_is_no_month_is_refused(text: str) -> None:
    with pytest.raises(Refusal) as refused:
        Period.parse(text)
    assert refused.value.code == "bad_period"


@pytest.mark.parametrize("text", ["1969-01", "1999-12", "9999-12"])
def test_a_month_of_another_age_is_refused_with_the_years_that_there_are(text: str) -> None:
    with pytest.raises(Refusal) as refused:
        Period.parse(text)
    assert "years 2000 to 9998" in refused.value.what
    assert refused.value.remedy == "name a month from 2000-01 to 9998-12"
