"""The columns of a price sheet's tables: the base price, and the price in each window.

A window of a fixed factor has a column, one that follows a price series a column for each step of the series:

                    night          spot           spot
                    22:00–06:00    10:00–16:00    10:00–16:00
                    Mon–Fri        Sat            Sat
                                   up to 40       above 40
    Base price      × 0.5          × 0.6          × 1

Where all of them fit on a phone beside the base price, they stand in one table. Else the windows of a fixed factor do,
if these fit, and each series has tables of its own; of more windows than fit the table of windows tells the share.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from babel import Locale

from billing.line import NO_FACTOR
from billing.tariff import HOLIDAY, WEEKDAYS, Series, Tariff, Window
from reports import figures
from reports.languages import Words, locale_of

MOST_COLUMNS = 3
"""Columns of prices that fit on a phone beside the base price."""

_RUN = 3  # so many days in a row are written as a span


@dataclass(frozen=True, slots=True)
class Column:
    """A column of prices: what stands over it, line by line, and by what the base price is multiplied in it."""

    head: tuple[str, ...]
    factor: Decimal


@dataclass(frozen=True, slots=True)
class Columns:
    """Those of one table. `title` stands over it, where it is not a row's first."""

    columns: tuple[Column, ...]
    title: str = ""


def tables_of_columns(tariff: Tariff, names: Words, language: str) -> tuple[Columns, ...]:
    """The columns of each table that a price row has: the first with the base price, others with steps of a series."""

    def columns(windows: Sequence[Window]) -> list[Column]:
        return [column for window in windows for column in _columns(window, names, language)]

    beside, apart = columns(tariff.windows), list[Columns]()
    if len(beside) > MOST_COLUMNS:
        for window in tariff.windows:
            apart += _of_series(window, names, language)
        beside = columns([window for window in tariff.windows if window.series is None])
    if len(beside) > MOST_COLUMNS:
        beside = []
    price = Column((names["base_price" if beside or apart else "price"],), NO_FACTOR)
    return (Columns((price, *beside)), *apart)


def _columns(window: Window, names: Words, language: str) -> Iterator[Column]:
    """A window's columns beside those of others, so each says whose it is."""
    head = window.name, *_time(window, names, language)
    if window.factor is not None:
        yield Column((*head, _times(window.factor, language)), window.factor)
    for bound, factor in bounds(window, names, language):
        yield Column((*head, bound, _times(factor, language)), factor)


def _of_series(window: Window, names: Words, language: str) -> Iterator[Columns]:
    """Tables of a window's steps alone, so many in each as fit where no base price stands; none without a series."""
    if window.series is None:
        return
    title = names["series_prices"].format(
        window=window.name,
        time=time_of(window, names, language),
        file=file_of(window.series, names),
    )
    steps = [
        Column((bound, _times(factor, language)), factor) for bound, factor in bounds(window, names, language)
    ]
    most = MOST_COLUMNS + 1
    for at in range(0, len(steps), most):
        yield Columns(tuple(steps[at : at + most]), title)


def bounds(window: Window, names: Words, language: str) -> Iterator[tuple[str, Decimal]]:
    """(`at most 40`, factor) of each step of a window that follows a series."""
    before: Decimal | None = None
    for step in window.steps:
        if step.up_to is not None:
            bound = names["step_to"].format(up_to=figures.exact(step.up_to, language))
        elif before is not None:
            bound = names["step_over"].format(over=figures.exact(before, language))
        else:
            bound = names["step_any"]
        yield bound, step.factor
        before = step.up_to


def time_of(window: Window, names: Words, language: str) -> str:
    """`22:00–06:00, Mon–Fri`: beside a window's name, which is the operator's own word."""
    return ", ".join(_time(window, names, language))


def _time(window: Window, names: Words, language: str) -> tuple[str, ...]:
    days = days_of(window.days, names, language)
    return (hours_of(window), days) if hours_of(window) else (days,)


def hours_of(window: Window) -> str:
    """`22:00–06:00`; empty for the whole day."""
    whole = (window.begin, window.end) == (0, 24)
    return "" if whole else f"{window.begin:02}:00–{window.end:02}:00"


def file_of(series: Series, names: Words) -> str:
    """Where a series comes from: its file, as the tariff names it."""
    return series.file or names["an_hourly_list"]


def _times(factor: Decimal, language: str) -> str:
    return f"×{figures.NO_BREAK_SPACE}{figures.exact(factor, language)}"


def days_of(days: frozenset[str], names: Words, language: str) -> str:
    """`Mon–Fri, public holidays`; spans of at least three days are drawn together."""
    short = Locale.parse(locale_of(language)).days["stand-alone"]["abbreviated"]
    numbers = [number for number, day in enumerate(WEEKDAYS) if day in days]
    if len(numbers) == len(WEEKDAYS):
        return names["every_day"]
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(
        [
            *(text for run in runs for text in _span([short[number] for number in run])),
            *([names["public_holidays"]] if HOLIDAY in days else []),
        ]
    )


def _span(days: Sequence[str]) -> Sequence[str]:
    return [f"{days[0]}–{days[-1]}"] if len(days) >= _RUN else days
