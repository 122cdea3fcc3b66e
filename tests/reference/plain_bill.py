"""The bill again, slowly: plain fractions, one event at a time, straight from the arithmetic of a bill.

It reads the site file's YAML text and raw events, and shares no code with what it checks (a test reads its
imports). Nothing here is fast or general; every rule stands where one would look for it: what holds when in
`plain_bill_site`, usage lines (rules 1 to 6) in `plain_bill_lines` and `plain_bill_pools`, fees and rules 7 and 8 here.

    plain_bills(site_text, events, "2026-10").bills["acme"].net  ->  1234        minor units
    plain_nets(site_text, events, "2026-10")                     ->  {"acme": 1234, ...}

An event is a mapping with `time` (aware datetime), `customer`, `node`, `model`, `outcome`, and the quantities
`prompt_tokens`, `cached_tokens`, `completion_tokens`, `reasoning_tokens`, `generated_tokens` (absent: as completion),
`audio_seconds`, `requests` (all optional, 0; requests 1). Equal events may come added up, with their common `band` and
the sum `generated_reasoning_tokens`. Series of windows are in the canonical form, within the text.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from fractions import Fraction

from plain_bill_lines import Event, Unpriced, local_midnight, plain_usage
from plain_bill_pools import Key, Lines, PlainLine, half_away
from plain_bill_site import Site, Version, begin, number, version_name


class NoPriceError(Exception):
    """Usage that nothing prices."""


@dataclass(frozen=True)
class PlainPart:
    """Money of a bill outside its lines, minor units: positive a charge, negative an allowance.

    `base` (minor units) and `percent` are what a discount's amount is rounded from.
    """

    amount: int
    base: int | None = None
    percent: Fraction | None = None


@dataclass(frozen=True)
class PlainBill:
    """What a customer owes for a period. Parts of amount 0 are none."""

    lines: Lines
    parts: dict[str, PlainPart]

    @property
    def net(self) -> int:
        lines = sum(line.amount for line in self.lines.values())
        return lines + sum(part.amount for part in self.parts.values())


@dataclass(frozen=True)
class PlainPeriod:
    """A period's bills: of each customer with usage, or with a contract in force on a day of it."""

    bills: dict[str, PlainBill]
    unpriced: dict[Unpriced, int]


def plain_bills(
    site_text: str,
    events: Iterable[Event],
    period: str,
    adjustments: Mapping[str, Sequence[tuple[str, int]]] | None = None,
) -> PlainPeriod:
    """Every bill of a period ("2026-10"); what nothing prices is named, the rest is billed all the same.

    `adjustments`: (id, net in minor units) by customer.
    """
    site = Site(site_text)
    year, month = map(int, period.split("-"))
    days = [date(year, month, day) for day in range(1, monthrange(year, month)[1] + 1)]
    rated = plain_usage(site, events, year, month)
    customers = set(rated.lines)
    for customer in site.versions.get("contract", {}):
        if any(site.in_force("contract", customer, day) for day in days):
            customers.add(customer)
    bills = {}
    for customer in sorted(customers):
        usage = rated.lines.get(customer, {})
        parts = _discounts(site, customer, usage, days)
        rest = sum(line.amount for line in usage.values()) + sum(part.amount for part in parts.values())
        shortfall = max(0, _floor(site, customer, usage, days) - rest)
        if shortfall and _owes_a_floor(site, customer, usage, days):
            parts["floor"] = PlainPart(shortfall)
        for name, net in (adjustments or {}).get(customer, ()):
            parts[f"adjustment:{name}"] = PlainPart(net)
        lines = {**usage, **_fees(site, customer, days)}
        bills[customer] = PlainBill(lines, {name: part for name, part in parts.items() if part.amount})
    return PlainPeriod(bills, rated.unpriced)


def plain_nets(site_text: str, events: Iterable[Event], period: str) -> dict[str, int]:
    """Net per customer in minor units (currencies with two decimals)."""
    told = plain_bills(site_text, events, period)
    if told.unpriced:
        raise NoPriceError(str(told.unpriced))
    return {customer: bill.net for customer, bill in told.bills.items()}


