"""What fuzzed tariff files once brought to light, each as the smallest example of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from plain_bill import Unpriced, plain_bills
from rated_bills import facts_for, plain_unpriced, rated_bills
from usage_cells import usage_table

from billing.period import Period

OCTOBER = Period(2026, 10)
SITE = """\
kind: operator
id: telecentras
name: AB Pavyzdys
country: LT
currency: EUR
timezone: Europe/Vilnius
default_tariff: vilnius
---
kind: node
id: vilnius-1
operator: telecentras
region: LT-VL
---
kind: customer
id: acme
operator: telecentras
name: Acme UAB
country: LT
"""


def usage(model: str, **quantities: int) -> dict[str, object]:
    at = datetime(2026, 10, 5, 8, tzinfo=UTC)
    return {"time": at, "customer": "acme", "node": "vilnius-1", "model": model, **quantities}


@pytest.mark.parametrize(
    ("bill_output", "quantities", "lacking"),
    [
        ("delivered", {"prompt_tokens": 5, "cached_tokens": 5}, {"input": 5}),
        ("delivered", {"completion_tokens": 7, "reasoning_tokens": 7}, {"output": 7}),
        ("generated", {"completion_tokens": 5, "generated_tokens": 9}, {"output": 9}),
        ("generated", {"completion_tokens": 0, "generated_tokens": 9}, {"output": 9}),
    ],
)
def test_usage_that_no_row_prices_is_named_whole_also_where_every_row_prices_its_parts_apart(
    bill_output: str, quantities: Mapping[str, int], lacking: Mapping[str, int]
) -> None:
    site = SITE + (
        f"---\nkind: tariff\nid: vilnius\noperator: telecentras\ncurrency: EUR\nbill_output: {bill_output}\n"
        "prices: [{models: [m], input: '1', cached_input: '0.5', output: '2', reasoning: '3'}]\n"
    )
    events = [usage("another", **quantities), usage("m", prompt_tokens=1)]
    found = plain_unpriced(rated_bills(usage_table(events), facts_for(site, OCTOBER), OCTOBER).rated)
    assert found == {Unpriced("another", meter, "LT-VL"): tokens for meter, tokens in lacking.items()}
    assert found == plain_bills(site, events, "2026-10").unpriced


def test_a_fee_that_was_monthly_is_not_due_once_under_the_same_name() -> None:
    site = SITE + (
        "---\nkind: tariff\nid: vilnius\noperator: telecentras\ncurrency: EUR\n"
        "prices: [{models: [m], input: '1'}]\n"
        "---\nkind: contract\ncustomer: acme\ntariff: vilnius\n"
        "fees: [{name: Line, amount: '31.00'}]\n"
        "---\nkind: contract\ncustomer: acme\ntariff: vilnius\nvalid_from: 2026-10-11\n"
        "fees: [{name: Line, amount: '99.00', every: once}]\n"
    )
    made = rated_bills(usage_table([]), facts_for(site, OCTOBER), OCTOBER)
    assert {line.contract_version: line.amount for line in made.rated.lines["acme"]} == {"acme": 10_00}
    assert made.nets == {"acme": plain_bills(site, [], "2026-10").bills["acme"].net}
