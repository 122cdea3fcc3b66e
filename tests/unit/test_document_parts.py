"""Discounts, floors and fees on documents: allowances, charges and lines, and what one document after another asks."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_books import BASE, NOW, OCTOBER, TARIFF
from usage_cells import site_facts

from billing.bill import Bill, BillPart
from billing.description import describe
from billing.discount import DISCOUNT, SEGMENT, share
from billing.document import Document, from_json, to_json
from billing.draft import next_document
from billing.issue import as_issued
from billing.line import Line
from billing.money import line_amount

FACTS = site_facts(BASE + TARIFF)
GROUPS = ("vilnius|", "vilnius@2026-10-15|acme")


def line(**given: Any) -> Line:
    usual: dict[str, Any] = {
        "tariff_version": "vilnius",
        "contract_version": None,
        "price_row": "tariff:1",
        "model": "m",
        "meter": "input",
        "window": "base",
        "tier": None,
        "quantity": 100,
        "unit": "token",
        "price_base": 1_000_000,
        "list_price": Decimal(1_000_000),
        "factor": Decimal(1),
        "unit_price": Decimal(1_000_000),
        "amount": 10_000,
        "tokens": 100,
    }
    return Line(**{**usual, **given})


def bill_of(lines: list[Line], *parts: BillPart) -> Bill:
    return Bill("acme", OCTOBER, "EUR", tuple(lines), parts)


def issued(bill: Bill, earlier: list[Document]) -> Document | None:
    """The next document, issued; `earlier` all that were issued before."""
    draft = next_document(bill, earlier, FACTS.operator[0], FACTS.customers["acme"][0])
    if draft is None:
        return None
    assert isinstance(draft, Document)
    return as_issued(draft, f"N-{len(earlier) + 1}", FACTS.operator[0], NOW)


@pytest.mark.parametrize(
    ("given_line", "words"),
    [
        ({"tier": 2}, "m · input tokens · tier 2"),
        ({"tier": "unbilled", "window": "night"}, "m · input tokens · night · not billed"),
        ({"tier": "free"}, "m · input tokens · included"),
        ({"meter": "reasoning", "window": "spot:3"}, "m · reasoning tokens · spot, step 3"),
        ({"model": None, "meter": "output", "unit": "package"}, "output tokens · packages"),
        ({"model": None, "meter": "fee", "unit": "item", "item": "Support"}, "Support"),
        ({"meter": "audio_seconds", "unit": "second"}, "m · audio seconds"),
    ],
)
def test_a_line_says_what_it_is_for(given_line: dict[str, Any], words: str) -> None:
    assert describe(line(**given_line)) == words


def test_a_fee_and_a_package_are_read_from_json_as_they_were_written_and_fees_come_last() -> None:
    fee = line(
        model=None, meter="fee", price_row=None, tariff_version=None, item="Support", unit="item", tokens=0
    )
    package = line(model=None, meter="output", unit="package", quantity=3, price_base=1, tokens=250)
    document = issued(bill_of([fee, package, line(window="spot:2")]), [])
    assert document is not None
    assert from_json(to_json(document)) == document
    assert [entry.line.meter for entry in document.lines] == ["output", "input", "fee"]
    assert to_json(document)["lines"][2]["item"] == "Support"


def test_a_document_that_was_stored_before_lines_had_items_is_still_read() -> None:
    document = issued(bill_of([line()]), [])
    assert document is not None
    stored = to_json(document)
    del stored["lines"][0]["item"]
    assert from_json(stored) == document


def test_a_discount_names_what_it_is_of_and_one_that_grew_by_another_percent_does_not() -> None:
    def of(percent: int, base: int) -> BillPart:
        off = share(base, Decimal(percent))
        return BillPart(f"{SEGMENT}vilnius|", "Segment discount", -off, base=base, percent=Decimal(percent))

    first = issued(bill_of([line()], of(10, 10_000)), [])
    more = line(quantity=120, amount=12_000, tokens=120)
    assert first is not None
    [allowance] = first.allowances
    assert (allowance.reason_code, allowance.amount, allowance.base, allowance.percent) == (
        "95",
        1_000,
        10_000,
        Decimal(10),
    )
    second = issued(bill_of([more], of(15, 12_000)), [first])
    assert second is not None
    assert [(each.amount, each.base, each.percent) for each in second.allowances] == [(800, None, None)]
    taken_back = issued(bill_of([]), [first, second])
    assert taken_back is not None
    assert [(each.amount, each.base) for each in taken_back.allowances] == [(1_800, None)], "of two percents"


def test_what_is_no_line_is_a_line_of_one_at_a_positive_price_where_there_is_no_other() -> None:
    floor, discount = BillPart("floor", "Commitment", 5_000), BillPart("adjustment:1", "Goodwill", -700)
    document = issued(bill_of([], floor, discount), [])
    assert document is not None
    assert [(each.description, each.line.quantity, each.line.unit_price) for each in document.lines] == [
        ("Commitment", 1, Decimal(50)),
        ("Goodwill", -1, Decimal(7)),
    ]
    assert (document.net, document.allowances, document.charges) == (4_300, (), ())
    again = issued(bill_of([line()], BillPart("floor", "Commitment", 1_000), discount), [document])
    assert again is not None
    assert [(each.reason, each.reason_code, each.amount) for each in again.allowances] == [
        ("Commitment", "95", 4_000)
    ]


@st.composite
def bills(draw: st.DrawFn) -> Bill:
    """A bill with lines of two groups, a discount or two on each, perhaps a floor, an adjustment and a fee."""
    lines: list[Line] = []
    parts: list[BillPart] = []
    for group in GROUPS:
        tariff, _, contract = group.partition("|")
        for row, price in draw(
            st.sets(st.tuples(st.sampled_from(["tariff:1", "contract:1"]), st.integers(0, 3)))
        ):
            quantity = draw(st.integers(-20, 60).filter(bool))
            unit_price = Decimal(price) * 333_333
            lines.append(
                line(
                    tariff_version=tariff,
                    contract_version=contract or None,
                    price_row=row,
                    quantity=quantity,
                    unit_price=unit_price,
                    list_price=unit_price,
                    amount=line_amount(quantity, unit_price, 1_000_000, "EUR"),
                    tokens=quantity,
                )
            )
        of_group = [each for each in lines if f"{each.tariff_version}|{each.contract_version or ''}" == group]
        listed = sum(each.amount for each in of_group if str(each.price_row).startswith("tariff"))
        segment, percent = draw(st.sampled_from([0, 10, 33])), draw(st.sampled_from([0, 5, 12]))
        off = share(listed, Decimal(segment))
        left = sum(each.amount for each in of_group) - off
        for key, of, points in ((SEGMENT, listed, segment), (DISCOUNT, left, percent)):
            amount = share(of, Decimal(points))
            if amount:
                parts.append(BillPart(key + group, "Discount", -amount, base=of, percent=Decimal(points)))
    parts += [
        BillPart("floor", "Commitment", amount) for amount in draw(st.lists(st.integers(1, 900), max_size=1))
    ]
    parts += [
        BillPart("adjustment:1", "Goodwill", amount)
        for amount in draw(st.lists(st.integers(-900, 900).filter(bool), max_size=1))
    ]
    for amount in draw(st.lists(st.integers(0, 900), max_size=1)):
        fee_price = Decimal(amount) / 100
        fee: dict[str, Any] = {
            "model": None,
            "meter": "fee",
            "price_row": None,
            "tariff_version": None,
            "item": "Support",
        }
        fee |= {"contract_version": "acme", "unit": "item", "price_base": 1, "quantity": 1, "tokens": 0}
        lines.append(line(**fee, list_price=fee_price, unit_price=fee_price, amount=amount))
    return bill_of(lines, *parts)


@given(st.lists(bills(), min_size=1, max_size=6))
def test_whatever_bills_follow_each_other_documents_sum_to_the_last_and_nothing_on_them_is_negative(
    successive: list[Bill],
) -> None:
    papers: list[Document] = []
    for bill in successive:
        document = issued(bill, papers)
        if document is not None:
            check(document)
            papers.append(document)
        assert sum(each.sign * each.net for each in papers) == bill.net
        if document is not None:
            asked: Counter[object] = Counter()
            for paper in papers:
                for entry in paper.lines:
                    if entry.part is None:
                        asked[entry.line.key] += paper.sign * entry.line.quantity
            assert {key: quantity for key, quantity in asked.items() if quantity} == {
                each.key: each.quantity for each in bill.lines
            }


def check(document: Document) -> None:
    assert document.net > 0
    assert document.lines
    assert from_json(to_json(document)) == document
    assert all(entry.line.quantity for entry in document.lines)
    for each in (*document.allowances, *document.charges):
        assert each.amount > 0
        assert (each.base is None) == (each.percent is None)
        if each.base is not None and each.percent is not None:
            assert each.base >= 0
            assert each.amount == share(each.base, each.percent)
            assert Fraction(each.percent) > 0
