"""A price sheet to print that has everything: an operator in Vilnius, regions, tiers, packages, windows, a series."""

from __future__ import annotations

from datetime import date
from typing import Any

from paper_examples import OPERATOR
from usage_cells import site_facts

from billing.tariff import Tariff
from reports.price_sheet import PriceSheet

RICH = """
kind: operator
id: telecentras
name: AB Pavyzdys
country: LT
currency: EUR
timezone: Europe/Vilnius
---
kind: tariff
id: vilnius
operator: telecentras
currency: EUR
valid_from: 2026-10-01
prices:
  - {models: ["qwen3-*"], regions: [LT-*], prompt_over: 128_000, input: 0.60, cached_input: 0.15, output: 2.40}
  - models: ["qwen3-*"]
    regions: [LT-*]
    input: 0.40
    cached_input: 0.10
    output: {graduated: [{up_to: 50_000_000, price: 1.60}, {up_to: 200_000_000, price: 1.40}, {price: 1.20}]}
    audio_seconds: 100.00
  - models: ["llama-*"]
    regions: [LT-VL]
    input: {volume: [{up_to: 10_000_000, price: 0.60}, {price: 0.50}]}
    output: {package: {size: 1_000_000, price: 2.00}}
  - {models: ["*"], input: 0.60, output: 2.075, requests: 5}
windows:
  - {name: night, days: [mon, tue, wed, thu, fri], hours: "22:00-06:00", factor: 0.5}
  - {name: weekend, days: [sat, sun, holiday], hours: "00:00-24:00", factor: 0.7}
  - name: spot
    hours: "10:00-16:00"
    series: {file: spot.csv, first: 2026-09-30T21:00:00Z, prices: [40, 41.5, 90]}
    steps: [{up_to: 40, factor: 0.6}, {up_to: 80.5, factor: 0.9}, {factor: 1.0}]
segments: {sme: 15%, research: 40%, private: 0%}
included: {input: 1_000_000, output: 200_000}
minimum: 5.00
"""


def tariff_of(text: str = RICH) -> Tariff:
    """The tariff that a site file declares."""
    [versions] = site_facts(text).tariffs.values()
    return versions[0]


def price_sheet(**changed: Any) -> PriceSheet:
    """The sheet of that tariff on 22 November 2026, before a version of 2027."""
    made: dict[str, Any] = {
        "operator": OPERATOR,
        "tariff": tariff_of(),
        "at": date(2026, 11, 22),
        "valid_until": date(2027, 1, 1),
        "regions": ("IT-RM", "LT-KL", "LT-VL"),
        "holidays": (date(2026, 12, 24), date(2026, 1, 1)),
    }
    return PriceSheet(**(made | changed))
