"""A site whose tariff has everything in it, for as many customers as a trace has: what real traces are priced by.

The tariff changes inside the month (2026-10-26, then in Rome's time and by generated tokens); customers have every segment
in turn, and four of ten have a contract, each of another kind. `text` is one site file, as `tally apply` and the slow
bill (tests/reference/plain_bill.py) both read it.
"""

from __future__ import annotations

from collections.abc import Iterable

_SEGMENTS = ("enterprise", "sme", "startup", "research", "public", "private")
_PRICES = """prices:
  - {models: [claude-*], regions: [EE-*], input: 1000, output: 1000}
  - models: [claude-opus-*]
    prompt_over: 200_000
    regions: [LT-*]
    input: {graduated: [{up_to: 1_000_000, price: 30.00}, {up_to: 9_999_999, price: 27.50}, {price: 22.123456}]}
    cached_input: 3.00
    output: 112.50
  - models: [claude-opus-*]
    input: {volume: [{up_to: 300_000, price: 15.00}, {up_to: 3_000_000, price: 13.37}, {price: 11.00}]}
    cached_input: {graduated: [{up_to: 5_000_000, price: 1.50}, {price: 1.1}]}
    output: {graduated: [{up_to: 20_000, price: 75.00}, {up_to: 100_000, price: 70.7}, {price: 60}]}
    requests: 1_234.5
  - {models: [claude-sonnet-*], prompt_over: 128_000, input: 6.00, output: 22.50}
  - models: [claude-sonnet-*]
    input: 3.00
    cached_input: {volume: [{up_to: 2_000_000, price: 0.30}, {price: 0.25}]}
    output: {package: {size: 10_000, price: 0.20}}
    requests: {package: {size: 100, price: 0.05}}
  - {models: [claude-haiku-*], input: {package: {size: 250_000, price: 0.30}}, cached_input: 0.1, output: 5.00}
  - models: [reason*]
    prompt_over: 32_000
    input: 1.50
    output: 9
    reasoning: 7.77
  - models: [reasoner]
    input: {volume: [{up_to: 50_000_000, price: 0.60}, {price: 0.55}]}
    output: {graduated: [{up_to: 1_000_000, price: 2.40}, {up_to: 10_000_000, price: 2.22}, {price: 2.1}]}
    reasoning: {graduated: [{up_to: 7_654_321, price: 1.9}, {price: 1.8}]}
    requests: {graduated: [{up_to: 1_000, price: 90}, {price: 45}]}
"""
#: Of two days; the second has an hour more in the night.
_SPOT = ", ".join(4 * ["41.2", "40", "-5.5", "0", "39.99", "12", "77", "40.01"])
_TARIFFS = """kind: operator
id: telecentras
name: AB Pavyzdys
country: LT
vat_id: LT100001234510
currency: EUR
timezone: Europe/Vilnius
default_tariff: everything
---
kind: node
id: vilnius-1
operator: telecentras
region: LT-VL
---
kind: tariff
id: everything
operator: telecentras
currency: EUR
PRICES
windows:
  - name: spot
    days: [sat, sun]
    hours: "10:00-17:00"
    series: {file: spot.csv, first: 2026-10-24T07:00:00Z, prices: [SPOT]}
    steps: [{up_to: 0, factor: 0.1}, {up_to: 40, factor: 0.333}, {factor: 1.25}]
  - {name: small-hours, days: [sun], hours: "02:00-05:00", factor: 0.25}
  - {name: night, days: [wed, thu, fri, sat, sun], hours: "22:00-06:00", factor: 0.5}
  - {name: weekend, days: [sat, sun, holiday], factor: 0.7}
segments: {enterprise: 5%, sme: 15%, startup: 33.33%, research: 40%}
included: {input: 50_000, output: 1_000, cached_input: 10_000, reasoning: 500, requests: 3}
minimum: 2.50
---
kind: tariff
id: everything
operator: telecentras
currency: EUR
valid_from: 2026-10-26
timezone: Europe/Rome
holidays: IT
bill_output: generated
PRICES
windows:
  - {name: late, hours: "23:00-07:00", factor: 0.45}
  - {name: peak, days: [mon, tue, wed, thu, fri], hours: "09:00-18:00", factor: 1.2}
segments: {sme: 12.5%, research: 50%, public: 10%}
included: {input: 60_000, output: 2_000, reasoning: 1_000}
minimum: 3.33
---
kind: tariff
id: campus
operator: telecentras
currency: EUR
bill_outcomes: [finished]
prices:
  - {models: ["*"], input: 1.00, cached_input: 0.10, output: {volume: [{up_to: 30_000, price: 9.99}, {price: 8.88}]}}
windows: [{name: day, hours: "08:00-20:00", factor: 0.9}]
segments: {research: 25%, private: 1%}
included: {input: 1}
""".replace("PRICES\n", _PRICES).replace("SPOT", _SPOT)
_CONTRACTS = {
    0: """tariff: everything
prices:
  - models: ["claude-opus-*", reasoner]
    only: true
    input: {graduated: [{up_to: 100_000, price: 14}, {price: 10}]}
    output: 60.6
discount: 7.5%
""",
    1: """tariff: everything
commitment: 50.00
fees: [{name: Support, amount: 12.34}, {name: Reserved capacity, amount: 0.99, every: month}]
""",
    2: """tariff: campus
discount: 3%
included: {input: 1_000_000, cached_input: 2_000_000}
commitment: 0
""",
    3: """tariff: everything
valid_from: 2026-10-25
discount: 10%
fees: [{name: Setup, amount: 25.00, every: once}, {name: Support, amount: 12.34}]
""",
}


def text(customers: Iterable[str]) -> str:
    """The site file; customers get their segments and contracts in the order of their names."""
    documents = [_TARIFFS]
    for place, customer in enumerate(sorted(customers)):
        segment = _SEGMENTS[place % len(_SEGMENTS)]
        documents.append(
            f"kind: customer\nid: {customer}\noperator: telecentras\nname: {customer}\ncountry: LT\nsegment: {segment}\n"
        )
        if place % 10 in _CONTRACTS:
            documents.append(f"kind: contract\ncustomer: {customer}\n{_CONTRACTS[place % 10]}")
    return "---\n".join(documents)
