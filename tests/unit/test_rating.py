"""What rating refuses, names, leaves out, and how fast it is."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from usage_cells import site_facts, usage_table

from billing.period import Period
from billing.rating import rate
from metering.event import QUANTITIES
from metering.refusal import Refusal

BASE = (Path(__file__).parent.parent / "vectors" / "rating" / "base.yaml").read_text()
OCTOBER = Period(2026, 10)
NOON = datetime(2026, 10, 5, 12, tzinfo=UTC)
TARIFF = "kind: tariff\nid: vilnius\noperator: telecentras\ncurrency: EUR\n"


def event(**given: Any) -> dict[str, Any]:
    return {"time": NOON, "customer": "acme", "node": "vilnius-1", "model": "m", **given}


def test_usage_that_no_row_prices_is_named_with_its_first_hour() -> None:
    site = site_facts(BASE + TARIFF + "prices: [{models: [m], input: 1, output: 1}]")
    later = NOON.replace(hour=15)
    usage = [
        event(model="other", prompt_tokens=5, time=later),
        event(model="other", prompt_tokens=7, cached_tokens=3, completion_tokens=1, customer="beta"),
        event(prompt_tokens=10),
    ]
    rated = rate(usage_table(usage), site, OCTOBER)
    assert [
        (each.model, each.meter, each.region, each.tokens, each.first_hour) for each in rated.unpriced
    ] == [
        ("other", "input", "LT-VL", 12, NOON),
        ("other", "output", "LT-VL", 1, NOON),
    ]
    assert "no price row matches" in rated.unpriced[0].why
    assert len(rated.lines["acme"]) == 1


@pytest.mark.parametrize("outcome", ["finished", "failed"])
def test_a_row_without_a_price_for_used_seconds_is_named_whatever_the_outcome(outcome: str) -> None:
    site = site_facts(BASE + TARIFF + "prices: [{models: [m], input: 1, output: 1}]")
    rated = rate(usage_table([event(prompt_tokens=1, audio_seconds=9, outcome=outcome)]), site, OCTOBER)
    assert [(each.meter, each.tokens, each.why) for each in rated.unpriced] == [
        ("audio_seconds", 9, "vilnius: tariff:1 has no price for audio_seconds")
    ]


def test_an_hour_with_usage_and_no_version_in_force_is_named() -> None:
    site = site_facts(BASE + TARIFF + "valid_from: 2026-10-06\nprices: [{models: [m], input: 1, output: 1}]")
    rated = rate(usage_table([event(prompt_tokens=1)]), site, OCTOBER)
    assert [each.why for each in rated.unpriced] == ["no version of tariff vilnius is in force then"]


def test_a_failed_request_for_a_model_that_nobody_prices_stops_nothing() -> None:
    site = site_facts(BASE + TARIFF + "prices: [{models: [m], input: 1, output: 1}]")
    rated = rate(usage_table([event(model="nonsense", outcome="failed")]), site, OCTOBER)
    assert rated.unpriced == ()
    assert rated.lines == {"acme": ()}


def test_usage_voided_within_its_model_needs_no_price() -> None:
    site = site_facts(BASE + TARIFF + "prices: [{models: [m], input: 1, output: 1}]")
    usage = [
        event(model="x", prompt_tokens=5),
        event(model="x", prompt_tokens=-5, time=NOON.replace(hour=20)),
    ]
    assert rate(usage_table(usage), site, OCTOBER).unpriced == ()


def test_late_usage_is_counted_and_not_billed() -> None:
    site = site_facts(BASE + TARIFF + "prices: [{models: [m], input: 1_000_000, output: 1}]")
    usage = [event(prompt_tokens=2), event(prompt_tokens=3, late=True)]
    rated = rate(usage_table(usage), site, OCTOBER)
    assert [line.quantity for line in rated.lines["acme"]] == [2]
    assert (rated.late["prompt_tokens"], rated.late["requests"]) == (3, 1)


def test_generated_output_is_billed_where_the_tariff_says_so() -> None:
    facts = site_facts(BASE + TARIFF + "prices: [{models: [m], input: 1, output: 1, reasoning: 1}]")
    [tariff] = facts.tariffs["vilnius"]
    generated = type(tariff)(
        tariff.id, tariff.operator, tariff.currency, tariff.timezone, tariff.rows, bill_output="generated"
    )
    facts = type(facts)(facts.operator, facts.nodes, facts.customers, {"vilnius": (generated,)})
    usage = [event(completion_tokens=10, reasoning_tokens=4, generated_tokens=15)]
    lines = rate(usage_table(usage), facts, OCTOBER).lines["acme"]
    assert {line.meter: line.quantity for line in lines} == {"output": 11, "reasoning": 4}


def test_sums_beyond_62_bits_are_refused_never_wrapped() -> None:
    site = site_facts(BASE + TARIFF + "prices: [{models: [m], input: 1, output: 1}]")
    usage = [event(prompt_tokens=2**61), event(prompt_tokens=2**61)]
    with pytest.raises(Refusal) as refused:
        rate(usage_table(usage), site, OCTOBER)
    assert refused.value.code == "quantity_overflow"
    rated = rate(usage_table([event(prompt_tokens=2**61), event(prompt_tokens=2**61 - 1)]), site, OCTOBER)
    assert rated.lines["acme"][0].quantity == 2**62 - 1


def test_no_usage_rates_to_nothing() -> None:
    site = site_facts(BASE + TARIFF + "prices: [{models: [m], input: 1, output: 1}]")
    rated = rate(usage_table([]), site, OCTOBER)
    assert (rated.lines, rated.unpriced, sum(rated.tokens.values())) == ({}, (), 0)


def test_three_hundred_thousand_rows_are_rated_in_seconds_without_a_loop_over_rows() -> None:
    """A loop in Python over the rows would take many times the bound; the bench states real figures."""
    rows, customers = 300_000, 1_000
    chance = np.random.default_rng(7)
    site = site_facts(
        BASE
        + TARIFF
        + "prices: [{models: ['*'], input: 1, output: {graduated: [{up_to: 9_000_000, price: 2}, {price: 1}]}}]"
    )
    first = np.datetime64("2026-09-30T21:00:00", "us").astype(np.int64)
    columns: dict[str, Any] = {name: np.zeros(rows, np.int64) for name in QUANTITIES}
    columns["prompt_tokens"] = chance.integers(0, 100_000, rows)
    columns["completion_tokens"] = chance.integers(0, 100_000, rows)

    def words(names: list[str]) -> pa.Array:
        codes = pa.array(chance.integers(0, len(names), rows), pa.int32())
        return pa.DictionaryArray.from_arrays(codes, pa.array(names))

    usage = pa.table(
        {
            "hour": pa.array(first + chance.integers(0, 745, rows) * 3_600_000_000).cast(
                pa.timestamp("us", "UTC")
            ),
            "customer": words([f"c{number}" for number in range(customers)]),
            "node": words(["vilnius-1", "kaunas-1"]),
            "model": words(["a", "b", "c"]),
            "outcome": words(["finished"]),
            "band": np.zeros(rows, np.int64),
            "late": np.zeros(rows, np.bool_),
            **columns,
        }
    )
    began = time.process_time()
    rated = rate(usage, site, OCTOBER)
    assert time.process_time() - began < 10
    assert sum(rated.tokens.values()) == int(
        columns["prompt_tokens"].sum() + columns["completion_tokens"].sum()
    )
    assert len(rated.lines) == customers
