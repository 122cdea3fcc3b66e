"""The tables of a price sheet: a section a region, a heading and tables a price row, a line a meter and tier.

A table's columns are the usage, the base price, and the price in each window (`reports.price_sheet_columns`). A meter
with tiers has a line of its own over theirs; one that counts as another says so in one cell. Columns that do not fit
beside the base price stand in further tables of the row, which hold what costs another price there and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from billing.line import NO_FACTOR
from billing.money import exact_product, format_price
from billing.prices_in_force import COUNTED, FREE, NOT_PRICED, MeterInForce, holds_in, meters_in_force
from billing.tariff import PriceRow, Tariff
from reports import figures
from reports.languages import Words
from reports.price_sheet_columns import Columns, tables_of_columns

EVERY = "*"
_LEAST_DECIMALS = 2


@dataclass(frozen=True, slots=True)
class PrintedPrice:
    """A price in its column; `room` puts decimal marks below one another, in widths of a digit."""

    text: str
    room: int


@dataclass(frozen=True, slots=True)
class PrintedLine:
    """A line of a table: a meter with its prices; a meter alone, over those of its tiers; or a `tier` by its units.

    `note` stands small beside the meter, `instead` in place of prices.
    """

    what: str
    prices: tuple[PrintedPrice, ...] = ()
    tier: bool = False
    note: str = ""
    instead: str = ""


@dataclass(frozen=True, slots=True)
class PrintedTable:
    """Prices; `title` is empty over a row's first table. `heads`: of each column of prices, line by line."""

    title: str
    heads: tuple[tuple[str, ...], ...]
    lines: tuple[PrintedLine, ...]


@dataclass(frozen=True, slots=True)
class PrintedRow:
    """A price row: its globs, or a `title` where it is for all models; what limits it; and its tables.

    `kinds`: how its meters are priced.
    """

    models: tuple[str, ...]
    title: str
    limits: tuple[str, ...]
    tables: tuple[PrintedTable, ...]
    kinds: frozenset[str]


@dataclass(frozen=True, slots=True)
class Section:
    """The rows of one or more regions; `anchor` is its place in the page."""

    anchor: str
    title: str
    rows: tuple[PrintedRow, ...]


def sections(tariff: Tariff, regions: Sequence[str], names: Words, language: str) -> Iterator[Section]:
    """A section for each set of rows that a region may have; without regions, one of all rows."""
    by_rows: dict[tuple[int, ...], list[str]] = {}
    for region in regions:
        here = tuple(place for place, row in enumerate(tariff.rows) if holds_in(row, region))
        by_rows.setdefault(here, []).append(region)
    if not by_rows:
        by_rows[tuple(range(len(tariff.rows)))] = []
    writing = _Writing(tables_of_columns(tariff, names, language), names, language)
    for number, (places, where) in enumerate(by_rows.items(), 1):
        rows = [tariff.rows[place] for place in places]
        named = bool(where) and (len(by_rows) > 1 or any(row.regions for row in tariff.rows))
        key = ("regions" if len(where) > 1 else "region") if named else "prices"
        yield Section(
            anchor=f"prices-{number}",
            title=names[key].format(regions=", ".join(where)),
            rows=tuple(writing.row(rows, place, regions=not where) for place in range(len(rows))),
        )


def notes(found: Sequence[Section], names: Words) -> Iterator[str]:
    """The sentences that explain what stands in the tables, each only where it is needed."""
    rows = [row for section in found for row in section.rows]
    kinds = frozenset().union(*(row.kinds for row in rows))
    for kind in ("graduated", "volume", "package"):
        if kind in kinds:
            yield names[f"note_{kind}"]
    if kinds & {"graduated", "volume", "package"}:
        yield names["note_pool"]
    if any(EVERY in model for row in rows for model in row.models):
        yield names["note_globs"]
    if any(len(section.rows) > 1 for section in found):
        yield names["note_first"]


