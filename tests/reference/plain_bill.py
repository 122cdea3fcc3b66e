"""The bill again, slowly: plain fractions, one event at a time, straight from docs/arithmetic.md.

It reads the site file's YAML text and raw events, and shares no code with what it checks (a test reads its
imports). Nothing here is fast or general; every rule stands where one would look for it.

    plain_nets(site_text, events, "2026-10")  ->  {"acme": 1234, ...}      net per customer in minor units

An event is a mapping with `time` (aware datetime), `customer`, `node`, `model`, `outcome`, and the token
counts `prompt_tokens`, `cached_tokens`, `completion_tokens`, `reasoning_tokens`, `audio_seconds`,
`requests` (all optional, 0; requests 1).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import yaml

Event = Mapping[str, Any]
Key = tuple[str, str | None, str, str, str, int | str | None]
"""(tariff version, contract version, price row, model, meter, tier)"""


class NoPriceError(Exception):
    """Usage that nothing prices."""


def plain_nets(site_text: str, events: Iterable[Event], period: str) -> dict[str, int]:
    """Net per customer with usage in the period, in minor units (currencies with two decimals)."""
    return {
        customer: sum(amount for _, amount in lines.values())
        for customer, lines in plain_lines(site_text, events, period).items()
    }


def plain_lines(
    site_text: str, events: Iterable[Event], period: str
) -> dict[str, dict[Key, tuple[int, int]]]:
    """Per customer and line: (quantity, amount in minor units)."""
    site = _Site(site_text)
    year, month = map(int, period.split("-"))
    steps: dict[tuple[Any, ...], int] = defaultdict(int)
    customers = set()
    for event in events:
        local = event["time"].astimezone(site.zone)
        if (local.year, local.month) != (year, month):
            continue
        customers.add(event["customer"])
        hour = event["time"].replace(minute=0, second=0, microsecond=0)
        tariff, contract, name, row = site.row(event, hour)
        billed = event.get("outcome", "finished") != "failed"
        for meter, quantity in _meters(event, row).items():
            steps[event["customer"], tariff, contract, name, meter, billed, hour, event["model"]] += quantity
    lines: dict[str, dict[Key, tuple[int, Fraction]]] = {customer: {} for customer in customers}
    filled: dict[tuple[Any, ...], int] = defaultdict(int)
    for step, quantity in sorted(steps.items(), key=lambda item: (item[0][-2], item[0][-1])):
        customer, tariff, contract, name, meter, billed, _, model = step
        pool = step[:-2]
        pricing = site.pricing(tariff, contract, name, meter)
        if pricing is None:
            raise NoPriceError(f"{model} {meter}")
        for tier, price, part in _tiers(pricing, billed, filled[pool], quantity):
            key: Key = (tariff, contract, name, model, meter, tier)
            before, _ = lines[customer].get(key, (0, price))
            lines[customer][key] = (before + part, price)
        filled[pool] += quantity
    return {
        customer: {
            key: (quantity, _half_away(quantity * price * 100 / 1_000_000))
            for key, (quantity, price) in of_customer.items()
            if quantity
        }
        for customer, of_customer in lines.items()
    }


def _half_away(value: Fraction) -> int:
    whole = abs(value) + Fraction(1, 2)
    rounded = whole.numerator // whole.denominator
    return rounded if value >= 0 else -rounded


def _meters(event: Event, row: Mapping[str, Any] | None) -> dict[str, int]:
    prompt, cached = event.get("prompt_tokens", 0), event.get("cached_tokens", 0)
    completion, reasoning = event.get("completion_tokens", 0), event.get("reasoning_tokens", 0)
    priced = row or {}
    meters = {"input": prompt - cached, "output": completion - reasoning}
    for child, parent, quantity in (("cached_input", "input", cached), ("reasoning", "output", reasoning)):
        if child in priced:
            meters[child] = quantity
        else:
            meters[parent] += quantity
    if "requests" in priced:
        meters["requests"] = event.get("requests", 1)
    meters["audio_seconds"] = event.get("audio_seconds", 0)
    return {meter: quantity for meter, quantity in meters.items() if quantity}


def _tiers(
    pricing: Any, billed: bool, before: int, quantity: int
) -> list[tuple[int | str | None, Fraction, int]]:
    if not billed:
        return [("unbilled", Fraction(0), quantity)]
    if isinstance(pricing, str):
        return [(None, _number(pricing), quantity)]
    parts: list[tuple[int | str | None, Fraction, int]] = []
    lower: Fraction | None = None  # the first tier has no lower end: a pool may fall below zero
    for tier, each in enumerate(pricing["graduated"], 1):
        upper = _number(each["up_to"]) if "up_to" in each else None
        part = _within(before + quantity, lower, upper) - _within(before, lower, upper)
        parts.append((tier, _number(each["price"]), part))
        lower = upper
    return parts


def _within(content: int, lower: Fraction | None, upper: Fraction | None) -> int:
    """How much of a pool's content lies above `lower` and up to `upper`."""
    top = content if upper is None else min(content, int(upper))
    return top if lower is None else max(0, top - int(lower))


