"""What tokens cost: tariffs and contracts as dated, typed facts, and which of their rows prices a model.

Prices are exact decimals per 1,000,000 tokens, requests or seconds. A row names by glob the models (and
perhaps regions) that it prices; the first that matches prices all meters (arithmetic rule 3). This
is the language only; turning quantities into lines is `billing.rating`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from zoneinfo import ZoneInfo

from billing.site import version_name

METERS = ("input", "cached_input", "output", "reasoning", "requests", "audio_seconds")
"""The six meters, in the order in which documents list them."""

BILLED_OUTCOMES = ("finished", "aborted", "interrupted")
"""Outcomes of usage that is priced; `failed` is shown at price 0 (arithmetic rule 3)."""

PRICE_BASE = 1_000_000
"""Prices are for this many units (EN 16931 BT-149)."""


@dataclass(frozen=True, slots=True)
class Tier:
    """A step of a price: it holds up to and including `up_to` units of the pool; None: without end."""

    up_to: int | None
    price: Decimal


@dataclass(frozen=True, slots=True)
class Plain:
    """One price for every unit."""

    price: Decimal


@dataclass(frozen=True, slots=True)
class Graduated:
    """Each unit at the price of the tier it falls in. `up_to` ascends; only the last tier has none."""

    tiers: tuple[Tier, ...]


Pricing = Plain | Graduated


@dataclass(frozen=True, slots=True)
class PriceRow:
    """Prices of the meters for the models and regions that match. No regions: every region.

    `only` (contracts): lacking a meter that the hidden tariff row prices is meant; rule 3 then holds.
    """

    models: tuple[str, ...]
    regions: tuple[str, ...]
    prices: Mapping[str, Pricing]
    only: bool = False

    def matches(self, model: str, region: str) -> bool:
        return any(glob_matches(glob, model) for glob in self.models) and (
            not self.regions or any(glob_matches(glob, region) for glob in self.regions)
        )


@dataclass(frozen=True, slots=True)
class Tariff:
    """One version of an operator's price list; days begin at local midnight of `timezone`."""

    id: str
    operator: str
    currency: str
    timezone: str
    rows: tuple[PriceRow, ...]
    valid_from: date | None = None
    valid_until: date | None = None
    bill_output: str = "delivered"

    @property
    def version(self) -> str:
        return version_name(self.id, self.valid_from)

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)


@dataclass(frozen=True, slots=True)
class Contract:
    """One version of a customer's agreement: the tariff it is on, and rows tried before the tariff's own."""

    customer: str
    tariff: str
    rows: tuple[PriceRow, ...] = ()
    valid_from: date | None = None
    valid_until: date | None = None

    @property
    def version(self) -> str:
        return version_name(self.customer, self.valid_from)


def glob_matches(glob: str, text: str) -> bool:
    """Whether `glob` covers all of `text`. Only `*` is special (any characters, also none); case counts.

    Linear in the text: between stars, the leftmost place is as good as any other.
    """
    first, *rest = glob.split("*")
    if not rest:
        return glob == text
    *middle, last = rest
    if len(text) < len(first) + len(last) or not (text.startswith(first) and text.endswith(last)):
        return False
    at, end = len(first), len(text) - len(last)
    for part in middle:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def hidden_row(rows: tuple[PriceRow, ...], glob: str) -> PriceRow | None:
    """The tariff row that a contract's `glob` hides: the first whose glob matches this one's own text."""
    for row in rows:
        if any(glob_matches(pattern, glob) for pattern in row.models):
            return row
    return None
