"""Bills against the slow plain bill, over random sites and usage; and what may never change a bill.

Each property has few examples here and many under the `proof` marker.
"""

from __future__ import annotations

import ast
import random
from collections import Counter
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import plain_bill
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_sites import (
    ANYTHING,
    MONTHS,
    Limits,
    Month,
    events,
    examples,
    pieces,
    price_places,
    site_text,
    sites,
    with_price_raised,
)
from rated_bills import facts_for, plain_key, plain_unpriced, rated_bills
from usage_cells import usage_table

from billing.bill import Bill
from billing.period import Period

Drawn = tuple[Month, list[dict[str, Any]], list[dict[str, Any]]]
"""A month, a site and usage."""


@st.composite
def drawn(draw: st.DrawFn, limits: Limits = ANYTHING) -> Drawn:
    month = draw(st.sampled_from(MONTHS))
    return (
        month,
        draw(sites(month, limits)),
        draw(st.lists(events(month, limits), min_size=draw(st.integers(0, 12)), max_size=25)),
    )


def keyed(bill: Bill) -> dict[plain_bill.Key, tuple[int, int, int]]:
    """Quantity, amount and tokens by rule 6's key."""
    keys = {plain_key(line): (line.quantity, line.amount, line.tokens) for line in bill.lines}
    assert len(keys) == len(bill.lines)
    return keys


def holds_equal_to_the_slow_bill(case: Drawn) -> None:
    month, site, usage = case
    period, text = Period.parse(month.name), site_text(site)
    adjustments = {"acme": [("2026-10.1", -500)]}
    told = rated_bills(usage_table(usage), facts_for(text, period), period, adjustments)
    plain = plain_bill.plain_bills(text, usage, month.name, adjustments)
    assert plain_unpriced(told.rated) == plain.unpriced
    assert set(told.bills) == set(plain.bills)
    for customer, bill in told.bills.items():
        slow = plain.bills[customer]
        assert keyed(bill) == {
            key: (line.quantity, line.amount, line.tokens) for key, line in slow.lines.items()
        }
        assert {part.key: part.amount for part in bill.parts} == {
            key: part.amount for key, part in slow.parts.items()
        }
        assert bill.net == slow.net


@examples(100)
@given(drawn())
def test_every_bill_equals_the_slow_plain_bill_to_each_line_and_cent(case: Drawn) -> None:
    holds_equal_to_the_slow_bill(case)


@pytest.mark.proof
@pytest.mark.timeout(1800)
@examples(4_000)
@given(drawn())
def test_four_thousand_bills_equal_the_slow_plain_bill(case: Drawn) -> None:
    holds_equal_to_the_slow_bill(case)


@examples(25)
@given(drawn(), st.randoms(use_true_random=False))
def test_neither_order_nor_partial_sums_change_a_bill(case: Drawn, chance: random.Random) -> None:
    """Hourly usage arrives as partial sums: in any order, one an event, or added up."""
    month, site, usage = case
    period, table = Period.parse(month.name), usage_table(usage)
    facts = facts_for(site_text(site), period)
    whole = rated_bills(table, facts, period)
    order = list(range(table.num_rows))
    chance.shuffle(order)
    single = [table.take([at]) for at in order] or [table]
    assert rated_bills(pa.concat_tables(single), facts, period) == whole
    names = [name for name in table.column_names if pa.types.is_int64(table[name].type) and name != "band"]
    keys = [name for name in table.column_names if name not in names]
    merged = table.group_by(keys).aggregate([(name, "sum") for name in names])
    merged = merged.rename_columns([name.removesuffix("_sum") for name in merged.column_names])
    assert rated_bills(merged, facts, period) == whole


@examples(25)
@given(drawn(Limits(requests=False, prompt_over=False, voids=False)), st.data())
def test_splitting_an_event_changes_no_bill_where_requests_are_free_and_no_row_is_for_long_prompts(
    case: Drawn, data: st.DataObject
) -> None:
    """And, where generated tokens are billed, each part's reasoning was generated in that part (rule 3's minimum is an
    event's own)."""
    month, site, usage = case
    period = Period.parse(month.name)
    facts = facts_for(site_text(site), period)
    split = [part for event in usage for part in data.draw(pieces(event))]
    assert rated_bills(usage_table(split), facts, period).bills == (
        rated_bills(usage_table(usage), facts, period).bills
    )


