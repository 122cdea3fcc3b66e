"""An intake worker of its own, for tests that kill it: `python intake_worker.py APP_URL INTAKE_URL DATA`.

Takes what lies in DATA/spool, rolls up and ends. Three batches a transaction, so that there are many.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path

from adapters.archive import BatchObjects
from adapters.objects import FolderObjects
from adapters.postgres.database import Database, DatabaseUrls
from adapters.postgres.intake import PostgresLedger
from adapters.spool_source import SpoolSource
from billing import intake
from metering.spool import Spool


async def main(app: str, login: str, data: Path) -> None:
    intake.POLL_BATCHES = 3
    database = await Database.open(DatabaseUrls(app, login))
    worker = intake.Intake(
        SpoolSource(Spool(data / "spool")),
        PostgresLedger(database),
        BatchObjects(FolderObjects(data / "archive")),
        BatchObjects(FolderObjects(data / "held")),
        clock=lambda: datetime(2026, 10, 20, 12, tzinfo=UTC),
    )
    await worker.take_pending()
    await worker.roll_up()
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
