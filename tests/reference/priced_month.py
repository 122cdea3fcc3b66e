"""A month with everything in it: one customer's October under windows, a price series, tiers, packages, included units,
a contract that begins on the 11th with a fee, a discount and a commitment; small figures, so that they can be followed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

from books_in_memory import BookInMemory, BooksInMemory
from small_books import BASE, OPERATOR, close
from usage_cells import site_facts, usage_table

from billing.document import Document, to_json
from billing.facts import Facts
from billing.rated_again import RatedAgain, rated_again
from billing.stored import StoredDocument
from reports.explain import explain

SITE = (
    BASE.replace("country: LT\n---\nkind: customer", "country: LT\nsegment: sme\n---\nkind: customer")
    + """kind: tariff
id: vilnius
operator: telecentras
currency: EUR
prices:
  - models: [qwen3-*]
    input: 0.40
    output: {graduated: [{up_to: 50_000_000, price: 1.60}, {price: 1.20}]}
    reasoning: 1.00
  - models: [whisper-*]
    input: 0.00
    output: {volume: [{up_to: 1_000_000, price: 3.00}, {price: 2.50}]}
    audio_seconds: {package: {size: 36_000, price: 2.00}}
windows:
  - {name: night, days: [mon, tue, wed, thu, fri], hours: "22:00-06:00", factor: 0.5}
  - name: spot
    days: [sat, sun, holiday]
    series: {file: spot.csv, first: "2026-09-30T21:00:00Z", prices: [PRICES]}
    steps: [{up_to: 40, factor: 0.6}, {factor: 1.25}]
segments: {sme: 15%}
included: {input: 1_000_000}
minimum: 5.00
---
kind: contract
customer: acme
tariff: vilnius
valid_from: 2026-10-11
prices: [{models: [qwen3-*], input: 0.35, output: 1.30, reasoning: 1.00}]
discount: 10%
commitment: 1000.00
fees: [{name: Reserved capacity, amount: 500.00}]
"""
).replace("PRICES", ", ".join(["38.5", "44.25"] * 373))


WITHOUT_FLOOR = SITE.replace("commitment: 1000.00\n", "").replace("minimum: 5.00\n", "")
"""The same, where each further token costs something: no floor lies above the month's usage."""


def used(day: int, hour: int, model: str = "qwen3-32b", **given: Any) -> dict[str, Any]:
    """Usage of acme's in a UTC hour of October."""
    return {
        "time": datetime(2026, 10, day, hour, 30, tzinfo=UTC),
        "customer": "acme",
        "node": "vilnius-1",
        "model": model,
        **given,
    }


USED = (
    used(5, 9, prompt_tokens=1_900_000, cached_tokens=400_000, completion_tokens=40_000_000),
    used(5, 20, prompt_tokens=600_000, completion_tokens=30_000_000, reasoning_tokens=5_000_000),
    used(6, 9, prompt_tokens=70_000, completion_tokens=10_000, outcome="failed"),
    used(7, 9, "whisper-3", completion_tokens=1_250_000, audio_seconds=90_000),
    used(10, 9, prompt_tokens=3_000_000, completion_tokens=1_000_000),
    used(10, 10, prompt_tokens=2_000_000, completion_tokens=1_000_000, outcome="aborted"),
    used(14, 9, prompt_tokens=4_000_000, completion_tokens=2_000_000),
)


@cache
def stated(site: str) -> Facts:
    """What site files declare; a series takes its time to read."""
    return site_facts(site)


@dataclass(slots=True)
class Month:
    """The operator's books of the month; what was used and what the site files say may change between closes."""

    usage: list[dict[str, Any]]
    site: str = SITE
    books: BooksInMemory = field(init=False)
    former: list[StoredDocument] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.books = BooksInMemory({OPERATOR: BookInMemory(stated(self.site), usage_table(self.usage))})

    @property
    def book(self) -> BookInMemory:
        return self.books.books[OPERATOR]

    def close(self) -> Document:
        """The document that acme gets at a close now, issued."""
        self.book.stated, self.book.rows = stated(self.site), usage_table(self.usage)
        [issued] = close(self.books, issue=True)["issued"]
        return self.book.papers[issued["id"]]

    def supersede(self, site: str) -> None:
        """The site files say something else from now on; what they said is kept."""
        self.former += stated(self.site).documents
        self.site = site

    def again(self, document: Document) -> RatedAgain:
        """The month as it rates now, for a document of it."""
        documents, usage = list(self.book.papers.values()), usage_table(self.usage)
        return rated_again(document, usage, stated(self.site), (), documents, self.book.closes, self.former)

    def explained(self, document: Document) -> dict[str, dict[str, tuple[str, str]]]:
        """line → what → (from, to)."""
        return {
            entry["line"]: {each["what"]: (each["from"], each["to"]) for each in entry["steps"]}
            for entry in explain(to_json(document), self.again(document))
        }


def month(usage: Sequence[dict[str, Any]] = USED, site: str = SITE) -> Month:
    return Month(list(usage), site)