@examples(25)
@given(drawn(Limits(voids=False)), st.data(), st.sampled_from(["0.000001", "0.01", "1", "1000"]))
def test_raising_a_price_never_lowers_a_bill(case: Drawn, data: st.DataObject, by: str) -> None:
    """Any one price of any row: also a tier's of a volume or graduated price, or a package's, since which tier a token
    falls in depends on quantities alone; and under discounts, for a discount of at most 100 % rounds up by at most the
    cent by which its base grew, and under a floor.

    It does not hold of negative quantities (voids beyond what was used), nor of *adding* a price: cached tokens that get
    one of their own leave the input price.
    """
    month, site, usage = case
    period, table = Period.parse(month.name), usage_table(usage)
    raised = with_price_raised(site, data.draw(st.sampled_from(price_places(site))), by)
    before = rated_bills(table, facts_for(site_text(site), period), period).nets
    after = rated_bills(table, facts_for(site_text(raised), period), period).nets
    assert {customer: net for customer, net in before.items() if after[customer] < net} == {}


@examples(25)
@given(drawn(Limits(all_meters=True)))
def test_every_token_in_is_a_token_on_a_line_meter_by_meter(case: Drawn) -> None:
    """Where every row prices every meter; where one does not, its tokens are its parent's (the next test)."""
    month, site, usage = case
    period = Period.parse(month.name)
    told = rated_bills(usage_table(usage), facts_for(site_text(site), period), period)
    unpriced = Counter[str]()
    for (_, meter, _), quantity in plain_unpriced(told.rated).items():
        unpriced[meter] += quantity
    used = Counter[str]()
    for event in inside(month, usage):
        used["input"] += event["prompt_tokens"] - event["cached_tokens"]
        used["cached_input"] += event["cached_tokens"]
        used["output"] += event["completion_tokens"] - event["reasoning_tokens"]
        used["reasoning"] += event["reasoning_tokens"]
    lined = Counter[str]()
    for bill in told.bills.values():
        for line in bill.lines:
            lined[line.meter] += line.tokens
            assert line.quantity
    for meter, tokens in used.items():
        assert lined[meter] == told.rated.tokens[meter] == tokens - unpriced[meter]


@examples(25)
@given(drawn())
def test_every_prompt_token_is_on_a_line_or_named_as_unpriced(case: Drawn) -> None:
    month, site, usage = case
    period = Period.parse(month.name)
    rated = rated_bills(usage_table(usage), facts_for(site_text(site), period), period).rated
    lacking = Counter[str]()
    for (_, meter, _), quantity in plain_unpriced(rated).items():
        lacking[meter] += quantity
    billed = rated.tokens["input"] + rated.tokens["cached_input"]
    prompt = sum(event["prompt_tokens"] for event in inside(month, usage))
    assert billed + lacking["input"] + lacking["cached_input"] == prompt


def inside(month: Month, usage: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events of the period in Vilnius."""
    zone = ZoneInfo("Europe/Vilnius")
    return [each for each in usage if each["time"].astimezone(zone).strftime("%Y-%m") == month.name]


def test_the_slow_bill_imports_nothing_of_what_it_checks() -> None:
    imported: set[str] = set()
    own = sorted(Path(plain_bill.__file__).parent.glob("plain_bill*.py"))
    for source in own:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Import):
                imported |= {each.name.split(".")[0] for each in node.names}
            if isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").split(".")[0])
    standard = {
        "__future__",
        "calendar",
        "collections",
        "dataclasses",
        "datetime",
        "fractions",
        "re",
        "typing",
        "zoneinfo",
    }
    assert len(own) == 4
    assert imported == standard | {"holidays", "yaml"} | {path.stem for path in own} - {"plain_bill"}
