"""The worked examples of tests/vectors/rating: rating, and bills through closes, give what is written
there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from books_in_memory import BookInMemory, BooksInMemory
from plain_bill import plain_lines, plain_nets
from usage_cells import site_facts, usage_table

from billing.close import close_period
from billing.correct import credit_invoice
from billing.document import ISSUED, Document, from_json, to_json
from billing.line import Line
from billing.money import format_minor, format_price, parse_amount
from billing.period import Period
from billing.rating import rate

FOLDER = Path(__file__).parent.parent / "vectors" / "rating"
BASE = (FOLDER / "base.yaml").read_text()
VECTORS = {
    path.stem: yaml.safe_load(path.read_text()) for path in FOLDER.glob("*.yaml") if path.stem != "base"
}
RATINGS = {name: vector for name, vector in VECTORS.items() if "expect" in vector}
STORIES = {name: vector for name, vector in VECTORS.items() if "story" in vector}
OPERATOR = "telecentras"
_SHORT = {
    "prompt": "prompt_tokens",
    "cached": "cached_tokens",
    "completion": "completion_tokens",
    "reasoning": "reasoning_tokens",
    "audio": "audio_seconds",
}


def events_of(usage: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events that a vector lists in short."""
    return [
        {
            "time": datetime.fromisoformat(each["at"]).astimezone(UTC),
            "customer": each.get("customer", "acme"),
            "node": each.get("node", "vilnius-1"),
            "model": each.get("model", "m"),
            "outcome": each.get("outcome", "finished"),
            **{name: each[short] for short, name in _SHORT.items() if short in each},
        }
        for each in usage
    ]


def stated(line: Mapping[str, Any]) -> dict[str, Any]:
    """A vector's line with its defaults filled in."""
    filled = {"version": "vilnius", "contract": None, "row": "tariff:1", "model": "m", "tier": None, **line}
    filled.pop("description", None)
    return filled


def found(line: Line) -> dict[str, Any]:
    """A rated line in the vectors' words."""
    return {
        "version": line.tariff_version,
        "contract": line.contract_version,
        "row": line.price_row,
        "model": line.model,
        "meter": line.meter,
        "tier": line.tier,
        "quantity": line.quantity,
        "unit_price": format_price(line.unit_price),
        "amount": format_minor(line.amount, "EUR"),
    }


def sorted_lines(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(lines, key=lambda line: str(sorted(line.items())))


@pytest.mark.parametrize("name", RATINGS)
def test_a_worked_example_is_rated_as_written(name: str) -> None:
    vector = RATINGS[name]
    rated = rate(
        usage_table(events_of(vector["usage"])),
        site_facts(BASE + vector["site"]),
        Period.parse(vector["period"]),
    )
    assert rated.unpriced == ()
    assert set(rated.lines) == set(vector["expect"])
    for customer, expected in vector["expect"].items():
        lines = rated.lines[customer]
        assert sorted_lines([found(line) for line in lines]) == sorted_lines(
            [stated(line) for line in expected["lines"]]
        )
        assert format_minor(sum(line.amount for line in lines), "EUR") == expected["net"]


@pytest.mark.parametrize("name", RATINGS)
def test_the_slow_plain_bill_agrees_with_a_worked_example(name: str) -> None:
    vector = RATINGS[name]
    events = events_of(vector["usage"])
    nets = plain_nets(BASE + vector["site"], events, vector["period"])
    assert nets == {customer: parse_amount(each["net"], "EUR") for customer, each in vector["expect"].items()}
    lines = plain_lines(BASE + vector["site"], events, vector["period"])
    assert {customer: len(each) for customer, each in lines.items()} == {
        customer: len(each["lines"]) for customer, each in vector["expect"].items()
    }


def paper(document: Document) -> dict[str, Any]:
    """A document in the vectors' words."""
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
            said[name] = [
                {"reason": each.reason, "amount": format_minor(each.amount, "EUR")}
                for each in getattr(document, name)
            ]
    return said


async def tell(vector: Mapping[str, Any]) -> None:
    """Go through a story, step by step."""
    period, now = Period.parse(vector["period"]), datetime(2026, 11, 2, 9, tzinfo=UTC)
    site, events = BASE + vector["site"], list[dict[str, Any]]()
    books = BooksInMemory({OPERATOR: BookInMemory(site_facts(site), usage_table([]))})
    for step in vector["story"]:
        book = books.books[OPERATOR]
        if "usage" in step:
            events += events_of(step["usage"])
            book.rows = usage_table(events)
        if "site" in step:
            site = BASE + step["site"]
            book.stated = site_facts(site)
        before = set(book.papers)
        if "close" in step:
            await close_period(books, OPERATOR, period, now, **step["close"])
        if "credit" in step:
            said = dict(step["credit"])
            net = parse_amount(said.pop("net"), "EUR") if "net" in said else None
            reissue = said.pop("reissue", False)
            await credit_invoice(
                books, OPERATOR, said.pop("invoice"), now, net=net, reissue=reissue, by="finance", **said
            )
        papers = books.books[OPERATOR].papers
        made = [document for name, document in papers.items() if name not in before]
        if "documents" in step:
            expected = [
                {**each, "lines": sorted_lines([stated(line) for line in each["lines"]])}
                for each in step["documents"]
            ]
            assert [paper(document) for document in made] == expected
        assert all(from_json(to_json(document)) == document for document in made)
    check_the_books(books.books[OPERATOR])


def check_the_books(book: BookInMemory) -> None:
    """Receivables are Σ sign × gross, revenue is Σ sign × net, of what is issued."""
    issued = [document for document in book.papers.values() if document.state == ISSUED]
    assert book.balance("receivable") == sum(each.sign * each.gross for each in issued)
    assert -book.balance("revenue") == sum(each.sign * each.net for each in issued)
    assert -book.balance("vat") == sum(each.sign * each.tax for each in issued)


@pytest.mark.parametrize("name", STORIES)
def test_a_story_of_closes_makes_the_documents_as_written(name: str) -> None:
    asyncio.run(tell(STORIES[name]))


@pytest.mark.parametrize("name", VECTORS)
def test_every_example_shows_its_working(name: str) -> None:
    assert VECTORS[name]["title"]
    assert VECTORS[name]["rules"]
    assert len(VECTORS[name]["working"]) > 60
