"""Closing over the books in PostgreSQL gives what the books in memory give, and keeps its promises under
load.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from books_in_memory import BookInMemory, BooksInMemory
from sqlalchemy import insert, select, text
from usage_cells import site_documents, site_facts, usage_table

from adapters.postgres.books import PostgresBooks
from adapters.postgres.database import Database
from adapters.postgres.journal import trial_balance
from adapters.postgres.schema import hourly_usage, subject
from adapters.postgres.site import site_store
from adapters.site_files.apply import Applied, apply_site
from adapters.site_files.reading import read_files
from adapters.site_files.store import Subject
from billing import holiday
from billing.close import close_period, close_periods
from billing.correct import credit_invoice
from billing.document import ISSUED, Document, to_json
from billing.issue import issue_period
from billing.period import Period
from billing.ports import Books
from billing.run_settlement import run_settlement
from billing.settlement import settlement_json
from metering.refusal import Refusal

pytestmark = pytest.mark.anyio

OPERATOR = "telecentras"
OCTOBER = Period(2026, 10)
NOW = datetime(2026, 11, 2, 9, tzinfo=UTC)
VECTORS = Path(__file__).parent.parent / "vectors" / "rating"
SITE = (
    (VECTORS / "base.yaml").read_text()
    + """kind: tariff
id: vilnius
operator: telecentras
currency: EUR
prices:
  - models: ["*"]
    input: 400.00
    cached_input: 100.00
    output: {graduated: [{up_to: 5_000, price: 1600.00}, {price: 1200.00}]}
