"""How the parts of one data folder belong together: where each lies, and what is handed to what.

DATA/postgres…      the embedded PostgreSQL (adapters/postgres/embedded.py)
DATA/spool/         write-ahead files and sealed batches, a folder a lane
DATA/archive/       every accepted batch, unchanged, and the operators' logs; elsewhere with TALLY_ARCHIVE
DATA/held/          what could not be accepted, byte for byte; elsewhere with TALLY_HELD
DATA/keys/          lane keys, the sidecar's snapshot of API keys
DATA/scratch/       what an import sorts; nothing there outlives a command
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from adapters.archive import BatchObjects
from adapters.archive_reading import BatchReader
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
from metering.durable import make_folder
from metering.refusal import Refusal
from metering.spool import Spool


@dataclass(frozen=True, slots=True)
class DataFolder:
    """The places inside a data folder."""

    root: Path

    def make(self) -> None:
        """Makes it where it is missing, closed to others, as the embedded database does. Refusals: bad_data_folder."""
        try:
            if not self.root.is_dir():
                make_folder(self.root.parent)
                self.root.mkdir(mode=0o700, exist_ok=True)
            if not os.access(self.root, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as problem:
            raise Refusal(
                "bad_data_folder",
                f"{self.root} cannot be used: {problem.strerror}",
                where=str(self.root),
                remedy="name another with --data or TALLY_DATA",
            ) from None

    @property
    def spool(self) -> Path:
        return self.root / "spool"

    @property
    def archive(self) -> Path:
        return self.root / "archive"

    @property
    def held(self) -> Path:
        return self.root / "held"

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def scratch(self) -> Path:
        return self.root / "scratch"

    def lane_key(self, node: str, lane: str) -> Path:
        """A folder a node: names hold dots, so `a` with `b.c` and `a.b` with `c` would share a file."""
        return self.keys / "lanes" / node / f"{lane}.key"

    def node_key(self, node: str) -> Path:
        """What the node signs its enrolment requests with."""
        return self.keys / "node" / f"{node}.key"

    def node_answer(self, node: str) -> Path:
        """The answer to the node's request, where it has no database at hand: who enrolled it."""
        return self.keys / "node" / f"{node}.enrolled"

    def intake_key(self, operator: str) -> Path:
        """What intake signs its acknowledgements to this operator's nodes with."""
        return self.intake_keys / f"{operator}.key"

    @property
    def intake_keys(self) -> Path:
        """OPERATOR.key where intake runs, OPERATOR.pub where its acknowledgements are read."""
        return self.keys / "intake"

    @property
    def node_secret(self) -> Path:
        """What this machine's sidecars sign the ids of responses with."""
        return self.keys / "node-secret"

    def key_snapshot(self, operator: str) -> Path:
        return self.keys / f"snapshot-{operator}.json"


def archive_objects(folder: DataFolder) -> ArrowObjects:
    """The archive: the folder or bucket of TALLY_ARCHIVE, else the data folder's own."""
    return _objects("TALLY_ARCHIVE", folder.archive)


def held_objects(folder: DataFolder) -> ArrowObjects:
    """Where held batches wait: the folder or bucket of TALLY_HELD, else the data folder's own."""
    return _objects("TALLY_HELD", folder.held)


def _objects(variable: str, default: Path) -> ArrowObjects:
    named = os.environ.get(variable, "")
    if "://" in named:
        from adapters.s3_objects import bucket_objects  # few commands on few machines need the S3 client

        return bucket_objects(named, variable)
    return FolderObjects(Path(named).absolute() if named else default)


def make_intake(folder: DataFolder, database: Database, source: Source | None = None) -> Intake:
    """Intake into the database and the folder's archive, from the folder's spool or another source."""
    return Intake(
        source or SpoolSource(Spool(folder.spool)),
        PostgresLedger(database),
        BatchObjects(archive_objects(folder)),
        BatchObjects(held_objects(folder)),
        most_aside=None if source is None else MostAside(),
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


def now() -> datetime:
    """The instant of a command."""
    return datetime.now(UTC)
