"""How far every lane is accepted, for acknowledgements that a killed worker did not send."""

from __future__ import annotations

from sqlalchemy import select

from adapters.postgres import intake_rows as rows
from adapters.postgres.database import Database
from adapters.postgres.schema import lane
from billing.acceptance import Mark
from billing.inspection import LaneName


async def marks_of_lanes(database: Database) -> dict[LaneName, Mark]:
    """The marks of all lanes of which something is accepted, as `tally_intake`."""
    async with database.intake() as conn:
        found = await conn.execute(select(lane).where(lane.c.epoch.is_not(None)))
        return {rows.lane_name(row): rows.mark(row) for row in found}
