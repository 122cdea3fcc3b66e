"""How far lanes are accepted, for acknowledgements that a killed worker did not send."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import not_, select

from adapters.postgres import intake_rows as rows
from adapters.postgres.database import Database
from adapters.postgres.schema import lane
from billing.acceptance import Mark
from billing.inspection import LaneName

#: An ended lane's last acknowledgement is said again at a start for so long. Most ended lanes are imports, one a file, and
#: of a ledger some years old there are thousands. A shipper that never heard of one sends its batches again, at the
#: latest each hour, and the repeats are acknowledged then.
ENDED_FOR = timedelta(days=7)


async def marks_of_lanes(database: Database, now: datetime) -> dict[LaneName, Mark]:
    """The marks of the lanes of which something is accepted, but for those that ended long ago, as `tally_intake`."""
    long_ended = lane.c.ended & (lane.c.last_accepted_at < now - ENDED_FOR)
    async with database.intake() as conn:
        found = await conn.execute(select(lane).where(lane.c.epoch.is_not(None), not_(long_ended)))
        return {rows.lane_name(row): rows.mark(row) for row in found}
