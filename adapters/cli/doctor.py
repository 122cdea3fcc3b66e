"""`tally doctor`: what is configured, reachable, behind, or unsafe; `tally database prepare`."""

from __future__ import annotations

import asyncio
import os
import stat
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import typer

from adapters.cli.checks import FAULT, OK, WARNING, Check
from adapters.cli.doctor_kafka import check_kafka
from adapters.cli.doctor_log import check_logs
from adapters.cli.doctor_spool import check_disks, check_spool
from adapters.cli.framework import DIFFERENCE, Context, Result, command, counted, instant_text, table
from adapters.cli.node_side import enrolments
from adapters.data_folder import DataFolder, now
from adapters.overdue import overdue
from adapters.postgres.database import Database
from adapters.postgres.embedded import orphans
from adapters.postgres.open import APP_URL, outside_urls
from adapters.postgres.roles import role_sql
from adapters.postgres.streams import read_streams
from adapters.postgres.witnesses import Served, nodes_served
from metering.enrolment import Answer
from metering.instant import time_text
from metering.keybook import parse_snapshot
from metering.reconcile import (
    BEFORE_FIRST_SPAN,
    COUNTERS_LOST,
    NO_SPANS,
    SINCE_QUIET_POINT,
    Unchecked,
)
from metering.refusal import Refusal, Unavailable

BEHIND_S = 60
WITNESS_FRESH = timedelta(hours=1)


def register(app: typer.Typer) -> None:
    @command(app, "doctor", path="doctor", example="tally doctor")
    async def doctor(context: Context) -> Result:
        """Say what is configured, reachable, behind or unsafe. Exit 3 if anything is at fault."""
        folder = DataFolder(context.data)
        checks = await asyncio.to_thread(_check_folder, folder)
        checks += await asyncio.to_thread(check_kafka, folder)
        afar = [] if os.environ.get(APP_URL) else await asyncio.to_thread(enrolments, folder)
        checks += [_enrolled(answer) for answer in afar]
        if (
            not afar
        ):  # a node that was enrolled from afar has no database, and none is started for the question
            checks += await _check_ledger(context, folder)
        rows = [[check.state, check.name, check.what, check.remedy] for check in checks]
        at_fault = any(check.state == FAULT for check in checks)
        document = {"ok": not at_fault, "checks": [asdict(check) for check in checks]}
        shown = table(None, ("state", "name", "what", "remedy"), rows, sentences=("what", "remedy"))
        return Result(document, shown, DIFFERENCE if at_fault else 0)

    database = typer.Typer(no_args_is_help=True, help="The database.")
    app.add_typer(database, name="database")

    @command(database, "prepare", path="database prepare", example="tally database prepare")
    async def prepare(_context: Context) -> Result:
        """Print the SQL that makes Tallygrid's three roles and its database on a PostgreSQL server of yours.

        Run it there as a superuser, with passwords of your own in the place of the marked ones, and set the three
        URLs that its head names.
        """
        sql = role_sql(None)
        return Result({"sql": sql}, sql)


async def _check_ledger(context: Context, folder: DataFolder) -> list[Check]:
    checks: list[Check] = []
    try:
        async with context.database() as database:
            checks += await _check_database(database)
            checks += await check_logs(folder, database, os.environ, now())
    except (Refusal, Unavailable) as problem:
        checks.append(Check("database", FAULT, problem.what, problem.remedy))
    return checks


def _enrolled(answer: Answer) -> Check:
    served = counted(len(parse_snapshot(answer.api_keys)), "API key")
    what = f"enrolled from afar for {answer.operator}; {served}, as of {time_text(answer.made_at_us)}"
    return Check(f"node {answer.node}", OK, what)


def _check_folder(folder: DataFolder) -> list[Check]:
    if not folder.root.exists():
        return [Check("data folder", OK, f"{folder.root} is not there yet; the first command makes it")]
    checks = []
    mode = stat.S_IMODE(folder.root.stat().st_mode)
    if mode & 0o022:
        checks.append(
            Check(
                "data folder", FAULT, f"{folder.root} can be written by others", f"chmod go-w {folder.root}"
            )
        )
    else:
        checks.append(Check("data folder", OK, f"{folder.root}, mode {mode:o}"))
    open_keys = [path for path in folder.keys.rglob("*.key") if stat.S_IMODE(path.stat().st_mode) & 0o077]
    if open_keys:
        checks.append(
            Check(
                "lane keys", FAULT, f"{len(open_keys)} key files can be read by others", "chmod 600 on them"
            )
        )
    checks += check_disks(folder)
    checks += check_spool(folder.spool)
    left = orphans()
    if left:
        checks.append(
            Check(
                "clusters",
                WARNING,
                f"{len(left)} embedded databases whose data folder is gone: {_named(left)}",
                "remove them if they are not missed",
            )
        )
    return checks


def _named(paths: list[Path]) -> str:
    return ", ".join(str(path) for path in paths[:5])


