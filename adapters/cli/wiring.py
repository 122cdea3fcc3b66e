"""What is handed to what: the parts of one data folder, put together for the commands."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from adapters.archive import BatchObjects
from adapters.archive_reading import BatchReader
from adapters.data_folder import DataFolder
from adapters.importing.seal_lane import ImportPlace
from adapters.kafka.settings import kafka_settings
from adapters.objects import ArrowObjects, FolderObjects
from adapters.postgres.books import PostgresBooks
from adapters.postgres.database import Database
from adapters.postgres.intake import PostgresLedger
from adapters.postgres.site import site_store
from adapters.site_files.apply import add_private_customers
from adapters.spool_source import SpoolSource
from billing.aside import MostAside
from billing.intake import Intake
from billing.intake_ports import Source
from metering.spool import Spool


def archive_objects(folder: DataFolder) -> ArrowObjects:
    """The archive: the folder or bucket of TALLY_ARCHIVE, else the data folder's own."""
    return _objects("TALLY_ARCHIVE", folder.archive)


def held_objects(folder: DataFolder) -> ArrowObjects:
    """Where held batches wait: the folder or bucket of TALLY_HELD, else the data folder's own."""
    return _objects("TALLY_HELD", folder.held, private=True)


def _objects(variable: str, default: Path, *, private: bool = False) -> ArrowObjects:
    named = os.environ.get(variable, "")
    if "://" in named:
        from adapters.s3_objects import bucket_objects  # few commands on few machines need the S3 client

        return bucket_objects(named, variable)
    return FolderObjects(Path(named).absolute() if named else default, private=private)


def make_intake(
    folder: DataFolder, database: Database, source: Source | None = None, *, leave_roots: bool = False
) -> Intake:
    """Intake into the database and the folder's archive, from the folder's spool or another source."""
    return Intake(
        source or SpoolSource(Spool(folder.spool)),
        PostgresLedger(database),
        BatchObjects(archive_objects(folder)),
        BatchObjects(held_objects(folder)),
        most_aside=None if source is None else MostAside(),
        leave_roots=leave_roots,
    )


def make_books(folder: DataFolder, database: Database) -> PostgresBooks:
    """The operators' books; what they add to the logs is in the folder's archive before it is visible."""
    return PostgresBooks(database, objects=archive_objects(folder))


async def take_what_waits(folder: DataFolder, database: Database) -> None:
    """Takes in what waits in the folder's spool, so that an answer misses nothing that is here.

    Where nothing waits here, whoever asks needs no login of tally_intake: intake then runs elsewhere, or as its own
    command. Refusal `no_intake_login` where something waits and this command may not take it in. With Kafka the spool
    is its shipper's: what waits is on its way to intake, and leaves the spool when intake has said so.
    """
    if kafka_settings(os.environ) is not None or database.read_only is not None:
        return
    waits = any(True for _ in Spool(folder.spool).pending())
    if waits or database.urls.intake is not None:
        await make_intake(folder, database).take_pending()


def import_place(
    folder: DataFolder,
    database: Database,
    progress: Callable[[str, int, int], None] = lambda _w, _d, _t: None,
) -> ImportPlace:
    """Where `tally import` works."""
    folder.make()
    intake = make_intake(folder, database)

    async def create_customers(operator: str, slugs: list[str]) -> None:
        async with site_store(database) as store:
            await add_private_customers(store, operator, slugs)

    return ImportPlace(
        database=database,
        spool=folder.spool,
        keys=folder.keys,
        scratch=folder.scratch,
        sweep=intake.take_pending,
        read_archived=BatchReader(archive_objects(folder)).events,
        create_customers=create_customers,
        progress=progress,
    )
