"""The table of a document's lines as it is printed: grouped by model, prices with their decimal marks below one
another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby

from billing.document import DocumentLine
from billing.line import FEE, Line
from billing.money import format_price
from billing.tariff import PRICE_BASE
from reports import figures
from reports.invoice_words import PACKAGE_UNIT, Page, line_words, source_words


@dataclass(frozen=True, slots=True)
class PrintedLine:
    """One row of the table of lines. `source` says which row of which version priced it; `price_room` is the
    room to the right of the price, in widths of a digit, that puts the column's decimal marks below one another.
    """

    id: str
    what: str
    source: str
    quantity: str
    unit: str
    price: str
    price_note: str
    price_room: Decimal
    tax: str
    amount: str


@dataclass(frozen=True, slots=True)
class LineGroup:
    """The lines of one model under its name; `source` where one price row priced all of them."""

    title: str
    source: str
    lines: tuple[PrintedLine, ...]


def line_groups(page: Page) -> Iterator[LineGroup]:
    """Lines that follow one another for the same model, under its name; what has no model under what it is."""
    lines = page.document.lines
    decimals = max((_decimals(entry.line) for entry in lines if _per_million(entry.line)), default=0)
    for (model, title), entries in groupby(lines, key=_belongs_to):
        group = list(entries)
        sources = {source_words(page, entry.line) for entry in group}
        shared = sources.pop() if len(sources) == 1 else None
        yield LineGroup(
            title=page.words[title] if model is None else model,
            source=shared or "",
            lines=tuple(_printed(page, entry, decimals, named=shared is None) for entry in group),
        )


def _belongs_to(entry: DocumentLine) -> tuple[str | None, str]:
    """A line's model, or None and the word over lines without one."""
    line = entry.line
    if entry.part is None and line.unit == PACKAGE_UNIT:
        return None, "package_lines"
    return line.model, "fee_lines" if entry.part is None and line.meter == FEE else "other_lines"


def _printed(page: Page, entry: DocumentLine, decimals: int, *, named: bool) -> PrintedLine:
    line = entry.line
    unit = page.words.get(f"unit_{line.unit}", line.unit)
    per_million = _per_million(line)
    assert per_million or line.price_base == 1, f"no column says per {line.price_base}"
    return PrintedLine(
        id=entry.id,
        what=line_words(page, entry),
        source=source_words(page, line) if named else "",
        quantity=figures.quantity(line.quantity, page.language),
        unit=unit,
        price=figures.exact(line.unit_price, page.language),
        price_note=page.words[f"each_{line.unit}"] if page.per_million and not per_million else "",
        price_room=_room(_decimals(line), decimals) if per_million else Decimal(0),
        tax=page.percent(entry.tax_rate),
        amount=page.amount(line.amount),
    )


def _per_million(line: Line) -> bool:
    return line.price_base == PRICE_BASE


def _decimals(line: Line) -> int:
    return len(format_price(line.unit_price).partition(".")[2])


def _room(decimals: int, most: int) -> Decimal:
    """Widths of a digit that a price lacks behind its point, the point itself being half a digit wide."""
    return Decimal(most - decimals) + (Decimal("0.5") if most and not decimals else 0)
