"""`tally demo`: the whole road in one go, with the parts that an operator runs and nothing else.

site files ─▶ engine ─▶ `tally up` ─▶ requests over HTTP ─▶ drain ─▶ counters = events? ─▶ close, issue, settle, report
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

from adapters import answers, reconciling, rendering, reporting
from adapters.cli.demo_check import Tokens, counted_by, engine_counters, late_tokens, told_and_gone
from adapters.cli.demo_load import DemoRequest, SendersBook, read_sample, send_all
from adapters.cli.demo_parts import served_model, simulated_engine, tally_up
from adapters.cli.demo_proof import proved
from adapters.cli.demo_show import shown
from adapters.cli.demo_trace import TraceOptions, read_trace
from adapters.cli.framework import DIFFERENCE, Context, Result, command
from adapters.cli.progress import progress_bar
from adapters.cli.wiring import make_books, make_intake
from adapters.data_folder import DataFolder, now
from adapters.postgres.database import Database
from adapters.postgres.embedded import discard
from adapters.postgres.keys import create_customer_key
from adapters.postgres.site import site_store
from adapters.simulated_engine.options import FAULTS
from adapters.site_files.apply import add_private_customers, apply_site
from adapters.site_files.reading import read_files
from billing.close import close_periods
from billing.period import Period
from billing.run_settlement import run_settlement
from billing.settlement import settlement_json
from metering.identity import hash_secret, new_id, new_secret
from metering.refusal import Refusal
from reports.formats import FORMATS, USAGE

OPERATOR, NODE = "telecentras", "vilnius-1"
WRITTEN_INVOICES = 10

Secrets = dict[tuple[str, str], str]
MapOption = Annotated[list[str] | None, typer.Option("--map", metavar="COLUMN=THEIRS", help="As for import.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", metavar="COLUMN=VALUE", help="As for import.")]


@dataclass(frozen=True, slots=True)
class Served:
    """What came of sending the requests: the clients' book, and the engine's counters. `witnessed`: the engine wrote
    its lines for the sidecar."""

    book: SendersBook
    counters: Tokens
    witnessed: bool


def register(app: typer.Typer) -> None:
    @command(app, "demo", path="demo", example="tally demo --keep")
    async def demo(
        context: Context,
        trace: Annotated[
            Path | None, typer.Option(metavar="FILE", help="Send a trace's requests instead.")
        ] = None,
        mapped: MapOption = None,
        set_to: SetOption = None,
        time_unit: Annotated[str | None, typer.Option(metavar="s|ms|us|ns", help="As for import.")] = None,
        time_origin: Annotated[str | None, typer.Option(metavar="T", help="As for import.")] = None,
        time_zone: Annotated[str | None, typer.Option(metavar="Z", help="As for import.")] = None,
        limit: Annotated[int | None, typer.Option(min=1, help="Only so many requests of the trace.")] = None,
        engine: Annotated[str, typer.Option(metavar="sim|URL", help="Simulated, or a running vLLM.")] = "sim",
        fault: Annotated[
            str | None, typer.Option(help="miscount: the simulated engine is wrong, and the check must fail.")
        ] = None,
        keep: Annotated[
            bool, typer.Option("--keep", help="Keep the data folder too, not only the files.")
        ] = False,
    ) -> Result:
        """Show the whole road: requests over HTTP, sealed events, invoices, settlement, reports.

        Works in a new temporary folder. Closes the running month, which is not over, and issues what it drafts.
        Exit 3 if the events are not the engine's own counters, to the token, or usage can't be made again of them.
        """
        said = TraceOptions(mapped or [], set_to or [], time_unit, time_origin, time_zone, limit)
        _check_options(trace, said, engine, fault)
        # A folder of its own is read where it is, whatever Kafka the environment names.
        os.environ.pop("TALLY_KAFKA", None)
        requests = read_trace(trace, said, now()) if trace is not None else _sample()
        root = _new_root()
        try:
            return await _run(
                replace(context, data=root / "data"), root / "files", requests, engine, fault, keep
            )
        finally:
            await asyncio.to_thread(shutil.rmtree, root / "engine-lines", ignore_errors=True)
            if not keep:
                await asyncio.to_thread(discard, root / "data")
                shutil.rmtree(root / "data", ignore_errors=True)


def _check_options(trace: Path | None, said: TraceOptions, engine: str, fault: str | None) -> None:
    """Nothing that was said is ignored. Refusals: bad_option."""
    if trace is None and said != TraceOptions([], [], None, None, None, None):
        raise Refusal(
            "bad_option",
            "--map, --set, --time-… and --limit say how a trace is read",
            where="--trace",
            remedy="add --trace FILE",
        )
    if fault is not None and (fault not in FAULTS or engine != "sim"):
        what = "a real engine is not made wrong" if fault in FAULTS else f"no such fault: {fault}"
        raise Refusal(
            "bad_option",
            what,
            where="--fault",
            remedy=f"with the simulated engine, one of: {', '.join(FAULTS)}",
        )


def _new_root() -> Path:
    root = Path(tempfile.mkdtemp(prefix="tallygrid-demo-"))
    (root / "files").mkdir()
    return root


def _sample() -> list[DemoRequest]:
    with as_file(files("tallygrid_examples.vilnius") / "requests.csv") as path:
        return read_sample(path)


async def _run(
    context: Context, out: Path, requests: Sequence[DemoRequest], engine: str, fault: str | None, keep: bool
) -> Result:
    folder = DataFolder(context.data)
    context.say("database, site files, API keys")
    async with context.database() as database:
        secrets = await _prepare(database, requests)
        served = await _serve(context, requests, secrets, engine, fault)
        context.say("intake, close of the running month, invoices, settlement, reports")
        await make_intake(folder, database).take_pending()
        return await _bill(context, database, out, served, keep)


async def _prepare(database: Database, requests: Sequence[DemoRequest]) -> Secrets:
    """Applies the example, declares a trace's customers, and makes a key for each customer and project."""
    wanted = sorted({(request.customer, request.project) for request in requests})
    with as_file(files("tallygrid_examples.vilnius")) as example:
        async with site_store(database) as store:
            await apply_site(store, read_files([example]), now())
            await add_private_customers(store, OPERATOR, [customer for customer, _ in wanted])
    secrets: Secrets = {}
    async with database.app(OPERATOR) as connection:
        for customer, project in wanted:
            secret = secrets[customer, project] = new_secret()
            await create_customer_key(
                connection,
                OPERATOR,
                key=UUID(bytes=new_id()),
                secret_sha256=hash_secret(secret),
                customer=customer,
                project=project or None,
                now=now(),
                expires_at=None,
            )
    return secrets


