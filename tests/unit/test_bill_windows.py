"""Windows: which holds in an hour, by the clock and the calendar of the tariff's zone."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

from billing.facts import Facts
from billing.holiday import with_holidays
from billing.hourly import hour_number
from billing.period import Period
from billing.tariff import HOLIDAY, WEEKDAYS, Plain, PriceRow, Series, Step, Tariff, Window
from billing.window import PricedWindow, priced_windows, window_at, window_table

WORKDAYS = frozenset(WEEKDAYS[:5])
EVERY_DAY = frozenset((*WEEKDAYS, HOLIDAY))
ROW = PriceRow(("*",), (), {"input": Plain(Decimal(1)), "output": Plain(Decimal(1))})
NIGHT = Window("night", WORKDAYS, 22, 6, Decimal("0.5"))
WEEKEND = Window("weekend", frozenset({"sat", "sun", HOLIDAY}), 0, 24, Decimal("0.7"))


def tariff(*windows: Window, zone: str = "Europe/Vilnius") -> Tariff:
    return Tariff("t", "op", "EUR", zone, (ROW,), windows=windows, holidays="LT")


def facts(of: Tariff, month: str = "2026-11") -> Facts:
    return with_holidays(Facts(tariffs={"t": (of,)}), Period.parse(month))


def window(of: Tariff, instant: str, month: str = "2026-11") -> str | None:
    """The window's name at an instant with its offset."""
    found = window_at(of, facts(of, month), hour_number(datetime.fromisoformat(instant)))
    return None if found is None else found.name


def test_hours_outside_all_windows_are_base_at_factor_one() -> None:
    assert window_at(
        tariff(NIGHT), facts(tariff(NIGHT)), hour_number(datetime(2026, 11, 4, 12, tzinfo=UTC))
    ) == (PricedWindow("base", Decimal(1)))


def test_a_window_begins_with_its_first_hour_and_ends_before_its_last() -> None:
    of = tariff(NIGHT)
    assert window(of, "2026-11-04T21:00+02:00") == "base"
    assert window(of, "2026-11-04T22:00+02:00") == "night"
    assert window(of, "2026-11-05T05:00+02:00") == "night"
    assert window(of, "2026-11-05T06:00+02:00") == "base"


def test_hours_after_midnight_belong_to_the_day_on_which_the_window_began() -> None:
    of = tariff(NIGHT)
    assert window(of, "2026-11-07T03:00+02:00") == "night"  # Saturday: Friday's night
    assert window(of, "2026-11-09T03:00+02:00") == "base"  # Monday: Sunday has no night


def test_the_first_window_of_the_list_wins() -> None:
    assert window(tariff(NIGHT, WEEKEND), "2026-11-07T03:00+02:00") == "night"
    assert window(tariff(WEEKEND, NIGHT), "2026-11-07T03:00+02:00") == "weekend"


def test_a_holiday_is_a_holiday_and_keeps_its_weekday() -> None:
    of = tariff(WEEKEND, NIGHT)  # 2 November 2026, a Monday, is All Souls' Day in Lithuania
    assert window(of, "2026-11-02T12:00+02:00") == "weekend"
    assert window(
        tariff(Window("mondays", frozenset({"mon"}), 0, 24, Decimal(2))), "2026-11-02T12:00+02:00"
    ) == ("mondays")


def test_a_night_into_a_holiday_is_the_night_of_the_day_before_it() -> None:
    eve = Window("holiday-night", frozenset({HOLIDAY}), 22, 6, Decimal("0.1"))
    of = tariff(eve)  # 24 December 2026, Thursday, and the two days after it are holidays
    assert window(of, "2026-12-24T03:00+02:00", "2026-12") == "base"
    assert window(of, "2026-12-25T03:00+02:00", "2026-12") == "holiday-night"
    assert window(of, "2026-12-27T03:00+02:00", "2026-12") == "holiday-night"
    assert window(of, "2026-12-27T22:00+02:00", "2026-12") == "base"


def test_a_period_knows_the_holidays_of_the_days_beside_it() -> None:
    eve = Window("holiday-night", frozenset({HOLIDAY}), 22, 6, Decimal("0.1"))
    assert window(tariff(eve), "2026-11-02T03:00+02:00") == "holiday-night"  # of 1 November, a Sunday
    assert window(tariff(eve), "2027-01-01T23:00+02:00", "2026-12") == "holiday-night"


def test_an_hour_that_the_clock_repeats_is_in_its_window_twice_and_one_that_it_skips_never() -> None:
    of = tariff(Window("three", EVERY_DAY, 3, 4, Decimal(2)))
    repeated = [f"2026-10-25T{hour:02}:00+00:00" for hour in range(3)]
    assert [window(of, instant, "2026-10") for instant in repeated] == ["three", "three", "base"]
    skipped = [f"2026-03-29T{hour:02}:00+00:00" for hour in range(3)]
    assert [window(of, instant, "2026-03") for instant in skipped] == ["base", "base", "base"]


def test_windows_go_by_the_tariffs_zone() -> None:
    assert window(tariff(NIGHT, zone="America/New_York"), "2026-11-05T04:00+02:00") == "base"
    assert window(tariff(NIGHT, zone="America/New_York"), "2026-11-05T05:00+02:00") == "night"


SPOT = Window(
    "spot",
    EVERY_DAY,
    0,
    24,
    None,
    Series(hour_number(datetime(2026, 11, 4, tzinfo=UTC)), tuple(map(Decimal, ("-5", "40", "40.01")))),
    (Step(Decimal(40), Decimal("0.6")), Step(None, Decimal("1.1"))),
)


def test_a_series_window_is_named_by_its_step_and_up_to_is_inclusive() -> None:
    of = tariff(SPOT)
    assert [window(of, f"2026-11-04T{hour:02}:00+00:00") for hour in range(3)] == [
        "spot:1",
        "spot:1",
        "spot:2",
    ]
    assert [each.factor for each in priced_windows(of)] == [Decimal(1), Decimal("0.6"), Decimal("1.1")]


def test_an_hour_without_a_price_in_the_series_is_uncovered_though_a_later_window_would_hold() -> None:
    of = tariff(NIGHT, SPOT, WEEKEND)
    assert window(of, "2026-11-04T03:00+00:00") == "night"  # earlier in the list: comes first
    assert window(of, "2026-11-04T12:00+00:00") is None
    hour = hour_number(datetime(2026, 11, 4, 12, tzinfo=UTC))
    table = window_table([of], facts(of), hour, hour)
    assert table.codes.tolist() == [[-2]]


def test_a_table_has_a_code_for_every_hour_of_every_version() -> None:
    plain, of = tariff(), tariff(NIGHT, SPOT)
    first = hour_number(datetime(2026, 11, 3, 23, tzinfo=UTC))
    table = window_table([plain, of], facts(of), first, first + 5)
    assert table.codes.tolist() == [[0] * 6, [1, 1, 1, 1, 1, -2]]
    assert [[each.name for each in windows] for windows in table.windows] == [
        ["base"],
        ["base", "night", "spot:1", "spot:2"],
    ]


def test_dates_that_a_close_kept_win_over_the_calendar() -> None:
    of = tariff(WEEKEND)
    kept = with_holidays(facts(of), Period(2026, 11), {"LT": ["2026-11-04"]})
    assert kept.holidays["LT"] == frozenset({date(2026, 11, 4)})
    found = window_at(of, kept, hour_number(datetime(2026, 11, 4, 12, tzinfo=UTC)))
    assert found == PricedWindow("weekend", Decimal("0.7"))
