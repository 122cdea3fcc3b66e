"""Two thousand site files out of a grammar, with slips and tricks: none crashes, and each that is applied is rated rightly.

`make proof` runs a hundred thousand (`TALLY_FUZZ_FILES` changes how many).
"""

from __future__ import annotations

import os
from random import Random

import pytest
from fuzz_check import Outcome, check_file
from fuzzed_slips import fuzzed_file

QUICK = 2_000
PROOF = int(os.environ.get("TALLY_FUZZ_FILES", "100000"))
AT_ONCE = 500
"""Files in one test: what runs beside each other when there are several processes."""


def fuzz(seeds: range) -> list[Outcome]:
    outcomes = []
    for seed in seeds:
        try:
            outcomes.append(check_file(fuzzed_file(seed), Random(seed)))
        except Exception as fault:
            fault.add_note(f"seed {seed}")
            raise
    return outcomes


@pytest.mark.parametrize("first", range(0, QUICK, AT_ONCE))
def test_fuzzed_files_are_refused_or_applied_and_then_rated_as_the_slow_bill_does(first: int) -> None:
    outcomes = fuzz(range(first, first + AT_ONCE))
    assert AT_ONCE // 3 < sum(each.applied for each in outcomes) < AT_ONCE * 2 // 3
    assert sum(each.lines for each in outcomes) > 5 * AT_ONCE, "the files that were applied priced usage"


@pytest.mark.proof
@pytest.mark.parametrize("first", range(QUICK, QUICK + PROOF, AT_ONCE))
def test_a_hundred_thousand_fuzzed_files_are_refused_or_applied_and_rated_rightly(first: int) -> None:
    fuzz(range(first, first + AT_ONCE))


OPERATOR = "kind: operator\nid: o\nname: O\ncountry: LT\ncurrency: EUR\ntimezone: Europe/Vilnius\n---\n"
TARIFF = OPERATOR + "kind: tariff\nid: t\noperator: o\ncurrency: EUR\n"
ROW = "prices: [{models: ['*'], input: 1, output: 2}]\n"


def listed(count: int, item: str) -> str:
    """`count` items in YAML's short form; # in the item is the number."""
    return "[" + ", ".join(item.replace("#", str(number)) for number in range(count)) + "]"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"prices: {listed(3000, '{models: [m#], input: 1}')}\n", id="rows"),
        pytest.param(f"prices: {listed(500, '{models: [a#*], input: #}')}\n", id="rows with stars"),
        pytest.param(f"prices: {listed(500, '{models: [' + 'a*' * 90 + 'b], input: #}')}\n", id="stars"),
        pytest.param(
            f"prices: [{{models: {listed(3000, 'm#')}, regions: {listed(3000, 'r#')}, input: 1}}]\n",
            id="models times regions",
        ),
        pytest.param(ROW + f"windows: [{{name: a, factor: 1, days: {listed(9000, 'mon')}}}]\n", id="days"),
        pytest.param(ROW + f"windows: {listed(1500, '{name: w#, factor: 0.#}')}\n", id="windows"),
        pytest.param(
            ROW
            + f"windows: [{{name: a, series: {{first: 2026-11-01T00:00:00Z, prices: {listed(5000, '#')}}}, "
            f"steps: {listed(2000, '{up_to: #, factor: 1}')[:-1]}, {{factor: 1}}]}}]\n",
            id="steps of a series",
        ),
        pytest.param(ROW + "".join(f"k{number}: 1\n" for number in range(9000)), id="keys"),
        pytest.param("prices: " + "[" * 100_000 + "\n", id="depth"),
    ],
)
def test_a_file_of_one_kind_of_thing_by_the_thousand_is_looked_through_in_time(text: str) -> None:
    check_file((TARIFF + text).encode(), Random(0))
