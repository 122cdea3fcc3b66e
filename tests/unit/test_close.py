"""Closing, issuing, crediting and settling, over books in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from books_in_memory import BookInMemory, BooksInMemory
from usage_cells import site_facts, usage_table

from billing.close import close_period
from billing.correct import credit_invoice
from billing.document import DRAFT, ISSUED, listed_json, to_json
from billing.explain import explain
from billing.issue import issue_documents, issue_period
from billing.journal import trial_balance
from billing.period import Period
from billing.run_settlement import run_settlement
from metering.refusal import Refusal

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


def close(books: BooksInMemory, period: Period = OCTOBER, now: datetime = NOW, **how: bool) -> dict[str, Any]:
    return run(close_period(books, OPERATOR, period, now, **how))


def add_usage(books: BooksInMemory, *usage: dict[str, Any]) -> None:
    books.books[OPERATOR].rows = usage_table(usage)


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


def test_closing_again_replaces_the_drafts_and_keeps_their_ids() -> None:
    books = books_with(event(100))
    first = close(books)
    assert close(books) == first
    add_usage(books, event(100), event(1, day=6))
    assert close(books)["drafts"][0]["net"] == "101.00"
    assert list(books.books[OPERATOR].papers) == ["acme.2026-10.1"]


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
    balances, balanced = trial_balance(
        posting for entry in books.books[OPERATOR].entries for posting in entry.postings
    )
    assert balanced
    assert [(each.account, each.balance) for each in balances] == [
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
        tariff_version contract_version price_row tax_category tax_rate account description part"""
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


def test_what_waits_is_drafted_when_the_years_last_period_is_closed() -> None:
    books = books_with(event(4), event(2, month=12), operator="smallest_document: 5.00")
    close(books)
    row = close(books, period=Period(2026, 12), now=datetime(2027, 1, 2, tzinfo=UTC), issue=True)
    assert [each["id"] for each in row["issued"]] == ["acme.2026-12.1"]
    assert [each["id"] for each in row["earlier"][0]["issued"]] == ["acme.2026-10.1"]
    add_usage(books, event(4), event(2, month=12), event(1, month=10, day=8))
    assert close(books, now=datetime(2027, 2, 2, tzinfo=UTC))["drafts"][0]["net"] == "1.00"


def test_a_number_series_has_no_gaps_over_kinds_and_years() -> None:
    books = books_with(event(10), event(20, customer="beta"))
    close(books, issue=True)
    run(credit(books, "INV-2026-000001", 100))
    add_usage(books, event(10), event(20, customer="beta"), event(1, day=9))
    close(books, issue=True, now=datetime(2027, 1, 5, tzinfo=UTC))
    numbers = sorted(str(each.number) for each in books.books[OPERATOR].papers.values())
    assert numbers == ["CN-2026-000001", "INV-2026-000001", "INV-2026-000002", "INV-2027-000001"]


def credit(
    books: BooksInMemory, invoice: str, net: int | None, *, reissue: bool = False, issue: bool = True
) -> Any:
    return credit_invoice(
        books, OPERATOR, invoice, NOW, net=net, reissue=reissue, reason="Goodwill", by="finance", issue=issue
    )


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


def test_every_line_explains_itself_from_tokens_to_cents() -> None:
    books = books_with(event(12_345), site="")
    book = books.books[OPERATOR]
    [tariff] = book.stated.tariffs["vilnius"]
    cheap = site_facts(BASE + TARIFF.replace("1_000_000", "0.4"))
    book.stated = replace(book.stated, tariffs=cheap.tariffs)
    assert tariff.version == "vilnius"
    close(books)
    assert close(books)["zero"] == ["acme"]
    add_usage(books, event(1_234_567))
    close(books)
    told = explain(books.books[OPERATOR].papers["acme.2026-10.1"])
    assert [(step["what"], step["to"]) for step in told["lines"][0]["steps"]] == [
        ("quantity", "1234567 tokens"),
        ("versions", "row tariff:1"),
        ("price", "0.4 EUR per 1000000"),
        ("window base", "0.4 EUR per 1000000"),
        ("amount", "0.49 EUR"),
    ]
    assert told["lines"][0]["steps"][-1]["from"] == "1234567 × 0.4 ÷ 1000000 = 0.4938268"
