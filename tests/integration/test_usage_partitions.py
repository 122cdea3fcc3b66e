"""Partitions of usage are made on demand, by intake alone, once, whoever else asks for them at the same moment."""

from __future__ import annotations

import asyncio
import re

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from adapters.postgres.database import Database
from adapters.postgres.schema import operator as operators

pytestmark = pytest.mark.anyio


async def ensure(database: Database, operator: str, month: str) -> None:
    async with database.intake() as connection:
        await connection.execute(
            text("SELECT ensure_usage_partitions(:operator, CAST(CAST(:month AS text) AS date))"),
            {"operator": operator, "month": month},
        )


async def register(database: Database, *names: str) -> None:
    for name in names:
        async with database.app(name) as connection:
            await connection.execute(operators.insert().values(operator=name))


async def partitions(database: Database) -> dict[str, str]:
    async with database.intake() as connection:
        rows = await connection.execute(
            text(
                "SELECT relname, obj_description(oid, 'pg_class') FROM pg_class WHERE relispartition AND relkind <> 'i'"
            )
        )
        return {row[0]: row[1] for row in rows if not row[0].endswith("_idx")}


async def test_asking_twice_makes_them_once(database: Database) -> None:
    await register(database, "acme")
    await ensure(database, "acme", "2026-10-01")
    made = await partitions(database)
    assert sorted(made.values()) == ["Usage of acme"] * 2 + ["Usage of acme in 2026-10"] * 2
    await ensure(database, "acme", "2026-10-31")  # any day of the month
    assert await partitions(database) == made
    await ensure(database, "acme", "2026-09-01")
    assert len(await partitions(database)) == len(made) + 2


async def test_many_workers_at_once_make_them_once(database: Database) -> None:
    await register(database, "acme", "umbrella")
    wanted = [(name, f"2026-{month:02}-01") for name in ("acme", "umbrella") for month in (8, 9, 10)]
    await asyncio.gather(*(ensure(database, *each) for each in wanted * 4))
    assert len(await partitions(database)) == 2 * (2 + 2 * 3)


async def test_making_one_waits_for_nobody_who_writes_to_others(database: Database) -> None:
    await register(database, "acme", "umbrella")
    await ensure(database, "acme", "2026-10-01")
    async with database.intake() as connection:
        await connection.execute(
            text(
                "INSERT INTO partial_sum VALUES ('acme', '2026-10-05 08:00Z', 'n', 'm', 'finished', 0, false,"
                " ARRAY[gen_random_uuid()])"
            )
        )
        async with asyncio.timeout(5):
            await ensure(database, "acme", "2026-09-01")
            await ensure(database, "umbrella", "2026-10-01")


async def test_the_longest_and_the_oddest_ids_get_partitions_of_their_own(database: Database) -> None:
    names = ["a" * 63, "a" * 62 + "b", "a.b-c_d", "a-b.c_d", "0"]
    await register(database, *names)
    for name in names:
        await ensure(database, name, "2026-10-01")
    made = await partitions(database)
    assert len(made) == len(names) * 4
    assert max(len(name) for name in made) < 63


async def test_month_borders_are_utcs(database: Database) -> None:
    await register(database, "acme")
    await ensure(database, "acme", "2026-10-01")
    cell = (
        "INSERT INTO hourly_usage VALUES ('acme', '{}', gen_random_uuid(), NULL, NULL, 'n', 'm',"
        " 'finished', 0, false, 1, 1, 0, 1, 0, 1, 0, 0, 0)"
    )
    async with database.intake() as connection:
        await connection.execute(text(cell.format("2026-10-01 00:00:00+00")))
        await connection.execute(text(cell.format("2026-10-31 23:00:00+00")))
    for outside in ("2026-09-30 23:00:00+00", "2026-11-01 00:00:00+00"):
        with pytest.raises(DBAPIError, match="no partition"):
            async with database.intake() as connection:
                await connection.execute(text(cell.format(outside)))


@pytest.mark.parametrize(
    ("operator", "month", "why"),
    [
        ("nobody", "2026-10-01", "no such operator"),
        ("*", "2026-10-01", "no such operator"),
        ("acme", "2019-12-01", "no usage can be of"),
        ("acme", "2999-01-01", "no usage can be of"),
        ("'; DROP TABLE document; --", "2026-10-01", "no such operator"),
    ],
)
async def test_nobody_makes_partitions_of_nothing(
    database: Database, operator: str, month: str, why: str
) -> None:
    await register(database, "acme")
    with pytest.raises(DBAPIError, match=why):
        await ensure(database, operator, month)


async def test_the_application_cannot_make_any(database: Database) -> None:
    await register(database, "acme")
    with pytest.raises(DBAPIError, match="permission denied"):
        async with database.app("acme") as connection:
            await connection.execute(text("SELECT ensure_usage_partitions('acme', '2026-10-01')"))


async def test_a_query_opens_only_the_partitions_of_its_operator_and_months(database: Database) -> None:
    await register(database, "acme", "umbrella")
    for name in ("acme", "umbrella"):
        for month in (7, 8, 9, 10):
            await ensure(database, name, f"2026-{month:02}-01")
    async with database.app("acme") as connection:
        plan = await connection.execute(
            text(
                "EXPLAIN (FORMAT JSON) SELECT sum(requests) FROM usage_cell"
                " WHERE operator = 'acme' AND hour >= '2026-09-30 21:00Z' AND hour < '2026-10-31 22:00Z'"
            )
        )
        tables = set(re.findall(r"'Relation Name': '(\w+)'", str(plan.scalar_one())))
    assert len(tables) == 2 * 2
    assert {name[-6:] for name in tables} == {"202609", "202610"}
