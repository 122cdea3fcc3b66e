"""The stories of tests/vectors/rating: what successive closes of a period make of usage, prices and credits that change
under them, worked by hand.

After every close that issues all of its drafts, and in which nothing waits, the issued documents sum to the slow plain
bill.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import pytest
import yaml
from books_in_memory import BookInMemory, BooksInMemory
from explained import check_explained
from plain_bill import plain_nets
from rating_vectors import BASE, STORIES, events_of, found, sorted_lines, stated
from usage_cells import site_documents, usage_table

from billing.close import close_period
from billing.correct import credit_invoice
from billing.document import ISSUED, AllowanceOrCharge, Document, from_json, to_json
from billing.facts import facts_from_documents
from billing.money import format_minor, format_price, parse_amount, round_half_away
from billing.period import Period

OPERATOR = "telecentras"


# -- what a story says, and what was made, in the same words ----------------------------------------------------------


def found_modifier(each: AllowanceOrCharge) -> dict[str, Any]:
    said = {"reason": each.reason, "code": each.reason_code, "amount": format_minor(each.amount, "EUR")}
    if each.base is None or each.percent is None:
        return said
    return {**said, "base": format_minor(each.base, "EUR"), "percent": format_price(each.percent)}


def stated_paper(paper: Mapping[str, Any]) -> dict[str, Any]:
    return {**paper, "lines": sorted_lines([stated(line) for line in paper["lines"]])}


def found_paper(document: Document) -> dict[str, Any]:
    said: dict[str, Any] = {
        "id": document.id,
        "number": document.number,
        "kind": document.kind,
        "net": format_minor(document.net, "EUR"),
        "tax": format_minor(document.tax, "EUR"),
        "lines": sorted_lines([found(entry.line) for entry in document.lines]),
    }
    for name in ("supplements", "corrects"):
        if getattr(document, name):
            said[name] = [each.number for each in getattr(document, name)]
    for name in ("allowances", "charges"):
        if getattr(document, name):
            said[name] = [found_modifier(each) for each in getattr(document, name)]
    return said


def descriptions(papers: list[Mapping[str, Any]]) -> set[str]:
    return {line["description"] for paper in papers for line in paper["lines"] if "description" in line}


# -- a story as it goes on --------------------------------------------------------------------------------------------


@dataclass
class World:
    """A story's site documents by version, its usage, and the books."""

    period: Period
    texts: dict[tuple[str, str, str], str] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    books: BooksInMemory = field(
        default_factory=lambda: BooksInMemory(
            {OPERATOR: BookInMemory(facts_from_documents([]), usage_table([]))}
        )
    )

    @property
    def book(self) -> BookInMemory:
        return self.books.books[OPERATOR]

    @property
    def site(self) -> str:
        return "---\n".join(self.texts.values())

    def declare(self, text: str) -> None:
        """Each document is that version from now on, as `tally apply` has it."""
        for part in text.split("---\n"):
            said = yaml.load(part, yaml.BaseLoader)
            begins = said.get("valid_from", said.get("supersedes", "first"))
            if begins not in ("first", said.get("valid_from")):
                part += (
                    f"valid_from: {begins}\n"  # as it is anyway; the slow bill knows nothing of superseding
                )
            self.texts[said["kind"], said.get("id", said.get("customer", "")), begins] = part
        self.book.stated = facts_from_documents(site_documents(self.site))


async def tell(story: Mapping[str, Any]) -> World:
    """Go through a story, step by step."""
    world = World(Period.parse(story["period"]))
    world.declare(BASE + story["site"])
    for step in story["story"]:
        if "usage" in step:
            world.events += events_of(step["usage"])
            world.book.rows = usage_table(world.events)
        if "site" in step:
            world.declare(step["site"])
        before = set(world.book.papers)
        row = await _act(world, step)
        made = [document for name, document in world.book.papers.items() if name not in before]
        if "documents" in step:
            assert [found_paper(document) for document in made] == [
                stated_paper(each) for each in step["documents"]
            ]
            worded = {line.description for document in made for line in document.lines}
            assert descriptions(step["documents"]) <= worded
        for document in made:
            check_the_document(document)
        for document in world.book.papers.values():
            fresh = "close" in step and document in made
            check_explained(world.book, world.book.stated, world.book.rows, document, fresh=fresh)
        if row is not None:
            check_the_close(world, step, row)
        check_the_books(world.book)
    return world


async def _act(world: World, step: Mapping[str, Any]) -> dict[str, Any] | None:
    if "close" in step:
        how = dict(step["close"])
        period = Period.parse(how.pop("period", str(world.period)))
        now = datetime.fromisoformat(how.pop("at", "2026-11-02")).replace(hour=9, tzinfo=UTC)
        return await close_period(world.books, OPERATOR, period, now, **how)
    if "credit" in step:
        how = dict(step["credit"])
        net = parse_amount(how.pop("net"), "EUR") if "net" in how else None
        now = datetime(2026, 11, 2, 9, tzinfo=UTC)
        reissue = how.pop("reissue", False)
        await credit_invoice(
            world.books, OPERATOR, how.pop("invoice"), now, net=net, reissue=reissue, by="finance", **how
        )
    return None


def check_the_document(document: Document) -> None:
    """What holds of every document, whatever the story."""
    assert from_json(to_json(document)) == document
    assert document.lines
    assert document.net > 0
    for each in (*document.allowances, *document.charges):
        assert each.amount > 0
        assert (each.base is None) == (each.percent is None)
        if each.base is not None and each.percent is not None:
            assert each.amount == round_half_away(Fraction(each.base) * Fraction(each.percent) / 100)
    for line in (entry.line for entry in document.lines):
        assert line.quantity != 0
        assert line.unit_price >= 0


def check_the_close(world: World, step: Mapping[str, Any], row: Mapping[str, Any]) -> None:
    """What the close's row says, and that documents sum to bills where all are issued and none waits."""
    for name, told in (
        ("waiting", {each["customer"]: each["net"] for each in row["waiting"]}),
        ("zero", row["zero"]),
        ("late", row["late_not_billed"].get("prompt_tokens", 0)),
    ):
        if name in step:
            assert told == step[name]
    if row["waiting"] or row["drafts"]:
        return
    period = Period.parse(row["period"])
    issued = [each for each in world.book.papers.values() if each.period == period and each.state == ISSUED]
    nets: Counter[str] = Counter()
    for document in issued:
        nets[document.customer] += document.sign * document.net
    plain = Counter(
        plain_nets(world.site, [each for each in world.events if not each.get("late")], str(period))
    )
    for each in world.book.made_adjustments:
        if each.period == period:
            plain[each.customer] += each.net
    assert +nets == +plain


def check_the_books(book: BookInMemory) -> None:
    """Receivables are Σ sign × gross, revenue is Σ sign × net, of what is issued."""
    issued = [document for document in book.papers.values() if document.state == ISSUED]
    assert book.balance("receivable") == sum(each.sign * each.gross for each in issued)
    assert -book.balance("revenue") == sum(each.sign * each.net for each in issued)
    assert -book.balance("vat") == sum(each.sign * each.tax for each in issued)


@pytest.mark.parametrize("name", STORIES)
def test_a_story_of_closes_makes_the_documents_as_written(name: str) -> None:
    asyncio.run(tell(STORIES[name]))
