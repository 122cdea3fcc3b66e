"""Which archived batches an import has to read to find known request ids: those whose time can touch the file's."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from adapters.importing.ledger import archived_paths
from adapters.postgres.database import Database
from adapters.postgres.schema import batch, lane, operator

pytestmark = pytest.mark.anyio

HASHES = ["genesis", *(f"{number:064x}" for number in range(1, 9))]


def day(number: int) -> datetime:
    return datetime(2026, 10, number, tzinfo=UTC)


async def test_batches_that_end_before_the_span_or_begin_after_it_are_not_read(database: Database) -> None:
    async with database.app("teleco") as connection:
        await connection.execute(operator.insert().values(operator="teleco"))
    quantities = dict.fromkeys(
        (
            "requests",
            "prompt_tokens",
            "cached_tokens",
            "completion_tokens",
            "reasoning_tokens",
            "generated_tokens",
            "generated_reasoning_tokens",
            "audio_seconds",
            "unwitnessed_requests",
        ),
        1,
    )
    async with database.app("teleco") as connection:
        await connection.execute(
            lane.insert().values(
                operator="teleco",
                node="n",
                lane="0",
                kind="sidecar",
                enrolled_at=day(1),
            )
        )
    async with database.intake() as connection:
        for number, complete_to in enumerate((2, 4, 6, 8, 10)):
            await connection.execute(
                batch.insert().values(
                    operator="teleco",
                    node="n",
                    lane="0",
                    epoch="ab" * 16,
                    number=number,
                    hash=HASHES[number + 1],
                    previous=HASHES[number],
                    first=number + 1,
                    last=number + 1,
                    events=1,
                    complete_to=day(complete_to),
                    path=f"until-{complete_to}",
                    bytes=1,
                    accepted_at=day(20 + number),
                    **quantities,
                )
            )

    assert await archived_paths(database, "teleco", "n", day(5), day(7)) == ["until-6", "until-8"]
    assert await archived_paths(database, "teleco", "n", day(9)) == ["until-10"]
    assert await archived_paths(database, "teleco", "n", day(1), day(30), but_lane="0") == []
