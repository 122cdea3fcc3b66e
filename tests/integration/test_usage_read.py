"""Usage read back: as columns for rating, as totals by what a user asks for."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from sqlalchemy import insert, select, text

from adapters.postgres.database import Database
from adapters.postgres.schema import hourly_usage, partial_sum, site_document, subject, usage_cell
from adapters.postgres.schema import operator as operators
from adapters.postgres.usage import usage_table
from adapters.postgres.usage_totals import BY, FIGURES, total, usage_totals
from billing.hourly import read_hourly
from metering.event import QUANTITIES

pytestmark = pytest.mark.anyio

VILNIUS = ZoneInfo("Europe/Vilnius")
ACME, BETA, PROJECT, KEY, ERASED = (UUID(int=number) for number in range(1, 6))
OCTOBER = (datetime(2026, 9, 30, 21, tzinfo=UTC), datetime(2026, 10, 31, 22, tzinfo=UTC))


def cell(hour: datetime, customer: UUID = ACME, **other: Any) -> dict[str, Any]:
    """A cell of one request: 100 prompt tokens, 40 of them cached; 20 completion tokens, 5 of them reasoning."""
    amounts = dict(zip(QUANTITIES, (1, 100, 40, 20, 5, 22, 6, 0, 0), strict=True))
    return {
        "operator": "telecentras",
        "hour": hour,
        "customer": customer,
        "project": None,
        "key": None,
        "node": "vilnius-1",
        "model": "qwen3-32b",
        "outcome": "finished",
        "band": 0,
        "late": False,
        **amounts,
        **other,
    }


async def fill(
    database: Database, rolled: Sequence[Mapping[str, Any]], partial: Sequence[Mapping[str, Any]] = ()
) -> None:
    async with database.app("telecentras") as connection:
        await connection.execute(operators.insert().values(operator="telecentras"))
        for id_, kind, slug, parent in (
            (ACME, "customer", "acme", None),
            (BETA, "customer", "beta", None),
            (PROJECT, "project", "search", ACME),
            (KEY, "key", "laptop", ACME),
        ):
            row = {"operator": "telecentras", "id": id_, "kind": kind, "slug": slug, "parent": parent}
            await connection.execute(subject.insert().values(row))
        for node, valid_from, region in (
            ("vilnius-1", date.min, "LT-VL"),
            ("vilnius-2", date.min, "LT-VL"),
            ("vilnius-2", date(2026, 10, 15), "LT-KU"),
        ):
            await connection.execute(
                site_document.insert().values(
                    operator="telecentras",
                    kind="node",
                    id=node,
                    valid_from=valid_from,
                    body={"region": region},
                    applied_at=datetime.now(UTC),
                )
            )
    async with database.intake() as connection:
        for month in ("2026-09-01", "2026-10-01", "2026-11-01"):
            await connection.execute(text(f"SELECT ensure_usage_partitions('telecentras', '{month}')"))
        if rolled:
            await connection.execute(insert(hourly_usage), rolled)
        if partial:
            arrays = ("customer", "project", "key", *QUANTITIES)
            await connection.execute(
                insert(partial_sum), [{**row, **{name: [row[name]] for name in arrays}} for row in partial]
            )


async def ask(
    database: Database, *by: str, span: tuple[datetime, datetime] = OCTOBER
) -> list[dict[str, Any]]:
    async with database.app("telecentras") as connection:
        return await usage_totals(connection, "telecentras", *span, by, VILNIUS)


async def test_totals_go_on_beyond_64_bits(database: Database) -> None:
    hour = datetime(2026, 10, 5, 8, tzinfo=UTC)
    await fill(database, [], [cell(hour, prompt_tokens=10**18)] * 10)
    [row] = await ask(database, "customer")
    assert row["prompt_tokens"] == 10**19
    assert total([row])["prompt_tokens"] == 10**19


async def test_rating_gets_rolled_up_and_partial_usage_with_names_for_ids(database: Database) -> None:
    hour = datetime(2026, 10, 5, 8, tzinfo=UTC)
    odd = 'a "model",\nwith everything'
    await fill(
        database,
        [cell(hour, project=PROJECT, key=KEY), cell(hour, BETA, model=odd, outcome="aborted", band=32_000)],
        [cell(hour + timedelta(hours=1), late=True), cell(hour, ERASED, prompt_tokens=-100, model="NULL")],
    )
    async with database.app("telecentras") as connection:
        table = await usage_table(connection, "telecentras", *OCTOBER)
    assert table.schema.field("hour").type == pa.timestamp("us", "UTC")
    assert {name for name in table.column_names if pa.types.is_dictionary(table.schema.field(name).type)} == {
        *("customer", "node", "model", "outcome")
    }
    rows = sorted(table.to_pylist(), key=lambda row: (row["hour"], row["customer"]))
    assert [(row["customer"], row["model"], row["outcome"], row["band"], row["late"]) for row in rows] == [
        (str(ERASED), "NULL", "finished", 0, False),
        ("acme", "qwen3-32b", "finished", 0, False),
        ("beta", odd, "aborted", 32_000, False),
        ("acme", "qwen3-32b", "finished", 0, True),
    ]
    assert rows[0]["prompt_tokens"] == -100
    assert rows[0]["hour"] == hour
    hourly, late = read_hourly(table, *OCTOBER)
    assert hourly.customers == (str(ERASED), "acme", "beta")
    assert late["prompt_tokens"] == 100


async def test_no_usage_is_an_empty_table_of_the_same_columns(database: Database) -> None:
    await fill(database, [])
    async with database.app("telecentras") as connection:
        table = await usage_table(connection, "telecentras", *OCTOBER)
    assert table.num_rows == 0
    assert read_hourly(table, *OCTOBER)[0].customers == ()


async def test_one_customers_usage_is_read_alone_wherever_it_is_kept(database: Database) -> None:
    hour = datetime(2026, 10, 5, 8, tzinfo=UTC)
    await fill(database, [cell(hour), cell(hour, BETA)], [cell(hour), cell(hour, BETA)])
    async with database.app("telecentras") as connection:
        own = await usage_table(connection, "telecentras", *OCTOBER, "acme")
        nobodys = await usage_table(connection, "telecentras", *OCTOBER, "nobody")
    assert own["customer"].to_pylist() == ["acme", "acme"]
    assert (nobodys.num_rows, nobodys.schema) == (0, own.schema)


async def test_the_range_is_half_open(database: Database) -> None:
    start, end = OCTOBER
    before, first, last = start - timedelta(hours=1), start, end - timedelta(hours=1)
    await fill(database, [cell(hour) for hour in (before, first, last, end)])
    assert [row["requests"] for row in await ask(database)] == [2]
    async with database.app("telecentras") as connection:
        table = await usage_table(connection, "telecentras", start, end)
    assert sorted(table["hour"].to_pylist()) == [first, last]


async def test_totals_have_contract_keys_and_count_aborted_requests(database: Database) -> None:
    hour = datetime(2026, 10, 5, 8, tzinfo=UTC)
    await fill(database, [cell(hour), cell(hour, outcome="aborted", requests=3)], [cell(hour, BETA)])
    rows = await ask(database, "customer")
    assert [list(row) for row in rows] == [["customer", *FIGURES]] * 2
    assert [(row["customer"], row["requests"], row["aborted"]) for row in rows] == [
        ("acme", 4, 3),
        ("beta", 1, 0),
    ]
    assert total(rows) == dict(zip(FIGURES, (5, 3, 300, 120, 60, 15, 66, 0, 0), strict=True))
    assert await ask(database) == [total(rows)]


async def test_without_usage_there_are_no_rows(database: Database) -> None:
    await fill(database, [])
    assert await ask(database) == []
    assert total([]) == dict.fromkeys(FIGURES, 0)


async def test_a_night_in_october_has_two_hours_of_one_name(database: Database) -> None:
    first = datetime(2026, 10, 25, 0, tzinfo=UTC)  # 03:00 summer time; an hour later it is 03:00 again
    await fill(database, [cell(first), cell(first + timedelta(hours=1))])
    assert [row["hour"] for row in await ask(database, "hour")] == [
        "2026-10-25T03:00:00+03:00",
        "2026-10-25T03:00:00+02:00",
    ]
    assert [(row["day"], row["requests"]) for row in await ask(database, "day")] == [
        ("2026-10-25T00:00:00+03:00", 2)
    ]


async def test_days_and_months_are_the_operators(database: Database) -> None:
    hours = [datetime(2026, 9, 30, 20, tzinfo=UTC), OCTOBER[0], datetime(2026, 10, 25, 22, tzinfo=UTC)]
    await fill(database, [cell(hour) for hour in hours])
    span = (datetime(2026, 9, 15, 6, tzinfo=UTC), OCTOBER[1])
    rows = await ask(database, "month", "day", span=span)
    assert [(row["month"], row["day"]) for row in rows] == [
        ("2026-09", "2026-09-30T00:00:00+03:00"),
        ("2026-10", "2026-10-01T00:00:00+03:00"),
        ("2026-10", "2026-10-26T00:00:00+02:00"),
    ]


async def test_a_node_that_moved_counts_for_the_region_of_the_day(database: Database) -> None:
    last_in_vilnius = datetime(2026, 10, 14, 20, tzinfo=UTC)
    await fill(
        database,
        [
            cell(last_in_vilnius, node="vilnius-2"),
            cell(last_in_vilnius + timedelta(hours=1), node="vilnius-2"),
            cell(OCTOBER[0], node="vilnius-1"),
            cell(OCTOBER[0], node="undeclared"),
        ],
    )
    assert [(row["region"], row["requests"]) for row in await ask(database, "region")] == [
        (None, 1),
        ("LT-KU", 1),
        ("LT-VL", 2),
    ]


async def test_every_way_to_group_sums_to_the_same_total(database: Database) -> None:
    hours = [OCTOBER[0] + timedelta(hours=7 * number) for number in range(100)]
    await fill(
        database,
        [cell(hour, BETA if hour.day % 2 else ACME, band=32_000 if hour.day % 3 else 0) for hour in hours],
        [cell(hour, project=PROJECT, key=KEY, node="vilnius-2") for hour in hours[::5]],
    )
    (everything,) = await ask(database)
    assert everything["requests"] == 120
    for word in BY:
        assert total(await ask(database, word)) == everything, word
    assert total(await ask(database, *BY)) == everything
    keyed = {(row["project"], row["key"]) for row in await ask(database, "project", "key")}
    assert keyed == {(None, None), ("search", "laptop")}


async def test_rating_gets_the_cells_that_a_plain_select_gives(database: Database) -> None:
    chance = random.Random(6)
    words = ["qwen3-32b", 'a "model",\nwith everything', "\x10é", "", "vilnius-1", "14"]
    like_a_row = UUID(bytes=b"\x00\x10\x00\x00\x00\x10" + bytes(10))

    def some() -> dict[str, Any]:
        return cell(
            OCTOBER[0] + timedelta(hours=chance.randrange(700)),
            chance.choice([ACME, BETA, ERASED, like_a_row]),
            node=chance.choice(words),
            model=chance.choice(words),
            outcome=chance.choice(["finished", "failed"]),
            band=chance.choice([0, 32_000, 1_000_000]),
            late=chance.random() < 0.3,
            prompt_tokens=chance.choice([-(2**63), 2**63 - 1, 0x0010_0000_0010, chance.randrange(10**6)]),
            project=chance.choice([None, PROJECT]),
        )

    await fill(database, [some() for _ in range(300)], [some() for _ in range(100)])
    async with database.app("telecentras") as connection:
        table = await usage_table(connection, "telecentras", *OCTOBER)
        rows = (await connection.execute(select(usage_cell))).mappings().all()
    names = {ACME: "acme", BETA: "beta"}
    wanted = [{**row, "customer": names.get(row["customer"], str(row["customer"]))} for row in rows]
    assert _said(table.to_pylist(), table.column_names) == _said(wanted, table.column_names)


def _said(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    return sorted(
        repr([row[name].astimezone(UTC) if name == "hour" else row[name] for name in columns]) for row in rows
    )
