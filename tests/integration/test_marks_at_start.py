"""Which lanes a worker acknowledges when it starts."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from intake_world import Writer, make_world

from adapters.postgres.database import Database
from adapters.postgres.marks import ENDED_FOR, marks_of_lanes

pytestmark = pytest.mark.anyio


async def test_a_lane_that_ended_long_ago_is_not_acknowledged_again_and_one_that_is_only_silent_is(
    database: Database, tmp_path: Path
) -> None:
    world = await make_world(database, tmp_path)
    silent, ended, never = (Writer(lane=f"sidecar-{n}") for n in range(3))
    await world.enrol(silent, ended, never)
    world.wire.send(silent.seal(), ended.seal(final=True))
    await world.intake().take_pending()

    async def at(days: float) -> set[str]:
        found = await marks_of_lanes(database, world.now + timedelta(days=days))
        return {name.lane for name in found if name.node == silent.node}

    assert await at(ENDED_FOR.days - 1) == {"sidecar-0", "sidecar-1"}
    assert await at(ENDED_FOR.days + 1) == {"sidecar-0"}
