"""The prices that `tally tariff show` says are those that a bill of that hour has: both are asked the same question."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from price_sheet_examples import RICH
from usage_cells import site_facts, usage_table

from billing.facts import Facts
from billing.holiday import with_holidays
from billing.line import Line
from billing.period import Period
from billing.prices_asked import PricesInForce, Question, prices_in_force, with_holidays_ahead
from billing.rating import rate

OCTOBER = Period(2026, 10)
SITE = (
    RICH.replace("timezone: Europe/Vilnius", "timezone: Europe/Vilnius\ndefault_tariff: vilnius")
    .replace("included: {input: 1_000_000, output: 200_000}", "included: {input: 1, output: 1}")
    .replace("2026-09-30T21:00:00Z", "2026-10-26T08:00:00Z")
    + """
---
{kind: node, id: vilnius-1, operator: telecentras, region: LT-VL}
---
{kind: customer, id: acme, operator: telecentras, name: Acme UAB, country: LT}
---
{kind: contract, customer: acme, tariff: vilnius, valid_from: 2026-10-25,
 prices: [{models: ["qwen3-14b"], only: true, input: 0.3, output: 1}]}
"""
)
#: Local midnight before the clock goes back in Vilnius; in hours 35 to 37 after it the series has prices.
FIRST = datetime.fromisoformat("2026-10-24T21:00Z")


def billed(facts: Facts, instant: datetime, model: str, prompt: int) -> list[Line]:
    event = {
        "time": instant,
        "customer": "acme",
        "model": model,
        "node": "vilnius-1",
        "outcome": "finished",
        "prompt_tokens": prompt,
        "cached_tokens": 7,
        "completion_tokens": 90,
        "reasoning_tokens": 5,
        "generated_tokens": 90,
        "audio_seconds": 0,
    }
    rated = rate(usage_table([event]), with_holidays(facts, OCTOBER), OCTOBER)
    assert not rated.unpriced, rated.unpriced
    return list(rated.lines["acme"])


def said(
    found: PricesInForce, meter: str, tier: object, prompt: int
) -> tuple[str | None, Decimal, Decimal | None]:
    """(row, list price, price) that show says of a line's meter and tier, for prompts of that length."""
    [row] = [
        row
        for row in found.rows
        if (row.prompt_over or 0) <= prompt and (row.prompt_up_to is None or prompt <= row.prompt_up_to)
    ]
    [priced] = [each for each in row.meters if each.meter == meter]
    price = priced.tiers[tier - 1 if isinstance(tier, int) else 0]
    return row.name, price.list_price, price.unit_price


@pytest.mark.parametrize("model", ["qwen3-32b", "qwen3-14b", "llama-3", "other"])
@pytest.mark.parametrize("hour", [*range(0, 31, 3), 4, 35, 36, 37])
def test_what_is_shown_for_an_hour_is_what_a_bill_of_that_hour_asks(model: str, hour: int) -> None:
    facts = site_facts(SITE)
    instant = FIRST + timedelta(hours=hour)
    shown = prices_in_force(
        with_holidays_ahead(facts, instant, {}), Question("vilnius", instant, model, "LT-VL", "acme")
    )
    for prompt in (1_000, 200_001):
        for line in billed(facts, instant, model, prompt):
            if line.tier == "free":
                continue
            row, list_price, unit_price = said(shown, line.meter, line.tier, prompt)
            assert (line.price_row, line.list_price, line.unit_price) == (row, list_price, unit_price)
            if line.unit != "package":
                assert (line.window, line.factor) == (shown.window.name, shown.window.factor)