---
kind: party
id: embedded-llm
name: Embedded LLM
country: LT
---
kind: share
operator: telecentras
parties: [{party: embedded-llm, percent: 15%}]
"""
)


def customers_yaml(count: int) -> str:
    return "".join(
        f"---\nkind: customer\nid: c{number}\noperator: telecentras\nname: Customer {number}\ncountry: LT\n"
        for number in range(count)
    )


def event(customer: str, hours: int, prompt: int, completion: int = 0, **given: Any) -> dict[str, Any]:
    return {
        "time": datetime(2026, 10, 1, tzinfo=UTC) + timedelta(hours=hours),
        "customer": customer,
        "node": "vilnius-1",
        "model": "m",
        "prompt_tokens": prompt,
        "cached_tokens": prompt // 4,
        "completion_tokens": completion,
        **given,
    }


async def declare(database: Database, site: str) -> None:
    async with site_store(database) as store:
        await store.save(site_documents(site))


async def use(database: Database, events: Sequence[dict[str, Any]]) -> None:
    """Add the events to hourly usage, each as a cell (a test's hours are its own)."""
    async with database.app(OPERATOR) as connection:
        found = await connection.execute(select(subject.c.slug, subject.c.id))
        ids = {row.slug: row.id for row in found}
    rows = [
        {**row, "operator": OPERATOR, "customer": ids[row["customer"]], "project": None, "key": None}
        for row in usage_table(events).to_pylist()
    ]
    async with database.intake() as connection:
        await connection.execute(text(f"SELECT ensure_usage_partitions('{OPERATOR}', '2026-10-01')"))
        await connection.execute(insert(hourly_usage), rows)


async def documents(books: Books) -> list[Document]:
    async with books.read(OPERATOR) as book:
        return list(await book.documents(period=OCTOBER))


async def test_a_period_through_all_its_corrections_is_the_same_in_postgres_as_in_memory(
    database: Database,
) -> None:
    first = [event("acme", hour, 1000 + hour, 700) for hour in range(20)]
    first += [event("beta", hour, 30, 2, outcome="failed") for hour in range(3)]
    late = [event("acme", 300, 5000, 10), event("beta", 301, 100_000)]
    await declare(database, SITE)
    await use(database, first)
    real, twin = PostgresBooks(database, lambda: NOW), BookInMemory(site_facts(SITE), usage_table(first))
    memory = BooksInMemory({OPERATOR: twin})

    async def both(step: Any) -> None:
        assert await step(real) == await step(memory)
        assert [to_json(each) for each in await documents(real)] == [
            to_json(each) for each in sorted(await documents(memory), key=lambda each: each.id)
        ]

    await both(lambda books: close_period(books, OPERATOR, OCTOBER, NOW))
    await both(lambda books: issue_period(books, OPERATOR, OCTOBER, NOW))
    await both(lambda books: close_period(books, OPERATOR, OCTOBER, NOW, issue=True))
    await use(database, late)
    memory.books[OPERATOR].rows = usage_table(first + late)
    await both(lambda books: close_period(books, OPERATOR, OCTOBER, NOW, issue=True))
    for net, reissue in ((150, False), (None, True)):
        await both(
            lambda books, net=net, reissue=reissue: credit_invoice(
                books,
                OPERATOR,
                "acme.2026-10.1" if net else "beta.2026-10.1",
                NOW,
                net=net,
                reissue=reissue,
                reason="Goodwill",
                by="finance",
                issue=True,
            )
        )
    await both(lambda books: close_period(books, OPERATOR, OCTOBER, NOW, issue=True))

    async def settled(books: Books) -> Any:
        settlement = await run_settlement(books, OPERATOR, OCTOBER, NOW)
        return settlement and settlement_json(settlement)

    await both(settled)
    await both(settled)

    issued = [each for each in await documents(real) if each.state == ISSUED]
    async with database.app(OPERATOR) as connection:
        accounts, balanced = await trial_balance(connection, OPERATOR)
    assert balanced
    balances = {each.account: each.balance for each in accounts}
    assert balances["receivable"] == sum(each.sign * each.gross for each in issued)
    assert balances["revenue"] == -sum(each.sign * each.net for each in issued)
    assert balances["share_expense"] == -balances["payable"]


async def test_of_two_closes_at_once_the_second_waits_and_finds_nothing_to_do(database: Database) -> None:
    await declare(database, SITE)
    await use(database, [event("acme", 1, 100_000), event("beta", 1, 100_000)])
    books = PostgresBooks(database)
    rows = await asyncio.gather(*(close_period(books, OPERATOR, OCTOBER, NOW, issue=True) for _ in range(2)))
    assert sorted(len(row["issued"]) for row in rows) == [0, 2]
    assert sorted(str(each.number) for each in await documents(books)) == [
        "INV-2026-000001",
        "INV-2026-000002",
    ]


async def test_thirty_operators_are_closed_at_once_without_waiting_for_connections(
    database: Database,
) -> None:
    operators = [f"operator-{number}" for number in range(30)]
    for id_ in operators:
        operator = (
            f"kind: operator\nid: {id_}\nname: {id_}\ncountry: LT\ncurrency: EUR\ntimezone: Europe/Vilnius\n"
        )
        await declare(database, operator)
    began = time.monotonic()
    rows = await close_periods(PostgresBooks(database), operators, OCTOBER, NOW, issue=True)
    assert time.monotonic() - began < 15
    assert len(rows) == 30


async def test_710_customers_are_closed_and_issued(database: Database) -> None:
    site = SITE + customers_yaml(710)
    await declare(database, site)
    usage = [
        event(f"c{number}", hour, 10_000, 3_000, model=model)
        for number in range(710)
        for hour in range(3)
        for model in ("a", "b", "c")
    ]
    await use(database, usage)
    books = PostgresBooks(database)
    row = await close_period(books, OPERATOR, OCTOBER, NOW, issue=True)
    assert len(row["issued"]) == 710
    lines = [line.line for each in await documents(books) for line in each.lines]
    assert sum(line.tokens for line in lines) == sum(
        each["prompt_tokens"] + each["completion_tokens"] for each in usage
    )


async def test_the_holidays_that_a_close_fixed_are_kept_in_postgres_and_win_over_a_calendar_that_changed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = SITE.replace("prices:", "windows: [{name: holidays, days: [holiday], factor: 0.5}]\nprices:", 1)
    await declare(database, site)
    await use(database, [event("acme", 12, 100_000)])
    books = PostgresBooks(database, lambda: NOW)

    def calendar(day: date) -> Callable[[str, int], frozenset[date]]:
        return lambda _name, _year: frozenset([day])

    monkeypatch.setattr(holiday, "calendar_days", calendar(date(2026, 10, 1)))
    first = await close_period(books, OPERATOR, OCTOBER, NOW, issue=True)
    monkeypatch.setattr(holiday, "calendar_days", calendar(date(2026, 10, 2)))
    second = await close_period(books, OPERATOR, OCTOBER, NOW, issue=True)

    # 75,000 × 0.20 and 25,000 × 0.05, each per 1,000 tokens
    assert [each["net"] for each in first["issued"]] == ["16.25"]
    assert second["issued"] == []
    async with books.read(OPERATOR) as book:
        kept = await book.last_close(OCTOBER)
    assert kept is not None
    assert (kept.number, kept.holidays) == (2, {"LT": ["2026-10-01"]})
    assert set(kept.facts["versions"]) >= {"tariff vilnius", "customer acme", "operator telecentras"}


async def test_a_contract_is_held_fast_by_its_commitment_although_no_line_names_it(
    database: Database,
) -> None:
    await declare(
        database, SITE + "---\n{kind: contract, customer: beta, tariff: vilnius, commitment: 40.00}\n"
    )
    row = await close_period(PostgresBooks(database, lambda: NOW), OPERATOR, OCTOBER, NOW, issue=True)
    assert [(each["customer"], each["net"]) for each in row["issued"]] == [("beta", "40.00")]
    async with site_store(database) as store:
        issued = await store.issued([OPERATOR])
    assert issued[Subject(OPERATOR, "contract", "beta")].first == date(2026, 10, 1)


ONLY_IN_THE_MINIMUM = """---
kind: tariff
id: {id}
operator: telecentras
currency: EUR
minimum: {minimum}
prices: [{{models: ["*"], input: 400.00, output: 1600.00}}]
"""


async def applied(database: Database, site: str) -> Applied:
    async with site_store(database) as store:
        return await apply_site(store, read_files(["-"], site.encode), NOW)


async def test_what_a_bill_rests_on_without_a_line_of_it_is_held_fast_too(database: Database) -> None:
    operator, rest = SITE.split("---", 1)
    from_the_16th = operator.replace(
        "default_tariff: vilnius", "default_tariff: later\nvalid_from: 2026-10-16"
    )
    later, trial = (ONLY_IN_THE_MINIMUM.format(id=name, minimum="10.00") for name in ("later", "trial"))
    contract = """---
kind: contract
customer: beta
tariff: vilnius
valid_from: 2026-10-31
included: {input: 2_000_000}
commitment: 1.00
"""
    await applied(database, f"{operator}---{rest}---\n{from_the_16th}{later}{trial}{contract}")
    await use(database, [event("acme", 100, 100), event("beta", 100, 1000)])
    row = await close_period(PostgresBooks(database, lambda: NOW), OPERATOR, OCTOBER, NOW, issue=True)
    assert [(each["customer"], each["net"]) for each in row["issued"]] == [("acme", "5.16"), ("beta", "4.87")]

    for changed, held in (
        (
            ONLY_IN_THE_MINIMUM.format(id="later", minimum="99.00") + "valid_from: 2026-10-01\n",
            "tariff/later",
        ),
        (contract.replace("1.00", "900.00"), "contract/beta@2026-10-31"),
    ):
        with pytest.raises(Refusal) as refused:
            await applied(database, changed)
        assert refused.value.faults[0].what == f"{held} was used by issued documents and can't be changed"
    corrected = contract.replace("valid_from: ", "supersedes: ").replace("1.00", "900.00")
    said = await applied(database, corrected + "reason: it was agreed so\n")
    assert [str(each.period) for each in said.re_rates] == ["2026-10"]
    tried = ONLY_IN_THE_MINIMUM.format(id="trial", minimum="99.00") + "valid_from: 2026-10-01\n"
    assert (await applied(database, tried)).created == ("tariff/trial@2026-10-01",), "nobody was ever on it"
