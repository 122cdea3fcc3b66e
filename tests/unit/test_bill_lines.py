"""Lines of rated usage: order, amounts in 64 bits and beyond, packages beside free and unbilled quantities, blocks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from usage_cells import site_facts, usage_table

from billing import filling
from billing.line import Line
from billing.period import Period
from billing.rating import Rated, rate
from metering.refusal import Refusal

BASE = (Path(__file__).parent.parent / "vectors" / "rating" / "base.yaml").read_text()
TARIFF = "kind: tariff\nid: vilnius\noperator: telecentras\ncurrency: EUR\n"
OCTOBER = Period(2026, 10)
NOON = datetime(2026, 10, 5, 12, tzinfo=UTC)


def event(**given: Any) -> dict[str, Any]:
    return {"time": NOON, "customer": "acme", "node": "vilnius-1", "model": "m", **given}


def rated(tariff: str, *events: dict[str, Any]) -> Rated:
    return rate(usage_table(events), site_facts(BASE + TARIFF + tariff), OCTOBER)


def told(lines: tuple[Line, ...]) -> list[tuple[str | None, str, object, int, int, int]]:
    """(model, meter, tier, quantity, amount, tokens) of each."""
    return [(each.model, each.meter, each.tier, each.quantity, each.amount, each.tokens) for each in lines]


def test_lines_are_read_by_model_then_meter_free_first_unbilled_last_and_packages_after_all_models() -> None:
    found = rated(
        "included: {input: 30, output: 5}\n"
        "prices: [{models: ['*'], input: {graduated: [{up_to: 40, price: 2_000_000}, {price: 1_000_000}]},"
        " output: {package: {size: 10, price: 1}}}]",
        event(model="z", prompt_tokens=100, completion_tokens=30, time=NOON + timedelta(hours=1)),
        event(model="a", prompt_tokens=50, completion_tokens=6),
        event(model="a", prompt_tokens=7, completion_tokens=8, outcome="failed"),
    )
    assert told(found.lines["acme"]) == [
        ("a", "input", "free", 30, 0, 30),
        ("a", "input", 1, 20, 4000, 20),
        ("a", "input", "unbilled", 7, 0, 7),
        ("a", "output", "free", 5, 0, 5),
        ("a", "output", "unbilled", 8, 0, 8),
        ("z", "input", 1, 20, 4000, 20),
        ("z", "input", 2, 80, 8000, 80),
        (None, "output", None, 4, 400, 31),
    ]
    assert found.tokens == {"input": 157, "cached_input": 0, "output": 44, "reasoning": 0}


def test_included_units_are_shared_by_models_rows_and_nodes_of_one_hour_in_that_order() -> None:
    found = rated(
        "included: {input: 100}\n"
        "prices: [{models: [b], regions: [LT-KU], input: 1, output: 1}, {models: ['*'], input: 1, output: 1}]",
        event(model="b", prompt_tokens=40, node="vilnius-1"),
        event(model="b", prompt_tokens=40, node="kaunas-1"),
        event(model="a", prompt_tokens=40, node="vilnius-1"),
    )
    assert [(each.model, each.price_row, each.tier, each.quantity) for each in found.lines["acme"]] == [
        ("a", "tariff:2", "free", 40),
        ("b", "tariff:1", "free", 40),
        ("b", "tariff:2", "free", 20),
        ("b", "tariff:2", None, 20),
    ]


@pytest.mark.parametrize("price", ["0.4", "0.000001", "123456.789012"])
@pytest.mark.parametrize("quantity", [1, 10**6, 10**12, 2**61, -(10**12), -(2**61)])
def test_amounts_are_exact_where_64_bits_hold_them_and_where_they_do_not(price: str, quantity: int) -> None:
    found = rated(f"prices: [{{models: [m], input: {price}, output: 1}}]", event(prompt_tokens=quantity))
    [line] = found.lines["acme"]
    numerator, denominator = line.unit_price.as_integer_ratio()
    doubled = 2 * abs(quantity) * numerator * 100 + denominator * 1_000_000
    rounded = doubled // (2 * denominator * 1_000_000)
    assert line.amount == (rounded if quantity > 0 else -rounded)


def test_blocks_of_customers_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [
        event(
            customer=customer, prompt_tokens=n * 7, completion_tokens=n, time=NOON + timedelta(hours=n % 50)
        )
        for n in range(1, 60)
        for customer in ("acme", "beta", "gamma")
    ]
    tariff = (
        "included: {input: 300}\nwindows: [{name: night, hours: '22:00-06:00', factor: 0.5}]\n"
        "prices: [{models: ['*'], input: {graduated: [{up_to: 5_000, price: 2}, {price: 1}]}, output: 3}]"
    )
    whole = rated(tariff, *events)
    monkeypatch.setattr(filling, "_ROWS_A_BLOCK", 1)
    assert rated(tariff, *events) == whole


def test_rated_lines_are_a_mapping_by_customer_and_equal_to_a_dictionary_of_them() -> None:
    prices = "prices: [{models: [m], input: 1, output: 1}]"
    found = rated(prices, event(prompt_tokens=5), event(customer="beta", requests=0))
    assert list(found.lines) == ["acme", "beta"]
    assert found.lines["beta"] == ()
    assert found.lines == {"acme": found.lines["acme"], "beta": ()}
    assert "gamma" not in found.lines
    assert found.lines.get("gamma", ()) == ()


def test_a_customer_with_a_contract_and_no_usage_is_there_with_its_fees() -> None:
    found = rated(
        "prices: [{models: [m], input: 1, output: 1}]\n---\nkind: contract\ncustomer: beta\ntariff: vilnius\n"
        "fees: [{name: Reserved, amount: 500.00}]\n---\nkind: contract\ncustomer: acme\ntariff: vilnius\n"
        "valid_until: 2026-10-01",
    )
    [line] = found.lines["beta"]
    assert (line.meter, line.item, line.amount, line.contract_version) == ("fee", "Reserved", 50_000, "beta")
    assert list(found.lines) == ["beta"]


def test_each_tariff_says_which_outcomes_are_billed() -> None:
    found = rated(
        "valid_from: 2026-10-01\nbill_outcomes: [finished]\nprices: [{models: [m], input: 1, output: 1}]\n---\n"
        + TARIFF
        + "valid_from: 2026-10-06\nbill_outcomes: [finished, failed]\nprices: [{models: [m], input: 1, output: 1}]",
        *(event(prompt_tokens=1, outcome=outcome) for outcome in ("finished", "failed", "aborted")),
        event(prompt_tokens=1, outcome="failed", time=NOON + timedelta(days=2)),
    )
    assert [(each.tariff_version, each.tier, each.quantity) for each in found.lines["acme"]] == [
        ("vilnius@2026-10-01", None, 1),
        ("vilnius@2026-10-01", "unbilled", 2),
        ("vilnius@2026-10-06", None, 1),
    ]


def test_an_hour_that_a_series_does_not_cover_is_named_and_a_package_needs_none() -> None:
    found = rated(
        "windows: [{name: spot, series: {file: s.csv, first: 2026-10-05T11:00:00Z, prices: [1]}, steps: [{factor: 2}]}]\n"
        "prices: [{models: [m], input: 1, output: {package: {size: 10, price: 1}}, requests: 0}]",
        event(prompt_tokens=5, completion_tokens=5),
        event(prompt_tokens=7, time=NOON - timedelta(hours=1)),
    )
    why = "the series of window spot has no price for that hour"
    assert [(each.meter, each.tokens, each.why) for each in found.unpriced] == [
        ("input", 5, why),
        ("requests", 1, why),
    ]
    assert [(each.meter, each.window, each.quantity) for each in found.lines["acme"]] == [
        ("input", "spot:1", 7),
        ("requests", "spot:1", 1),
        ("output", "base", 1),
    ]


def test_magnitudes_beyond_62_bits_are_refused_before_anything_is_summed() -> None:
    with pytest.raises(Refusal):
        rated("prices: [{models: [m], input: 1, output: 1}]", event(prompt_tokens=2**62))
