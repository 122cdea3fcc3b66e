"""What-if over a year: 10,000 customers, 20.1 M hourly rows, a tariff with windows beside one without.

Demanded: ≤ 25 s cold (usage out of PostgreSQL, prepared, kept and both sides rated), ≤ 1 s after that. Read are the
quantities that these tariffs can price, as in a command: here prompt, cached, completion, audio. The usage is made in a
database of its own and vacuumed by PostgreSQL before the clock starts, as past months are: each customer uses two
models on one of two nodes, in hours drawn at random. Warm is the second question, with another price: the side that
holds now was kept by the first. `facts` are in memory both times, as they are in a command once it has read them. CPU
seconds are of all threads; a busy machine hardly stretches them.
"""

from __future__ import annotations

import asyncio
import resource
import tempfile
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

from sqlalchemy import text

from adapters.postgres.database import Database
from adapters.postgres.embedded import discard
from adapters.postgres.open import open_database
from adapters.usage_cache import Prepared, prepared_usages
from adapters.what_if import simulated
from bench.results import Measured
from bench.usage_question import CUSTOMERS, declare
from billing.facts import Facts
from billing.meters import quantities_under
from billing.period import Period
from billing.site import Customer, Node, Operator
from billing.stored import StoredDocument
from billing.tariff import WEEKDAYS, Contract, Graduated, Plain, PriceRow, Tariff, Tier, Window
from billing.what_if_compared import Comparison, with_tariff

YEAR = [Period(2025, month) for month in range(1, 13)]
ROWS = 21_400_000
"""Drawn; some 6 % fall into an hour of a run that has a row already."""
_ZONE = ZoneInfo("Europe/Vilnius")

_FILL = text("""
    INSERT INTO hourly_usage (operator, hour, customer, node, model, outcome, band, late, requests, prompt_tokens,
        cached_tokens, completion_tokens, reasoning_tokens, generated_tokens, generated_reasoning_tokens,
        audio_seconds, unwitnessed_requests)
    SELECT :operator, CAST(:first AS timestamptz) + floor(g::double precision / :rows * :hours) * interval '1 hour',
        lpad(to_hex(c), 32, '0')::uuid, 'node-' || c % 2, 'model-' || (c + floor(random() * 2)::int) % 20,
        'finished', 0, false, 3, 900 + g % 7000, g % 900, 250 + g % 900, 0, 250 + g % 900, 0, 0, 0
    FROM generate_series(0, CAST(:rows AS integer) - 1) AS g,
        LATERAL (SELECT floor(random() * :customers)::int AS c, g AS of_g) AS drawn
""")

_NOT_VACUUMED = text("""
    SELECT count(*) FROM pg_stat_user_tables WHERE relname LIKE 'hourly_usage%' AND n_ins_since_vacuum > 100000
""")
_MOST_WAIT_S = 300


def measure(quick: bool) -> Measured:
    """Fills a database of its own, asks twice, and says how long the answers took."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            return asyncio.run(
                _measured(Path(scratch), 60_000 if quick else ROWS, 500 if quick else CUSTOMERS)
            )
        finally:
            discard(Path(scratch))


async def _measured(data: Path, rows: int, customers: int) -> Measured:
    found = Measured()
    async with open_database(data, {}) as database:
        operator = await declare(database, 0, customers)
        for period in YEAR:
            await _fill(database, operator, period, rows // len(YEAR), customers)
        if rows == ROWS:
            await _vacuumed(database)
        facts = _facts(operator, customers)
        began_kib = _peak_kib()
        began = time.perf_counter()
        then = with_tariff(facts, [_with_windows(facts, "0.5")])
        quantities = quantities_under(facts) | quantities_under(then)
        usage = await _prepared(database, operator, quantities, data / "cache")
        read_s = time.perf_counter() - began
        first_s, _, comparison = _asked(usage, facts, then)
        read_kib = _peak_kib()
    async with open_database(data, {}) as database:
        began = time.perf_counter()
        usage = await _prepared(database, operator, quantities, data / "cache")
        opened_s = time.perf_counter() - began
    asked = {
        "other windows": _with_windows(facts, "0.7"),
        "other prices": _dearer(facts),
        "graduated, 1 customer in 10 beyond its first tier": _graduated(facts),
        "included units, all used up by nearly everybody": _included(facts),
    }
    warm = {name: _asked(usage, facts, with_tariff(facts, [tariff])) for name, tariff in asked.items()}
    found.add("quantities that these tariffs can price", len(quantities))
    found.add("rows", sum(len(each.runs.hour) for each in usage.values()))
    found.add("runs", sum(len(each.runs.customer) for each in usage.values()))
    found.add("customers", len(comparison.customers))
    found.add("cold: read, prepared, kept", read_s, "s")
    found.add("cold, all", read_s + first_s, "s", "≤ 25")
    found.add("warm: cache opened", opened_s, "s")
    for name, (wall_s, cpu_s, _) in warm.items():
        found.add(f"warm, all, {name}", opened_s + wall_s, "s", "≤ 1")
        found.add(f"warm, CPU, {name}", cpu_s, "s")
    found.add("cache", sum(path.stat().st_size for path in (data / "cache").rglob("*.arrow")) / 2**20, "MiB")
    found.add("peak of the cold command", (read_kib - began_kib) / 1024, "MiB")
    return found


async def _fill(database: Database, operator: str, period: Period, rows: int, customers: int) -> None:
    start, end = period.bounds(_ZONE)
    async with database.intake() as conn:
        for month in {start.date().replace(day=1), end.date().replace(day=1)}:
            await conn.execute(
                text("SELECT ensure_usage_partitions(:operator, :month)"),
                {"operator": operator, "month": month},
            )
        hours = int((end - start).total_seconds()) // 3600
        asked = {"operator": operator, "first": start, "rows": rows, "hours": hours, "customers": customers}
        await conn.execute(_FILL, asked)


async def _vacuumed(database: Database) -> None:
    """Waits until PostgreSQL has vacuumed what was just put in, as it has a year's past months."""
    for _ in range(_MOST_WAIT_S):
        async with database.intake() as conn:
            if not (await conn.execute(_NOT_VACUUMED)).scalar_one():
                return
        await asyncio.sleep(1)