async def _serve(
    context: Context, requests: Sequence[DemoRequest], secrets: Secrets, engine: str, fault: str | None
) -> Served:
    """Sends the requests through `tally up` to the engine; returns when the sidecar has drained and sealed."""
    lines = context.data.parent / "engine-lines" if engine == "sim" else None
    async with _engine(engine, lines, fault) as address:
        if lines is None:
            # A real engine serves its own model, and without a witness nobody knows what it made for the gone.
            model = await asyncio.to_thread(served_model, address)
            requests = [replace(request, model=model, hang_up_after=None) for request in requests]
        before = await asyncio.to_thread(engine_counters, address)
        context.say(f"{len(requests)} requests through the sidecar to the engine at {address}")
        async with tally_up(context.data, address, NODE, lines) as sidecar:
            with progress_bar(context.stderr) as bar:
                book = await send_all(
                    sidecar, requests, secrets, lambda sent: bar("requests", sent, len(requests))
                )
        counters = await asyncio.to_thread(engine_counters, address) - before
    return Served(book, counters, witnessed=lines is not None)


@asynccontextmanager
async def _engine(engine: str, lines: Path | None, fault: str | None) -> AsyncIterator[str]:
    if lines is None:
        yield engine.rstrip("/")
        return
    await asyncio.to_thread(lines.mkdir)
    async with simulated_engine(lines, fault) as address:
        yield address


async def _bill(context: Context, database: Database, out: Path, served: Served, keep: bool) -> Result:
    folder = DataFolder(context.data)
    usage = await answers.usage(database, OPERATOR, answers.Span(), ["outcome"])
    told, gone = told_and_gone(usage["rows"])
    reconciled = await reconciling.reconciliation(database, reconciling.Asked())
    late = late_tokens(reconciled["nodes"])
    difference = served.counters - told - gone + late
    zone = (await answers.facts_of(database, OPERATOR)).operator[-1].zone
    period = Period.holding(now(), zone)
    await context.sign(database)  # as `tally period close` does
    books = make_books(folder, database)
    await close_periods(books, [OPERATOR], period, now(), issue=True, accept_unfinished=True)
    found = await answers.found_documents(database, operator=OPERATOR, period=period)
    settled = await run_settlement(books, OPERATOR, period, now())
    first = next((each.document.number for each in found), None)
    proof = await proved(context, database, OPERATOR, first)
    document: dict[str, Any] = {
        "requests": served.book.sent,
        "answers": served.book.whole,
        "hung_up": served.book.left,
        "refused": served.book.refused,
        "events": usage["total"]["requests"],
        "engine": _tokens(served.counters),
        "counted": _tokens(told),
        "for_clients_that_left": _tokens(gone),
        "late": _tokens(late),
        "difference": _tokens(difference),
        "reconciled": _tokens(counted_by(reconciled["nodes"])),
        "unaccounted": reconciled["unaccounted"],
        "period": str(period),
        "unfinished": True,
        "invoices": [answers.short(each.document) for each in found],
        "settlement": settlement_json(settled) if settled is not None else None,
        "proved": proof,
        "files": [str(path) for path in await _write(database, out, found, period)],
        "data": str(folder.root) if keep else None,
    }
    even = difference == Tokens() and served.book.sent == document["events"]
    even = even and not reconciling.has_difference(reconciled) and proof["ok"]
    if served.witnessed:  # and nothing that the counters said is left unread
        even = even and counted_by(reconciled["nodes"]) == served.counters
    return Result(document, shown(document), 0 if even else DIFFERENCE)


def _tokens(tokens: Tokens) -> dict[str, int]:
    return {"prompt_tokens": tokens.prompt, "output_tokens": tokens.output}


async def _write(database: Database, out: Path, found: Sequence[answers.Found], period: Period) -> list[Path]:
    """The first invoices as PDF, and the usage report in each of its formats."""
    written: list[Path] = []
    for each in found[:WRITTEN_INVOICES]:
        path = out / rendering.file_name(each.document, "pdf")
        path.write_bytes(await rendering.render_aside(each, "pdf"))
        written.append(path)
    for format in FORMATS[USAGE]:
        made = await reporting.usage_report(database, OPERATOR, period, format)
        (out / made.name).write_bytes(made.content)
        written.append(out / made.name)
    return written
