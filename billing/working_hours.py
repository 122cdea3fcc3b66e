"""One customer's hourly usage as parts: an hour, a model, its price row and window, and what each meter is made of.

2026-10-05T19:00Z, qwen3-32b on vilnius-1, tariff:1, window night
prompt 100 of which 40 cached, the row has no price for cached input     input: {input: 60, cached_input: 40}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from billing.facts import Facts
from billing.hourly import hour_instant, hour_number
from billing.period import Period
from billing.tariff import METERS
from billing.terms import Terms, TermsRow, matching_row, region_at, terms_at
from billing.window import window_at
from metering.event import QUANTITIES

_CELL = ("hour", "node", "model", "outcome", "band")
_PARENTS = {"cached_input": "input", "reasoning": "output"}


@dataclass(frozen=True, slots=True)
class Part:
    """Usage of one cell under its price row. `hour` is a number since 1970; `window` None: its series has no price then.

    `meters`: for each meter of METERS, units by the meter that they were counted on.
    """

    hour: int
    node: str
    region: str
    model: str
    outcome: str
    band: int
    billed: bool
    row: TermsRow
    window: str | None
    meters: Mapping[str, Mapping[str, int]]


def parts_of(usage: pa.Table, facts: Facts, period: Period, customer: str) -> Iterator[Part]:
    """The parts of what a price row covers, in no order; usage that came too late to be billed is left out."""
    zone = facts.operator[-1].zone
    start, end = period.bounds(zone)
    rows: dict[tuple[str, str | None, str, str, int], TermsRow | None] = {}
    windows: dict[tuple[str, int], str | None] = {}

    @cache
    def terms_of(hour: int) -> Terms | str:
        return terms_at(facts, customer, hour_instant(hour), zone)

    @cache
    def region_of(node: str, hour: int) -> str:
        return region_at(facts, node, hour_instant(hour), zone) or ""

    for cell in _cells(usage, customer, start, end):
        hour, node, model, band = hour_number(cell["hour"]), cell["node"], cell["model"], cell["band"]
        terms, region = terms_of(hour), region_of(node, hour)
        if isinstance(terms, str):
            continue
        case = (terms.tariff.version, terms.contract_version, model, region, band)
        if case not in rows:
            rows[case] = matching_row(terms, model, region, band)
        row = rows[case]
        if row is None:
            continue
        tariff = row.terms.tariff
        if (row.tariff_version, hour) not in windows:
            window = window_at(tariff, facts, hour)
            windows[row.tariff_version, hour] = None if window is None else window.name
        yield Part(
            hour=hour,
            node=node,
            region=region,
            model=model,
            outcome=cell["outcome"],
            band=band,
            billed=cell["outcome"] in tariff.bill_outcomes,
            row=row,
            window=windows[row.tariff_version, hour],
            meters=_meters(cell, row),
        )


def _cells(usage: pa.Table, customer: str, start: datetime, end: datetime) -> list[dict[str, Any]]:
    """The customer's usage of [start, end), one mapping a cell."""
    instant = pa.timestamp("us", "UTC")
    inside = pc.and_(
        pc.greater_equal(usage["hour"], pa.scalar(start, instant)),
        pc.less(usage["hour"], pa.scalar(end, instant)),
    )
    own = pc.and_(inside, pc.equal(usage["customer"].cast(pa.string()), customer))
    chosen = usage.filter(pc.and_not(own, usage["late"])).select([*_CELL, *QUANTITIES])
    plain = chosen.cast(
        pa.schema(
            [
                field.with_type(pa.string()) if pa.types.is_dictionary(field.type) else field
                for field in chosen.schema
            ]
        )
    )
    summed = plain.group_by(list(_CELL)).aggregate([(name, "sum") for name in QUANTITIES])
    return [{name.removesuffix("_sum"): value for name, value in row.items()} for row in summed.to_pylist()]


def _meters(cell: Mapping[str, Any], row: TermsRow) -> dict[str, dict[str, int]]:
    """Rule 3: disjoint meters; one that the row does not price lies with its parent."""
    generated = row.terms.tariff.bill_output == "generated"
    output = cell["generated_tokens" if generated else "completion_tokens"]
    reasoning = cell["generated_reasoning_tokens" if generated else "reasoning_tokens"]
    counted = {
        "input": cell["prompt_tokens"] - cell["cached_tokens"],
        "cached_input": cell["cached_tokens"],
        "output": output - reasoning,
        "reasoning": reasoning,
        "requests": cell["requests"],
        "audio_seconds": cell["audio_seconds"],
    }
    made_of: dict[str, dict[str, int]] = {meter: {} for meter in METERS}
    for meter, units in counted.items():
        if units:
            priced = meter in row.row.prices
            made_of[meter if priced else _PARENTS.get(meter, meter)][meter] = units
    return made_of
