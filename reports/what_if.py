"""A what-if as JSON and as text tables of at most 80 columns. The picture: `reports.what_if_picture`.

Net amounts have the currency's digits; worth by model, region and hour is exact and has as many as it needs in JSON, the
currency's in tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from billing.money import format_minor, minor_digits, round_half_away
from billing.unpriced import unpriced_json
from billing.what_if_compared import PARTS, UNDIVIDED, Comparison, Pair

MOST_SHOWN = 10
"""Customers shown of each kind in tables and picture; JSON has them all."""
_NAMES = {
    "usage": "lines of usage",
    "discounts": "discounts",
    "floors": "minimums, commitments",
    "fees": "fees",
    "packages": "packages",
    "rounding": "rounding of lines",
}


def what_if_json(
    operator: str, currency: str, tariff: str, replaced: Sequence[str], put: Sequence[str], shown: Comparison
) -> dict[str, Any]:
    """Every figure, docs/commands.md says which."""

    def net(pair: Pair) -> dict[str, str]:
        return {name: format_minor(int(getattr(pair, name)), currency) for name in ("now", "then", "change")}

    def worth(pair: Pair) -> dict[str, str]:
        return {name: exact_text(getattr(pair, name), currency) for name in ("now", "then", "change")}

    up, down, same = shown.count()
    return {
        "operator": operator,
        "currency": currency,
        "tariff": tariff,
        "replaced": list(replaced),
        "put": list(put),
        "periods": [{"period": name, **net(pair)} for name, pair in shown.by_period.items()],
        "net": net(shown.parts["net"]),
        "parts": [{"part": name, **net(shown.parts[name])} for name in PARTS],
        "segments": [{"segment": name or None, **net(pair)} for name, pair in shown.by_segment.items()],
        "models": [{"model": name, **worth(pair)} for name, pair in shown.by_model.items()],
        "regions": [{"region": name or None, **worth(pair)} for name, pair in shown.by_region.items()],
        "hours": [{"hour": hour, **worth(pair)} for hour, pair in enumerate(shown.by_hour)],
        "undivided": [{"part": name, **worth(shown.undivided[name])} for name in UNDIVIDED],
        "customers": {
            "up": up,
            "down": down,
            "unchanged": same,
            "changes": [
                {"customer": name, **net(pair), "percent": percent_text(pair)}
                for name, pair in by_change(shown.customers)
            ],
        },
        "unpriced": {
            "now": [unpriced_json(each) for each in shown.unpriced_now],
            "then": [unpriced_json(each) for each in shown.unpriced_then],
        },
    }


def by_change(customers: Mapping[str, Pair]) -> list[tuple[str, Pair]]:
    """Customers by their change, who pays more first."""
    return sorted(customers.items(), key=lambda each: (-each[1].change, each[0]))


def by_percent(customers: Mapping[str, Pair]) -> list[tuple[str, Pair]]:
    """Customers who pay something now, by the relative change, the largest rise first."""
    paying = [each for each in customers.items() if each[1].now > 0]
    return sorted(paying, key=lambda each: (-each[1].change / each[1].now, each[0]))


def percent_text(pair: Pair) -> str | None:
    """The change in percent points of what is paid now, to one decimal; None where nothing is paid now."""
    if pair.now <= 0:
        return None
    tenths = round_half_away(pair.change / pair.now * 1000)
    return f"{'-' if tenths < 0 else ''}{abs(tenths) // 10}.{abs(tenths) % 10}"


def exact_text(minor: Fraction, currency: str) -> str:
    """An exact amount in major units, at least with the currency's digits: `0.40`, `0.4000025`."""
    digits = minor_digits(currency)
    below, places = minor.denominator, 0
    while 10**places % below:
        places += 1
    scaled = abs(minor.numerator) * 10**places // below
    text = str(scaled).rjust(digits + places + 1, "0")
    whole, fraction = text[: len(text) - digits - places], text[len(text) - digits - places :]
    return f"{'-' if minor < 0 else ''}{whole}" + (f".{fraction}" if fraction else "")


Section = tuple[str, tuple[str, ...], list[tuple[str, ...]]]
"""A title, the columns, and rows of text."""


def what_if_sections(currency: str, shown: Comparison) -> Iterator[Section]:
    """The tables, one after another; one without rows is its title alone."""

    def row(name: str, pair: Pair) -> tuple[str, ...]:
        said = (format_minor(round_half_away(each), currency) for each in (pair.now, pair.then, pair.change))
        # What rounding comes to is a rest of some cents: a percent of it says nothing.
        percent = None if name == _NAMES["rounding"] else percent_text(pair)
        return (name, *said, percent or "")

    def section(title: str, what: str, rows: Sequence[tuple[str, Pair]]) -> Section:
        return title, (what, "now", "then", "change", "%"), [row(*each) for each in rows]

    parts = [(_NAMES[name], shown.parts[name]) for name in PARTS]
    yield section(f"Net revenue in {currency}", "", [*parts, ("net", shown.parts["net"])])
    if len(shown.by_period) > 1:
        yield section("By period", "period", list(shown.by_period.items()))
    yield section(
        "By segment", "segment", [(name or "none", pair) for name, pair in shown.by_segment.items()]
    )
    rest = [(_NAMES[name], shown.undivided[name]) for name in UNDIVIDED if _stated(shown.undivided[name])]
    by_model = [(name, pair) for name, pair in shown.by_model.items() if _stated(pair)]
    by_region = [(name or "none", pair) for name, pair in shown.by_region.items() if _stated(pair)]
    by_hour = [(f"{hour:02}:00", pair) for hour, pair in enumerate(shown.by_hour) if _stated(pair)]
    yield section("By model, worth of usage", "model", [*by_model, *rest])
    yield section("By region, worth of usage", "region", [*by_region, *rest])
    yield section("By hour of the operator's day, worth of usage", "hour", [*by_hour, *rest])
    changed = [each for each in by_change(shown.customers) if each[1].change]
    up, down, same = shown.count()
    counted = f"Customers: {up:,} pay more, {down:,} less, {same:,} the same"
    most = [each for each in changed if each[1].change > 0][:MOST_SHOWN]
    least = [each for each in reversed(changed) if each[1].change < 0][:MOST_SHOWN]
    if not changed:
        yield section(counted, "customer", [])
        return
    yield section(f"{counted}. Largest changes", "customer", [*most, *least])
    relative = [each for each in by_percent(shown.customers) if each[1].change]
    if relative:
        yield section(
            "Largest changes in percent",
            "customer",
            [
                *[each for each in relative if each[1].change > 0][:MOST_SHOWN],
                *[each for each in reversed(relative) if each[1].change < 0][:MOST_SHOWN],
            ],
        )


def _stated(pair: Pair) -> bool:
    return bool(pair.now or pair.then)
