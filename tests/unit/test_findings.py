"""What is odd in tariffs, held against the meaning of rows, tiers and windows: warnings say what is true."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.site_files.findings_globs import covers, meeting
from adapters.site_files.findings_prices import odd_prices
from adapters.site_files.findings_rows import odd_rows
from adapters.site_files.findings_scale import odd_scales
from adapters.site_files.findings_windows import Calendar, odd_windows
from billing.facts import Facts
from billing.tariff import Plain, PriceRow, Series, Step, Tariff, Tier, Volume, Window, glob_matches
from billing.window import holds
from metering.refusal import Fault

TEXTS = ["".join(letters) for count in range(6) for letters in itertools.product("ab", repeat=count)]
globs = st.text("ab*", min_size=1, max_size=4)


def place(*path: str | int) -> str:
    """A path in words; these tariffs state no calendar of their own."""
    return "" if path == ("holidays",) else ".".join(map(str, path))


def said(faults: Sequence[Fault]) -> list[str]:
    return [f"{fault.where}: {fault.what}" for fault in faults]


@given(globs, globs)
def test_a_glob_covers_another_where_it_matches_all_that_it_matches(wide: str, narrow: str) -> None:
    # a third letter, which no glob spells, stands for whatever else a star may match
    texts = [text.replace("a", "c", 1) if "*" in narrow else text for text in TEXTS] + TEXTS
    if covers(wide, narrow):
        assert all(glob_matches(wide, text) for text in texts if glob_matches(narrow, text))
    else:
        fresh = narrow.replace("*", "ccccc")
        assert glob_matches(narrow, fresh)
        assert not glob_matches(wide, fresh)


@given(globs, globs)
def test_globs_meet_where_some_text_matches_both(one: str, other: str) -> None:
    text = meeting(one, other)
    if text is None:
        assert not any(glob_matches(one, each) and glob_matches(other, each) for each in TEXTS)
    else:
        assert glob_matches(one, text)
        assert glob_matches(other, text)


rows_of_models = st.lists(
    st.tuples(
        st.lists(st.sampled_from(["*", "a*", "*b", "ab", "ac", "a*b"]), min_size=1, max_size=2, unique=True),
        st.lists(st.sampled_from(["LT-*", "LT-VL", "IT"]), max_size=2, unique=True),
        st.sampled_from([None, 32_000, 128_000]),
    ),
    min_size=1,
    max_size=4,
)


@given(rows_of_models)
def test_a_row_is_said_to_be_never_reached_exactly_if_no_usage_reaches_it(
    stated: list[tuple[list[str], list[str], int | None]],
) -> None:
    rows = [
        PriceRow(tuple(models), tuple(regions), {"input": Plain(Decimal(number))}, prompt_over=band)
        for number, (models, regions, band) in enumerate(stated, 1)
    ]
    models = ["ab", "ac", "aXb", "aX", "Xb", "X"]
    usage = itertools.product(models, ("LT-VL", "LT-XX", "IT", "XX"), (0, 32_000, 128_000))
    matching = [[at for at, row in enumerate(rows) if row.matches(*each)] for each in usage]
    reached = {found[0] for found in matching if found}
    named = [
        int(found[1]) - 1
        for text in said(list(odd_rows(rows, place)))
        if (found := re.search(r"row (\d) is never", text))
    ]
    assert named == [at for at in range(len(rows)) if at not in reached]


@given(st.integers(1, 10**9), st.decimals("0.01", "99", places=2), st.decimals("0.01", "99", places=2))
def test_a_volume_cliff_is_told_with_the_quantity_and_what_one_more_unit_saves(
    up_to: int, price: Decimal, following: Decimal
) -> None:
    row = PriceRow(("*",), (), {"input": Volume((Tier(up_to, price), Tier(None, following)))})
    (told,) = said(list(odd_prices([row], "EUR", place))) or [""]
    difference = (Fraction(price) * up_to - Fraction(following) * (up_to + 1)) / 1_000_000
    assert ("lowers the bill" in told) == (difference > 0)
    if difference >= Fraction(1, 100):
        amount = re.search(
            r"unit ([\d,]+) lowers the bill by ([\d,.]+) EUR; up to ([\d,]+) cost no more", told
        )
        assert amount is not None
        unit, by, until = (each.replace(",", "") for each in amount.groups())
        assert int(unit) == up_to + 1
        assert abs(Fraction(by) - difference) <= Fraction(1, 200)
        assert (
            Fraction(following) * int(until)
            <= Fraction(price) * up_to
            < Fraction(following) * (int(until) + 1)
        )


def tariff(*windows: Window, holidays: str | None = "LT") -> Tariff:
    return Tariff("t", "o", "EUR", "Europe/Vilnius", (), windows=windows, holidays=holidays)


WEEKS = [date(2026, 1, 5) + timedelta(days=number) for number in range(7 * 16)]
FEASTS = frozenset(Random(1).sample(WEEKS, 56))
"""So many that every weekday is a holiday, comes after one, both and neither."""

some_windows = st.lists(
    st.builds(
        lambda days, hours, factor: (frozenset(days), *hours, factor),
        st.sets(st.sampled_from(["mon", "wed", "fri", "sat", "sun", "holiday"]), min_size=1),
        st.tuples(st.integers(0, 23), st.integers(1, 24)).filter(lambda edges: edges[0] != edges[1]),
        st.sampled_from([Decimal("0.5"), Decimal("0.7")]),
    ),
    min_size=1,
    max_size=3,
)


def test_the_feasts_of_these_tests_fall_in_every_way() -> None:
    ways = {(day.weekday(), day in FEASTS, day - timedelta(days=1) in FEASTS) for day in WEEKS[1:]}
    assert len(ways) == 7 * 2 * 2


@settings(max_examples=50, deadline=None)
@given(some_windows)
def test_what_is_said_of_windows_is_true_of_the_hours_in_which_they_hold(
    stated: list[tuple[frozenset[str], int, int, Decimal]],
) -> None:
    windows = [Window(f"w{number}", *each) for number, each in enumerate(stated)]
    made, facts = tariff(*windows), Facts(holidays={"LT": FEASTS})
    hours = [datetime(day.year, day.month, day.day, hour, tzinfo=UTC) for day in WEEKS for hour in range(24)]
    held = [{hour for hour in hours if holds(window, hour, made, facts)} for window in windows]
    now = datetime(2026, 11, 22, tzinfo=UTC)
    told = said(list(odd_windows(made, Calendar("LT", 2026, True), now, None, place)))
    for at, (window, own) in enumerate(zip(windows, held, strict=True)):
        before = set().union(*held[:at])
        if any(f"window {window.name} is never reached" in each for each in told):
            assert own <= before
        for each in told:
            if found := re.search(rf"windows (w\d) and {window.name} overlap", each):
                other = held[int(found[1][1:])]
                assert other & own
                assert other - own


def test_an_hour_in_which_windows_overlap_is_told_by_day_and_hour() -> None:
    night = Window("night", frozenset({"fri"}), 22, 6, Decimal("0.5"))
    weekend = Window("weekend", frozenset({"sat", "sun"}), 0, 24, Decimal("0.7"))
    now = datetime(2026, 11, 22, tzinfo=UTC)
    assert said(list(odd_windows(tariff(night, weekend), Calendar("LT", 2026, True), now, None, place))) == [
        "windows.1: windows night and weekend overlap, for instance sat 00:00: night wins"
    ]
    narrower = Window("sunday", frozenset({"sun"}), 8, 12, Decimal("0.5"))
    assert not said(
        list(odd_windows(tariff(narrower, weekend), Calendar("LT", 2026, True), now, None, place))
    )


@pytest.mark.parametrize(
    ("hours", "told"),
    [
        (48, []),
        (
            12,
            [
                "windows.0.series: the series ends soon, 2026-11-22T12:00Z: usage in hours of window spot then stops a close"
            ],
        ),
        (
            9,
            [
                "windows.0.series: the series ended 2026-11-22T09:00Z: usage in hours of window spot then stops a close"
            ],
        ),
    ],
)
def test_a_series_that_has_ended_or_soon_will_is_named(hours: int, told: list[str]) -> None:
    first = int(datetime(2026, 11, 22, tzinfo=UTC).timestamp()) // 3600
    series = Series(first, (Decimal(40),) * hours)
    spot = Window("spot", frozenset({"mon"}), 0, 24, None, series, (Step(None, Decimal("0.5")),))
    now = datetime(2026, 11, 22, 9, tzinfo=UTC)
    assert said(list(odd_windows(tariff(spot), Calendar("LT", 2026, True), now, None, place))) == told


@pytest.mark.parametrize(
    ("factor", "remedy"),
    [
        ("50", "presumably 0.5 is meant"),
        ("62.5", "presumably 0.625 is meant"),
        ("999.999999", "compare it"),  # a hundredth of it is nothing that anybody writes
        ("12.3456", "compare it"),
        ("1000", "compare it"),
    ],
)
def test_a_factor_that_may_be_a_percent_is_said_with_the_factor_that_is_meant(
    factor: str, remedy: str
) -> None:
    night = Window("night", frozenset({"mon"}), 0, 6, Decimal(factor))
    now = datetime(2026, 11, 22, 9, tzinfo=UTC)
    (odd,) = odd_windows(tariff(night), Calendar("LT", 2026, True), now, None, place)
    assert odd.remedy == remedy


@pytest.mark.parametrize(
    ("currency", "price", "told"),
    [
        ("EUR", "0.4", ""),
        ("EUR", "0.0004", "presumably 0.4 is meant"),
        ("EUR", "0.0000004", "presumably 0.4 is meant"),
        ("JPY", "60", ""),
        ("JPY", "60000", ""),
        ("JPY", "0.06", "presumably 60 is meant"),
        ("LBP", "60000000", ""),  # nothing to hold it against
        ("EUR", "0", ""),  # free
    ],
)
def test_a_price_is_held_against_what_such_prices_are_in_its_currency(
    currency: str, price: str, told: str
) -> None:
    row = PriceRow(("*",), (), {"input": Plain(Decimal(price))})
    remedies = [fault.remedy for fault in odd_scales([row], currency, place, {})]
    assert len(remedies) == bool(told)
    assert all(told in remedy for remedy in remedies)


def test_of_two_prices_a_thousand_times_apart_the_unusual_one_is_named() -> None:
    rows = [
        PriceRow((name,), (), {"input": Plain(Decimal(price))})
        for name, price in (("a", "0.25"), ("b", "250"))
    ]
    assert [fault.where for fault in odd_scales(rows, "EUR", place, {})] == ["prices.1.input"]
    before = {0: ("vilnius", PriceRow(("a",), (), {"input": Plain(Decimal(250))}))}
    (fault,) = odd_scales(rows[:1], "EUR", place, before)
    assert (fault.where, fault.remedy) == (
        "prices.0.input",
        "presumably 250 is meant; prices are per 1,000,000 tokens",
    )


def test_rows_beyond_counting_are_not_compared_and_that_is_said() -> None:
    rows = [PriceRow((f"m{number}",), (), {"input": Plain(Decimal(1))}) for number in range(1000)]
    (fault,) = odd_rows(rows, place)
    assert fault.what == "1000 rows are too many to be compared with each other"
