"""The slow bill's usage lines: rules 1 to 6 of the arithmetic of a bill, one event at a time, in fractions.

event → its hour, terms and row → disjoint meters → window → (in rule 5's order) included, tiers, packages → lines

"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from plain_bill_pools import METERS, Filling, Lines, Step
from plain_bill_site import Row, Site, Terms, UncoveredError, number

Event = Mapping[str, Any]
_BILLED = ["finished", "aborted", "interrupted"]
_NEEDS_A_PRICE = ("input", "output", "audio_seconds")


class Unpriced(NamedTuple):
    """Usage that nothing prices, by what it is known by."""

    model: str
    meter: str
    region: str


@dataclass(frozen=True)
class Rated:
    """Usage lines per customer with usage, and what stops the close: quantity by what it is known by."""

    lines: dict[str, Lines]
    unpriced: dict[Unpriced, int]


def plain_usage(site: Site, events: Iterable[Event], year: int, month: int) -> Rated:
    """The lines of a month's usage."""
    steps, unpriced, customers = _steps(site, events, year, month)
    filling = Filling({customer: included(site, customer, year, month) for customer in customers}, site.minor)
    for step in sorted(steps, key=lambda step: step[:5]):
        filling.take(step, steps[step])
    return Rated(filling.lines(), unpriced)


def included(site: Site, customer: str, year: int, month: int) -> dict[str, int]:
    """Rule 5: the free quantities in force in the month's last hour; the contract's replace the tariff's by meter."""
    last_hour = local_midnight(site.zone, *next_month(year, month)) - timedelta(hours=1)
    day = last_hour.astimezone(site.zone).date()
    terms, contract = site.terms(customer, last_hour), site.in_force("contract", customer, day)
    stated = {**(terms.tariff.get("included", {}) if terms else {}), **(contract or {}).get("included", {})}
    return {meter: int(number(units)) for meter, units in stated.items()}


def next_month(year: int, month: int) -> tuple[int, int, int]:
    return (year + 1, 1, 1) if month == 12 else (year, month + 1, 1)


def local_midnight(zone: ZoneInfo, year: int, month: int, day: int) -> datetime:
    """The instant at which a local day begins, in UTC."""
    return datetime(year, month, day, tzinfo=zone).astimezone(ZoneInfo("UTC"))


def _steps(
    site: Site, events: Iterable[Event], year: int, month: int
) -> tuple[dict[Step, int], dict[Unpriced, int], set[str]]:
    steps: dict[Step, int] = defaultdict(int)
    lacking: dict[tuple[Unpriced, object], int] = defaultdict(int)
    customers = set()
    for event in events:
        local = event["time"].astimezone(site.zone)
        if (local.year, local.month) != (year, month) or event.get("late"):
            continue
        customer, model, node = event["customer"], event["model"], event["node"]
        customers.add(customer)
        hour = event["time"].replace(minute=0, second=0, microsecond=0)
        region, terms = site.region(node, hour), site.terms(customer, hour)
        row = site.row(terms, model, region, _prompt(event)) if terms else None
        for meter, quantity in _meters(event, terms, row).items():
            why = (customer, terms and terms.tariff_name, terms and terms.contract_name)
            name = (Unpriced(model, meter, region), why)
            if terms is None or row is None or meter not in row.prices:
                if meter in _NEEDS_A_PRICE:
                    lacking[name] += quantity
                continue
            # packages have no windows
            flat = isinstance(row.prices[meter], dict) and "package" in row.prices[meter]
            try:
                window, factor = ("base", Fraction(1)) if flat else site.window(terms.tariff, hour)
            except UncoveredError:
                lacking[name] += quantity
                continue
            billed = event.get("outcome", "finished") in terms.tariff.get("bill_outcomes", _BILLED)
            place = METERS.index(meter)
            step = Step(hour, model, row.rank, node, place, customer, terms, row, window, factor, billed)
            steps[step] += quantity
    unpriced: dict[Unpriced, int] = defaultdict(int)
    for (unknown, _), quantity in lacking.items():
        if quantity:  # what was taken back whole needs no price
            unpriced[unknown] += quantity
    return steps, dict(unpriced), customers


def _prompt(event: Event) -> int:
    """The whole prompt of the request; of equal requests that were added up, their band and one more."""
    return int(event["band"]) + 1 if "band" in event else abs(event.get("prompt_tokens", 0))


def _meters(event: Event, terms: Terms | None, row: Row | None) -> dict[str, int]:
    """Rule 3: disjoint quantities. What the row does not price adds to its parent."""
    prompt, cached = event.get("prompt_tokens", 0), event.get("cached_tokens", 0)
    output, reasoning = event.get("completion_tokens", 0), event.get("reasoning_tokens", 0)
    if terms and terms.tariff.get("bill_output") == "generated":
        output = event.get("generated_tokens", output)
        taken_back = output < 0 or reasoning < 0 or event.get("completion_tokens", 0) < 0
        reasoning = max(reasoning, output) if taken_back else min(reasoning, output)
        # of requests that were added up, the sum of what was the smaller in each
        reasoning = event.get("generated_reasoning_tokens", reasoning)
    priced = row.prices if row else {}
    meters = {"input": prompt, "output": output}
    for child, parent, quantity in (("cached_input", "input", cached), ("reasoning", "output", reasoning)):
        if child in priced:
            meters[child] = quantity
            meters[parent] -= quantity
    if "requests" in priced:
        meters["requests"] = event.get("requests", 1)
    meters["audio_seconds"] = event.get("audio_seconds", 0)
    return {meter: quantity for meter, quantity in meters.items() if quantity}
