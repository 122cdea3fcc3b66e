"""A preview says what a close would ask for now, and keeps nothing. `small_books` sells a token for a euro."""

from __future__ import annotations

from typing import Any

from small_books import OCTOBER, OPERATOR, add_usage, books_with, close, credit, event, run

from billing.document import Document, from_json, to_json
from billing.preview import PREVIEW, Preview, preview, preview_json


def previewed(books: Any, customer: str = "acme") -> Preview:
    book = books.books[OPERATOR]
    papers: list[Document] = [each for each in book.papers.values() if each.customer == customer]
    return preview(book.rows, run(book.facts()), OCTOBER, customer, run(book.adjustments(OCTOBER)), papers)


def test_a_preview_asks_for_what_the_close_then_drafts() -> None:
    books = books_with(event(100), event(3, customer="beta"))
    shown = preview_json(previewed(books))
    close(books)
    drafted = to_json(books.books[OPERATOR].papers["acme.2026-10.1"])
    own = ("id", "state", "bill_net", "issued_net", "unpriced", "warnings")
    assert {name: value for name, value in shown.items() if name not in own} == {
        name: value for name, value in drafted.items() if name not in ("id", "state")
    }
    assert [shown[name] for name in (*own, "number")] == [
        "acme.2026-10.preview",
        PREVIEW,
        "100.00",
        "0.00",
        [],
        [],
        None,
    ]


def test_a_preview_asks_only_for_what_is_beyond_the_issued_documents() -> None:
    books = books_with(event(100))
    close(books, issue=True)
    add_usage(books, event(100), event(20, day=6))
    shown = preview_json(previewed(books))
    assert (shown["kind"], shown["net"], shown["bill_net"], shown["issued_net"]) == (
        "invoice",
        "20.00",
        "120.00",
        "100.00",
    )
    assert [each["number"] for each in shown["supplements"]] == ["INV-2026-000001"]


def test_what_was_credited_to_another_customer_is_no_part_of_a_preview() -> None:
    books = books_with(event(100), event(50, customer="beta"))
    close(books, issue=True)
    run(credit(books, "beta.2026-10.1", 1000))
    assert (previewed(books).bill.net, previewed(books, "beta").bill.net) == (10_000, 4_000)


def test_usage_taken_back_is_previewed_as_the_credit_note_that_it_would_make() -> None:
    books = books_with(event(100))
    close(books, issue=True)
    add_usage(books, event(60))
    shown = preview_json(previewed(books))
    assert (shown["kind"], shown["sign"], shown["net"]) == ("credit_note", -1, "40.00")
    assert (shown["bill_net"], shown["issued_net"]) == ("60.00", "100.00")
    assert [each["number"] for each in shown["corrects"]] == ["INV-2026-000001"]


def test_drafts_count_for_nothing_and_adjustments_count() -> None:
    books = books_with(event(100))
    close(books)
    assert previewed(books).document.net == 10_000
    close(books, issue=True)
    run(credit(books, "INV-2026-000001", 1_000, issue=False))
    shown = preview_json(previewed(books))
    assert (shown["net"], shown["kind"]) == ("10.00", "credit_note")
    assert shown["lines"][0]["description"] == "Goodwill"


def test_a_customer_without_usage_has_a_preview_of_nothing() -> None:
    shown = previewed(books_with(event(3, customer="beta")))
    assert (shown.document.lines, shown.document.net, shown.document.number) == ((), 0, None)
    assert from_json(to_json(shown.document)) == shown.document


def test_what_has_no_price_is_named_and_the_rest_is_shown() -> None:
    shown = preview_json(previewed(books_with(event(100), event(7, model="unknown"))))
    assert shown["net"] == "100.00"
    assert shown["unpriced"] == [
        {
            "model": "unknown",
            "meter": "input",
            "region": "LT-VL",
            "tokens": 7,
            "first_hour": "2026-10-05T12:00:00Z",
            "why": "vilnius: no price row matches",
        }
    ]


def test_what_another_customer_used_without_a_price_does_not_concern_this_one() -> None:
    books = books_with(event(100), event(7, customer="beta", model="unknown"))
    assert previewed(books).unpriced == ()
