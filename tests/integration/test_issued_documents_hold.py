"""What issued documents hold fast, as PostgreSQL tells it: the versions they name, and those of the close by which they
were drafted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from adapters.postgres.database import Database
from adapters.postgres.site import site_store
from adapters.site_files.apply import apply_site
from adapters.site_files.reading import read_files
from adapters.site_files.store import Span, Subject

pytestmark = pytest.mark.anyio

EXAMPLE = Path(__file__).parents[2] / "examples" / "vilnius"
NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
FLOOR = '{"lines": [{"part": "floor", "tariff_version": null, "contract_version": null}]}'
ACME = Subject("telecentras", "contract", "acme")
VILNIUS = Subject("telecentras", "tariff", "vilnius")
OCTOBER = Span(date(2026, 10, 1), date(2026, 11, 1))

INSERT_DOCUMENT = """
    INSERT INTO document (operator, id, kind, state, number, customer, period, currency, line_total, net,
    tax, gross,
                          sign, issue_date, content, created_at, issued_at)
    VALUES ('telecentras', :id, 'invoice', :state, :number, 'acme', :period, 'EUR', 0, 0, 0, 0,
            1, :issue_date, CAST(:content AS jsonb), now(), :issued_at)
"""


async def issue_october(database: Database, content: str, issued_at: datetime) -> None:
    """October of acme as its one issued document."""
    row = {
        "id": "acme.2026-10.1",
        "state": "issued",
        "number": "TLC-1",
        "period": "2026-10",
        "issue_date": date(2026, 11, 3),
        "issued_at": issued_at,
        "content": content,
    }
    async with database.app("telecentras") as connection:
        await connection.execute(text(INSERT_DOCUMENT), row)


async def close_october(
    database: Database,
    number: int,
    closed_at: datetime,
    versions: Sequence[str],
    documents: Sequence[str],
    listed: str = "drafts",
) -> None:
    """A close that went by these versions and made documents of these ids."""
    row = {
        "number": number,
        "at": closed_at,
        "facts": json.dumps({"versions": dict.fromkeys(versions, "5f2c")}),
        "result": json.dumps({"drafts": [], "issued": [], listed: [{"id": each} for each in documents]}),
    }
    async with database.app("telecentras") as connection:
        await connection.execute(
            text(
                "INSERT INTO period_close VALUES ('telecentras', '2026-10', :number, :at, '{}',"
                " CAST(:facts AS jsonb), CAST(:result AS jsonb), false)"
            ),
            row,
        )


async def test_issued_documents_hold_the_versions_that_they_name(database: Database) -> None:
    lines = '{"lines": [{"tariff_version": "vilnius@2026-10-01", "contract_version": "acme"}]}'
    async with site_store(database) as store:
        await apply_site(store, read_files([EXAMPLE]), NOW)
    async with database.app("telecentras") as connection:
        for number, period, issued in (
            (1, "2026-10", date(2026, 11, 3)),
            (2, "2026-11", date(2026, 11, 22)),
            (None, "2026-12", None),
        ):
            await connection.execute(
                text(INSERT_DOCUMENT),
                {
                    "id": f"acme.{period}.1",
                    "state": "issued" if issued else "draft",
                    "number": f"TLC-{number}" if number else None,
                    "period": period,
                    "issue_date": issued,
                    "issued_at": NOW if issued else None,
                    "content": lines,
                },
            )
    both = Span(date(2026, 10, 1), date(2026, 11, 23))
    async with site_store(database) as store:
        assert await store.issued(["telecentras"]) == {
            Subject("telecentras", "operator", "telecentras"): both,
            Subject("telecentras", "customer", "acme"): both,
            Subject("telecentras", "tariff", "vilnius"): both,
            Subject("telecentras", "contract", "acme"): both,
        }


@pytest.mark.parametrize("content", ['{"lines": [], "charges": [{"part": "floor"}]}', FLOOR])
async def test_a_commitment_holds_its_contract_where_no_line_and_no_close_names_it(
    database: Database, content: str
) -> None:
    async with site_store(database) as store:
        await apply_site(store, read_files([EXAMPLE]), NOW)
    await issue_october(database, content, NOW)
    async with site_store(database) as store:
        assert (await store.issued(["telecentras"]))[ACME] == OCTOBER


@pytest.mark.parametrize("minutes", [1, -1], ids=["after it", "a clock behind"])
@pytest.mark.parametrize("listed", ["drafts", "issued"])
async def test_a_document_holds_what_its_close_went_by_where_no_line_names_it(
    database: Database, listed: str, minutes: int
) -> None:
    async with site_store(database) as store:
        await apply_site(store, read_files([EXAMPLE]), NOW)
    await close_october(database, 1, NOW, ["contract acme", "tariff vilnius"], ["acme.2026-10.1"], listed)
    await issue_october(database, '{"lines": []}', NOW + timedelta(minutes=minutes))
    async with site_store(database) as store:
        held = await store.issued(["telecentras"])
    assert (held[ACME], held[VILNIUS]) == (OCTOBER, OCTOBER)


@pytest.mark.parametrize(
    ("second", "issued"),
    [
        pytest.param(2, 1, id="issued between the two"),
        pytest.param(2, -1, id="issued before both"),
        pytest.param(-2, -1, id="a second close before the first, issued between them"),
        pytest.param(-2, 1, id="a second close before the first, issued after both"),
    ],
)
@pytest.mark.parametrize("content", ['{"lines": []}', FLOOR], ids=["a commitment that was met", "a floor"])
async def test_a_document_rests_on_the_close_that_drafted_it_whatever_the_clocks_said(
    database: Database, content: str, second: int, issued: int
) -> None:
    """The contract was agreed between two closes: only the second one knew it, and drafted by it."""
    async with site_store(database) as store:
        await apply_site(store, read_files([EXAMPLE]), NOW)
    await close_october(database, 1, NOW, [], [])
    await close_october(
        database,
        2,
        NOW + timedelta(minutes=second),
        ["contract acme", "tariff vilnius"],
        ["acme.2026-10.1"],
    )
    await issue_october(database, content, NOW + timedelta(minutes=issued))
    async with site_store(database) as store:
        held = await store.issued(["telecentras"])
    assert (held[ACME], held[VILNIUS]) == (OCTOBER, OCTOBER)


async def test_of_two_closes_that_made_the_same_draft_the_later_one_counts(database: Database) -> None:
    async with site_store(database) as store:
        await apply_site(store, read_files([EXAMPLE]), NOW)
    await close_october(database, 1, NOW, ["contract acme"], ["acme.2026-10.1"])
    await close_october(database, 2, NOW, ["tariff vilnius"], ["acme.2026-10.1"])
    await close_october(database, 3, NOW, ["contract acme"], ["acme.2026-10.2"])
    await issue_october(database, '{"lines": []}', NOW)
    async with site_store(database) as store:
        held = await store.issued(["telecentras"])
    assert VILNIUS in held
    assert ACME not in held
