"""How fast rating is: `python -m bench.rating [ROWS CUSTOMERS]`, random hourly usage under graduated prices.

Prints one JSON object: rows, customers, lines, seconds (wall), rows_per_s, peak_mib (of the whole process).
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from datetime import date
from decimal import Decimal

import numpy as np
import pyarrow as pa

from bench.results import ROOT, Measured
from billing.facts import Facts
from billing.period import Period
from billing.rating import rate
from billing.site import Node, Operator
from billing.tariff import Contract, Graduated, Plain, PriceRow, Tariff, Tier
from metering.event import QUANTITIES

MODELS = ["gemma-3", "llama-3", "qwen3-32b", "qwen3-8b", "whisper"]
NODES = [f"node-{number}" for number in range(8)]
OCTOBER = Period(2026, 10)
_FIRST_HOUR_US = 1_790_802_000_000_000  # 2026-09-30T21:00Z


def facts(customers: list[str]) -> Facts:
    """One operator, a tariff with a second version in mid-month, a contract for every tenth customer."""
    tiers = (Tier(50_000_000, Decimal("1.60")), Tier(None, Decimal("1.20")))
    qwen = PriceRow(
        ("qwen*",),
        (),
        {"input": Plain(Decimal("0.40")), "cached_input": Plain(Decimal("0.10")), "output": Graduated(tiers)},
    )
    rest = PriceRow(("*",), (), {"input": Plain(Decimal("0.60")), "output": Plain(Decimal("1.10"))})
    own = PriceRow(("qwen3-8b",), (), {"input": Plain(Decimal("0.30")), "output": Plain(Decimal("0.90"))})
    tariffs = [
        Tariff("list", "op", "EUR", "Europe/Vilnius", (qwen, rest), valid_from=begin)
        for begin in (None, date(2026, 10, 15))
    ]
    return Facts(
        operator=(Operator("op", "Operator", "LT", "EUR", "Europe/Vilnius", default_tariff="list"),),
        nodes={node: (Node(node, "op", "LT-VL"),) for node in NODES},
        tariffs={"list": tuple(tariffs)},
        contracts={
            customer: (Contract(customer, "list", (own,), date(2026, 10, number // 10 % 28 + 1)),)
            for number, customer in enumerate(customers)
            if number % 10 == 0
        },
    )


def usage(rows: int, customers: list[str]) -> pa.Table:
    """Random cells over a month."""
    chance = np.random.default_rng(1)

    def words(names: list[str]) -> pa.Array:
        codes = pa.array(chance.integers(0, len(names), rows), pa.int32())
        return pa.DictionaryArray.from_arrays(codes, pa.array(names))

    quantities = {name: np.zeros(rows, np.int64) for name in QUANTITIES}
    quantities["requests"] += 1
    quantities["prompt_tokens"] = chance.integers(0, 100_000, rows)
    quantities["cached_tokens"] = quantities["prompt_tokens"] // 3
    quantities["completion_tokens"] = chance.integers(0, 50_000, rows)
    hours = _FIRST_HOUR_US + chance.integers(0, 745, rows) * 3_600_000_000
    return pa.table(
        {
            "hour": pa.array(hours).cast(pa.timestamp("us", "UTC")),
            "customer": words(customers),
            "node": words(NODES),
            "model": words(MODELS),
            "outcome": words(["aborted", "failed", "finished"]),
            "band": np.zeros(rows, np.int64),
            "late": np.zeros(rows, np.bool_),
            **quantities,
        }
    )


def rated_once(rows: int, customers: int) -> dict[str, int | float]:
    """Rates drawn usage in this process."""
    names = [f"customer-{number}" for number in range(customers)]
    table, declared = usage(rows, names), facts(names)
    began = time.perf_counter()
    rated = rate(table, declared, OCTOBER)
    seconds = time.perf_counter() - began
    return {
        "rows": rows,
        "customers": customers,
        "lines": sum(len(lines) for lines in rated.lines.values()),
        "seconds": round(seconds, 2),
        "rows_per_s": round(rows / seconds),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def measure(quick: bool) -> Measured:
    """Five million hours of usage of 10,000 customers, in a process of its own for the sake of its memory."""
    sizes = ("50000", "100") if quick else ()
    told = subprocess.run(
        [sys.executable, "-m", "bench.rating", *sizes], capture_output=True, text=True, check=True, cwd=ROOT
    )
    figures = json.loads(told.stdout)
    units = {"seconds": "s", "rows_per_s": "/s", "peak_mib": "MiB"}
    found = Measured()
    for name, value in figures.items():
        found.add(name, value, units.get(name, ""))
    return found


if __name__ == "__main__":
    rows, customers = (int(text) for text in sys.argv[1:3]) if len(sys.argv) > 2 else (5_000_000, 10_000)
    print(json.dumps(rated_once(rows, customers)))
