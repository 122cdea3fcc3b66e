"""Disjoint meters (arithmetic rule 3): every token is counted once, on the meter that its price row prices.

    input = prompt − cached     cached_input = cached     output = completion − reasoning     reasoning

A meter that the row does not price adds to its parent; requests without a price make no line. With `bill_output:
generated` output is what the engine generated, and reasoning the part of that (summed event by event before it came
here: `generated_reasoning_tokens`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from billing.hourly import Flags, Hourly, Integers
from billing.placing import Placed
from billing.tariff import METERS


def meter_quantity(meter: str, hourly: Hourly, placed: Placed, at: Integers | slice) -> Integers:
    """The quantity of one meter in the rows `at` of usage."""
    rows = placed.row[at]
    # The last of each table is for rows of usage without a price row (−1): nothing is priced there.
    priced = np.array([row.prices() for row in placed.rows] + [(False,) * len(METERS)], np.bool_)
    generated = np.array(
        [row.terms.tariff.bill_output == "generated" for row in placed.rows] + [False], np.bool_
    )

    def prices(name: str) -> Flags:
        flags: Flags = priced[rows, METERS.index(name)]
        return flags

    def given(name: str) -> Integers:
        return hourly.quantities[name][at]

    def generated_or(name: str, else_name: str) -> Integers:
        if not generated.any():
            return given(else_name)
        return np.where(generated[rows], given(name), given(else_name))

    def cached() -> Integers:
        return np.where(prices("cached_input"), given("cached_tokens"), 0)

    def reasoning() -> Integers:
        apart = generated_or("generated_reasoning_tokens", "reasoning_tokens")
        return np.where(prices("reasoning"), apart, 0)

    found: dict[str, Callable[[], Integers]] = {
        "input": lambda: given("prompt_tokens") - cached(),
        "cached_input": cached,
        "output": lambda: generated_or("generated_tokens", "completion_tokens") - reasoning(),
        "reasoning": reasoning,
        "requests": lambda: np.where(prices("requests"), given("requests"), 0),
        "audio_seconds": lambda: given("audio_seconds"),
    }
    return found[meter]()
