"""The slow bill's pools: free tokens, tiers and packages of rule 5, and the lines of rule 6 that come of them.

A pool is known by its content alone: a quantity takes of a part of it what that part holds afterwards less what it held
before. So a negative quantity empties a pool from its top, and how usage was cut into events does not show.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Any, NamedTuple

from plain_bill_site import Row, Terms, number

Tier = int | str | None
METERS = ("input", "cached_input", "output", "reasoning", "requests", "audio_seconds")
TOKEN_METERS = METERS[:4]


class Key(NamedTuple):
    """Rule 6's key, and a fee's name."""

    tariff_version: str | None
    contract_version: str | None
    price_row: str | None
    model: str | None
    meter: str
    window: str
    tier: Tier
    item: str | None = None


@dataclass(frozen=True)
class PlainLine:
    """A line of a bill. Prices are of the major unit for `price_base` units, `amount` is in minor units."""

    quantity: int
    list_price: Fraction
    factor: Fraction
    price_base: int
    amount: int
    tokens: int


Lines = dict[Key, PlainLine]


class Step(NamedTuple):
    """A quantity on its way into pools. The first five are rule 5's order."""

    hour: datetime
    model: str
    rank: int
    node: str
    place: int  # of the meter; meters share no pool
    customer: str
    terms: Terms
    row: Row
    window: str
    factor: Fraction
    billed: bool

    @property
    def meter(self) -> str:
        return METERS[self.place]

    @property
    def pool(self) -> tuple[str, str, str | None, str, str]:
        return (
            self.customer,
            self.terms.tariff_name,
            self.terms.contract_name,
            self.row.name,
            self.meter,
        )

    def key(self, tier: Tier) -> Key:
        names = self.terms.tariff_name, self.terms.contract_name, self.row.name
        return Key(*names, self.model, self.meter, self.window, tier)


class Filling:
    """Pools being filled in rule 5's order."""

    def __init__(self, included: Mapping[str, Mapping[str, int]], minor: int) -> None:
        self._minor = minor
        self._included = included
        self._content: dict[Any, int] = defaultdict(int)
        self._prices: dict[Key, tuple[Fraction, Fraction]] = {}
        self._quantities: dict[str, dict[Key, int]] = {customer: defaultdict(int) for customer in included}
        self._at_the_end: dict[Any, list[tuple[Step, int]]] = defaultdict(list)

    def take(self, step: Step, quantity: int) -> None:
        if not step.billed:
            self._add(step, "unbilled", Fraction(0), quantity)
            return
        quantity -= self._free(step, quantity)
        pricing = step.row.prices[step.meter]
        if isinstance(pricing, str):
            self._add(step, None, number(pricing), quantity)
        elif "graduated" in pricing:
            before = self._content[step.pool]
            self._content[step.pool] += quantity
            for tier, price, part in _graduated(pricing["graduated"], before, before + quantity):
                self._add(step, tier, price, part)
        else:
            self._at_the_end[step.pool].append((step, quantity))

    def _free(self, step: Step, quantity: int) -> int:
        """What of the quantity is included, put on its line."""
        included = self._included[step.customer].get(step.meter, 0)
        if not included:
            return 0
        pool = (step.customer, step.meter)
        before = self._content[pool]
        self._content[pool] += quantity
        free = min(included, before + quantity) - min(included, before)
        self._add(step, "free", Fraction(0), free)
        return free

    def _add(self, step: Step, tier: Tier, price: Fraction, quantity: int) -> None:
        key = step.key(tier)
        self._prices[key] = price, step.factor
        self._quantities[step.customer][key] += quantity

    def lines(self) -> dict[str, Lines]:
        packages: list[tuple[str, Key, PlainLine]] = []
        for parts in self._at_the_end.values():
            step, pricing = parts[0][0], parts[0][0].row.prices[parts[0][0].meter]
            total = sum(quantity for _, quantity in parts)
            if "package" in pricing:
                packages.append((step.customer, *_packages(step, pricing["package"], total, self._minor)))
                continue
            tier, price = _volume(pricing["volume"], total)
            for part, quantity in parts:
                self._add(part, tier, price, quantity)
        lines = {
            customer: {
                key: _line(key, quantity, *self._prices[key], self._minor)
                for key, quantity in of_customer.items()
                if quantity
            }
            for customer, of_customer in self._quantities.items()
        }
        for customer, key, line in packages:
            if line.quantity:
                lines[customer][key] = line
        return lines


def _graduated(tiers: list[Any], before: int, after: int) -> Iterator[tuple[int, Fraction, int]]:
    lower: int | None = None  # the first tier has no lower end: a pool may fall below zero
    for tier, each in enumerate(tiers, 1):
        upper = int(number(each["up_to"])) if "up_to" in each else None
        yield tier, number(each["price"]), _held(after, lower, upper) - _held(before, lower, upper)
        lower = upper


def _held(content: int, lower: int | None, upper: int | None) -> int:
    """How much of a pool's content lies above `lower` and up to `upper`."""
    top = content if upper is None else min(content, upper)
    return top if lower is None else max(0, top - lower)


def _volume(tiers: list[Any], total: int) -> tuple[int, Fraction]:
    """The tier that the total falls in; `up_to` is inclusive."""
    for tier, each in enumerate(tiers, 1):
        if "up_to" not in each or total <= number(each["up_to"]):
            return tier, number(each["price"])
    raise AssertionError("the last tier has no end")


def _packages(step: Step, package: Mapping[str, str], total: int, minor: int) -> tuple[Key, PlainLine]:
    """Each started package, on one line of all models."""
    started = -(-abs(total) // int(number(package["size"]))) * (1 if total >= 0 else -1)
    price = number(package["price"])
    tokens = total if step.meter in TOKEN_METERS else 0
    line = PlainLine(started, price, Fraction(1), 1, half_away(started * price * minor), tokens)
    return step.key(None)._replace(model=None), line


def _line(key: Key, quantity: int, price: Fraction, factor: Fraction, minor: int) -> PlainLine:
    tokens = quantity if key.meter in TOKEN_METERS else 0
    amount = half_away(quantity * price * factor * minor / 1_000_000)
    return PlainLine(quantity, price, factor, 1_000_000, amount, tokens)


def half_away(value: Fraction) -> int:
    """Rounded to a whole number, halves away from zero."""
    whole = abs(value) + Fraction(1, 2)
    rounded = whole.numerator // whole.denominator
    return rounded if value >= 0 else -rounded
