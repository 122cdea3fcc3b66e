"""What tariffs and contracts state, as an explanation names it: the version, its key, and the line of the file.

tariff.yaml:12, tariff vilnius@2026-10-01, row 1, output, tier 2 (over 50000000)
night: mon tue wed thu fri, 22:00-06:00 Europe/Vilnius
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from billing.hourly import hour_instant
from billing.line import FREE, UNBILLED, Tier
from billing.money import format_price
from billing.tariff import HOLIDAY, WEEKDAYS, Contract, Graduated, Package, Tariff, Volume, Window
from billing.terms import TermsRow

FILE_UNKNOWN = "file unknown"
_ALL_DAYS = (*WEEKDAYS, HOLIDAY)


def place(places: Mapping[str, str], path: str) -> str:
    """`file:line` of a key (`prices.2.output`), or of the nearest one around it that was kept."""
    while path:
        if path in places:
            return places[path]
        path = path.rpartition(".")[0]
    return places.get("", FILE_UNKNOWN)


def tariff_words(tariff: Tariff, path: str) -> str:
    """Where a key of a tariff stands: `tariff.yaml:3, tariff vilnius`."""
    return f"{place(tariff.places, path)}, tariff {tariff.version}"


def contract_words(contract: Contract, path: str) -> str:
    return f"{place(contract.places, path)}, contract {contract.version}"


def price_source(row: TermsRow, meter: str, tier: Tier) -> str:
    """Which file's line, version, row and tier stated a list price."""
    kind, _, number = row.name.partition(":")
    path = f"prices.{number}.{meter}"
    contract = row.terms.contract
    if kind == "contract":
        assert contract is not None, row.name
        said = contract_words(contract, path)
    else:
        said = tariff_words(row.terms.tariff, path)
    said = f"{said}, row {number}, {meter}"
    if row.row.prompt_over is not None:
        said += f", prompts over {row.row.prompt_over} tokens"
    return (
        said if tier in (None, FREE, UNBILLED) else f"{said}, tier {tier} ({tier_bounds(row, meter, tier)})"
    )


def tier_bounds(row: TermsRow, meter: str, tier: Tier) -> str:
    """`over 1000, up to 2500`; `over 2500` of the last one."""
    pricing = row.pricing(meter)
    assert isinstance(pricing, Graduated | Volume)
    assert isinstance(tier, int)
    said = [] if tier == 1 else [f"over {pricing.tiers[tier - 2].up_to}"]
    upper = pricing.tiers[tier - 1].up_to
    said += [] if upper is None else [f"up to {upper}"]
    return ", ".join(said) or "all of it"


def package_size(row: TermsRow, meter: str) -> int:
    pricing = row.pricing(meter)
    assert isinstance(pricing, Package)
    return pricing.size


def window_words(tariff: Tariff, name: str) -> tuple[Window, str]:
    """A window by the name that lines give it (`night`, `spot:2`), and its days and hours."""
    plain = name.partition(":")[0]
    window = next(each for each in tariff.windows if each.name == plain)
    days = [day for day in _ALL_DAYS if day in window.days]
    said = "every day" if len(days) == len(_ALL_DAYS) else " ".join(days)
    if HOLIDAY in window.days and len(days) < len(_ALL_DAYS):
        said += f" of {tariff.holidays}"
    return window, f"{said}, {window.begin:02}:00-{window.end:02}:00 {tariff.timezone}"


def window_place(tariff: Tariff, window: Window) -> str:
    number = next(at for at, each in enumerate(tariff.windows, 1) if each is window)
    return place(tariff.places, f"windows.{number}")


def series_words(window: Window, name: str, hours: Iterable[int]) -> str:
    """Which step of a price series, and at what prices the hours were: their number, lowest and highest."""
    assert window.series is not None
    number = int(name.partition(":")[2])
    up_to = window.steps[number - 1].up_to
    lower = None if number == 1 else window.steps[number - 2].up_to
    bounds = [] if lower is None else [f"over {format_price(lower)}"]
    bounds += [] if up_to is None else [f"up to {format_price(up_to)}"]
    step = f"step {number}" + (f" ({', '.join(bounds)})" if bounds else "")
    prices = [price for price in map(window.series.at, hours) if price is not None]
    assert prices, "a step of a series has hours"
    count = f"{len(prices)} hour" + ("" if len(prices) == 1 else "s")
    lowest, highest = format_price(min(prices)), format_price(max(prices))
    at = f"at {lowest}" if lowest == highest else f"at {lowest} to {highest}"
    return f"{step}: {count} of {window.series.file or 'the series'} {at}"


def hours_words(hours: Iterable[int], tariff: Tariff) -> str:
    """How many hours, and which were the first and the last, on the clock of the tariff."""
    there = sorted(hours)
    first, last = (
        hour_instant(hour).astimezone(tariff.zone).isoformat(sep=" ", timespec="minutes")
        for hour in (there[0], there[-1])
    )
    return f"hour {first}" if len(there) == 1 else f"{len(there)} hours, {first} to {last}"