def _discounts(site: Site, customer: str, usage: Lines, days: Sequence[date]) -> dict[str, PlainPart]:
    """Rule 7, per tariff version and contract version: the segment's percent, then the contract's of what is left."""
    stated = site.in_force("customer", customer, days[-1])
    segment = stated.get("segment") if stated else None
    parts: dict[str, PlainPart] = {}
    for names in sorted({(key.tariff_version or "", key.contract_version or "") for key in usage}):
        tariff, contract = (_named(site, kind, name) for kind, name in zip(_KINDS, names, strict=True))
        of_group = {
            key: line
            for key, line in usage.items()
            if (key.tariff_version or "", key.contract_version or "") == names
        }
        base = sum(line.amount for key, line in of_group.items() if str(key.price_row).startswith("tariff:"))
        segments: Version = (tariff or {}).get("segments", {})
        percent = number(segments.get(segment or "", "0%"))
        off = half_away(base * percent / 100)
        parts["segment:" + "|".join(names)] = PlainPart(-off, base, percent)
        left = sum(line.amount for line in of_group.values()) - off
        percent = number((contract or {}).get("discount", "0%"))
        parts["discount:" + "|".join(names)] = PlainPart(-half_away(left * percent / 100), left, percent)
    return parts


_KINDS = ("tariff", "contract")


def _named(site: Site, kind: str, name: str) -> Version | None:
    """The version of that name, or None."""
    for identity, versions in site.versions.get(kind, {}).items():
        for version in versions:
            if version_name(version, identity) == name:
                return version
    return None


def _is_used(usage: Lines) -> bool:
    """Whether there is a billed or free usage line."""
    return any(key.tier != "unbilled" for key in usage)


def _floor(site: Site, customer: str, usage: Lines, days: Sequence[date]) -> int:
    """Rule 8: the commitment or minimum of each day, over the number of days."""
    total = Fraction(0)
    for day in days:
        contract = site.in_force("contract", customer, day)
        terms = site.terms(customer, local_midnight(site.zone, day.year, day.month, day.day))
        if contract and "commitment" in contract:
            total += number(contract["commitment"])
        elif _is_used(usage) and terms:
            total += number(terms.tariff.get("minimum", "0"))
    return half_away(total * site.minor / len(days))


def _owes_a_floor(site: Site, customer: str, usage: Lines, days: Sequence[date]) -> bool:
    """With no billed or free line, no fee and no commitment above 0 on any day, the bill is zero."""
    commitments = [site.in_force("contract", customer, day) for day in days]
    return (
        _is_used(usage)
        or bool(_fees(site, customer, days))
        or any(number((each or {}).get("commitment", "0")) > 0 for each in commitments)
    )


def _fees(site: Site, customer: str, days: Sequence[date]) -> Lines:
    """A line a fee and contract version: its share of the month, or once, whole, where it was first stated."""
    lines: Lines = {}
    seen: set[str] = set()
    for version in site.versions.get("contract", {}).get(customer, []):
        held = sum(1 for day in days if site.in_force("contract", customer, day) is version)
        for fee in version.get("fees", []):
            amount = number(fee["amount"]) * site.minor
            if fee.get("every", "month") == "once":
                due = fee["name"] not in seen and days[0] <= begin(version) <= days[-1]
            else:
                due, amount = held > 0, amount * held / len(days)
            seen.add(fee["name"])
            if due:
                minor = half_away(amount)
                key = Key(None, version_name(version, customer), None, None, "fee", "base", None, fee["name"])
                lines[key] = PlainLine(1, Fraction(minor, site.minor), Fraction(1), 1, minor, 0)
    return lines


__all__ = [
    "Key",
    "NoPriceError",
    "PlainBill",
    "PlainLine",
    "PlainPart",
    "PlainPeriod",
    "Unpriced",
    "plain_bills",
    "plain_nets",
]
