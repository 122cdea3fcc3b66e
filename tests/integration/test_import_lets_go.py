"""An import that fails while it seals lets go of its lane only when the sealing has stopped."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from adapters.importing.decode import ROW_SCHEMA
from adapters.importing.events import SubjectIds, event_columns
from adapters.importing.seal_lane import ImportPlace, LaneRows, seal_and_accept
from adapters.postgres.database import Database
from adapters.postgres.schema import operator
from metering.lane_folder import LaneFolder

pytestmark = pytest.mark.anyio

ROWS = 40
IDS = SubjectIds({"acme": bytes(range(16))}, {}, {})


def columns(start: int, count: int) -> dict[str, pa.Array]:
    """Two rows at a time, slowly."""
    time.sleep(0.05)
    places = np.arange(start, start + min(count, 2))
    rows = [
        {
            "time": 1_790_000_000_000_000 + int(place),
            "customer": "acme",
            "model": "qwen3-32b",
            "outcome": "finished",
            **dict.fromkeys(("prompt_tokens", "cached_tokens", "completion_tokens"), 0),
            **dict.fromkeys(("reasoning_tokens", "audio_seconds"), 0),
        }
        for place in places
    ]
    return event_columns(pa.Table.from_pylist(rows, ROW_SCHEMA), IDS)


async def test_when_intake_fails_the_lane_is_free_and_nobody_seals_into_it(
    database: Database, tmp_path: Path
) -> None:
    async with database.app("teleco") as connection:
        await connection.execute(operator.insert().values(operator="teleco"))

    async def failing_sweep() -> None:
        await asyncio.sleep(0.12)  # the sealing thread is at work by now
        raise OSError("the disk is gone")

    async def create_customers(_operator: str, _slugs: list[str]) -> None: ...

    for name in ("spool", "keys", "scratch"):
        (tmp_path / name).mkdir()
    place = ImportPlace(
        database=database,
        spool=tmp_path / "spool",
        keys=tmp_path / "keys",
        scratch=tmp_path / "scratch",
        sweep=failing_sweep,
        read_archived=lambda path: pytest.fail(f"nothing to read at {path}"),
        create_customers=create_customers,
    )
    rows = LaneRows("teleco", "n", "import-ab", "ab" * 16, ROWS, 1_790_000_000_000_000 + ROWS, columns)

    with pytest.raises(OSError, match="disk is gone"):
        await seal_and_accept(place, rows, datetime(2026, 11, 1, tzinfo=UTC))

    folder = LaneFolder.open(place.spool, "teleco", "n", "import-ab")
    assert folder.head is not None
    assert folder.head.seal.last < ROWS, "it was asked to stop"
    sealed = sorted(folder.sealed.iterdir())
    await asyncio.sleep(0.2)
    assert sorted(folder.sealed.iterdir()) == sealed
    folder.close()