async def _check_witnesses(database: Database, operator: str) -> list[Check]:
    """Per node with sidecars: whether the engine's witness told lines in the newest facts that its seals brought."""
    moment = now()
    async with database.app(operator, snapshot=True) as connection:
        nodes = await nodes_served(connection)
        late = await overdue(connection, operator, moment)
    witnesses = [_witness(node, served, moment) for node, served in nodes.items()]
    return [*witnesses, *(_unchecked(node, each) for node, found in late.items() for each in found)]


_REMEDIES = {
    NO_SPANS: "let its sidecar read the engine's GET /metrics (its log says what is in the way), and the engine be quiet"
    " for some seconds",
    BEFORE_FIRST_SPAN: "they cannot be compared any more; start the sidecar before the engine takes requests",
    COUNTERS_LOST: "they cannot be compared any more; install tallygrid-vllm in the engine: its lines outlive a restart,"
    " and see that GET /metrics answers",
    SINCE_QUIET_POINT: "keep new requests from the engine for some seconds, once a day; if it was quiet, its sidecar's log"
    " says why GET /metrics cannot be read",
}


def _unchecked(node: str, found: Unchecked) -> Check:
    what = (
        f"{counted(found.requests, 'request')} from {time_text(found.from_us)} to {time_text(found.to_us)} were compared"
        f" with nothing of the engine's for more than 24 hours ({found.why})"
    )
    return Check(f"reconcile {node}", FAULT, what, _REMEDIES[found.why])


def _witness(node: str, served: Served, moment: datetime) -> Check:
    name = f"witness {node}"
    span = served.last_span
    if span is None or (served.last_event and served.last_event - span.ended_at > WITNESS_FRESH):
        since = "ever" if span is None else f"since {instant_text(span.ended_at)}"
        if served.is_witnessed:
            return Check(
                name,
                WARNING,
                f"its lines are read, but its engine was not seen quiet {since}: nothing is compared until it is",
                "let the engine be quiet for some seconds, once a day",
            )
        return Check(
            name,
            WARNING,
            f"no fact of its engine {since}; requests are billed as delivered, and nothing is compared with counters",
            "see in its sidecar's log that GET /metrics can be read; give it --engine-lines, the folder into which"
            " tallygrid-vllm writes",
        )
    if span.witness == "aside":
        return Check(
            name,
            WARNING,
            "stepped aside: it does not know its engine's version; requests are billed as delivered",
            "install the tallygrid-vllm that knows this vLLM; the engine's log names both versions",
        )
    if span.witness == "no":
        return Check(
            name,
            WARNING,
            "none: the engine's counters are read, its lines are not; requests are billed as delivered",
            "install tallygrid-vllm in the engine and give its sidecar --engine-lines",
        )
    quiet = "" if moment - span.ended_at <= WITNESS_FRESH else "; nothing was served since"
    return Check(name, OK, f"seen up to {instant_text(span.ended_at)}{quiet}")


async def _check_database(database: Database) -> list[Check]:
    outside = outside_urls(os.environ)
    where = f"the server of {APP_URL}" if outside is not None else "embedded, on a Unix socket of its own"
    checks = [Check("database", OK, where)]
    if database.read_only is not None:
        checks.append(Check("archive", FAULT, database.read_only.what, database.read_only.remedy))
    operators = await database.operators()
    checks.append(
        Check("operators", OK, ", ".join(operators))
        if operators
        else Check("operators", WARNING, "none is declared", "tally apply examples/vilnius")
    )
    for operator in operators:
        checks += await _check_witnesses(database, operator)
    document = await read_streams(database, now())
    lanes: Any = document["lanes"]
    for lane in lanes:
        name = f"lane {lane['node']}/{lane['lane']}"
        if lane["holes"] or lane["forks"] or lane["held"]:
            what = f"{lane['holes']} missing, {lane['forks']} forked, {lane['held']} held"
            checks.append(Check(name, FAULT, what, "tally streams names them"))
        elif lane["due"] and lane["complete_to"] is None:
            what = "it is enrolled, and no batch of it ever came"
            checks.append(Check(name, WARNING, what, "does its sidecar run, and do its batches get here?"))
        elif lane["lag_s"] is not None and lane["lag_s"] > BEHIND_S:
            checks.append(
                Check(
                    name,
                    WARNING,
                    f"complete up to {lane['complete_to']}",
                    "is its sidecar running, and intake?",
                )
            )
        elif lane["kind"] == "sidecar":
            state = "" if lane["due"] else f"{lane['state']}, "
            came = "nothing came" if lane["complete_to"] is None else f"complete up to {lane['complete_to']}"
            checks.append(Check(name, OK, f"{state}{came}"))
    begun: Any = document["unfinished_imports"]
    checks += [Check("import", WARNING, each["what"], each["remedy"]) for each in begun]
    if document["root_faults"]:
        named: Any = document["root_fault_batches"]
        what = "; ".join(
            f"{each['node']}/{each['lane']} {each['epoch']}-{each['number']}: {each['what']}"
            for each in named[:5]
        )
        many = f"{document['root_faults']} accepted batches"
        checks.append(Check("roots", FAULT, f"nothing can be proven of {many}: {what}", "tally streams"))
    if document["set_aside"]:
        checks.append(
            Check(
                "set aside",
                FAULT,
                f"{document['set_aside']} batches that nobody's key vouches for",
                "tally streams",
            )
        )
    return checks
