"""`tally import FILE`, `tally import void ID`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from adapters.cli.framework import (
    Context,
    Result,
    command,
    counted,
    instant_text,
)
from adapters.cli.interrupted import InterruptedInWordsError
from adapters.cli.progress import Told, progress_bar
from adapters.cli.wiring import import_place
from adapters.data_folder import DataFolder, now
from adapters.importing.mapping import COLUMNS, read_options
from adapters.importing.run import ImportRequest, ImportResult, import_file
from adapters.importing.seal_lane import ImportPlace
from adapters.importing.stopped import ImportStoppedError
from adapters.importing.void import void_import
from adapters.kafka.settings import kafka_settings
from adapters.postgres.database import Database
from adapters.postgres.unfinished_imports import unfinished_imports

NoWaitOption = Annotated[
    bool, typer.Option("--no-wait", help="Return when everything is sealed; intake takes it in by itself.")
]


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        no_args_is_help=True,
        help="Usage from elsewhere: `tally import FILE …`, or take an import back: `tally import void ID`.",
    )
    app.add_typer(group, name="import")

    @command(
        group,
        "file",
        path="import file",
        example="tally import usage.csv --node vilnius-1 --create-customers",
    )
    async def file(
        context: Context,
        path: Annotated[
            Path,
            typer.Argument(
                metavar="FILE", help=".csv, .jsonl, .json (CloudEvents), .parquet; also .gz and .zst."
            ),
        ],
        node: Annotated[
            str | None, typer.Option(help="The node that served the requests. Default: the only one.")
        ] = None,
        mapped: Annotated[
            list[str] | None,
            typer.Option("--map", metavar="COLUMN=THEIRS", help=f"Repeatable. COLUMN: {', '.join(COLUMNS)}."),
        ] = None,
        set_to: Annotated[
            list[str] | None,
            typer.Option("--set", metavar="COLUMN=VALUE", help="One value for all rows; repeatable."),
        ] = None,
        time_unit: Annotated[
            str | None, typer.Option(metavar="s|ms|us|ns", help="Times are numbers in this unit.")
        ] = None,
        time_origin: Annotated[
            str | None, typer.Option(metavar="T", help="Where such a clock counts from. Default: 1970.")
        ] = None,
        time_zone: Annotated[
            str | None,
            typer.Option(metavar="Z", help="The zone of times without one; else they are refused."),
        ] = None,
        create_customers: Annotated[
            bool, typer.Option("--create-customers", help="Make private customers of unknown ids.")
        ] = False,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and check only.")] = False,
        also: Annotated[
            bool, typer.Option("--also", help="Import a known file once more under other options.")
        ] = False,
        skip_bad: Annotated[
            Path | None, typer.Option(metavar="FILE", help="List bad rows there and import the good ones.")
        ] = None,
        no_wait: NoWaitOption = False,
    ) -> Result:
        """Import requests that were served elsewhere, through the same seal, intake and archive.

        The same content again adds nothing. A bad row refuses the file, named by its line. Returns when the last
        batch is accepted: where TALLY_KAFKA is set, when intake has said so; with --no-wait when it is sealed.
        """
        options = read_options(mapped or [], set_to or [], time_unit, time_origin, time_zone)
        asked = ImportRequest(path, node, options, create_customers, dry_run, also, skip_bad)
        async with context.database() as database:
            with progress_bar(context.stderr) as told:
                async with _place(context, database, told, no_wait) as place, _told_of_a_stop(database):
                    result = await import_file(place, asked, now())
        return Result(import_document(result), _said(result))

    @command(group, "void", path="import void", example='tally import void ID --reason "wrong node"')
    async def void(
        context: Context,
        id: Annotated[str, typer.Argument(metavar="ID", help="As `tally import` printed it.")],
        reason: Annotated[str, typer.Option(help="Why; kept with the import.")],
        no_wait: NoWaitOption = False,
    ) -> Result:
        """Take an import back, by negative facts that name its events. The same file may be imported again then."""
        async with context.database() as database:
            with progress_bar(context.stderr) as told:
                async with _place(context, database, told, no_wait) as place, _told_of_a_stop(database):
                    result = await void_import(place, id, reason, now())
        said = f"{result.id}: {counted(result.events, 'event')} taken back{_on_its_way(result)}"
        return Result(import_document(result), said)


@asynccontextmanager
async def _told_of_a_stop(database: Database) -> AsyncIterator[None]:
    """Ctrl-C says what of the import counts as usage by now, and what ends that."""
    try:
        yield
    except ImportStoppedError as stopped:
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()  # what is asked of the database now is not cancelled
        for operator in await database.operators():
            async with database.app(operator) as connection:
                for each in await unfinished_imports(connection, operator):
                    if each.id == stopped.id:
                        raise InterruptedInWordsError(each.what, each.id, each.remedy) from None
        raise


@asynccontextmanager
async def _place(
    context: Context, database: Database, told: Told, no_wait: bool
) -> AsyncIterator[ImportPlace]:
    """Where imports work. With Kafka the spool is shipped meanwhile, unless another shipper does it already."""
    folder = DataFolder(context.data)
    place = replace(import_place(folder, database, told), waits=not no_wait)
    settings = kafka_settings(os.environ)
    if settings is None:
        yield place
        return
    from adapters.cli.shipping import ship  # whoever has no Kafka shall not wait for its library

    stop = asyncio.Event()
    shipping = asyncio.create_task(ship(folder, settings, stop))

    async def sweep() -> None:
        if shipping.done():
            shipping.result()  # it was refused, and says why

    try:
        yield replace(place, sweep=sweep, is_shipped=True)
    finally:
        stop.set()
        await asyncio.wait([shipping])
    shipping.result()


def import_document(result: ImportResult) -> dict[str, object]:
    """The JSON of an import."""
    totals = result.totals
    return {
        "id": result.id,
        "events": result.events,
        "batches": result.batches,
        "already_known": result.already_known,
        "skipped": result.skipped,
        "first": _instant(result.first),
        "last": _instant(result.last),
        "prompt_tokens": totals.prompt_tokens,
        "cached_tokens": totals.cached_tokens,
        "completion_tokens": totals.completion_tokens,
        "reasoning_tokens": totals.reasoning_tokens,
        "generated_tokens": totals.generated_tokens,
        "accepted": result.is_accepted and not result.dry_run,
    }


def _instant(moment: datetime | None) -> str | None:
    return None if moment is None else instant_text(moment)


def _said(result: ImportResult) -> str:
    if result.dry_run:
        head = f"dry run: {counted(result.events, 'event')} would be imported"
    elif result.events:
        head = (
            f"{result.id}: {counted(result.events, 'event')} in {counted(result.batches, 'batch', 'batches')}"
        )
    else:
        head = f"{result.id}: nothing new"
    parts = [head]
    if result.already_known:
        parts.append(f"{result.already_known} known already")
    if result.skipped:
        parts.append(f"{counted(result.skipped, 'bad row')} skipped")
    return ", ".join(parts) + _on_its_way(result)


def _on_its_way(result: ImportResult) -> str:
    return "" if result.is_accepted else "; sealed, and on its way to intake"