@dataclass(frozen=True, slots=True)
class _Writing:
    """Which columns a row's tables have, and in which language they are written."""

    columns: tuple[Columns, ...]
    names: Words
    language: str

    def row(self, rows: Sequence[PriceRow], place: int, *, regions: bool) -> PrintedRow:
        """The row at `place` of a section's; `regions`: it says for itself where it holds."""
        row = rows[place]
        every = EVERY in row.models
        others = every and any(EVERY not in before.models for before in rows[:place])
        meters = [
            meter for meter in meters_in_force(row, NO_FACTOR) if meter.pricing not in (FREE, NOT_PRICED)
        ]
        kinds = frozenset(meter.pricing for meter in meters)
        return PrintedRow(
            models=() if every else row.models,
            title=self.names["other_models" if others else "all_models"] if every else "",
            limits=tuple(self._limits(row, regions=regions)),
            tables=tuple(self._tables(meters)),
            kinds=kinds,
        )

    def _tables(self, meters: Sequence[MeterInForce]) -> Iterator[PrintedTable]:
        """The first of all meters, further ones of those that cost another price in their columns."""
        moved = [meter for meter in meters if meter.pricing != COUNTED and meter.size is None]
        for each in self.columns:
            held = moved if each.title else meters
            if held:
                heads = tuple(column.head for column in each.columns)
                factors = [column.factor for column in each.columns]
                yield PrintedTable(each.title, heads, tuple(self._lines(held, factors)))

    def _limits(self, row: PriceRow, *, regions: bool) -> Iterator[str]:
        if row.prompt_over is not None:
            tokens = figures.quantity(row.prompt_over, self.language)
            yield self.names["long_prompt"].format(tokens=tokens)
        if regions and row.regions:
            yield ", ".join(row.regions)

    def _lines(self, meters: Sequence[MeterInForce], factors: Sequence[Decimal]) -> Iterator[PrintedLine]:
        prices = {
            meter.meter: [
                [exact_product(tier.list_price, NO_FACTOR if meter.size else factor) for factor in factors]
                for tier in meter.tiers
            ]
            for meter in meters
        }
        deepest = [
            max((_decimals(tier[column]) for tiers in prices.values() for tier in tiers), default=0)
            for column in range(len(factors))
        ]
        for meter in meters:
            name = self.names[f"meter_{meter.meter}"]
            drawn = [self._prices(tier, deepest) for tier in prices[meter.meter]]
            if meter.pricing == COUNTED:
                yield PrintedLine(name, instead=self.names[f"counted_{meter.counted_as}"])
            elif len(drawn) == 1:
                yield PrintedLine(name, drawn[0], note=self._package(meter))
            else:
                yield PrintedLine(name)
                for place, columns in enumerate(drawn):
                    yield PrintedLine(self._units(meter, place), columns, tier=True)

    def _prices(self, values: Sequence[Decimal], deepest: Sequence[int]) -> tuple[PrintedPrice, ...]:
        return tuple(
            PrintedPrice(figures.price(value, self.language), most - _decimals(value))
            for value, most in zip(values, deepest, strict=True)
        )

    def _package(self, meter: MeterInForce) -> str:
        if meter.size is None:
            return ""
        return self.names["package"].format(size=figures.quantity(meter.size, self.language))

    def _units(self, meter: MeterInForce, place: int) -> str:
        """Which units of a month have the price of a tier, from 0."""
        before = meter.tiers[place - 1].up_to if place else None
        up_to = meter.tiers[place].up_to
        if before is None:
            which, blanks = "first", {"up_to": up_to}
        elif up_to is None:
            which, blanks = "last", {"over": before}
        else:
            which, blanks = "next", {"start": before + 1, "up_to": up_to}
        written = {
            name: figures.quantity(units, self.language)
            for name, units in blanks.items()
            if units is not None
        }
        return self.names[f"{meter.pricing}_{which}"].format(**written)


def _decimals(value: Decimal) -> int:
    return max(_LEAST_DECIMALS, len(format_price(value).partition(".")[2]))
