"""The worked examples of tests/vectors/rating, read: their events, lines and parts with every default filled in.

What billing and the slow bill found is put into the same words beside them, so that a test compares like with like.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml
from plain_bill import Key, PlainBill, PlainLine

from billing.bill_part import BillPart
from billing.line import Line
from billing.money import format_minor, format_price, parse_amount

FOLDER = Path(__file__).parent.parent / "vectors" / "rating"
BASES = {path.stem: path.read_text() for path in FOLDER.glob("base*.yaml")}
BASE = BASES["base"]
VECTORS = {
    path.stem: yaml.safe_load(path.read_text()) for path in FOLDER.glob("*.yaml") if path.stem not in BASES
}
RATINGS = {name: vector for name, vector in VECTORS.items() if "expect" in vector}
STORIES = {name: vector for name, vector in VECTORS.items() if "story" in vector}
_SHORT = {
    "prompt": "prompt_tokens",
    "cached": "cached_tokens",
    "completion": "completion_tokens",
    "reasoning": "reasoning_tokens",
    "generated": "generated_tokens",
    "audio": "audio_seconds",
    "late": "late",
}
_UNITS = {"requests": "request", "audio_seconds": "second", "fee": "item", "adjustment": "item"}
_REASONS = {"segment": "Segment discount", "discount": "Contract discount"}


def events_of(usage: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events that a vector lists in short."""
    return [
        {
            "time": datetime.fromisoformat(each["at"]).astimezone(UTC) + timedelta(hours=hour),
            "customer": each.get("customer", "acme"),
            "node": each.get("node", "vilnius-1"),
            "model": each.get("model", "m"),
            "outcome": each.get("outcome", "finished"),
            **{name: each[short] for short, name in _SHORT.items() if short in each},
        }
        for each in usage
        for hour in range(each.get("hours", 1))
    ]


def site_of(vector: Mapping[str, Any]) -> str:
    return BASES[vector.get("base", "base")] + str(vector["site"])


def stated(line: Mapping[str, Any], tariff: str = "vilnius") -> dict[str, Any]:
    """A vector's line with its defaults filled in."""
    meter = line["meter"]
    unit = line.get("unit", _UNITS.get(meter, "token"))
    if meter not in _UNITS and line.get("model", "m") is None:
        unit = "package"
    tokens = 0 if meter in ("requests", "audio_seconds", "fee", "adjustment") else line["quantity"]
    filled = {
        "version": tariff,
        "contract": None,
        "row": "tariff:1",
        "model": "m",
        "tier": None,
        "item": None,
        "window": "base",
        "factor": "1",
        "list_price": line["unit_price"],
        "tokens": tokens,
        "unit": unit,
        "price_base": 1 if unit in ("package", "item") else 1_000_000,
        **line,
    }
    filled.pop("description", None)
    return filled


def found(line: Line, currency: str = "EUR") -> dict[str, Any]:
    """A rated line in the vectors' words."""
    return {
        "version": line.tariff_version,
        "contract": line.contract_version,
        "row": line.price_row,
        "model": line.model,
        "meter": line.meter,
        "window": line.window,
        "tier": line.tier,
        "item": line.item,
        "quantity": line.quantity,
        "unit": line.unit,
        "price_base": line.price_base,
        "list_price": format_price(line.list_price),
        "factor": format_price(line.factor),
        "unit_price": format_price(line.unit_price),
        "amount": format_minor(line.amount, currency),
        "tokens": line.tokens,
    }


def plainly_found(key: Key, line: PlainLine, currency: str = "EUR") -> dict[str, Any]:
    """A line of the slow bill in the vectors' words."""
    return {
        "version": key.tariff_version,
        "contract": key.contract_version,
        "row": key.price_row,
        "model": key.model,
        "meter": key.meter,
        "window": key.window,
        "tier": key.tier,
        "item": key.item,
        "quantity": line.quantity,
        "unit": "package" if line.price_base == 1 and key.meter != "fee" else _UNITS.get(key.meter, "token"),
        "price_base": line.price_base,
        "list_price": decimal_text(line.list_price),
        "factor": decimal_text(line.factor),
        "unit_price": decimal_text(line.list_price * line.factor),
        "amount": format_minor(line.amount, currency),
        "tokens": line.tokens,
    }


def decimal_text(value: Fraction) -> str:
    """The shortest decimal of a fraction that has one."""
    scaled = value * 10**30
    assert scaled.denominator == 1, value
    return format_price(Decimal(scaled.numerator).scaleb(-30))


def stated_parts(expected: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A vector's parts with their defaults; a reason only where it has one."""
    for part in expected.get("parts", ()):
        reason = part.get("reason", _REASONS.get(part["key"].partition(":")[0]))
        yield {"base": None, "percent": None, **part, "reason": reason}


def found_part(part: BillPart, reason: str | None, currency: str = "EUR") -> dict[str, Any]:
    """A part of a bill in the vectors' words; where a vector states no `reason`, none is looked at."""
    return {
        "key": part.key,
        "amount": format_minor(part.amount, currency),
        "base": None if part.base is None else format_minor(part.base, currency),
        "percent": None if part.percent is None else format_price(part.percent),
        "reason": reason and part.reason,
    }


def plainly_found_parts(bill: PlainBill, currency: str = "EUR") -> list[dict[str, Any]]:
    return [
        {
            "key": key,
            "amount": format_minor(part.amount, currency),
            "base": None if part.base is None else format_minor(part.base, currency),
            "percent": None if part.percent is None else decimal_text(part.percent),
        }
        for key, part in bill.parts.items()
    ]


def sorted_lines(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(lines, key=lambda line: str(sorted(line.items())))


def stated_lines(vector: Mapping[str, Any], customer: str) -> list[dict[str, Any]]:
    tariff = _operator(vector)["default_tariff"]
    return sorted_lines([stated(line, tariff) for line in vector["expect"][customer]["lines"]])


def currency_of(vector: Mapping[str, Any]) -> str:
    return _operator(vector)["currency"]


def _operator(vector: Mapping[str, Any]) -> dict[str, str]:
    stated: dict[str, str] = yaml.safe_load(BASES[vector.get("base", "base")].partition("---")[0])
    return stated


def adjustments_of(vector: Mapping[str, Any]) -> dict[str, list[tuple[str, int]]]:
    return {
        customer: [(name, parse_amount(net, currency_of(vector))) for name, net in each]
        for customer, each in vector.get("adjustments", {}).items()
    }


def unpriced_of(vector: Mapping[str, Any]) -> dict[tuple[str, str, str], int]:
    return {
        (each["model"], each["meter"], each["region"]): each["quantity"]
        for each in vector.get("unpriced", ())
    }
