"""How fast rating is under a tariff with everything in it: `python -m bench.rating [ROWS CUSTOMERS]`.

Drawn hourly usage, 500 rows a customer, who uses two models on any node, in no order, from 0.1 to 10 million rows: each
size in a process of its own, for the sake of its memory. Prints one JSON object a size: rows, customers, lines, seconds
(wall and CPU) of rating and of making every bill of it, rows_per_s, memory of the usage as read, and the most memory of
the whole process.

Demanded: a month of 10,000 customers, at least 5 million rows, in 12 s together with reading it out of PostgreSQL; cost
per row flat. What reading costs is measured by `bench.reading`.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from datetime import UTC, date, datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa

from bench.results import ROOT, Measured
from billing.bill import make_bill
from billing.facts import Facts
from billing.holiday import with_holidays
from billing.hourly import hour_number
from billing.period import Period
from billing.rating import rate
from billing.site import Customer, Node, Operator
from billing.tariff import (
    HOLIDAY,
    PROMPT_BANDS,
    WEEKDAYS,
    Contract,
    Fee,
    Graduated,
    Package,
    Plain,
    PriceRow,
    Series,
    Step,
    Tariff,
    Tier,
    Volume,
    Window,
)
from metering.event import QUANTITIES

MODELS = ["gemma-3", "llama-3", "qwen3-32b", "qwen3-8b", "whisper"]
NODES = [f"node-{number}" for number in range(8)]
OCTOBER = Period(2026, 10)
ROWS_A_CUSTOMER = 500
SIZES = (100_000, 1_000_000, 5_000_000, 10_000_000)
_FIRST_HOUR = hour_number(datetime(2026, 9, 30, 21, tzinfo=UTC))
_HOURS = 745
_SEGMENTS = (None, "sme", "research")


def facts(customers: list[str]) -> Facts:
    """One operator; a tariff that uses the whole language, with a second version in mid-month; a contract for every
    tenth customer; segments for two of three.
    """
    return with_holidays(
        Facts(
            operator=(Operator("op", "Operator", "LT", "EUR", "Europe/Vilnius", default_tariff="list"),),
            nodes={
                node: (Node(node, "op", "LT-VL" if place % 2 else "LT-KU"),)
                for place, node in enumerate(NODES)
            },
            customers={
                customer: (Customer(customer, "op", customer, "LT", segment=_SEGMENTS[place % 3]),)
                for place, customer in enumerate(customers)
            },
            tariffs={"list": (_tariff(None), _tariff(date(2026, 10, 15)))},
            contracts={
                customer: (_contract(customer, place // 10 % 28 + 1),)
                for place, customer in enumerate(customers)
                if place % 10 == 0
            },
        ),
        OCTOBER,
    )


def _price(text: str) -> Plain:
    return Plain(Decimal(text))


def _tiers(bound: int, *prices: str) -> tuple[Tier, ...]:
    *before, last = map(Decimal, prices)
    return (*(Tier(bound * number, price) for number, price in enumerate(before, 1)), Tier(None, last))


def _tariff(valid_from: date | None) -> Tariff:
    long = PriceRow(
        ("qwen*",),
        (),
        {"input": _price("0.80"), "output": Graduated(_tiers(500_000, "3.20", "2.40"))},
        False,
        128_000,
    )
    qwen = PriceRow(
        ("qwen*",),
        ("LT-*",),
        {
            "input": _price("0.40"),
            "cached_input": _price("0.10"),
            "output": Graduated(_tiers(1_000_000, "1.60", "1.40", "1.20")),
            "reasoning": _price("1.20"),
        },
    )
    gemma = PriceRow(
        ("gemma*",),
        (),
        {"input": Volume(_tiers(2_000_000, "0.60", "0.50")), "output": Package(1_000_000, Decimal(2))},
    )
    rest = PriceRow(("*",), (), {"input": _price("0.60"), "output": _price("1.10"), "requests": _price("50")})
    workdays = frozenset(WEEKDAYS[:5])
    spot = Series(_FIRST_HOUR, tuple(Decimal(place % 97) for place in range(_HOURS)), "spot.csv")
    return Tariff(
        "list",
        "op",
        "EUR",
        "Europe/Vilnius",
        (long, qwen, gemma, rest),
        valid_from=valid_from,
        windows=(
            Window("night", workdays, 22, 6, Decimal("0.5")),
            Window("weekend", frozenset({"sat", "sun", HOLIDAY}), 0, 24, Decimal("0.7")),
            Window(
                "spot",
                workdays,
                11,
                15,
                None,
                spot,
                (Step(Decimal(40), Decimal("0.6")), Step(None, Decimal("1.1"))),
            ),
        ),
        holidays="LT",
        segments={"sme": Decimal(15), "research": Decimal(40)},
        included={"input": 1_000_000, "output": 200_000},
        minimum=500,
    )


def _contract(customer: str, day: int) -> Contract:
    own = PriceRow(("qwen3-8b",), (), {"input": _price("0.30"), "output": _price("0.90")})
    return Contract(
        customer,
        "list",
        (own,),
        date(2026, 10, day),
        discount=Decimal(10),
        commitment=100_000,
        included={"output": 5_000_000},
        fees=(Fee("Reserved capacity", 50_000),),
    )


def usage(rows: int, customers: list[str]) -> pa.Table:
    """Random cells over a month."""
    chance = np.random.default_rng(1)

    def words(names: list[str], odds: list[float] | None = None) -> pa.Array:
        codes = pa.array(chance.choice(len(names), rows, p=odds).astype(np.int32))
        return pa.DictionaryArray.from_arrays(codes, pa.array(names))

    quantities = {name: np.zeros(rows, np.int64) for name in QUANTITIES}
    quantities["requests"] += 1
    quantities["prompt_tokens"] = chance.integers(0, 100_000, rows)
    quantities["cached_tokens"] = quantities["prompt_tokens"] // 3
    quantities["completion_tokens"] = chance.integers(0, 50_000, rows)
    quantities["reasoning_tokens"] = quantities["completion_tokens"] // 4
    customer = chance.integers(0, len(customers), rows).astype(np.int32)
    model = (customer + chance.integers(0, 2, rows)) % len(MODELS)
    hours = (_FIRST_HOUR + chance.integers(0, _HOURS, rows)) * 3_600_000_000
    return pa.table(
        {
            "hour": pa.array(hours).cast(pa.timestamp("us", "UTC")),
            "customer": pa.DictionaryArray.from_arrays(pa.array(customer), pa.array(customers)),
            "node": words(NODES),
            "model": pa.DictionaryArray.from_arrays(pa.array(model.astype(np.int32)), pa.array(MODELS)),
            "outcome": words(["aborted", "failed", "finished"], [0.04, 0.01, 0.95]),
            "band": chance.choice(np.array([0, *PROMPT_BANDS[:2]]), rows, p=[0.8, 0.15, 0.05]),
            "late": np.zeros(rows, np.bool_),
            **quantities,
        }
    )


def rated_once(rows: int, customers: int) -> dict[str, int | float]:
    """Rates drawn usage in this process, and makes every bill of it."""
    names = [f"customer-{number}" for number in range(customers)]
    table, declared = usage(rows, names), facts(names)
    read_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    began, cpu = time.perf_counter(), time.process_time()
    rated = rate(table, declared, OCTOBER)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    billed, cpu_billed = time.perf_counter(), time.process_time()
    for customer, lines in rated.lines.items():
        make_bill(customer, OCTOBER, "EUR", lines, declared, [])
    billed, cpu_billed = time.perf_counter() - billed, time.process_time() - cpu_billed
    return {
        "rows": rows,
        "customers": customers,
        "lines": sum(len(lines) for lines in rated.lines.values()),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "cpu_us_a_row": round(cpu / rows * 1e6, 3),
        "bills_seconds": round(billed, 2),
        "bills_cpu_seconds": round(cpu_billed, 2),
        "rows_per_s": round(rows / seconds),
        "usage_mib": table.nbytes >> 20,
        "before_mib": read_mib,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def measure(quick: bool) -> Measured:
    """Every size in a process of its own."""
    found = Measured()
    cost = {}
    for rows in (50_000,) if quick else SIZES:
        told = subprocess.run(
            [sys.executable, "-m", "bench.rating", str(rows), str(rows // ROWS_A_CUSTOMER)],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
        figures = json.loads(told.stdout)
        named = f"{rows / 1e6:g} M rows"
        both = figures["seconds"] + figures["bills_seconds"]
        cost[rows] = figures["cpu_us_a_row"]
        found.add(f"{named}: customers", figures["customers"])
        found.add(f"{named}: lines", figures["lines"])
        found.add(f"{named}: rating", figures["seconds"], "s")
        found.add(f"{named}: bills", figures["bills_seconds"], "s")
        found.add(f"{named}: both", both, "s", "≤ 12 with reading" if rows == 5_000_000 else "")
        found.add(f"{named}: CPU of rating", figures["cpu_seconds"], "s")
        found.add(f"{named}: CPU of bills", figures["bills_cpu_seconds"], "s")
        found.add(f"{named}: CPU of rating, a row", figures["cpu_us_a_row"], "µs")
        found.add(f"{named}: usage in memory", figures["usage_mib"], "MiB")
        found.add(f"{named}: most memory", figures["peak_mib"], "MiB")
    found.notes.append(
        "bills: every line made as an object, discounts and floors; what-if and totals need none of it"
    )
    found.add("CPU a row, most of all sizes over least", max(cost.values()) / min(cost.values()), "", "flat")
    return found


if __name__ == "__main__":
    rows, customers = (int(text) for text in sys.argv[1:3]) if len(sys.argv) > 2 else (5_000_000, 10_000)
    print(json.dumps(rated_once(rows, customers)))
