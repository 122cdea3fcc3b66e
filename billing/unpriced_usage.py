"""Finding usage that no price covers (arithmetic rules 2 to 4). It stops the close, whatever the outcome.

Either no version is in force, or no row matches, or the row that does lacks the meter, or the window that holds follows
a series without a price for that hour. What was voided (net 0 of a customer's meter, model and region under the same
terms) needs no price.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from billing.hourly import Flags, Hourly, Integers, distinct, hour_instant, sums
from billing.meters import Metered, meter_rules
from billing.placing import Placed
from billing.tariff import METERS, Package
from billing.terms import Terms
from billing.unpriced import Unpriced
from billing.unpriced_reason import Reason, no_meter, no_row, no_series_hour, no_terms

_MUST_BE_PRICED = ("input", "output", "audio_seconds")
"""Meters that a row can't leave out where there is usage; the others add to their parent or are free."""


def unpriced_among(
    hourly: Hourly, placed: Placed, fillings: Iterable[tuple[Integers, Integers]]
) -> tuple[Unpriced, ...]:
    """What has no price, by model, meter, region and reason. `fillings`: of each the places of usage in hours that a
    series does not cover, and the window codes there (`Filling.uncovered`).
    """
    nothing = np.zeros(0, np.int64)
    uncovered, code = (np.concatenate(each) for each in zip((nothing, nothing), *fillings, strict=True))
    rules = meter_rules(placed.rows)
    generated = np.array([_bills_generated(terms) for terms, _, _ in placed.cases], np.bool_)
    found: dict[tuple[str, str, str, str], tuple[int, int, Reason]] = {}
    for meter in METERS:
        priced, packaged = _pricing_flags(meter, placed)
        if meter in hourly.quantities and not hourly.quantities[meter].any():
            continue  # most have no audio, and no price for it
        lacking = _lacking(priced, placed) if meter in _MUST_BE_PRICED else uncovered[:0]
        rows = placed.row[uncovered]
        outside = np.flatnonzero(priced[rows] & ~packaged[rows])
        at = np.concatenate([lacking, uncovered[outside]])
        codes = np.concatenate([np.zeros(len(lacking), np.int64), code[outside]])
        quantity = Metered(hourly, rules, at, placed.row[at], generated[placed.case[at]]).quantity(meter)
        used = np.flatnonzero(quantity)
        for (model, region, reason), total, hour in _of_meter(
            meter, at[used], codes[used], quantity[used], hourly, placed
        ):
            kind = model, meter, region, reason.why
            before, earliest, first = found.get(kind, (0, hour, reason))
            found[kind] = before + total, min(earliest, hour), first if earliest <= hour else reason
    return tuple(
        Unpriced(model, meter, region, total, hour_instant(hour), why, reason.where, reason.remedy)
        for (model, meter, region, why), (total, hour, reason) in sorted(found.items(), key=_kind)
    )


def _kind(found: tuple[tuple[str, str, str, str], object]) -> tuple[str, str, str, str]:
    return found[0]


def _bills_generated(terms: Terms | str) -> bool:
    return not isinstance(terms, str) and terms.tariff.bill_output == "generated"


def _lacking(priced: Flags, placed: Placed) -> Integers:
    """Places of usage whose price row is not `priced`, or that has none."""
    if priced[:-1].all() and (placed.row >= 0).all():
        return np.zeros(0, np.int64)
    return np.flatnonzero(~priced[placed.row])


def _pricing_flags(meter: str, placed: Placed) -> tuple[Flags, Flags]:
    """By price row, and at the end where there is none: whether it prices the meter, and whether in packages."""
    pricings = [*(row.pricing(meter) for row in placed.rows), None]
    priced = np.array([pricing is not None for pricing in pricings], np.bool_)
    return priced, np.array([isinstance(pricing, Package) for pricing in pricings], np.bool_)


def _of_meter(
    meter: str,
    at: Integers,
    codes: Integers,
    quantity: Integers,
    hourly: Hourly,
    placed: Placed,
) -> Iterator[tuple[tuple[str, str, Reason], int, int]]:
    """((model, region, reason), quantity, first hour) of rows `at`; `codes`: below 0 in an uncovered hour."""
    keys, place = distinct(hourly.customer[at] * len(placed.cases) + placed.case[at])
    owed = sums(place, quantity, len(keys))[place] != 0
    at, codes, quantity = at[owed], codes[owed], quantity[owed]
    reasons = np.stack([placed.case[at], placed.row[at], codes], axis=1)
    names, name = np.unique(reasons, axis=0, return_inverse=True)
    name = name.reshape(-1)
    totals = sums(name, quantity, len(names))
    first = np.full(len(names), np.iinfo(np.int64).max)
    np.minimum.at(first, name, hourly.hours[at])
    for (case, row, code), total, hour in zip(names.tolist(), totals.tolist(), first.tolist(), strict=True):
        terms, region, model = placed.cases[case]
        if isinstance(terms, str):
            reason = no_terms(terms)
        elif code < 0:
            reason = no_series_hour(terms.tariff, -1 - code, hour)
        else:
            reason = no_row(terms, model, region) if row < 0 else no_meter(placed.rows[row], meter)
        yield (model, region, reason), total, hour
