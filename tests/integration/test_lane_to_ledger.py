"""From real writers to the ledger: what a sidecar's and an import's lane put into the spool, intake takes whole."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from intake_world import ACME, NODE, NOW, OPERATOR, START, World, make_world, us, usage_event

from adapters.archive import BatchObjects
from adapters.objects import FolderObjects
from adapters.postgres.database import Database
from adapters.postgres.intake import PostgresLedger
from adapters.postgres.lane_keys import enroll_lane
from adapters.postgres.streams import read_streams
from adapters.spool_source import SpoolSource
from billing.intake import Intake, Summary
from billing.streams import has_difference
from metering.event import events_table
from metering.identity import LaneKey, new_id
from metering.import_lane import ImportLane
from metering.lane import Lane
from metering.refusal import Refusal
from metering.spool import Spool
from metering.write_ahead import Intent

pytestmark = pytest.mark.anyio


class HandClock:
    """Time that goes on when the test says so."""

    def __init__(self) -> None:
        self.now_us = us(START)

    def wall_us(self) -> int:
        return self.now_us

    def monotonic_us(self) -> int:
        return self.now_us


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> World:
    return await make_world(database, tmp_path)


def spool_intake(world: World) -> Intake:
    return Intake(
        SpoolSource(Spool(world.data / "spool")),
        PostgresLedger(world.database),
        BatchObjects(FolderObjects(world.data / "archive")),
        BatchObjects(FolderObjects(world.data / "held")),
        clock=lambda: world.now,
    )


async def enrol(world: World, lane: str, kind: str, key: Ed25519PrivateKey) -> None:
    async with world.database.app(OPERATOR) as conn:
        await enroll_lane(conn, OPERATOR, NODE, lane, kind, LaneKey.public_bytes(key), NOW)


async def test_a_sidecars_lane_over_several_epochs_is_taken_without_a_gap(world: World) -> None:
    key, clock, intake = Ed25519PrivateKey.generate(), HandClock(), spool_intake(world)
    await enrol(world, "sidecar-0", "sidecar", key)
    accepted = Summary()
    for start in range(4):
        lane = Lane.open(
            world.data / "spool", operator=OPERATOR, node=NODE, lane="sidecar-0", key=key, clock=clock
        )
        for number in range(5):
            request = new_id()
            lane.intent(Intent(request, clock.now_us, ACME, None, None, "chat", "qwen3-32b"))
            if (
                start % 2 or number < 4
            ):  # two requests are cut off, and become `interrupted` at the next start
                lane.outcome(usage_event(clock.now_us)._replace(request=request))
            clock.now_us += 11_000_000
            lane.seal()
        lane.close(final=start == 3)
        accepted += await intake.take_pending()
        clock.now_us += 1_000_000
    assert (accepted.held, accepted.set_aside, accepted.repeats) == (0, 0, 0)
    assert accepted.events == 20
    assert (await world.usage())["requests"] == 20
    [(finished, interrupted)] = await world.rows(
        "SELECT sum(requests) FILTER (WHERE outcome = 'finished')::int,"
        " sum(requests) FILTER (WHERE outcome = 'interrupted')::int FROM usage_cell"
    )
    assert (finished, interrupted) == (18, 2)
    assert not has_difference(await read_streams(world.database, world.now))


async def test_an_imports_lane_with_equal_times_over_a_seam_is_taken_whole(world: World) -> None:
    key, intake = Ed25519PrivateKey.generate(), spool_intake(world)
    await enrol(world, "import-1", "import", key)
    lane = ImportLane.open(
        world.data / "spool", operator=OPERATOR, node=NODE, lane="import-1", epoch="e" * 32, key=key
    )
    rows = events_table([usage_event(us(START))] * 6, 1)
    for first in (0, 2, 4):
        lane.seal_rows(rows.slice(first, 2), us(NOW), final=first == 4)
    lane.close()
    assert await intake.take_pending() == Summary(accepted=3, events=6)
    found: dict[str, Any] = await read_streams(world.database, world.now)
    [row] = found["lanes"]
    assert (row["held"], row["lag_s"], row["number"]) == (0, None, 2)
    assert await intake.roll_up() == 1


@pytest.mark.parametrize("year", [2019, 2100])
def test_a_lane_does_not_start_by_a_clock_whose_times_no_reader_takes(tmp_path: Path, year: int) -> None:
    clock = HandClock()
    clock.now_us = us(datetime(year, 6, 1, tzinfo=UTC))
    with pytest.raises(Refusal) as refused:
        Lane.open(
            tmp_path,
            operator=OPERATOR,
            node=NODE,
            lane="sidecar-0",
            key=Ed25519PrivateKey.generate(),
            clock=clock,
        )
    assert refused.value.code == "clock_wrong"
