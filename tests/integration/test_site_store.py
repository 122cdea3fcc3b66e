"""The contract of every `SiteStore`: the twin in memory and PostgreSQL keep the same promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from adapters.postgres.database import Database
from adapters.postgres.schema import subject
from adapters.postgres.site import operator_facts, site_reader, site_store
from adapters.site_files.apply import add_private_customers, apply_site
from adapters.site_files.reading import read_files
from adapters.site_files.store import MemorySiteStore, SiteStore
from adapters.site_files.writing import get_documents, to_yaml
from billing.period import Period
from billing.stored import StoredDocument
from metering.refusal import Refusal

pytestmark = pytest.mark.anyio

EXAMPLE = Path(__file__).parents[2] / "examples" / "vilnius"
NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
Opened = Callable[[], AbstractAsyncContextManager[SiteStore]]

OPERATOR = StoredDocument(
    "operator",
    "telecentras",
    "telecentras",
    None,
    {"name": "AB Pavyzdys", "country": "LT", "currency": "EUR", "timezone": "Europe/Vilnius"},
)
PARTY = StoredDocument("party", "fund", "*", date(2026, 10, 1), {"name": "Fondas", "country": "LT"})
TARIFF = StoredDocument(
    "tariff",
    "vilnius",
    "telecentras",
    None,
    {"currency": "EUR", "valid_until": "2027-01-01", "prices": [{"models": ["*"], "input": "0.1"}]},
)


@pytest.fixture(params=["memory", "postgres"])
def opened(request: pytest.FixtureRequest) -> Opened:
    """Opens one transaction on the same store each time."""
    if request.param == "postgres":
        database: Database = request.getfixturevalue("database")
        return lambda: site_store(database)
    twin = MemorySiteStore()

    @asynccontextmanager
    async def same() -> AsyncIterator[SiteStore]:
        yield twin

    return same


def in_order(documents: Sequence[StoredDocument]) -> list[StoredDocument]:
    return sorted(documents, key=lambda each: (each.kind, each.id, each.valid_from or date.min))


async def test_what_was_saved_is_loaded_again_as_it_was(opened: Opened) -> None:
    documents = [OPERATOR, PARTY, TARIFF]
    async with opened() as store:
        await store.save(documents)
    async with opened() as store:
        assert in_order(await store.load()) == in_order(documents)


async def test_the_same_version_saved_again_replaces_the_first(opened: Opened) -> None:
    other = StoredDocument(
        "tariff", "vilnius", "telecentras", None, {**TARIFF.body, "timezone": "Europe/Riga"}
    )
    later = StoredDocument("tariff", "vilnius", "telecentras", date(2026, 12, 1), TARIFF.body)
    async with opened() as store:
        await store.save([OPERATOR, TARIFF])
        await store.save([other, later])
        assert in_order(await store.load()) == in_order([OPERATOR, other, later])


async def test_saving_nothing_is_fine_and_nothing_is_issued_at_first(opened: Opened) -> None:
    async with opened() as store:
        await store.save([])
        assert list(await store.load()) == []
        assert await store.issued(["telecentras"]) == {}


async def test_where_the_keys_of_a_version_stand_is_kept_with_it(opened: Opened) -> None:
    places = {"": "site.yaml:1", "prices.1.input": "site.yaml:7"}
    async with opened() as store:
        await store.save([OPERATOR, replace(TARIFF, places=places)])
    async with opened() as store:
        (tariff,) = [each for each in await store.load() if each.kind == "tariff"]
        assert tariff.places == places
        assert tariff == TARIFF, "and is no part of what it says"


async def test_no_period_is_closed_at_first(opened: Opened) -> None:
    async with opened() as store:
        await store.save([OPERATOR])
        assert await store.closed(["telecentras"]) == {"telecentras": []}


async def test_closed_periods_are_told_once_each(database: Database) -> None:
    async with site_store(database) as store:
        await store.save([OPERATOR])
    closes = [("2026-10", 1), ("2026-09", 1), ("2026-10", 2)]
    async with database.app("telecentras") as connection:
        for period, number in closes:
            await connection.execute(
                text(
                    "INSERT INTO period_close VALUES ('telecentras', :period, :number, now(), '{}', '{}', '{}', false)"
                ),
                {"period": period, "number": number},
            )
    async with site_reader(database) as store:
        assert await store.closed(["telecentras"]) == {"telecentras": [Period(2026, 9), Period(2026, 10)]}


async def test_what_was_superseded_is_kept_as_it_stood_with_the_reason(database: Database) -> None:
    places = {"": "site.yaml:1"}
    body = {**TARIFF.body, "prices": [{"models": ["*"], "input": "0.2"}]}
    corrections = [{**body, "supersedes": "first", "reason": reason} for reason in ("a wrong price", "again")]
    async with site_store(database) as store:
        await store.save([OPERATOR, replace(TARIFF, places=places)])
    longer = {**corrections[1], "windows": []}
    for correction in (*corrections, longer):
        async with site_store(database) as store:
            await store.save([replace(TARIFF, body=correction)])
    async with site_reader(database) as store:
        kept = await store.load_superseded()
        assert [(each.document, each.document.places, each.reason) for each in kept] == [
            (TARIFF, places, "a wrong price"),
            (replace(TARIFF, body=corrections[0]), {}, "again"),
        ]
        assert kept[0].at < kept[1].at
        assert in_order(await store.load()) == in_order([OPERATOR, replace(TARIFF, body=longer)]), (
            "the same reason is the same correction"
        )


async def test_where_a_version_stands_is_kept_anew_and_nothing_else_of_it(database: Database) -> None:
    async with site_store(database) as store:
        await store.save([OPERATOR, replace(TARIFF, places={"": "site.yaml:1"})])
    for place in ("site.yaml:2", "site.yaml:2"):
        async with site_store(database) as store:
            await store.save_places([replace(TARIFF, places={"": place})])
    async with site_reader(database) as store:
        [found] = [each for each in await store.load() if each.kind == "tariff"]
    assert (found, found.places) == (TARIFF, {"": "site.yaml:2"})
    async with database.app("telecentras") as connection:
        assert (await connection.execute(text("SELECT count(*) FROM superseded"))).scalar_one() == 0


async def test_what_is_superseded_on_paper_alone_is_stored_and_nothing_is_kept(database: Database) -> None:
    history = replace(TARIFF, body={**TARIFF.body, "supersedes": "first", "reason": "a wrong price"})
    async with site_store(database) as store:
        await store.save([OPERATOR, history])
    async with database.app("telecentras") as connection:
        assert (await connection.execute(text("SELECT count(*) FROM superseded"))).scalar_one() == 0


async def test_the_example_applies_once_and_comes_back_from_get_unchanged(opened: Opened) -> None:
    files = read_files([EXAMPLE])
    async with opened() as store:
        created = (await apply_site(store, files, NOW)).created
    async with opened() as store:
        assert (await apply_site(store, files, NOW)).unchanged == created
    async with opened() as store:
        written = to_yaml(await get_documents(store))
    assert '    graduated:\n    - up_to: "50000000"\n      price: "1.6"' in written, (
        "keys in the kind's order"
    )
    async with opened() as store:
        again = await apply_site(store, read_files(["-"], written.encode), NOW)
    assert set(again.unchanged) == set(created)


async def test_facts_are_one_operators_with_the_installations_parties(database: Database) -> None:
    async with site_store(database) as store:
        await apply_site(store, read_files([EXAMPLE]), NOW)
        roma = {"name": "Roma", "country": "IT", "currency": "EUR", "timezone": "Europe/Rome"}
        await store.save([StoredDocument("operator", "roma", "roma", None, roma)])
    async with database.app("telecentras") as connection:
        facts = await operator_facts(connection, "telecentras")
        assert [operator.id for operator in facts.operator] == ["telecentras"]
        assert set(facts.customers) == {"acme", "baltic-letters", "river-institute"}
        assert set(facts.parties) == {"embedded-llm", "model-fund"}
        assert (
            await connection.execute(text("SELECT current_setting('tally.operator')"))
        ).scalar() == "telecentras"


async def test_a_customer_gets_an_opaque_id_and_keeps_it(database: Database) -> None:
    async def ids() -> dict[str, object]:
        async with database.app("telecentras") as connection:
            rows = await connection.execute(select(subject.c.slug, subject.c.id))
            return {row.slug: row.id for row in rows}

    async with site_store(database) as store:
        await apply_site(store, read_files([EXAMPLE]), NOW)
    first = await ids()
    assert set(first) == {"acme", "baltic-letters", "river-institute"}
    async with site_store(database) as store:
        await add_private_customers(store, "telecentras", ["trace_0001", "acme"])
        renamed = StoredDocument(
            "customer", "acme", "telecentras", date(2027, 1, 1), {"name": "A", "country": "LT"}
        )
        await store.save([renamed])
    assert {slug: found for slug, found in (await ids()).items() if slug != "trace_0001"} == first


async def test_the_database_itself_keeps_a_customers_id_unique(database: Database) -> None:
    async with site_store(database) as store:
        await apply_site(store, read_files([EXAMPLE]), NOW)
    with pytest.raises(IntegrityError, match="subject_customer_slug"):
        async with site_store(database) as store:
            await store.save(
                [StoredDocument("customer", "acme", "roma", None, {"name": "A", "country": "IT"})]
            )


async def test_a_refused_apply_leaves_nothing_behind(database: Database) -> None:
    bad = read_files(["-"], lambda: b"kind: node\nid: n\noperator: nobody\nregion: LT-VL\n")
    with pytest.raises(Refusal, match="1 fault in site files"):
        async with site_store(database) as store:
            await apply_site(store, bad, NOW)
    async with site_store(database) as store:
        assert list(await store.load()) == []
    assert await database.operators() == []


async def test_of_two_applies_at_once_the_second_sees_what_the_first_did(database: Database) -> None:
    files = read_files([EXAMPLE])

    async def once() -> tuple[int, int]:
        async with site_store(database) as store:
            applied = await apply_site(store, files, NOW)
            return len(applied.created), len(applied.unchanged)

    assert sorted(await asyncio.gather(once(), once())) == [(0, 13), (13, 0)]
