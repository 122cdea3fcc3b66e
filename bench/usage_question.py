"""A usage question: one customer, one month, by day and model, of a ledger that holds years of usage.

Demanded: p99 below 50 ms as `tally_app`, with 3,600 partitions and hourly usage that stands for a billion events. 30
operators, 60 months; the operator that is asked has 10,000 customers, and in its busiest month 2.7 M cells. Each
question is asked as command line and API ask it (`answers.usage`: the operator's zone, the customer's id, the totals)
and goes to a customer and month drawn anew.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from datetime import UTC, date, datetime
from pathlib import Path
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters import answers
from adapters.postgres.database import Database
from adapters.postgres.embedded import discard
from adapters.postgres.open import open_database
from bench.results import Measured
from billing.period import Period

EVENTS = 1_000_000_000
MONTHS = [Period(2021 + (11 + n) // 12, (11 + n) % 12 + 1) for n in range(60)]  # 2021-12 to 2026-11
BUSIEST = Period(2026, 10)
CUSTOMERS = 10_000
QUESTIONS = 1_000

# Cells come hour by hour, as roll-up writes them; of each hour, customers, nodes and models in no order.
_FILL = text("""
    INSERT INTO hourly_usage (operator, hour, customer, node, model, outcome, band, late, requests, prompt_tokens,
        cached_tokens, completion_tokens, reasoning_tokens, generated_tokens, generated_reasoning_tokens,
        audio_seconds, unwitnessed_requests)
    SELECT a.operator, date_trunc('hour', a.first + (g - 1) * (a.days * interval '1 day') / a.cells),
        lpad(to_hex(a.first_customer + floor(random() * a.customers)::bigint), 32, '0')::uuid,
        'node-' || floor(random() * 2), 'model-' || floor(random() * 20), 'finished', 0, false,
        a.events, a.events * 900, a.events * 300, a.events * 250, 0, a.events * 251, 0, 0, 0
    FROM (SELECT CAST(:operator AS text), CAST(:first AS timestamptz), CAST(:days AS integer), CAST(:cells AS integer),
            CAST(:first_customer AS bigint), CAST(:customers AS integer), CAST(:events AS bigint))
        AS a(operator, first, days, cells, first_customer, customers, events),
        generate_series(1, a.cells) AS g
""")
_DECLARED = text("""
    INSERT INTO site_document
    VALUES (:operator, 'operator', :operator, '-infinity', NULL, '{"timezone": "Europe/Vilnius"}', now())
""")


def measure(quick: bool) -> Measured:
    """Fills a database of its own, asks, and says how long the answers took."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            return asyncio.run(_measured(Path(scratch), quick))
        finally:
            discard(Path(scratch))


async def _measured(data: Path, quick: bool) -> Measured:
    operators = 3 if quick else 30
    months = MONTHS[-6:] if quick else MONTHS
    found = Measured()
    async with open_database(data, {}) as database:
        began = time.perf_counter()
        cells = 0
        for number in range(operators):
            cells += await _fill(database, number, months, quick)
        async with database.intake() as conn:
            partitions = await _count(
                conn, "SELECT count(*) FROM pg_class WHERE relispartition AND relkind = 'r'"
            )
        filled_s = time.perf_counter() - began
        times_ms = await _ask(database, months, 50 if quick else QUESTIONS)
    found.add("operators", operators)
    found.add("partitions", partitions, "", "3600")
    found.add("cells of hourly usage", cells)
    found.add("events that they stand for", cells * _events_per_cell(quick))
    found.add("filled in", filled_s, "s")
    found.add("questions", len(times_ms))
    found.add("p50", times_ms[len(times_ms) // 2], "ms")
    found.add("p99", times_ms[len(times_ms) * 99 // 100], "ms", "< 50")
    found.add("slowest", times_ms[-1], "ms")
    return found


def _cells(number: int, month: Period, quick: bool) -> int:
    if quick:
        return 2_000
    if number:
        return 5_700
    return 2_700_000 if month == BUSIEST else 150_000


def _events_per_cell(quick: bool) -> int:
    if quick:
        return 10
    total = sum(_cells(number, month, quick) for number in range(30) for month in MONTHS)
    return -(-EVENTS // total)


async def _fill(database: Database, number: int, months: list[Period], quick: bool) -> int:
    customers = CUSTOMERS if number == 0 and not quick else 300
    await declare(database, number, customers)
    cells = 0
    for month in months:
        wanted = _cells(number, month, quick)
        await fill_month(database, number, month, customers, wanted, _events_per_cell(quick))
        cells += wanted
    return cells


async def declare(database: Database, number: int, customers: int) -> str:
    """An operator with so many customers; returns its id."""
    operator = _operator(number)
    async with database.app(operator) as conn:
        await conn.execute(text("INSERT INTO operator VALUES (:operator)"), {"operator": operator})
        await conn.execute(_DECLARED, {"operator": operator})
        await conn.execute(
            text("INSERT INTO subject VALUES (:operator, :id, 'customer', :slug, NULL)"),
            [
                {"operator": operator, "id": UUID(int=number * 100_000 + n), "slug": _customer(number, n)}
                for n in range(customers)
            ],
        )
    return operator


async def fill_month(
    database: Database, number: int, month: Period, customers: int, cells: int, events: int
) -> None:
    """Hourly usage of a UTC month, of customers drawn at random; `events` a cell."""
    async with database.intake() as conn:
        await conn.execute(
            text("SELECT ensure_usage_partitions(:operator, :month)"),
            {"operator": _operator(number), "month": month.first_day},
        )
        filled = {
            "operator": _operator(number),
            "first_customer": number * 100_000,
            "first": _utc(month.first_day),
            "days": (month.next.first_day - month.first_day).days,
            "customers": customers,
            "cells": cells,
            "events": events,
        }
        await conn.execute(_FILL, filled)


async def _ask(database: Database, months: list[Period], questions: int) -> list[float]:
    chance = random.Random(1)
    customers = CUSTOMERS if len(months) == len(MONTHS) else 300
    times_ms = []
    for number in range(questions):
        month = BUSIEST if number % 4 == 0 else chance.choice(months)
        customer = _customer(0, chance.randrange(customers))
        began = time.perf_counter()
        answer = await answers.usage(database, _operator(0), answers.Span(month), ["day", "model"], customer)
        times_ms.append((time.perf_counter() - began) * 1_000)
        assert month != BUSIEST or answer["rows"], "a customer of the busiest month has usage in it"
    return sorted(times_ms)


async def _count(conn: AsyncConnection, query: str) -> int:
    found: int = (await conn.execute(text(query))).scalar_one()
    return found


def _operator(number: int) -> str:
    return f"operator-{number}"


def _customer(number: int, customer: int) -> str:
    return f"customer-{number}-{customer}"


def _utc(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
