"""Successive documents sum to the bill, in quantities and net, whatever was issued in between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_sites import MONTHS, Month, events, examples, site_text, sites
from rated_bills import facts_for, rated_bills
from usage_cells import usage_table

from billing.bill import Bill
from billing.document import Document
from billing.draft import next_document
from billing.issue import as_issued
from billing.period import Period
from billing.site import in_force


@st.composite
def months_of_documents(
    draw: st.DrawFn,
) -> tuple[Month, list[str], list[list[dict[str, Any]]], list[tuple[str, int]]]:
    """A month; at each issue point the site as it then is, the usage that arrived since, and all adjustments."""
    month = draw(st.sampled_from(MONTHS))
    known = [site_text(draw(sites(month))) for _ in range(draw(st.integers(1, 2)))]
    waves = draw(st.lists(st.lists(events(month), max_size=8), min_size=1, max_size=4))
    texts = [
        known[min(number * len(known) // len(waves), 1)] if len(known) > 1 else known[0]
        for number in range(len(waves))
    ]
    adjustments = draw(st.lists(st.integers(-5_000, 5_000), max_size=2))
    return month, texts, waves, [(str(n), net) for n, net in enumerate(adjustments)]


def documents_sum_to_the_bill(
    month: Month, texts: list[str], waves: list[list[dict[str, Any]]], adjustments: list[tuple[str, int]]
) -> None:
    """Usage arrives in waves, the site changes under way, adjustments are made: what is issued adds up."""
    usage: list[dict[str, Any]] = []
    issued: list[Document] = []
    period, at = Period.parse(month.name), datetime(2027, 1, 2, tzinfo=UTC)
    for number, (text, wave) in enumerate(zip(texts, waves, strict=True)):
        usage += [{**each, "customer": "acme"} for each in wave]
        facts = facts_for(text, period)
        bills = rated_bills(usage_table(usage), facts, period, {"acme": adjustments[:number]}).bills
        bill = bills.get("acme", Bill("acme", period, "EUR", ()))
        customer = in_force(facts.customers["acme"], period.last_day)
        assert customer is not None
        draft = next_document(bill, issued, facts.operator[0], customer)
        if draft is not None:
            assert isinstance(draft, Document)
            assert draft.net > 0
            assert draft.lines
            assert all(line.line.quantity and line.line.unit_price >= 0 for line in draft.lines)
            assert all(part.amount > 0 for part in (*draft.allowances, *draft.charges))
            issued.append(as_issued(draft, f"{draft.kind}-{number}", facts.operator[0], at))
            assert asked(issued) == owed(bill)
        assert sum(each.sign * each.net for each in issued) == bill.net


def owed(bill: Bill) -> tuple[Mapping[Any, int], Mapping[Any, int]]:
    """Quantities by key and unit price, and parts of a bill."""
    quantities = {line.key: line.quantity for line in bill.lines}
    return quantities, {part.key: part.amount for part in bill.parts if part.amount}


def asked(documents: list[Document]) -> tuple[Mapping[Any, int], Mapping[Any, int]]:
    """The same of issued documents, added up; cents that only rounding explains are left out."""
    quantities, parts = Counter[Any](), Counter[Any]()
    for document in documents:
        for entry in document.lines:
            if entry.part is None:
                quantities[entry.line.key] += document.sign * entry.line.quantity
            else:
                parts[entry.part] += document.sign * entry.line.amount
        for turn, modifiers in ((-1, document.allowances), (1, document.charges)):
            for modifier in modifiers:
                parts[modifier.part] += turn * document.sign * modifier.amount
    del parts["rounding"]
    return (
        {key: quantity for key, quantity in quantities.items() if quantity},
        {key: amount for key, amount in parts.items() if amount},
    )


@examples(40)
@given(months_of_documents())
def test_successive_documents_sum_to_the_bill_in_quantities_and_net(case: Any) -> None:
    documents_sum_to_the_bill(*case)


@pytest.mark.proof
@pytest.mark.timeout(1800)
@examples(2_000)
@given(months_of_documents())
def test_two_thousand_months_of_documents_sum_to_their_bills(case: Any) -> None:
    documents_sum_to_the_bill(*case)
