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
