"""Placing: each row of hourly usage beside the price row that prices it (arithmetic rules 2 and 3).

Terms are looked up once per customer and stretch of unchanged facts, regions once per node and stretch, price rows once
per (terms, region, model, prompt band); rows of usage find theirs through integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from zoneinfo import ZoneInfo

import numpy as np

from billing.facts import Facts
from billing.hourly import Flags, Hourly, Integers, distinct, hour_instant, hour_number
from billing.period import Period
from billing.site import in_force
from billing.tariff import BILLED_OUTCOMES, Contract, Tariff
from billing.terms import Terms, TermsRow, first_match, region_at, stretches, tariff_or_why, terms_row

_ROWS_AT_ONCE = 1 << 17
"""Of usage: what is computed on the way stays in a processor's cache."""


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
    start, end = period.bounds(zone)
    starts = stretches(facts, start, end, zone)
    found, terms_of = terms_by_stretch(hourly.customers, facts, starts, zone)
    regions, region_of = _regions(hourly.nodes, facts, [hour_instant(hour) for hour in starts], zone)
    bands = _bands(found)
    parts = len(found), len(regions), len(hourly.models), len(bands)
    stretch_of_hour = np.repeat(np.arange(len(starts)), np.diff([*starts, hour_number(end)]))

    keys = np.empty(len(hourly.hours), np.int64)
    for begin in range(0, len(keys), _ROWS_AT_ONCE):
        part = slice(begin, begin + _ROWS_AT_ONCE)
        stretch = stretch_of_hour[hourly.hours[part] - starts[0]]
        case = terms_of[hourly.customer[part], stretch] * parts[1] + region_of[hourly.node[part], stretch]
        band = sum((hourly.band[part] >= bound for bound in bands[1:]), np.zeros(len(stretch), np.int64))
        keys[part] = (case * parts[2] + hourly.model[part]) * parts[3] + band
    distinct_keys, key = distinct(keys, parts[0] * parts[1] * parts[2] * parts[3])

    cases: dict[tuple[int, int, int], int] = {}
    case_of_key = np.zeros(len(distinct_keys), np.int64)
    rows = _Rows(found)
    row_of_key = np.full(len(distinct_keys), -1, np.int64)
    split = _split(distinct_keys, parts)
    for number, (terms, region, model, at_band) in enumerate(
        zip(*(each.tolist() for each in split), strict=True)
    ):
        case_of_key[number] = cases.setdefault((terms, region, model), len(cases))
        row_of_key[number] = rows.place(terms, hourly.models[model], regions[region], bands[at_band])
    return Placed(
        rows=rows.found,
        row=row_of_key[key],
        billed=billed_outcomes(found, hourly.outcomes)[split[0]][key, hourly.outcome],
        cases=[(found[terms], regions[region], hourly.models[model]) for terms, region, model in cases],
        case=case_of_key[key],
    )


class _Rows:
    """Price rows under their terms, each found once. Tariffs are searched once for all contracts on top of them."""

    def __init__(self, terms: Sequence[Terms | str]) -> None:
        self.found: list[TermsRow] = []
        self._terms = terms
        self._places: dict[tuple[int, int], int] = {}
        self._of_tariff: dict[tuple[str, str, str, int], int | None] = {}

    def place(self, code: int, model: str, region: str, band: int) -> int:
        """The place in `found` of the row that matches; −1: none does."""
        terms = self._terms[code]
        if isinstance(terms, str):
            return -1
        own = terms.contract.rows if terms.contract else ()
        rank = first_match(own, model, region, band)
        if rank is None:
            asked = (terms.tariff.version, model, region, band)
            if asked not in self._of_tariff:
                self._of_tariff[asked] = first_match(terms.tariff.rows, model, region, band)
            of_tariff = self._of_tariff[asked]
            if of_tariff is None:
                return -1
            rank = len(own) + of_tariff
        if (code, rank) not in self._places:
            self._places[code, rank] = len(self.found)
            self.found.append(terms_row(terms, rank))
        return self._places[code, rank]


def terms_by_stretch(
    customers: Sequence[str], facts: Facts, starts: Sequence[int], zone: ZoneInfo
) -> tuple[list[Terms | str], Integers]:
    """Every terms that holds for somebody, or why there are none; and the place of each customer's by stretch."""
    known: dict[tuple[int | None, int], int] = {}
    found: list[Terms | str] = []
    instants = [hour_instant(start) for start in starts]
    days = [instant.astimezone(zone).date() for instant in instants]

    @cache
    def tariff(name: str | None, stretch: int) -> Tariff | str:
        return tariff_or_why(facts, name, instants[stretch])

    @cache
    def default(stretch: int) -> str | None:
        operator = in_force(facts.operator, days[stretch])
        return operator.default_tariff if operator else None

    def code(contract: Contract | None, stretch: int) -> int:
        listed = tariff(contract.tariff if contract else default(stretch), stretch)
        name = (None if contract is None else id(contract), id(listed))
        if name not in known:
            known[name] = len(found)
            found.append(listed if isinstance(listed, str) else Terms(listed, contract))
        return known[name]

    # Customers without a contract share the operator's default tariff.
    codes = np.tile(
        np.array([code(None, stretch) for stretch in range(len(starts))], np.int64), (len(customers), 1)
    )
    for place, customer in enumerate(customers):
        versions = facts.contracts.get(customer)
        if versions:
            codes[place] = [code(in_force(versions, day), stretch) for stretch, day in enumerate(days)]
    return found, codes


def _regions(
    nodes: Sequence[str], facts: Facts, instants: Sequence[datetime], zone: ZoneInfo
) -> tuple[list[str], Integers]:
    """The regions there are ("" of a node that was not declared), and the place of each node's by stretch."""
    names = [[region_at(facts, node, instant, zone) or "" for instant in instants] for node in nodes]
    regions = sorted({name for of_node in names for name in of_node})
    codes = [[regions.index(name) for name in of_node] for of_node in names]
    return regions, np.array(codes, np.int64).reshape(len(nodes), len(instants))


def _bands(found: Sequence[Terms | str]) -> list[int]:
    """The bands that any price row tells apart, as their lower bounds; 0 first."""
    asked = {
        row.prompt_over
        for terms in found
        if isinstance(terms, Terms)
        for _, row in terms.rows()
        if row.prompt_over is not None
    }
    return [0, *sorted(asked)]


def _split(keys: Integers, parts: tuple[int, int, int, int]) -> tuple[Integers, Integers, Integers, Integers]:
    """Keys taken apart again: terms, region, model, band."""
    rest, band = np.divmod(keys, parts[3])
    rest, model = np.divmod(rest, parts[2] or 1)
    terms, region = np.divmod(rest, parts[1] or 1)
    return terms, region, model, band


def billed_outcomes(found: Sequence[Terms | str], outcomes: Sequence[str]) -> Flags:
    """By terms and outcome: whether it is billed."""
    flags = [
        [
            outcome in (BILLED_OUTCOMES if isinstance(terms, str) else terms.tariff.bill_outcomes)
            for outcome in outcomes
        ]
        for terms in found
    ]
    return np.array(flags, np.bool_).reshape(len(found), len(outcomes))
