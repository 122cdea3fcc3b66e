"""The working behind a customer's usage lines: which hours, meters and pools each quantity came from. Pure.

Rating says what each line comes to; this says of what, for people. It goes through one customer's hours one by one, in
the order of the arithmetic, with the same terms, price rows and windows, and keeps what rating sums away:

    hourly usage → parts (one hour, model and price row)     what each meter is made of, rule 3
                 → free units, then pools                    rule 5, step by step
                 → a `LineWorking` for each line's key       what lay in its hours, and which share of it the line is

A line's quantity here is the quantity that rating gives it (tests hold both to that); whoever explains a document
shows the working of a line only where it ends in the document's own quantity.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import pyarrow as pa

from billing.facts import Facts
from billing.included import included_units
from billing.line import BASE_WINDOW, FREE, UNBILLED, Tier
from billing.period import Period
from billing.tariff import METERS, Graduated, Package, Volume
from billing.tariff import Tier as PriceTier
from billing.terms import TermsRow
from billing.working_hours import Part, parts_of

Key = tuple[str | None, str | None, str | None, str | None, str, str, Tier]
"""(tariff version, contract version, price row, model, meter, window, tier): rule 6's key of a usage line."""


@dataclass(slots=True)
class Hours:
    """What was used in the hours of a line: everything of one (price row, meter, window), of its model or of all.

    `made_of`: units by the meter that they were counted on, the line's own and those that the row doesn't price.
    `hours`: UTC hours (numbers since 1970) with what was used in each.
    """

    made_of: Counter[str] = field(default_factory=Counter)
    hours: Counter[int] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    places: Counter[tuple[str, str]] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    bands: set[int] = field(default_factory=set)
    free: int = 0

    @property
    def units(self) -> int:
        return sum(self.made_of.values())

    def add(self, part: Part, meter: str) -> None:
        made_of = part.meters[meter]
        units = sum(made_of.values())
        for name, counted in made_of.items():
            self.made_of[name] += counted
        self.hours[part.hour] += units
        self.outcomes[part.outcome] += units
        self.places[part.node, part.region] += units
        self.models[part.model] += units
        self.bands.add(part.band)


@dataclass(slots=True)
class Pool:
    """What the tiers or packages of one price row and meter were filled with, over all models and windows.

    `total`: after free units; `by_tier`: units in each tier from 1 (graduated prices).
    """

    total: int = 0
    by_tier: Counter[int] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class LineWorking:
    """One line: `quantity` (of packages: those started), the usage of its hours, and the pool it is part of, if any.

    `before`: what the pool held when the first of a graduated line's units came in.
    """

    row: TermsRow
    model: str | None
    meter: str
    window: str
    tier: Tier
    quantity: int
    hours: Hours
    pool: Pool | None = None
    before: int | None = None


@dataclass(frozen=True, slots=True)
class Working:
    """Every usage line of a customer's period by its key, and the free units of the period by meter."""

    lines: Mapping[Key, LineWorking]
    included: Mapping[str, int]


