"""The public price sheet of a tariff version: what everybody pays, by region, as one HTML page or as a PDF/A-3b.

    price_sheet_html(sheet, "de") -> str        whole in itself: no script, font or picture from elsewhere
    price_sheet_pdf(sheet, "de") -> bytes       the same page on A4

It says what the tariff says and nothing that is agreed with one customer: contracts are not given to it. Regions
with the same rows share a section. Prices stand with all of their digits; those of windows are list price × factor,
exact, as bills have them. What stands in a section is made by `reports.price_sheet_rows`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from zoneinfo import ZoneInfo

from billing.holiday import asks_for_holidays
from billing.hourly import hour_instant
from billing.site import Operator
from billing.tariff import METERS, OUTCOMES, PRICE_BASE, Package, Series, Tariff, Window
from reports import figures
from reports.languages import Words, sheet_words
from reports.parties import address_lines
from reports.pdf import html, to_pdf
from reports.price_sheet_columns import days_of, file_of, hours_of
from reports.price_sheet_rows import notes, sections

TEMPLATE = "price_sheet.html"
STYLE = "price_sheet_print.css"


@dataclass(frozen=True, slots=True)
class PriceSheet:
    """What a sheet is made of: the version that holds on day `at`, until `valid_until` (exclusive), in `regions`.

    `holidays`: the public holidays of the year of `at` in the tariff's calendar.
    """

    operator: Operator
    tariff: Tariff
    at: date
    valid_until: date | None
    regions: tuple[str, ...]
    holidays: tuple[date, ...]


@dataclass(frozen=True, slots=True)
class PrintedWindow:
    """A window as a row of the table of windows."""

    name: str
    days: str
    hours: str
    price: str


def price_sheet_pdf(sheet: PriceSheet, language: str) -> bytes:
    """The sheet as the bytes of a PDF/A-3b in one of `languages.SHEET_LANGUAGES`."""
    return to_pdf(_page(sheet, language, screen=False), STYLE)


def price_sheet_html(sheet: PriceSheet, language: str) -> str:
    """The sheet as a page for screens, style sheet included, in one of `languages.SHEET_LANGUAGES`."""
    return _page(sheet, language, screen=True)


def _page(sheet: PriceSheet, language: str, *, screen: bool) -> str:
    names, tariff = sheet_words(language), sheet.tariff
    found = tuple(sections(tariff, sheet.regions, names, language))
    return html(
        TEMPLATE,
        language=language,
        screen=screen,
        words=names,
        operator=sheet.operator,
        tariff=tariff,
        at=sheet.at.isoformat(),
        address=address_lines(sheet.operator.address, sheet.operator.country, language),
        legal=tuple(_legal(sheet.operator, names)),
        facts=tuple(_facts(sheet, names, language)),
        lead=" ".join(_lead(tariff, names, language)),
        sections=found,
        notes=tuple(notes(found, names)),
        windows=tuple(_window(window, names, language) for window in tariff.windows),
        window_notes=tuple(_window_notes(tariff, names, language)),
        holidays_title=names["holidays"].format(year=sheet.at.year),
        holidays=_holidays(sheet, language),
        discounts=tuple(
            (names[f"segment_{segment}"], f"{figures.MINUS}{figures.percent(percent, language)}")
            for segment, percent in tariff.segments.items()
            if percent
        ),
        terms=tuple(_terms(tariff, names, language)),
    )


def _legal(operator: Operator, names: Words) -> Iterator[tuple[str, str]]:
    for name, value in (("registration", operator.registration), ("vat_id", operator.vat_id)):
        if value:
            yield names[name], value


def _facts(sheet: PriceSheet, names: Words, language: str) -> Iterator[tuple[str, str]]:
    """(what, value) of the band under the title."""
    tariff = sheet.tariff
    yield names["tariff"], tariff.id
    if tariff.valid_from is not None:
        yield names["valid_from"], figures.day(tariff.valid_from, language)
    if sheet.valid_until is not None:
        yield names["last_day"], figures.day(sheet.valid_until - timedelta(days=1), language)
    else:
        yield names["last_day"], names["further_notice"]
    yield names["currency"], tariff.currency
    yield names["time_zone"], tariff.timezone


def _lead(tariff: Tariff, names: Words, language: str) -> Iterator[str]:
    """The sentences that say what every price is for."""
    base = figures.quantity(PRICE_BASE, language)
    yield names["lead"].format(currency=tariff.currency, base=base)
    for meter in ("requests", "audio_seconds"):
        priced = [row.prices[meter] for row in tariff.rows if meter in row.prices]
        if any(not isinstance(pricing, Package) for pricing in priced):
            yield names[f"lead_{meter}"].format(base=base)
    if any(isinstance(pricing, Package) for row in tariff.rows for pricing in row.prices.values()):
        yield names["lead_package"]


# -- windows -------------------------------------------------------------------------------------------------------


def _window(window: Window, names: Words, language: str) -> PrintedWindow:
    if window.series is not None:
        price = f"{names['by_series']} ({file_of(window.series, names)})"
    else:
        assert window.factor is not None, "a window has a factor or a series"
        price = names["of_base"].format(percent=figures.percent(window.factor * 100, language))
    return PrintedWindow(window.name, days_of(window.days, names, language), _hours(window, names), price)


def _hours(window: Window, names: Words) -> str:
    across = f" ({names['next_day']})" if window.end <= window.begin else ""
    return f"{hours_of(window) or names['all_day']}{across}"


def _window_notes(tariff: Tariff, names: Words, language: str) -> Iterator[str]:
    if not tariff.windows:
        return
    yield names["note_windows"].format(zone=tariff.timezone)
    if any(window.end <= window.begin for window in tariff.windows):
        yield names["note_midnight"]
    for window in tariff.windows:
        if window.series is not None:
            yield _series(window, window.series, tariff.zone, names, language)


def _series(window: Window, series: Series, zone: ZoneInfo, names: Words, language: str) -> str:
    """The sentence that says how a window's price follows its series."""
    last = series.first + len(series.prices)
    return names["series"].format(
        window=window.name,
        file=file_of(series, names),
        start=_hour(series.first, zone, language),
        end=_hour(last, zone, language),
        steps="; ".join(_steps(window, names, language)),
    )


