"""Placing: each row of hourly usage beside the price row that prices it (arithmetic rules 2 and 3).

Terms are looked up once per customer and stretch of unchanged facts, regions once per node and stretch, price rows once
per (terms, region, model, prompt band); rows of usage find theirs through integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np

from billing.facts import Facts
from billing.hourly import Flags, Hourly, Integers, distinct, hour_instant
from billing.period import Period
from billing.tariff import BILLED_OUTCOMES
from billing.terms import Terms, TermsRow, matching_row, region_at, stretches, terms_at


@dataclass(frozen=True, slots=True)
class Placed:
    """For each row of usage its price row (a place in `rows`; −1: none), whether its outcome is billed, and what
    distinguishes rows of usage: `case` is a place in `cases`, (terms or why there are none, region, model).
    """

    rows: Sequence[TermsRow]
    row: Integers
    billed: Flags
    cases: Sequence[tuple[Terms | str, str, str]]
    case: Integers


def place(hourly: Hourly, facts: Facts, period: Period, zone: ZoneInfo) -> Placed:
    """Rules 2 and 3 up to the price row: terms by customer and stretch, region by node and stretch, row by model and
    prompt band.
    """
    starts = stretches(facts, *period.bounds(zone), zone)
    stretch = np.searchsorted(np.array(starts, np.int64), hourly.hours, side="right") - 1
    instants = [hour_instant(start) for start in starts]
    found, terms_of = _terms(hourly.customers, facts, instants, zone)
    regions, region_of = _regions(hourly.nodes, facts, instants, zone)
    terms = terms_of[hourly.customer, stretch]
    bands, band = _bands(hourly, found)

    parts = len(found), len(regions), len(hourly.models), len(bands)
    keys, at = distinct(
        ((terms * parts[1] + region_of[hourly.node, stretch]) * parts[2] + hourly.model) * parts[3] + band,
        parts[0] * parts[1] * parts[2] * parts[3],
    )
    cases: dict[tuple[int, int, int], int] = {}
    case_of_key = np.zeros(len(keys), np.int64)
    rows: dict[tuple[int, str], TermsRow] = {}
    places: dict[tuple[int, str], int] = {}
    row_of_key = np.full(len(keys), -1, np.int64)
    for number, (terms_at_key, region, model, band_at_key) in enumerate(_parts(keys, parts)):
        case_of_key[number] = cases.setdefault((terms_at_key, region, model), len(cases))
        case = found[terms_at_key]
        if isinstance(case, str):
            continue
        row = matching_row(case, hourly.models[model], regions[region], bands[band_at_key])
        if row is not None:
            name = (terms_at_key, row.name)
            rows.setdefault(name, row)
            row_of_key[number] = places.setdefault(name, len(places))
    return Placed(
        rows=list(rows.values()),
        row=row_of_key[at],
        billed=_billed(found, hourly.outcomes)[terms, hourly.outcome],
        cases=[(found[code], regions[region], hourly.models[model]) for code, region, model in cases],
        case=case_of_key[at],
    )


def _terms(
    customers: Sequence[str], facts: Facts, instants: Sequence[datetime], zone: ZoneInfo
) -> tuple[list[Terms | str], Integers]:
    """Every terms that holds for somebody, or why there are none; and the place of each customer's by stretch."""
    known: dict[object, int] = {}
    found: list[Terms | str] = []

    def code(customer: str, instant: datetime) -> int:
        terms = terms_at(facts, customer, instant, zone)
        name = terms if isinstance(terms, str) else (terms.tariff.version, terms.contract_version)
        if name not in known:
            known[name] = len(found)
            found.append(terms)
        return known[name]

    # Customers without a contract share the operator's default tariff.
    default = [code("", instant) for instant in instants]
    codes = np.tile(np.array(default, np.int64), (len(customers), 1))
    for place, customer in enumerate(customers):
        if facts.contracts.get(customer):
            codes[place] = [code(customer, instant) for instant in instants]
    return found, codes


def _regions(
    nodes: Sequence[str], facts: Facts, instants: Sequence[datetime], zone: ZoneInfo
) -> tuple[list[str], Integers]:
    """The regions there are ("" of a node that was not declared), and the place of each node's by stretch."""
    names = [[region_at(facts, node, instant, zone) or "" for instant in instants] for node in nodes]
    regions = sorted({name for of_node in names for name in of_node})
    codes = [[regions.index(name) for name in of_node] for of_node in names]
    return regions, np.array(codes, np.int64).reshape(len(nodes), len(instants))


def _bands(hourly: Hourly, found: Sequence[Terms | str]) -> tuple[list[int], Integers]:
    """The bands that any price row tells apart, as their lower bounds, and each row's place among them."""
    asked = {
        row.prompt_over
        for terms in found
        if isinstance(terms, Terms)
        for _, row in terms.rows()
        if row.prompt_over is not None
    }
    bands = [0, *sorted(asked)]
    if len(bands) == 1:
        return bands, np.zeros(len(hourly.band), np.int64)
    return bands, np.searchsorted(np.array(bands, np.int64), hourly.band, side="right") - 1


def _parts(keys: Integers, parts: tuple[int, int, int, int]) -> list[tuple[int, int, int, int]]:
    """Keys taken apart again: terms, region, model, band."""
    rest, band = np.divmod(keys, parts[3])
    rest, model = np.divmod(rest, parts[2])
    terms, region = np.divmod(rest, parts[1])
    return list(zip(terms.tolist(), region.tolist(), model.tolist(), band.tolist(), strict=True))


def _billed(found: Sequence[Terms | str], outcomes: Sequence[str]) -> Flags:
    """By terms and outcome: whether it is billed."""
    flags = [
        [
            outcome in (BILLED_OUTCOMES if isinstance(terms, str) else terms.tariff.bill_outcomes)
            for outcome in outcomes
        ]
        for terms in found
    ]
    return np.array(flags, np.bool_).reshape(len(found), len(outcomes))
