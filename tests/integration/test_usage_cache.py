"""Prepared usage is kept and asked for again, and never answers for usage that changed since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import insert, text

from adapters import usage_cache
from adapters.postgres.database import Database
from adapters.postgres.schema import operator as operators
from adapters.postgres.schema import partial_sum, subject
from adapters.usage_cache import prepared_usages
from billing.period import Period
from billing.usage_runs import UsageRuns
from metering.event import QUANTITIES

pytestmark = pytest.mark.anyio

VILNIUS, OCTOBER = ZoneInfo("Europe/Vilnius"), Period(2026, 10)
ACME = UUID(int=1)
HOUR = datetime(2026, 10, 5, 8, tzinfo=UTC)


async def add(database: Database, hours: Sequence[datetime], **other: Any) -> None:
    amounts: Mapping[str, int] = dict(zip(QUANTITIES, (1, 100, 40, 20, 5, 22, 6, 0, 0), strict=True))
    cells = [
        {
            "operator": "telecentras",
            "hour": hour,
            "customer": [ACME],
            "node": "vilnius-1",
            "model": "qwen3-32b",
            "outcome": "finished",
            "band": 0,
            "late": False,
            **{name: [amount] for name, amount in amounts.items()},
            **other,
        }
        for hour in hours
    ]
    async with database.intake() as connection:
        await connection.execute(insert(partial_sum), cells)


async def declare(database: Database) -> None:
    async with database.app("telecentras") as connection:
        await connection.execute(operators.insert().values(operator="telecentras"))
        row = {"operator": "telecentras", "id": ACME, "kind": "customer", "slug": "acme", "parent": None}
        await connection.execute(subject.insert().values(row))
    async with database.intake() as connection:
        for month in (9, 10, 11):
            await connection.execute(
                text("SELECT ensure_usage_partitions('telecentras', :month)"), {"month": date(2026, month, 1)}
            )


async def asked(
    database: Database, cache: Path, quantities: Sequence[str] = ("prompt_tokens", "audio_seconds")
) -> UsageRuns:
    async with database.app("telecentras", snapshot=True) as connection:
        found = await prepared_usages(connection, "telecentras", [OCTOBER], VILNIUS, quantities, cache)
    return found[OCTOBER].runs


def only(cache: Path) -> Path:
    [folder] = cache.iterdir()
    return folder


def cut_short(folder: Path) -> None:
    hours = folder / "hours.arrow"
    hours.write_bytes(hours.read_bytes()[:100])


async def test_a_second_question_reads_no_usage_and_has_the_same_answer(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await declare(database)
    await add(database, [HOUR, HOUR, HOUR + timedelta(hours=1)])
    first = await asked(database, tmp_path)
    monkeypatch.setattr(usage_cache, "usage_table", None)
    second = await asked(database, tmp_path)
    for runs in (first, second):
        assert runs.customers == ("acme",)
        assert runs.hour.tolist() == [HOUR.day * 24 - 24 + 11, HOUR.day * 24 - 24 + 12]
        assert runs.quantities["prompt_tokens"].tolist() == [200, 100]
        assert "audio_seconds" not in runs.quantities
        assert runs.starts.tolist() == [0, 2]


async def test_usage_that_came_since_is_in_the_answer_and_the_old_one_is_gone(
    database: Database, tmp_path: Path
) -> None:
    await declare(database)
    await add(database, [HOUR])
    await asked(database, tmp_path)
    before = only(tmp_path)
    await add(database, [HOUR])
    assert (await asked(database, tmp_path)).quantities["prompt_tokens"].tolist() == [200]
    assert only(tmp_path) != before


async def test_only_quantities_that_are_asked_for_are_read_and_others_are_read_to_them(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await declare(database)
    await add(database, [HOUR])
    first = await asked(database, tmp_path, ["prompt_tokens"])
    assert list(first.magnitudes) == ["prompt_tokens"]
    with pytest.raises(AssertionError, match="cached_tokens was not read"):
        first.quantity("cached_tokens")
    second = await asked(database, tmp_path, ["cached_tokens"])
    assert second.quantities["cached_tokens"].tolist() == [40]
    assert second.quantities["prompt_tokens"].tolist() == [100]
    monkeypatch.setattr(usage_cache, "usage_table", None)
    assert (await asked(database, tmp_path, ["prompt_tokens"])).quantities.keys() == second.quantities.keys()


async def test_usage_of_another_period_leaves_the_answer(database: Database, tmp_path: Path) -> None:
    await declare(database)
    await add(database, [HOUR])
    await asked(database, tmp_path)
    before = only(tmp_path)
    await add(database, [datetime(2026, 11, 2, 8, tzinfo=UTC)])
    await asked(database, tmp_path)
    assert only(tmp_path) == before


async def test_a_cache_that_was_cut_short_is_read_and_written_again(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await declare(database)
    await add(database, [HOUR])
    await asked(database, tmp_path)
    cut_short(only(tmp_path))
    assert (await asked(database, tmp_path)).quantities["prompt_tokens"].tolist() == [100]
    monkeypatch.setattr(usage_cache, "usage_table", None)
    assert (await asked(database, tmp_path)).customers == ("acme",)


async def test_without_usage_there_are_no_runs(database: Database, tmp_path: Path) -> None:
    await declare(database)
    for _ in range(2):
        assert (await asked(database, tmp_path)).customers == ()


async def test_several_periods_are_each_their_own(database: Database, tmp_path: Path) -> None:
    await declare(database)
    await add(database, [HOUR, datetime(2026, 9, 3, tzinfo=UTC), datetime(2026, 11, 3, tzinfo=UTC)])
    periods = [Period(2026, month) for month in (9, 10, 11)]
    for _ in range(2):
        async with database.app("telecentras", snapshot=True) as connection:
            found = await prepared_usages(connection, "telecentras", periods, VILNIUS, QUANTITIES, tmp_path)
        assert [len(found[period].runs.hour) for period in periods] == [1, 1, 1]
        assert list(found) == periods
