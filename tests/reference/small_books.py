"""Small books for tests of billing: a tariff of one euro a token, a few events, everything in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from books_in_memory import BookInMemory, BooksInMemory
from usage_cells import site_facts, usage_table

from billing.close import close_period
from billing.correct import credit_invoice
from billing.period import Period

BASE = (Path(__file__).parent.parent / "vectors" / "rating" / "base.yaml").read_text()
TARIFF = """kind: tariff
id: vilnius
operator: telecentras
currency: EUR
prices: [{models: [m], input: 1_000_000, output: 0}]
"""
SHARES = """---
kind: party
id: embedded-llm
name: Embedded LLM
country: LT
---
kind: party
id: model-fund
name: Model Fund
country: LT
---
kind: share
operator: telecentras
parties: [{party: embedded-llm, percent: 15%}, {party: model-fund, percent: 2.5%}]
"""
OPERATOR = "telecentras"
OCTOBER = Period(2026, 10)
NOW = datetime(2026, 11, 2, 9, tzinfo=UTC)
T = TypeVar("T")


def event(prompt: int, customer: str = "acme", day: int = 5, month: int = 10, **given: Any) -> dict[str, Any]:
    at = datetime(2026, month, day, 12, tzinfo=UTC)
    return {
        "time": at,
        "customer": customer,
        "node": "vilnius-1",
        "model": "m",
        "prompt_tokens": prompt,
        **given,
    }


def books_with(*usage: dict[str, Any], site: str = "", operator: str = "") -> BooksInMemory:
    text = BASE.replace("default_tariff: vilnius", f"default_tariff: vilnius\n{operator}") + TARIFF + site
    return BooksInMemory({OPERATOR: BookInMemory(site_facts(text), usage_table(usage))})


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def close(books: BooksInMemory, period: Period = OCTOBER, now: datetime = NOW, **how: Any) -> dict[str, Any]:
    return run(close_period(books, OPERATOR, period, now, **how))


def add_usage(books: BooksInMemory, *usage: dict[str, Any]) -> None:
    books.books[OPERATOR].rows = usage_table(usage)


def credit(
    books: BooksInMemory, invoice: str, net: int | None, *, reissue: bool = False, issue: bool = True
) -> Any:
    return credit_invoice(
        books, OPERATOR, invoice, NOW, net=net, reissue=reissue, reason="Goodwill", by="finance", issue=issue
    )
