"""Signing the operators' logs: after a command that changed something, and every second beside intake.

The database has every leaf already when a command ends; numbering, archiving and signing only follow. So what fails here
fails no command: it is said, and whoever signs next goes on. Keys lie in DATA/keys/log; with a database of its own the
data folder is where they are made, with an outside one they are made by `tally intake` alone, on the machine that keeps
the archive.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

from adapters.postgres import log
from adapters.postgres.database import INSTALLATION, Database
from adapters.postgres.open import APP_URL
from billing.objects import Objects
from metering.refusal import Refusal, Unavailable

_log = logging.getLogger(__name__)

_EVERY_S = 1.0


async def sign_logs(
    data: Path, database: Database, objects: Objects | None = None, *, make_keys: bool = False
) -> dict[str, Refusal | Unavailable]:
    """Brings every log up to date whose key is here (`make_keys`: or that has none yet); what failed, by operator."""
    make_keys = make_keys or not os.environ.get(APP_URL)
    failed: dict[str, Refusal | Unavailable] = {}
    if not make_keys and not (data / "keys" / "log").is_dir():
        return failed
    for operator in (*await database.operators(), INSTALLATION):
        async with database.app(operator) as connection:
            if (await log.standing(connection, operator)).is_signed:
                continue
        try:
            await _sign(data, database, objects, operator, make_key=make_keys)
        except (Refusal, Unavailable) as problem:
            failed[operator] = problem
    return failed


async def _sign(
    data: Path, database: Database, objects: Objects | None, operator: str, *, make_key: bool
) -> None:
    # Imported here: a command that changed nothing shall not wait for the archive's libraries.
    from adapters.cli.wiring import DataFolder, archive_objects, now
    from adapters.log_sequencer import sequence

    folder = DataFolder(data)
    await sequence(
        database, objects or archive_objects(folder), folder.keys, operator, now(), make_key=make_key
    )


def unsigned_text(failed: dict[str, Refusal | Unavailable]) -> list[str]:
    """A sentence for each log that could not be signed."""
    return [
        f"the log of {'the installation' if operator == INSTALLATION else operator} is not signed: {problem.what}"
        + (f"; {problem.remedy}" if problem.remedy else "")
        for operator, problem in failed.items()
    ]


@contextlib.asynccontextmanager
async def signing(data: Path, database: Database, objects: Objects) -> AsyncIterator[None]:
    """Signs every second while the block runs, and once more when it ends. What fails is logged once, and tried again."""
    stop = asyncio.Event()
    task = asyncio.create_task(_keep_signing(data, database, objects, stop))
    try:
        yield
    finally:
        stop.set()
        await task


async def _keep_signing(data: Path, database: Database, objects: Objects, stop: asyncio.Event) -> None:
    said: set[str] = set()
    while True:
        ending = stop.is_set()
        try:
            texts = set(unsigned_text(await sign_logs(data, database, objects, make_keys=True)))
        except (Refusal, Unavailable) as problem:
            texts = {f"the logs are not signed: {problem.what}"}
        for text in sorted(texts - said):
            _log.error("%s", text)
        if said and not texts:
            _log.info("the logs are signed again")
        said = texts
        if ending:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _EVERY_S)
