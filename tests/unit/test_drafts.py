"""Drafts: what they may ask for, and which document an id of one names."""

from __future__ import annotations

import pytest
from small_books import OPERATOR, add_usage, books_with, close, event

from billing.document import from_json, to_json
from metering.refusal import Refusal


def test_a_document_too_large_for_the_ledger_is_refused_before_it_is_drafted() -> None:
    books = books_with(event(10**15))
    with pytest.raises(Refusal, match=r"1210000000000000\.00 EUR") as refused:
        close(books)
    assert (refused.value.code, refused.value.where) == ("amount_too_large", "acme")
    assert books.books[OPERATOR].papers == {}


def test_the_largest_document_is_read_as_it_was_written() -> None:
    books = books_with(event(8 * 10**14))
    close(books, issue=True)
    add_usage(books, event(8 * 10**14), event(1, day=6))
    assert close(books)["drafts"][0]["net"] == "1.00"
    largest = books.books[OPERATOR].papers["acme.2026-10.1"]
    assert from_json(to_json(largest)) == largest
