"""Stored tariffs and contracts, typed: canonical text becomes decimals, minor units and whole numbers.

What the texts look like is said by docs/site-files.md; `adapters.site_files` accepts nothing else, so a text that
can't be read here is our own bug.

    {"graduated": [{"up_to": "50000000", "price": "1.6"}, {"price": "1.2"}]}    Graduated((Tier(50_000_000, 1.6), …))
    {"name": "night", "days": ["mon"], "hours": "22:00-06:00", "factor": "0.5"}   Window("night", {"mon"}, 22, 6, 0.5)
    {"name": "spot", "series": {"file": "spot.csv", "first": "2026-10-01T00:00:00Z", "prices": ["41.2", …]},
     "steps": [{"up_to": "40", "factor": "0.6"}, {"factor": "1"}]}
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from billing.hourly import hour_number
from billing.money import parse_amount
from billing.site import Operator
from billing.stored import StoredDocument
from billing.tariff import (
    BILLED_OUTCOMES,
    HOLIDAY,
    METERS,
    WEEKDAYS,
    Contract,
    Fee,
    Graduated,
    Package,
    Plain,
    PriceRow,
    Pricing,
    Series,
    Step,
    Tariff,
    Tier,
    Volume,
    Window,
)


def tariff_from(document: StoredDocument, operator: Operator) -> Tariff:
    """`operator` gives the zone and the calendar where the tariff states none."""
    body = document.body
    return Tariff(
        id=document.id,
        operator=document.operator,
        currency=body["currency"],
        timezone=body.get("timezone", operator.timezone),
        rows=price_rows(body),
        valid_from=document.valid_from,
        valid_until=document.valid_until,
        bill_output=body.get("bill_output", "delivered"),
        bill_outcomes=tuple(body.get("bill_outcomes", BILLED_OUTCOMES)),
        windows=tuple(_window(window) for window in body.get("windows", ())),
        holidays=body.get("holidays", operator.country),
        segments={segment: read_percent(text) for segment, text in body.get("segments", {}).items()},
        included=_included(body),
        minimum=parse_amount(body["minimum"], body["currency"]) if "minimum" in body else None,
        places=document.places,
    )


def contract_from(document: StoredDocument, currency: str) -> Contract:
    """Amounts are in the operator's `currency`."""
    body = document.body
    return Contract(
        customer=document.id,
        tariff=body["tariff"],
        rows=price_rows(body),
        valid_from=document.valid_from,
        valid_until=document.valid_until,
        discount=read_percent(body.get("discount", "0%")),
        commitment=parse_amount(body["commitment"], currency) if "commitment" in body else None,
        included=_included(body),
        fees=tuple(
            Fee(fee["name"], parse_amount(fee["amount"], currency), fee.get("every", "month"))
            for fee in body.get("fees", ())
        ),
        places=document.places,
    )


def price_rows(body: Mapping[str, Any]) -> tuple[PriceRow, ...]:
    """The typed `prices` of a tariff's or contract's body, in file order."""
    return tuple(
        PriceRow(
            models=tuple(row["models"]),
            regions=tuple(row.get("regions", ())),
            prices={meter: _pricing(row[meter]) for meter in METERS if meter in row},
            only=row.get("only") == "true",
            prompt_over=int(row["prompt_over"]) if "prompt_over" in row else None,
        )
        for row in body.get("prices", ())
    )


def read_percent(text: str) -> Decimal:
    """Percent points of "15%"."""
    assert text.endswith("%"), text
    return Decimal(text[:-1])


def _included(body: Mapping[str, Any]) -> dict[str, int]:
    return {meter: int(units) for meter, units in body.get("included", {}).items()}


def _pricing(value: str | Mapping[str, Any]) -> Pricing:
    if isinstance(value, str):
        return Plain(Decimal(value))
    if "graduated" in value:
        return Graduated(_tiers(value["graduated"]))
    if "volume" in value:
        return Volume(_tiers(value["volume"]))
    return Package(int(value["package"]["size"]), Decimal(value["package"]["price"]))


def _tiers(tiers: list[Mapping[str, str]]) -> tuple[Tier, ...]:
    return tuple(
        Tier(int(tier["up_to"]) if "up_to" in tier else None, Decimal(tier["price"])) for tier in tiers
    )


def _window(window: Mapping[str, Any]) -> Window:
    begin, end = (int(time[:2]) for time in window.get("hours", "00:00-24:00").split("-"))
    series = window.get("series")
    return Window(
        name=window["name"],
        days=frozenset(window.get("days", (*WEEKDAYS, HOLIDAY))),
        begin=begin,
        end=end,
        factor=Decimal(window["factor"]) if "factor" in window else None,
        series=None if series is None else _series(series),
        steps=tuple(
            Step(Decimal(step["up_to"]) if "up_to" in step else None, Decimal(step["factor"]))
            for step in window.get("steps", ())
        ),
    )


def _series(series: Mapping[str, Any]) -> Series:
    return Series(
        first=hour_number(datetime.fromisoformat(series["first"])),
        prices=tuple(map(Decimal, series["prices"])),
        file=series.get("file"),
    )
