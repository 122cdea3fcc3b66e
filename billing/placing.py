"""Placing: each row of hourly usage beside the price row that prices it (arithmetic rules 2 and 3).

Terms are looked up once per customer and stretch of unchanged facts, regions once per node and stretch,
price rows once per (terms, region, model); rows of usage find theirs by hashing integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import numpy as np

from billing.facts import Facts
from billing.hourly import Hourly, Integers, distinct, hour_instant
from billing.period import Period
from billing.terms import Terms, TermsRow, matching_row, region_at, stretches, terms_at


@dataclass(frozen=True, slots=True)
class Placed:
    """For each row of usage its price row (a place in `rows`; −1: none), and what distinguishes those
    without one.

    `case` numbers each row's (terms or reason, region, model) in `cases`.
    """

    rows: Sequence[TermsRow]
    row: Integers
    cases: Sequence[tuple[Terms | str, str, str]]
    case: Integers


def place(hourly: Hourly, facts: Facts, period: Period, zone: ZoneInfo) -> Placed:
    """Rules 2 and 3 up to the price row: terms by customer and stretch, region by node and stretch, row by
    model.
    """
    starts = stretches(facts, *period.bounds(zone), zone)
    stretch = np.searchsorted(np.array(starts, np.int64), hourly.hours, side="right") - 1
    instants = [hour_instant(start) for start in starts]
    width = len(starts)

    pairs, pair = distinct(hourly.customer * width + stretch)
    known: dict[object, int] = {}
    found: list[Terms | str] = []
    terms_of_pair = np.zeros(len(pairs), np.int64)
    for at, key in enumerate(pairs):
        terms = terms_at(facts, hourly.customers[key // width], instants[key % width], zone)
        name = terms if isinstance(terms, str) else (terms.tariff.version, terms.contract_version)
        if name not in known:
            known[name] = len(found)
            found.append(terms)
        terms_of_pair[at] = known[name]

    spots, spot = distinct(hourly.node * width + stretch)
    region_of_spot = [
        region_at(facts, hourly.nodes[key // width], instants[key % width], zone) or "" for key in spots
    ]
    regions = sorted(set(region_of_spot))
    region = np.array([regions.index(name) for name in region_of_spot], np.int64)[spot]

    keys, case = distinct((terms_of_pair[pair] * len(regions) + region) * len(hourly.models) + hourly.model)
    cases: list[tuple[Terms | str, str, str]] = []
    rows: list[TermsRow] = []
    row_places: dict[tuple[int, str], int] = {}
    row_of_case = np.full(len(keys), -1, np.int64)
    for at, key in enumerate(keys):
        rest, model_code = divmod(key, len(hourly.models))
        terms_code, region_code = divmod(rest, len(regions))
        terms, region_name, model = found[terms_code], regions[region_code], hourly.models[model_code]
        cases.append((terms, region_name, model))
        row = None if isinstance(terms, str) else matching_row(terms, model, region_name)
        if row is None:
            continue
        row_of_case[at] = row_places.setdefault((terms_code, row.name), len(rows))
        if row_of_case[at] == len(rows):
            rows.append(row)
    return Placed(rows, row_of_case[case], cases, case)