async def _prepared(
    database: Database, operator: str, quantities: Collection[str], cache: Path
) -> dict[Period, Prepared]:
    async with database.app(operator, snapshot=True) as connection:
        return await prepared_usages(connection, operator, YEAR, _ZONE, quantities, cache)


def _asked(usage: Mapping[Period, Prepared], now: Facts, then: Facts) -> tuple[float, float, Comparison]:
    """Seconds on the clock and of processors, and the answer."""
    began, began_cpu = time.perf_counter(), time.process_time()
    comparison = simulated(usage, now, then, {})
    return time.perf_counter() - began, time.process_time() - began_cpu, comparison


def _facts(operator: str, customers: int) -> Facts:
    """Three price rows, a discount for a segment, and a contract with each hundredth customer."""
    prices = {
        "input": Plain(Decimal("0.4")),
        "cached_input": Plain(Decimal("0.1")),
        "output": Plain(Decimal("1.6")),
    }
    rows = tuple(PriceRow(models, (), prices) for models in (("model-1*",), ("model-2", "model-3"), ("*",)))
    tariff = Tariff("prices", operator, "EUR", "Europe/Vilnius", rows, segments={"sme": Decimal(15)})
    named = [f"customer-0-{n}" for n in range(customers)]
    return Facts(
        operator=(
            Operator(
                id=operator,
                name="Bench",
                country="LT",
                currency="EUR",
                timezone="Europe/Vilnius",
                default_tariff="prices",
            ),
        ),
        nodes={f"node-{n}": (Node(f"node-{n}", operator, f"LT-{n}"),) for n in range(2)},
        customers={
            name: (
                Customer(
                    id=name, operator=operator, name=name, country="LT", segment="sme" if at % 3 else None
                ),
            )
            for at, name in enumerate(named)
        },
        tariffs={"prices": (tariff,)},
        contracts={
            name: (Contract(name, "prices", discount=Decimal(10), commitment=10_000),)
            for name in named[::100]
        },
        documents=tuple(_document(operator, "customer", name) for name in named)
        + tuple(_document(operator, "contract", name) for name in named[::100]),
    )


def _document(operator: str, kind: str, name: str) -> StoredDocument:
    """About as much text as a site file has of each; it is digested, not read."""
    address = {"street": "Bandymų g. 12", "city": "Kaunas", "postcode": "44240", "country": "LT"}
    body = {"name": name, "country": "LT", "vat_id": "LT999990010", "address": address, "language": "lt"}
    return StoredDocument(kind, name, operator, None, body)


def _with_windows(facts: Facts, factor: str) -> Tariff:
    nights = Window("night", frozenset(WEEKDAYS), 22, 6, Decimal(factor))
    weekend = Window("weekend", frozenset({"sat", "sun"}), 0, 24, Decimal("0.8"))
    return replace(facts.tariffs["prices"][0], windows=(nights, weekend))


def _dearer(facts: Facts) -> Tariff:
    [tariff] = facts.tariffs["prices"]
    first = replace(tariff.rows[0], prices={**tariff.rows[0].prices, "output": Plain(Decimal("1.7"))})
    return replace(tariff, rows=(first, *tariff.rows[1:]))


def _graduated(facts: Facts) -> Tariff:
    """A first tier that about one customer in ten leaves in a month."""
    [tariff] = facts.tariffs["prices"]
    tiers = Graduated((Tier(130_000, Decimal("1.6")), Tier(None, Decimal("1.2"))))
    rows = tuple(replace(row, prices={**row.prices, "output": tiers}) for row in tariff.rows)
    return replace(tariff, rows=rows)


def _included(facts: Facts) -> Tariff:
    """Free units that nearly each customer uses up within the month."""
    return replace(facts.tariffs["prices"][0], included={"input": 100_000, "output": 20_000})


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
