"""What tokens cost: tariffs and contracts as dated, typed facts, and which of their rows prices a model.

Prices are exact decimals per 1,000,000 tokens, requests or seconds. A row names by glob the models (and
perhaps regions) that it prices; the first that matches prices all meters (arithmetic rule 3). This
is the language only; turning quantities into lines is `billing.rating`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from zoneinfo import ZoneInfo

from billing.site import version_name

METERS = ("input", "cached_input", "output", "reasoning", "requests", "audio_seconds")
"""The six meters, in the order in which documents list them."""

BILLED_OUTCOMES = ("finished", "aborted", "interrupted")
"""Outcomes of usage that is priced unless a tariff says otherwise; the rest is shown at price 0 (arithmetic rule 3)."""

OUTCOMES = (*BILLED_OUTCOMES, "failed")
"""Every outcome that usage may have."""

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
HOLIDAY = "holiday"
"""A day of a window beside the weekdays. A holiday keeps its weekday, so it may match by either."""

PROMPT_BANDS = (32_000, 128_000, 200_000, 256_000, 512_000, 1_000_000)
"""What `prompt_over` may be: the lower bounds of hourly usage's prompt bands, 0 aside."""

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


@dataclass(frozen=True, slots=True)
class Volume:
    """All units of the pool at the price of the tier that their total falls in. Tiers as `Graduated` has them."""

    tiers: tuple[Tier, ...]


@dataclass(frozen=True, slots=True)
class Package:
    """Each started package of `size` units costs `price`; windows have no effect."""

    size: int
    price: Decimal


Pricing = Plain | Graduated | Volume | Package


@dataclass(frozen=True, slots=True)
class PriceRow:
    """Prices of the meters for the models and regions that match. No regions: every region.

    `prompt_over`: only requests whose whole prompt is larger, one of PROMPT_BANDS; None: all.
    `only` (contracts): lacking a meter that the hidden tariff row prices is meant; rule 3 then holds.
    """

    models: tuple[str, ...]
    regions: tuple[str, ...]
    prices: Mapping[str, Pricing]
    only: bool = False
    prompt_over: int | None = None

    def matches(self, model: str, region: str, band: int) -> bool:
        """Whether the row prices usage of `model` on a node in `region`, of prompts in `band` (its lower bound)."""
        return (
            (self.prompt_over is None or band >= self.prompt_over)
            and any(glob_matches(glob, model) for glob in self.models)
            and (not self.regions or any(glob_matches(glob, region) for glob in self.regions))
        )


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a price series: hours whose price is up to and including `up_to` (None: without end) have `factor`."""

    up_to: Decimal | None
    factor: Decimal


@dataclass(frozen=True, slots=True)
class Series:
    """An hourly price series, without gaps: `prices[n]` holds in the UTC hour `first` + n (hours since 1970).

    Prices may be negative, as day-ahead prices of electricity are. `file` is the name it was read under.
    """

    first: int
    prices: tuple[Decimal, ...]
    file: str | None = None

    def at(self, hour: int) -> Decimal | None:
        """The price in a UTC hour (a number since 1970); None outside of the series."""
        place = hour - self.first
        return self.prices[place] if 0 <= place < len(self.prices) else None


@dataclass(frozen=True, slots=True)
class Window:
    """Hours in which unit prices are multiplied (arithmetic rule 4). `days`: of WEEKDAYS and HOLIDAY.

    `begin` and `end` are local hours of the day, 0-23 and 1-24; where `end` is not after `begin` the window goes
    on across midnight, and the hours after it belong to the day on which it began. Either `factor`, or `series`
    with `steps`: the factor is that of the first step whose `up_to` the hour's price does not exceed.
    """

    name: str
    days: frozenset[str]
    begin: int
    end: int
    factor: Decimal | None
    series: Series | None = None
    steps: tuple[Step, ...] = ()

    def step_of(self, price: Decimal) -> int:
        """Which of `steps`, from 0, a price of the series falls in."""
        for place, step in enumerate(self.steps):
            if step.up_to is None or price <= step.up_to:
                return place
        raise AssertionError("the last step has no end")


@dataclass(frozen=True, slots=True)
class Fee:
    """A contract's fee in minor units, every `month` (a share by days for parts of it) or `once`."""

    name: str
    amount: int
    every: str = "month"


@dataclass(frozen=True, slots=True)
class Tariff:
    """One version of an operator's price list; days begin at local midnight of `timezone`.

    `holidays` names a calendar of the `holidays` library (LT, DE-BY). `segments`: percent off by segment;
    `included`: free units by meter in each period; `minimum`: a month's least net amount in minor units.
    `places`: where its keys stand, as StoredDocument has them.
    """

    id: str
    operator: str
    currency: str
    timezone: str
    rows: tuple[PriceRow, ...]
    valid_from: date | None = None
    valid_until: date | None = None
    bill_output: str = "delivered"
    bill_outcomes: tuple[str, ...] = BILLED_OUTCOMES
    windows: tuple[Window, ...] = ()
    holidays: str | None = None
    segments: Mapping[str, Decimal] = field(default_factory=dict)
    included: Mapping[str, int] = field(default_factory=dict)
    minimum: int | None = None
    places: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def version(self) -> str:
        return version_name(self.id, self.valid_from)

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)


@dataclass(frozen=True, slots=True)
class Contract:
    """One version of a customer's agreement: the tariff it is on, and rows tried before the tariff's own.

    `discount` in percent points; `commitment`: a month's least net amount in minor units (None: none stated, 0: a
    stated one); `included` replaces the tariff's for the meters that it names. `places`: where its keys stand.
    """

    customer: str
    tariff: str
    rows: tuple[PriceRow, ...] = ()
    valid_from: date | None = None
    valid_until: date | None = None
    discount: Decimal = Decimal(0)
    commitment: int | None = None
    included: Mapping[str, int] = field(default_factory=dict)
    fees: tuple[Fee, ...] = ()
    places: Mapping[str, str] = field(default_factory=dict, compare=False)

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