@dataclass(slots=True)
class _Filled:
    """What the steps of one meter leave behind: by (row, model, window, billed) and by row."""

    hours: dict[_Group, Hours] = field(default_factory=lambda: defaultdict(Hours))
    rest: Counter[_Group] = field(default_factory=Counter)
    tiers: dict[_Group, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    before: dict[tuple[_Group, int], int] = field(default_factory=dict)
    pools: dict[_RowKey, Pool] = field(default_factory=lambda: defaultdict(Pool))
    rows: dict[_RowKey, TermsRow] = field(default_factory=dict)


_RowKey = tuple[str, str | None, str]
_Group = tuple[_RowKey, str | None, str, bool]


def working(usage: pa.Table, facts: Facts, period: Period, customer: str) -> Working:
    """The working of one customer. `usage` is as `billing.hourly` says and may hold other customers' too; `facts` hold
    the holidays of the period (`billing.holiday`).
    """
    zone = facts.operator[-1].zone
    _, end = period.bounds(zone)
    included = included_units(facts, customer, end - timedelta(hours=1), zone)
    parts = sorted(
        parts_of(usage, facts, period, customer), key=lambda part: (part.hour, part.model, part.row.rank)
    )
    lines: dict[Key, LineWorking] = {}
    for meter in METERS:
        filled = _fill(parts, meter, included.get(meter, 0))
        lines.update((_key(line), line) for line in _lines(filled, meter))
    return Working(lines, included)


def _key(line: LineWorking) -> Key:
    row = line.row
    return (
        row.tariff_version,
        row.contract_version,
        row.name,
        line.model,
        line.meter,
        line.window,
        line.tier,
    )


def _fill(parts: Iterable[Part], meter: str, included: int) -> _Filled:
    """Goes through the parts in rule 5's order: free units first, then the pools of tiered prices."""
    filled = _Filled()
    taken = 0
    for part in parts:
        pricing = part.row.pricing(meter)
        made_of = part.meters[meter]
        if pricing is None or not made_of:
            continue
        packaged = isinstance(pricing, Package)
        if part.window is None and not packaged:
            continue  # no price for that hour: unpriced
        row_key = (part.row.tariff_version, part.row.contract_version, part.row.name)
        filled.rows[row_key] = part.row
        group = (row_key, part.model, BASE_WINDOW if packaged else part.window or "", part.billed)
        filled.hours[group].add(part, meter)
        if not part.billed:
            continue
        units = sum(made_of.values())
        free = min(taken + units, included) - min(taken, included) if included else 0
        taken += units
        filled.hours[group].free += free
        filled.rest[group] += units - free
        _pour(filled, group, units - free, pricing.tiers if isinstance(pricing, Graduated) else ())
    return filled


def _pour(filled: _Filled, group: _Group, units: int, tiers: tuple[PriceTier, ...]) -> None:
    """One step into its pool: each tier takes what the pool's content gains between its bounds."""
    pool = filled.pools[group[0]]
    before, after = pool.total, pool.total + units
    pool.total = after
    lower = None
    for number, tier in enumerate(tiers, 1):
        taken = _within(after, lower, tier.up_to) - _within(before, lower, tier.up_to)
        lower = tier.up_to
        if taken:
            pool.by_tier[number] += taken
            filled.tiers[group][number] += taken
            filled.before.setdefault((group, number), before)


def _within(content: int, lower: int | None, upper: int | None) -> int:
    """How much of a pool's content lies above `lower` (None: without end downwards) and up to `upper`."""
    top = content if upper is None else min(content, upper)
    return top if lower is None else max(top - lower, 0)


def _lines(filled: _Filled, meter: str) -> Iterator[LineWorking]:
    """The lines of one meter that have a quantity."""
    packages: dict[_RowKey, Hours] = defaultdict(Hours)
    for group, hours in filled.hours.items():
        row_key, model, window, billed = group
        row = filled.rows[row_key]
        if not billed:
            yield from _some(LineWorking(row, model, meter, window, UNBILLED, hours.units, hours))
            continue
        yield from _some(LineWorking(row, model, meter, window, FREE, hours.free, hours))
        if isinstance(row.pricing(meter), Package):
            _join(packages[row_key], hours)
            continue
        for tier, units, before in _tiers(filled, group, meter):
            pool = None if tier is None else filled.pools[row_key]
            yield from _some(LineWorking(row, model, meter, window, tier, units, hours, pool, before))
    for row_key, hours in packages.items():
        row, pool = filled.rows[row_key], filled.pools[row_key]
        pricing = row.pricing(meter)
        assert isinstance(pricing, Package)
        started = started_packages(pool.total, pricing)
        yield from _some(LineWorking(row, None, meter, BASE_WINDOW, None, started, hours, pool))


def _tiers(filled: _Filled, group: _Group, meter: str) -> Iterator[tuple[Tier, int, int | None]]:
    """What a group has in each tier after free units: (tier, units, what the pool held before them)."""
    match filled.rows[group[0]].pricing(meter):
        case Graduated():
            for number, units in filled.tiers[group].items():
                yield number, units, filled.before[group, number]
        case Volume(tiers):
            yield volume_tier(tiers, filled.pools[group[0]].total), filled.rest[group], None
        case _:
            yield None, filled.rest[group], None


def _some(line: LineWorking) -> Iterator[LineWorking]:
    if line.quantity:
        yield line


def _join(whole: Hours, hours: Hours) -> None:
    """Adds the hours of one model to those of a package, which is of all models."""
    for name in ("made_of", "hours", "outcomes", "places", "models"):
        getattr(whole, name).update(getattr(hours, name))
    whole.bands |= hours.bands
    whole.free += hours.free


def volume_tier(tiers: tuple[PriceTier, ...], total: int) -> int:
    """The tier, from 1, that a volume price's total falls in."""
    return next(number for number, tier in enumerate(tiers, 1) if tier.up_to is None or total <= tier.up_to)


def started_packages(total: int, package: Package) -> int:
    """Packages that a pool's total starts; of a total below zero, as many are taken back."""
    started = -(-abs(total) // package.size)
    return started if total > 0 else -started
