"""Disjoint meters (arithmetic rule 3): every token is counted once, on the meter that its price row prices.

    input = prompt − cached     cached_input = cached     output = completion − reasoning     reasoning

A meter that the row does not price adds to its parent; requests without a price make no line. With `bill_output:
generated` output is what the engine generated, and reasoning the part of that (summed event by event before it came
here: `generated_reasoning_tokens`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from billing.facts import Facts
from billing.hourly import Flags, Hourly, Integers
from billing.tariff import METERS
from billing.terms import TermsRow


@dataclass(frozen=True, slots=True)
class MeterRules:
    """What each price row says about meters: `priced[row, meter]`, and whether `generated` output is billed.

    The last row of each is for usage without a price row (−1): nothing is priced there.
    """

    priced: Flags
    generated: Flags


def meter_rules(rows: Sequence[TermsRow]) -> MeterRules:
    """The rules of price rows, by place."""
    priced = [row.prices() for row in rows] + [(False,) * len(METERS)]
    generated = [row.terms.tariff.bill_output == "generated" for row in rows] + [False]
    return MeterRules(np.array(priced, np.bool_), np.array(generated, np.bool_))


def quantities_under(facts: Facts) -> frozenset[str]:
    """The quantities of usage that bills under `facts` rest on: those of priced meters, and of meters that must have a
    price if they are used (`billing.unpriced_usage`)."""
    tariffs = [tariff for versions in facts.tariffs.values() for tariff in versions]
    rows = [row for tariff in tariffs for row in tariff.rows]
    rows += [row for versions in facts.contracts.values() for contract in versions for row in contract.rows]
    priced = {meter for row in rows for meter in row.prices}
    found = {"prompt_tokens", "completion_tokens", "audio_seconds"}
    generated = any(tariff.bill_output == "generated" for tariff in tariffs)
    if generated:
        found.add("generated_tokens")
    if "cached_input" in priced:
        found.add("cached_tokens")
    if "requests" in priced:
        found.add("requests")
    if "reasoning" in priced:
        found |= {"reasoning_tokens", "generated_reasoning_tokens"} if generated else {"reasoning_tokens"}
    return frozenset(found)


@dataclass(slots=True)
class Metered:
    """Some rows of usage as meters: places in the usage as read, and the price row of each (−1: none)."""

    hourly: Hourly
    rules: MeterRules
    at: Integers | slice
    row: Integers
    #: Of each row, whether what was generated is billed; without it the price rows tell, which some usage may lack.
    generated: Flags | None = None
    _given: dict[str, Integers] = field(default_factory=dict)

    def quantity(self, meter: str) -> Integers:
        """The quantity of one meter in each of the rows."""
        match meter:
            case "input":
                return self._columns("prompt_tokens") - self.quantity("cached_input")
            case "cached_input":
                return self._where_priced("cached_input", lambda: self._columns("cached_tokens"))
            case "output":
                return self._output("completion_tokens", "generated_tokens") - self.quantity("reasoning")
            case "reasoning":
                return self._where_priced(
                    "reasoning", lambda: self._output("reasoning_tokens", "generated_reasoning_tokens")
                )
            case "requests":
                return self._where_priced("requests", lambda: self._columns("requests"))
            case _:
                return self._columns(meter)

    def _columns(self, name: str) -> Integers:
        if name not in self._given:
            self._given[name] = self.hourly.quantities[name][self.at]
        return self._given[name]

    def _where_priced(self, meter: str, quantity: Callable[[], Integers]) -> Integers:
        priced = self.rules.priced[:, METERS.index(meter)]
        if not priced.any():
            return np.zeros(len(self.row), np.int64)
        every = priced[:-1].all() and self.row.min(initial=0) >= 0
        return quantity() if every else np.where(priced[self.row], quantity(), 0)

    def _output(self, delivered: str, generated: str) -> Integers:
        if not (self.rules.generated if self.generated is None else self.generated).any():
            return self._columns(delivered)
        flags = self.rules.generated[self.row] if self.generated is None else self.generated
        return np.where(flags, self._columns(generated), self._columns(delivered))
