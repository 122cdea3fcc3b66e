"""Usage without a price is named with where its price would stand, and with what would give it one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from usage_cells import site_facts, usage_table

from billing.facts import Facts
from billing.period import Period
from billing.rating import rate
from billing.unpriced import unpriced_refusal
from metering.refusal import Fault

BASE = (Path(__file__).parent.parent / "vectors" / "rating" / "base.yaml").read_text()
OCTOBER = Period(2026, 10)
NOON = datetime(2026, 10, 5, 12, tzinfo=UTC)
PRICES = "prices: [{models: [other], input: 1, output: 1}, {models: [m], input: 1, output: 1}]\n"
SPOT = """windows:
  - name: night
    hours: "22:00-06:00"
    factor: 0.5
  - name: spot
    hours: "10:00-17:00"
    series: {file: spot.csv, first: 2026-10-05T07:00:00Z, prices: [40, 41]}
    steps: [{up_to: 40, factor: 0.6}, {factor: 1}]
"""
CONTRACT = "---\nkind: contract\ncustomer: acme\ntariff: vilnius\n"
PLACES = {"": "t.yaml:1", "prices.2": "t.yaml:6", "windows.2": "t.yaml:9"}


def site(text: str, places: dict[str, str]) -> Facts:
    """A site with a tariff whose keys, and whose contract's, stand at `places`."""
    head = "kind: tariff\nid: vilnius\noperator: telecentras\ncurrency: EUR\n"
    facts = site_facts(BASE + head + text)
    return replace(
        facts,
        tariffs={
            name: tuple(replace(each, places=places) for each in found)
            for name, found in facts.tariffs.items()
        },
        contracts={
            name: tuple(replace(each, places=places) for each in found)
            for name, found in facts.contracts.items()
        },
    )


def fault(facts: Facts, **given: Any) -> Fault:
    event = {"time": NOON, "customer": "acme", "node": "vilnius-1", "model": "m", "prompt_tokens": 3} | given
    [found] = unpriced_refusal(
        "telecentras", OCTOBER, rate(usage_table([event]), facts, OCTOBER).unpriced
    ).faults
    return found


def test_a_meter_that_its_row_lacks_is_added_to_that_row() -> None:
    found = fault(site(PRICES, PLACES), audio_seconds=9, prompt_tokens=0)
    assert found.where == "t.yaml:6, tariff vilnius"
    assert found.remedy == "add a price for audio_seconds to row 2 of it"


def test_a_row_of_a_contract_is_named_with_the_contract() -> None:
    own = (
        PRICES
        + CONTRACT
        + "prices: [{models: [n], only: true, input: 1}, {models: [m], only: true, input: 1}]\n"
    )
    found = fault(site(own, PLACES), prompt_tokens=0, completion_tokens=3)
    assert (found.where, found.remedy) == ("t.yaml:6, contract acme", "add a price for output to row 2 of it")


def test_a_model_without_a_row_gets_one_in_the_tariff() -> None:
    found = fault(site(PRICES, PLACES), model="x")
    assert found.where == "t.yaml:1, tariff vilnius"
    assert found.remedy == "add a price row for model 'x' in region 'LT-VL' to tariff vilnius"
    assert fault(site(PRICES + CONTRACT, PLACES), model="x").where == "t.yaml:1, contract acme"


def test_a_version_whose_file_is_unknown_is_named_alone() -> None:
    assert fault(site(PRICES, {}), model="x").where == "tariff vilnius"


def test_a_series_that_ends_before_the_hour_is_extended_up_to_it() -> None:
    found = fault(site(PRICES + SPOT, PLACES))
    assert found.where == "t.yaml:9, tariff vilnius"
    assert found.remedy.startswith(
        "append hours to spot.csv up to 2026-10-05T12:00:00Z and the last one used"
    )


def test_a_series_that_begins_after_the_hour_is_superseded() -> None:
    found = fault(site(PRICES + SPOT, PLACES), time=datetime(2026, 10, 4, 8, tzinfo=UTC))
    assert found.remedy == (
        "supersede the version by one in which spot.csv begins at 2026-10-04T08:00:00Z or before"
    )


@pytest.mark.parametrize(
    ("dates", "words"),
    [
        ("valid_from: 2026-10-06\n", "apply a tariff version that holds then"),
        ("valid_until: 2026-10-03\n", "apply a tariff version that holds then"),
    ],
)
def test_where_no_version_holds_one_is_to_be_applied(dates: str, words: str) -> None:
    found = fault(site(dates + PRICES, PLACES))
    assert found.where == "telecentras"
    assert found.remedy.startswith(words)


def test_a_node_that_was_not_declared_then_is_to_be_declared() -> None:
    row = PRICES.replace("models: [m]", "models: [m], regions: [LT-*]")
    facts = site(row, PLACES)
    [node] = facts.nodes["vilnius-1"]
    ended = replace(facts, nodes={"vilnius-1": (replace(node, valid_until=OCTOBER.first_day),)})
    assert fault(ended).remedy.startswith("the node was not declared then, or no longer")
