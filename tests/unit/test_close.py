"""Closing and issuing, over books in memory."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast

import pytest
from small_books import (
    NOW,
    OCTOBER,
    OPERATOR,
    add_usage,
    books_with,
    close,
    event,
    run,
)

from billing.close import close_period
from billing.document import DRAFT, ISSUED, listed_json, to_json
from billing.issue import issue_documents, issue_period
from billing.period import Period
from billing.ports import OpenRoots
from metering.refusal import Refusal


def test_a_close_drafts_and_says_what_it_came_to() -> None:
    books = books_with(event(100), event(3, customer="beta"))
    row = close(books)
    assert row["drafts"] == [
        {"customer": "acme", "id": "acme.2026-10.1", "number": None, "kind": "invoice", "net": "100.00"},
        {"customer": "beta", "id": "beta.2026-10.1", "number": None, "kind": "invoice", "net": "3.00"},
    ]
    assert (row["net"], row["tax"], row["gross"]) == ("103.00", "21.63", "124.63")
    assert (row["issued"], row["waiting"], row["zero"], row["gaps"]) == ([], [], [], [])
    assert row["rated"]["input"] == 103
    book = books.books[OPERATOR]
    assert book.entries == []
    assert [(each.number, each.facts["tariffs"]) for each in book.closes] == [(1, ["vilnius"])]


def test_closing_again_replaces_the_drafts_and_those_that_changed_get_another_id() -> None:
    books = books_with(event(100), event(3, customer="beta"))
    first = close(books)
    assert close(books) == first
    add_usage(books, event(100), event(1, day=6), event(3, customer="beta"))
    assert close(books)["drafts"][0]["net"] == "101.00"
    assert list(books.books[OPERATOR].papers) == ["acme.2026-10.2", "beta.2026-10.1"]
    with pytest.raises(Refusal) as refused:
        run(issue_documents(books, OPERATOR, ["acme.2026-10.1"], NOW))
    assert refused.value.code == "unknown_document", "whoever read 100.00 does not issue 101.00"


def test_an_issued_document_carries_number_dates_and_reference() -> None:
    books = books_with(event(100))
    row = close(books, issue=True)
    assert [each["number"] for each in row["issued"]] == ["INV-2026-000001"]
    document = books.books[OPERATOR].papers["acme.2026-10.1"]
    assert (document.state, document.issue_date, document.due_date) == (
        ISSUED,
        date(2026, 11, 2),
        date(2026, 11, 16),
    )
    assert document.payment_reference == "INV-2026-000001"
    assert books.books[OPERATOR].late_bounds == {OCTOBER: NOW + timedelta(days=90)}
    [entry] = books.books[OPERATOR].entries
    assert [(each.account, each.amount) for each in entry.postings] == [
        ("receivable", 12100),
        ("revenue", -10000),
        ("vat", -2100),
    ]


def test_the_json_of_a_document_has_the_contracts_keys_in_order() -> None:
    books = books_with(event(100))
    close(books, issue=True)
    content = to_json(books.books[OPERATOR].papers["acme.2026-10.1"])
    d = """id number kind state sign operator customer customer_name customer_vat_id country period period_start
        period_end issue_date due_date currency line_total allowance_total charge_total net tax gross prepaid payable
        paid open buyer_reference purchase_order payment_reference corrects supplements reason checkpoint files
        lines allowances charges taxes"""
    assert list(content) == d.split()
    assert list(listed_json(books.books[OPERATOR].papers["acme.2026-10.1"])) == d.split()[:-4]
    line = """id model meter window tier quantity unit price_base list_price factor unit_price amount tokens
        tariff_version contract_version price_row tax_category tax_rate account description item part"""
    assert list(content["lines"][0]) == line.split()
    assert (content["period_end"], content["open"], content["sign"]) == ("2026-10-31", "121.00", 1)
    assert content["lines"][0] == {
        "id": "1",
        "model": "m",
        "meter": "input",
        "window": "base",
        "tier": None,
        "quantity": 100,
        "unit": "token",
        "price_base": 1_000_000,
        "list_price": "1000000",
        "factor": "1",
        "unit_price": "1000000",
        "amount": "100.00",
        "tokens": 100,
        "tariff_version": "vilnius",
        "contract_version": None,
        "price_row": "tariff:1",
        "tax_category": "S",
        "tax_rate": "21",
        "account": "revenue",
        "description": "m · input tokens",
        "item": None,
        "part": None,
    }
    assert content["taxes"] == [
        {"category": "S", "rate": "21", "basis": "100.00", "amount": "21.00", "reason": None}
    ]


def test_issuing_a_draft_twice_succeeds_with_the_same_number() -> None:
    books = books_with(event(100), event(5, customer="beta"))
    close(books)
    [first] = run(issue_documents(books, OPERATOR, ["beta.2026-10.1"], NOW))
    [again] = run(issue_documents(books, OPERATOR, ["beta.2026-10.1"], NOW + timedelta(days=1)))
    assert first == again
    assert first.number == "INV-2026-000001"
    assert [each.number for each in run(issue_period(books, OPERATOR, OCTOBER, NOW))] == ["INV-2026-000002"]
    assert run(issue_period(books, OPERATOR, OCTOBER, NOW)) == []
    assert len(books.books[OPERATOR].entries) == 2


def test_an_unknown_document_is_refused_and_nothing_is_issued() -> None:
    books = books_with(event(100))
    close(books)
    with pytest.raises(Refusal) as refused:
        run(issue_documents(books, OPERATOR, ["acme.2026-10.1", "acme.2026-10.7"], NOW))
    assert refused.value.code == "unknown_document"
    assert books.books[OPERATOR].papers["acme.2026-10.1"].state == DRAFT


def test_of_two_closes_at_once_the_second_waits_and_finds_nothing_to_do() -> None:
    books = books_with(event(100))

    async def both() -> list[dict[str, Any]]:
        closes = (close_period(books, OPERATOR, OCTOBER, NOW, issue=True) for _ in range(2))
        return list(await asyncio.gather(*closes))

    first, second = run(both())
    assert (len(first["issued"]), len(second["issued"]), second["net"]) == (1, 0, "0.00")
    assert len(books.books[OPERATOR].entries) == 1


def test_a_period_that_is_not_over_is_refused_unless_that_is_accepted() -> None:
    books = books_with(event(100))
    early = datetime(2026, 10, 31, 21, 59, tzinfo=UTC)
    with pytest.raises(Refusal) as refused:
        close(books, now=early)
    assert refused.value.code == "period_not_over"
    assert "2026-11-01T00:00:00+02:00" in refused.value.what
    assert close(books, now=early, accept_unfinished=True)["unfinished"]
    assert not close(books, now=early + timedelta(minutes=1))["unfinished"]


def test_a_period_that_has_not_begun_is_refused_in_any_case() -> None:
    with pytest.raises(Refusal) as refused:
        close(books_with(), period=Period(2026, 12), accept_unfinished=True)
    assert refused.value.code == "period_not_begun"


def test_held_batches_stop_the_close() -> None:
    books = books_with(event(100))
    books.books[OPERATOR].held = 2
    with pytest.raises(Refusal) as refused:
        close(books)
    assert refused.value.code == "held_batches"


@pytest.mark.parametrize(
    ("roots", "code", "words"),
    [
        (OpenRoots(3, 0), "roots_unchecked", "the Merkle roots of 3 batches"),
        (OpenRoots(3, 1, "n/l e-0"), "root_fault", "n/l e-0 is one"),
    ],
)
def test_roots_that_are_not_known_to_hold_stop_the_close(roots: OpenRoots, code: str, words: str) -> None:
    books = books_with(event(100))
    books.books[OPERATOR].roots = roots
    with pytest.raises(Refusal) as refused:
        close(books)
    assert refused.value.code == code
    assert words in refused.value.what


def test_an_import_that_is_not_finished_stops_the_close_of_the_months_that_it_touches_and_of_no_other() -> (
    None
):
    books = books_with(event(100))
    day = datetime(2026, 10, 31, 12, tzinfo=UTC)
    books.books[OPERATOR].unfinished = {"import-ab": (day, day)}
    with pytest.raises(Refusal) as refused:
        close(books, accept_unfinished=True)
    assert refused.value.code == "import_unfinished"
    assert "import-ab" in refused.value.what
    assert "tally import void import-ab" in refused.value.remedy
    books.books[OPERATOR].unfinished = {"import-ab": (day + timedelta(days=1), day + timedelta(days=2))}
    close(books)


def test_unpriced_usage_stops_the_close_and_is_listed() -> None:
    books = books_with(event(100), event(7, model="other"))
    with pytest.raises(Refusal) as refused:
        close(books)
    assert refused.value.code == "unpriced"
    [unpriced] = cast(list[dict[str, object]], refused.value.extra["unpriced"])
    assert {name: unpriced[name] for name in ("model", "meter", "region", "tokens", "first_hour")} == {
        "model": "other",
        "meter": "input",
        "region": "LT-VL",
        "tokens": 7,
        "first_hour": "2026-10-05T12:00:00Z",
    }
    assert books.books[OPERATOR].papers == {}


def test_every_customer_that_can_not_be_taxed_is_named_at_once() -> None:
    abroad = "---\nkind: customer\nid: riga\noperator: telecentras\nname: Riga SIA\ncountry: LV\n"
    more = abroad.replace("riga", "daugava")
    books = books_with(event(1), event(1, customer="riga"), event(1, customer="daugava"), site=abroad + more)
    with pytest.raises(Refusal) as refused:
        close(books)
    assert refused.value.code == "tax_case_not_supported"
    assert len(refused.value.faults) == 2


def test_a_bill_of_zero_makes_no_document_and_is_named() -> None:
    row = close(books_with(event(0, completion_tokens=500), event(1, customer="beta")))
    assert row["zero"] == ["acme"]
    assert [each["customer"] for each in row["drafts"]] == ["beta"]


def test_a_small_difference_waits_and_comes_with_the_next() -> None:
    books = books_with(event(4), operator="smallest_document: 5.00")
    assert close(books, issue=True)["waiting"] == [{"customer": "acme", "net": "4.00"}]
    assert books.books[OPERATOR].papers == {}
    add_usage(books, event(4), event(1, day=7))
    assert close(books, issue=True)["issued"][0]["net"] == "5.00"


def test_a_period_in_which_nothing_waits_is_left_alone_when_the_years_last_one_is_closed() -> None:
    books = books_with(event(100), event(2, month=12), operator="smallest_document: 1.00")
    close(books, issue=True)
    add_usage(books, event(100), event(2, month=12), event(7, day=8))  # late, and nobody closed October again
    row = close(books, period=Period(2026, 12), now=datetime(2027, 1, 2, tzinfo=UTC), issue=True)
    assert row["earlier"] == []


def test_what_waits_is_drafted_when_the_years_last_period_is_closed() -> None:
    books = books_with(event(4), event(2, month=12), operator="smallest_document: 5.00")
    close(books)
    row = close(books, period=Period(2026, 12), now=datetime(2027, 1, 2, tzinfo=UTC), issue=True)
    assert [each["id"] for each in row["issued"]] == ["acme.2026-12.1"]
    assert [each["id"] for each in row["earlier"][0]["issued"]] == ["acme.2026-10.1"]
    add_usage(books, event(4), event(2, month=12), event(1, month=10, day=8))
    assert close(books, now=datetime(2027, 2, 2, tzinfo=UTC))["drafts"][0]["net"] == "1.00"
