"""What `tally doctor` says of the operators' logs: whether they are signed, archived, and vouched for by those named."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta

from adapters.cli.checks import FAULT, OK, WARNING, Check
from adapters.cli.framework import counted, instant_text
from adapters.cli.wiring import archive_objects
from adapters.data_folder import DataFolder
from adapters.log_attesting import last_vouched, read_attesters
from adapters.log_sequencer import check_extends, log_key_path
from adapters.postgres import log
from adapters.postgres.database import INSTALLATION, Database
from billing.log import archive_name
from billing.objects import Objects
from metering.refusal import Refusal, Unavailable

#: Whoever is asked every ten minutes and has not answered for so long is away.
_AWAY = timedelta(minutes=30)


async def check_logs(
    folder: DataFolder, database: Database, environ: Mapping[str, str], moment: datetime
) -> list[Check]:
    """Each log, and who should vouch for it."""
    objects = archive_objects(folder)
    checks: list[Check] = []
    for operator in (*await database.operators(), INSTALLATION):
        async with database.app(operator) as connection:
            standing = await log.standing(connection, operator)
        if standing.head is None and not standing.waits:
            continue
        checks.append(await _standing(folder, database, objects, operator, standing))
        checks += await _vouching(objects, operator, standing, environ, moment)
    return checks


async def _standing(
    folder: DataFolder, database: Database, objects: Objects, operator: str, standing: log.Standing
) -> Check:
    name = f"log {archive_name(operator)}"
    try:
        await check_extends(database, objects, operator)
    except (Refusal, Unavailable) as problem:
        return Check(name, FAULT, problem.what, problem.remedy)
    if not standing.is_signed:
        return Check(
            name,
            WARNING,
            "leaves wait to be signed",
            "is `tally intake` running? its log says what is in the way",
        )
    assert standing.head is not None, "nothing waits, and something was signed"
    here = "" if log_key_path(folder.keys, operator).exists() else "; its key is elsewhere"
    what = f"{counted(standing.head.size, 'leaf', 'leaves')}, signed {instant_text(standing.head.signed_at)}{here}"
    return Check(name, OK, what)


async def _vouching(
    objects: Objects, operator: str, standing: log.Standing, environ: Mapping[str, str], moment: datetime
) -> list[Check]:
    name = f"log {archive_name(operator)}"
    try:
        last = await asyncio.to_thread(last_vouched, objects, operator, read_attesters(environ))
    except (Refusal, Unavailable) as problem:
        return [Check(name, FAULT, problem.what, problem.remedy)]
    checks = []
    for who, when in last.items():
        late = when is None or moment - when > _AWAY
        told = "never vouched for it" if when is None else f"vouched for it last at {instant_text(when)}"
        grown = standing.head is not None and (when is None or standing.head.signed_at > when)
        state = WARNING if late and grown else OK
        remedy = "the log of `tally intake` says why; billing goes on without" if state == WARNING else ""
        checks.append(Check(name, state, f"{who} {told}", remedy))
    return checks
