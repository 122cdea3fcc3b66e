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
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.postgres import log
from adapters.postgres.database import INSTALLATION, Database
from adapters.postgres.open import APP_URL
from billing.objects import Objects
from metering.refusal import Refusal, Unavailable

if TYPE_CHECKING:
    from adapters.log_attesting import Attesters

_log = logging.getLogger(__name__)

_EVERY_S = 1.0
_ASK_EVERY_S = 600.0


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
    from adapters.cli.wiring import archive_objects
    from adapters.data_folder import DataFolder, now
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
async def signing(
    data: Path, database: Database, objects: Objects, *, by_another: bool = False
) -> AsyncIterator[None]:
    """Signs every second while the block runs, and once more when it ends; every ten minutes those whom the operator
    named are asked to vouch. What fails is logged once, and tried again. Refusals: as `read_attesters`.

    Where the database was put back under us (`guard.behind`), it is read-only from the next second on, until it is
    brought forward: nothing is accepted that no log would hold. `by_another`: another one signs, and only this is
    watched for.
    """
    from adapters.cli.guard import behind
    from adapters.log_attesting import read_attesters

    attesters = None if by_another else read_attesters(os.environ)
    stop = asyncio.Event()

    async def sign() -> Sequence[str]:
        database.read_only = refusal = await behind(database, objects)
        if refusal is not None:
            return [f"nothing is taken in and nothing signed: {refusal.what}; {refusal.remedy}"]
        if by_another:
            return []
        return unsigned_text(await sign_logs(data, database, objects, make_keys=True))

    tasks = [asyncio.create_task(_repeat(sign, _EVERY_S, stop, "the logs are signed again", once_more=True))]
    if attesters:

        async def ask() -> Sequence[str]:
            return await _ask(database, objects, attesters)

        tasks.append(asyncio.create_task(_repeat(ask, _ASK_EVERY_S, stop, "the logs are vouched for again")))
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def _repeat(
    act: Callable[[], Awaitable[Sequence[str]]],
    every_s: float,
    stop: asyncio.Event,
    mended: str,
    *,
    once_more: bool = False,
) -> None:
    """Acts now and every `every_s` until stopped (`once_more`: and then); logs what it says is wrong when that changes."""
    said: set[str] = set()
    while True:
        ending = stop.is_set()
        if ending and not once_more:
            return
        try:
            wrong = set(await act())
        except (Refusal, Unavailable) as problem:
            wrong = {problem.what}
        except Exception as bug:  # it must go on: unsigned, what is accepted stands in no log
            wrong = {f"a bug of ours, {type(bug).__name__}: it is tried again"}
            if not wrong <= said:
                _log.exception("the logs, or who vouches for them")
        for text in sorted(wrong - said):
            _log.error("%s", text)
        if said and not wrong:
            _log.info("%s", mended)
        said = wrong
        if ending:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), every_s)


async def _ask(database: Database, objects: Objects, attesters: Attesters) -> Sequence[str]:
    """Has the newest checkpoint of each log vouched for; who did not. One process at a time."""
    from adapters.log_attesting import attest

    wrong: list[str] = []
    for operator in (*await database.operators(), INSTALLATION):
        async with database.exclusively(f"attest/{operator}"):
            failed = await asyncio.to_thread(attest, objects, operator, attesters)
        wrong += [f"the log of {operator} is not vouched for: {problem.what}" for problem in failed]
    return wrong
