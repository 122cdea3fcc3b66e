"""Why usage has no price, where that is stated, and what would give it one.

A model that no row matches, a row that lacks a meter, a series that ends before the hour and a version that does not hold
are four mistakes, each mended at another place:

    vilnius: no price row matches      t.yaml:9, tariff vilnius     add a price row for model 'm' …
    … window spot has no price …       t.yaml:24, tariff vilnius    append the hours from 2026-10-05T12:00:00Z on …
"""

from __future__ import annotations

from dataclasses import dataclass

from billing.hourly import hour_instant
from billing.tariff import Contract, Tariff
from billing.terms import NO_PRICE_ROW, Terms, TermsRow


@dataclass(frozen=True, slots=True)
class Reason:
    """`where`: the version that is asked, after the `file:line` if that is known; empty where no version holds."""

    why: str
    where: str
    remedy: str


def no_terms(why: str) -> Reason:
    """No tariff holds for the customer (rule 2); `why` as `tariff_or_why` says it."""
    remedy = (
        "apply a tariff version that holds then, and name its tariff in the customer's contract or as the "
        "operator's default_tariff"
    )
    return Reason(why, "", remedy)


def no_row(terms: Terms, model: str, region: str) -> Reason:
    """None of the rows matches."""
    source = terms.contract or terms.tariff
    remedy = f"add a price row for model {model!r} in region {region!r} to {_kind(terms.tariff)}"
    if not region:
        remedy = (
            "the node was not declared then, or no longer: apply a version of it that holds, with its region"
        )
    return Reason(f"{source.version}: {NO_PRICE_ROW}", _stated(source, ""), remedy)


def no_meter(row: TermsRow, meter: str) -> Reason:
    """The row that matches does not price the meter."""
    of_contract, number = row.name.startswith("contract"), row.name.partition(":")[2]
    source = row.terms.contract if of_contract and row.terms.contract else row.terms.tariff
    why = f"{row.contract_version or row.tariff_version}: {row.name} has no price for {meter}"
    return Reason(why, _stated(source, f"prices.{number}"), f"add a price for {meter} to row {number} of it")


def no_series_hour(tariff: Tariff, window: int, hour: int) -> Reason:
    """The series of the tariff's window (a place, from 0) does not cover an hour (since 1970)."""
    held = tariff.windows[window]
    assert held.series is not None, "only a series leaves hours uncovered"
    instant = hour_instant(hour).strftime("%Y-%m-%dT%H:%M:%SZ")
    series = held.series.file or f"the series of window {held.name}"
    remedy = f"append hours to {series} up to {instant} and the last one used, and apply the file again"
    if hour < held.series.first:
        remedy = f"supersede the version by one in which {series} begins at {instant} or before"
    why = f"the series of window {held.name} has no price for that hour"
    return Reason(why, _stated(tariff, f"windows.{window + 1}"), remedy)


def _stated(source: Tariff | Contract, path: str) -> str:
    """`t.yaml:24, tariff vilnius@2026-10-01`; without the file where that is not known."""
    place = source.places.get(path) or source.places.get("")
    return f"{place}, {_kind(source)}" if place else _kind(source)


def _kind(source: Tariff | Contract) -> str:
    return f"{'tariff' if isinstance(source, Tariff) else 'contract'} {source.version}"
