"""Crediting and settling, over books in memory."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from small_books import (
    NOW,
    OCTOBER,
    OPERATOR,
    SHARES,
    add_usage,
    books_with,
    close,
    credit,
    event,
    run,
)

from billing.correct import credit_invoice
from billing.document import DRAFT
from billing.issue import issue_documents, issue_period
from billing.run_settlement import run_settlement
from metering.refusal import Refusal


def test_a_number_series_has_no_gaps_over_kinds_and_years() -> None:
    books = books_with(event(10), event(20, customer="beta"))
    close(books, issue=True)
    run(credit(books, "INV-2026-000001", 100))
    add_usage(books, event(10), event(20, customer="beta"), event(1, day=9))
    close(books, issue=True, now=datetime(2027, 1, 5, tzinfo=UTC))
    numbers = sorted(str(each.number) for each in books.books[OPERATOR].papers.values())
    assert numbers == ["CN-2026-000001", "INV-2026-000001", "INV-2026-000002", "INV-2027-000001"]


def test_a_goodwill_credit_is_not_billed_again_and_its_draft_survives_as_a_difference() -> None:
    books = books_with(event(100))
    close(books, issue=True)
    draft = run(credit(books, "INV-2026-000001", 500, issue=False))
    assert (draft.state, draft.net, draft.kind) == (DRAFT, 500, "credit_note")
    row = close(books)
    assert [(each["kind"], each["net"]) for each in row["drafts"]] == [("credit_note", "-5.00")]
    [note] = run(issue_period(books, OPERATOR, OCTOBER, NOW))
    assert [line.description for line in note.lines] == ["Goodwill"]
    assert [each.number for each in note.corrects] == ["INV-2026-000001"]
    assert close(books)["drafts"] == []


def test_late_usage_and_a_credit_share_a_document_as_line_and_allowance() -> None:
    books = books_with(event(100))
    close(books, issue=True)
    run(credit(books, "INV-2026-000001", 500, issue=False))
    add_usage(books, event(100), event(20, day=6))
    [row] = close(books, issue=True)["issued"]
    document = books.books[OPERATOR].papers[row["id"]]
    assert (document.line_total, document.allowance_total, document.net, document.tax) == (
        2000,
        500,
        1500,
        315,
    )
    assert [(each.reason, each.amount) for each in document.allowances] == [("Goodwill", 500)]


@pytest.mark.parametrize(
    ("invoice", "net", "code"),
    [
        ("acme.2026-10.1", 10_001, "credit_exceeds_invoice"),
        ("acme.2026-10.1", 0, "bad_amount"),
        ("acme.2026-10.1", -5, "bad_amount"),
        ("beta.2026-10.1", 5, "not_issued"),
        ("CN-2026-000001", 5, "not_an_invoice"),
        ("INV-1", 5, "unknown_document"),
    ],
)
def test_what_can_not_be_credited_is_refused_by_name(invoice: str, net: int, code: str) -> None:
    books = books_with(event(100), event(5, customer="beta"))
    close(books)
    run(issue_documents(books, OPERATOR, ["acme.2026-10.1"], NOW))
    if invoice.startswith("CN"):
        run(credit(books, "acme.2026-10.1", 1))
    before = dict(books.books[OPERATOR].papers)
    with pytest.raises(Refusal) as refused:
        run(credit(books, invoice, net))
    assert refused.value.code == code
    assert books.books[OPERATOR].papers == before


def test_nothing_is_credited_twice_not_even_by_drafts() -> None:
    books = books_with(event(100))
    close(books, issue=True)
    run(credit(books, "INV-2026-000001", 6000, issue=False))
    with pytest.raises(Refusal) as refused:
        run(credit(books, "INV-2026-000001", None))
    assert "remain 40.00" in refused.value.what
    run(credit(books, "INV-2026-000001", 4000))
    with pytest.raises(Refusal, match=r"remain 0\.00"):
        run(credit(books, "INV-2026-000001", None, reissue=True))


def test_a_credit_without_a_reason_is_refused() -> None:
    books = books_with(event(100))
    close(books, issue=True)
    with pytest.raises(Refusal) as refused:
        run(
            credit_invoice(
                books, OPERATOR, "INV-2026-000001", NOW, net=1, reissue=False, reason=" ", by="finance"
            )
        )
    assert refused.value.code == "reason_missing"


def test_a_settlement_splits_the_net_and_later_ones_the_difference() -> None:
    books = books_with(event(100), site=SHARES)
    close(books, issue=True)
    first = run(run_settlement(books, OPERATOR, OCTOBER, NOW))
    assert first is not None
    assert [(each.party, each.amount) for each in first.shares] == [
        ("embedded-llm", 1500),
        ("model-fund", 250),
        ("telecentras", 8250),
    ]
    assert run(run_settlement(books, OPERATOR, OCTOBER, NOW)) is None
    run(credit(books, "INV-2026-000001", 3))
    second = run(run_settlement(books, OPERATOR, OCTOBER, NOW))
    assert second is not None
    # 99.97: 14.9955, 2.49925, 82.47525 -> 14.99, 2.49, 82.47 and two cents to the largest remainders
    assert [(each.party, each.amount, each.due) for each in second.shares] == [
        ("embedded-llm", 1500, 0),
        ("model-fund", 250, 0),
        ("telecentras", 8247, -3),
    ]
    assert (second.id, second.due, second.base) == ("telecentras.2026-10.2", -3, 9997)
    book = books.books[OPERATOR]
    assert (book.balance("share_expense"), book.balance("payable")) == (1750, -1750)