def _steps(window: Window, names: Words, language: str) -> Iterator[str]:
    for step in window.steps:
        percent = figures.percent(step.factor * 100, language)
        if step.up_to is not None:
            yield names["step_up_to"].format(up_to=figures.exact(step.up_to, language), percent=percent)
        elif len(window.steps) > 1:
            yield names["step_above"].format(percent=percent)
        else:
            yield names["step_only"].format(percent=percent)


def _hour(number: int, zone: ZoneInfo, language: str) -> str:
    local = hour_instant(number).astimezone(zone)
    return f"{figures.day(local.date(), language)} {local:%H:%M}"


def _holidays(sheet: PriceSheet, language: str) -> tuple[str, ...]:
    asked = any(map(asks_for_holidays, sheet.tariff.windows))
    return tuple(figures.day(day, language) for day in sorted(sheet.holidays)) if asked else ()


# -- what is billed ------------------------------------------------------------------------------------------------


def _terms(tariff: Tariff, names: Words, language: str) -> Iterator[str]:
    free = [
        names[f"units_{meter}"].format(count=figures.quantity(tariff.included[meter], language))
        for meter in METERS
        if tariff.included.get(meter)
    ]
    if free:
        yield names["included"].format(units=", ".join(free))
    if tariff.minimum:
        yield names["minimum"].format(amount=figures.money(tariff.minimum, tariff.currency, language))
    yield names[f"output_{tariff.bill_output}"]
    billed = [outcome for outcome in OUTCOMES if outcome in tariff.bill_outcomes]
    unbilled = [outcome for outcome in OUTCOMES if outcome not in tariff.bill_outcomes]
    if billed:
        yield names["outcomes"].format(outcomes=_listed(billed, names))
    if unbilled:
        yield names["outcomes_free"].format(outcomes=_listed(unbilled, names))


def _listed(outcomes: list[str], names: Words) -> str:
    texts = [names[f"outcome_{outcome}"] for outcome in outcomes]
    return f" {names['or']} ".join([", ".join(texts[:-1]), texts[-1]] if texts[1:] else texts)