def _number(text: str) -> Fraction:
    return Fraction(text.replace("_", ""))


class _Site:
    """The YAML as it stands, every scalar text."""

    def __init__(self, text: str) -> None:
        documents = [each for each in yaml.load_all(text, yaml.BaseLoader) if each]
        self.by_kind: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for each in documents:
            self.by_kind[each["kind"]].append(each)
        self.operator = self.by_kind["operator"][0]
        self.zone = ZoneInfo(self.operator["timezone"])
        self.regions = {node["id"]: node["region"] for node in self.by_kind["node"]}
        self.versions: dict[str, dict[str, Any]] = {}

    def row(self, event: Event, hour: datetime) -> tuple[str, str | None, str, dict[str, Any] | None]:
        """(tariff version, contract version, row name, row) that prices the event."""
        contracts = [each for each in self.by_kind["contract"] if each["customer"] == event["customer"]]
        contract = _in_force(contracts, hour.astimezone(self.zone).date())
        wanted = contract["tariff"] if contract else self.operator.get("default_tariff")
        tariff = None
        for each in sorted(self.by_kind["tariff"], key=_begin):
            local = hour.astimezone(ZoneInfo(each.get("timezone", self.operator["timezone"])))
            if each["id"] == wanted and _begin(each) <= local.date():
                tariff = each if not _ended(each, local.date()) else None
        if tariff is None:
            raise NoPriceError(f"no tariff for {event['customer']} at {hour}")
        names = (
            self._name(tariff, tariff["id"]),
            self._name(contract, event["customer"]) if contract else None,
        )
        sources: list[tuple[str, Mapping[str, Any]]] = [("contract", contract or {}), ("tariff", tariff)]
        for source, holder in sources:
            for number, row in enumerate(holder.get("prices", []), 1):
                if _matches(row, event["model"], self.regions[event["node"]]):
                    return (*names, f"{source}:{number}", row)
        return (*names, "none", None)

    def pricing(self, tariff: str, contract: str | None, name: str, meter: str) -> Any:
        source, _, number = name.partition(":")
        if source == "none":
            return None
        holder = self.versions[contract if source == "contract" and contract else tariff]
        return holder["prices"][int(number) - 1].get(meter)

    def _name(self, version: dict[str, Any], identity: str) -> str:
        name = f"{identity}@{version['valid_from']}" if "valid_from" in version else identity
        self.versions[name] = version
        return name


def _begin(version: Mapping[str, Any]) -> date:
    return date.fromisoformat(version["valid_from"]) if "valid_from" in version else date.min


def _ended(version: Mapping[str, Any], day: date) -> bool:
    return "valid_until" in version and date.fromisoformat(version["valid_until"]) <= day


def _in_force(versions: list[dict[str, Any]], day: date) -> dict[str, Any] | None:
    begun = [each for each in sorted(versions, key=_begin) if _begin(each) <= day]
    return begun[-1] if begun and not _ended(begun[-1], day) else None


def _matches(row: Mapping[str, Any], model: str, region: str) -> bool:
    regions = row.get("regions", ["*"])
    return any(_glob(each, model) for each in row["models"]) and any(_glob(each, region) for each in regions)


def _glob(pattern: str, text: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text) is not None
