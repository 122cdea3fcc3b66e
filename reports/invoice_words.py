"""What a document's lines, allowances and charges are for, in the words of the page's language.

Usage is worded from its model, meter, window and tier; the discounts and floors of the arithmetic from the part of
the bill that they stand for. What a person worded stands as written: a credit's reason, a fee's name.

    Output tokens · window night (× 0.5) · tier 2
    Output tokens · in packages (tokens: 2,500,001)
    Segment discount (vilnius@2026-10-12), 15% of 80.00
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from billing.bill import ROUNDING_PART
from billing.document import ISSUED, Document, DocumentLine
from billing.document_parts import AllowanceOrCharge, Reference
from billing.floor import COMMITMENT, FLOOR_PART
from billing.line import BASE_WINDOW, FREE, UNBILLED, Line
from billing.tariff import METERS, PRICE_BASE
from reports import figures
from reports.languages import Words

PACKAGE_UNIT = "package"
_DISCOUNTS = ("segment", "discount")


@dataclass(frozen=True, slots=True)
class Page:
    """What is printed, and in which language."""

    document: Document
    words: Words
    language: str

    @property
    def draft(self) -> bool:
        return self.document.state != ISSUED

    @property
    def per_million(self) -> bool:
        """Whether the column of prices is headed "per 1,000,000"."""
        return any(entry.line.price_base == PRICE_BASE for entry in self.document.lines)

    def amount(self, minor: int) -> str:
        return figures.amount(minor, self.document.currency, self.language)

    def money(self, minor: int) -> str:
        return figures.money(minor, self.document.currency, self.language)

    def percent(self, points: Decimal) -> str:
        return figures.percent(points, self.language)

    def reference(self, reference: Reference) -> str:
        day = figures.day(reference.issue_date, self.language)
        return self.words["reference"].format(number=reference.number, date=day)


def line_words(page: Page, entry: DocumentLine) -> str:
    """What a line is for: usage and parts of the bill in the page's language, anything else as it was worded."""
    if entry.part is not None:
        return _reason(page, entry.part, entry.description)
    if entry.line.meter not in METERS:
        return entry.description
    return " · ".join(_usage_words(page, entry.line))


def _usage_words(page: Page, line: Line) -> Iterator[str]:
    names = page.words
    yield names[f"meter_{line.meter}"]
    if line.unit == PACKAGE_UNIT:
        total = figures.quantity(line.tokens, page.language)
        yield names["in_packages_of"].format(tokens=total) if line.tokens else names["in_packages"]
    if line.window != BASE_WINDOW:
        name, _, step = line.window.partition(":")
        factor = figures.exact(line.factor, page.language)
        yield names["window_step" if step else "window"].format(window=name, step=step, factor=factor)
    if line.tier in (FREE, UNBILLED):
        yield names[f"tier_{line.tier}"]
    elif line.tier is not None:
        yield names["tier"].format(tier=line.tier)


def source_words(page: Page, line: Line) -> str:
    """Which version's row priced the line, or which contract states the fee; empty where none did."""
    if line.price_row is None:
        version = line.contract_version
        return "" if version is None else page.words["source_fee"].format(version=version)
    kind, _, row = line.price_row.partition(":")
    version = line.contract_version if kind == "contract" else line.tariff_version
    return page.words[f"source_{kind}"].format(version=version, row=row)


def modifier(page: Page, kind: str, part: AllowanceOrCharge) -> str:
    """An allowance or a charge (`kind`): its reason, and of a discount what it is a percent of.

    The arithmetic's own reasons say what they are; a person's may need the word.
    """
    key = (part.part or "").partition(":")[0]
    if key not in (*_DISCOUNTS, FLOOR_PART):
        text = page.words[kind].format(reason=_reason(page, part.part or "", part.reason))
    else:
        text = _reason(page, part.part or "", part.reason)
        if kind == ("allowance" if key == FLOOR_PART else "charge"):
            text = page.words["less_than_before"].format(reason=text)
    if part.percent is None or part.base is None:
        return text
    share = page.words["percent_of"].format(percent=page.percent(part.percent), base=page.amount(part.base))
    return f"{text}, {share}"


def _reason(page: Page, part: str, worded: str) -> str:
    """The words for a part of the bill, by its key; those of an adjustment are its maker's."""
    key, _, about = part.partition(":")
    if part == ROUNDING_PART:
        return page.words["rounding"]
    if part == FLOOR_PART:
        return page.words["reason_commitment" if worded == COMMITMENT else "reason_minimum"]
    if key in _DISCOUNTS:
        tariff, _, contract = about.partition("|")
        text = page.words[f"reason_{key}"]
        version = tariff if key == "segment" else contract
        return f"{text} ({version})" if _of_several(page, key) else text
    return worded


def _of_several(page: Page, key: str) -> bool:
    """Whether the document has more than one discount of the kind: a version began inside the month."""
    document = page.document
    parts = [each.part for each in (*document.allowances, *document.charges)]
    parts += [entry.part for entry in document.lines]
    return sum((part or "").startswith(f"{key}:") for part in parts) > 1
