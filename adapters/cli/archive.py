"""`tally archive`: ask the archive of sealed batches, join it, make usage again from it; who keeps what is in retention."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

from adapters import answers
from adapters.archive_bounds import Limits
from adapters.archive_compact import Compacted, compact
from adapters.archive_query import Answer, query
from adapters.archive_reading import LaneDay, lane_day, lane_days
from adapters.cli import archive_retention
from adapters.cli.files import check_writable
from adapters.cli.framework import DIFFERENCE, Context, Result, command, counted, table
from adapters.cli.options import OperatorOption, PeriodOption, read_period
from adapters.cli.wiring import archive_objects, take_what_waits
from adapters.data_folder import DataFolder, now
from adapters.postgres import archive as rows
from adapters.postgres.database import Database
from adapters.postgres.roots import unchecked_hashes
from adapters.postgres.site import operator_zone
from adapters.rebuilding import Asked, rebuilt
from billing.objects import Objects
from metering.refusal import Refusal

_MEMORY = re.compile(r"[1-9][0-9]*(\.[0-9]+)? ?[KMGT]i?B", re.IGNORECASE)
_SAMPLE = '"SELECT model, count(*) AS requests, sum(completion_tokens) AS tokens FROM event GROUP BY model"'


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        no_args_is_help=True, help="The archive of sealed batches: ask, join, rebuild, expire."
    )
    app.add_typer(group, name="archive")
    archive_retention.register(group)

    @command(group, "query", path="archive query", example=f"tally archive query {_SAMPLE}")
    async def query_(
        context: Context,
        sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT over the views event and seal.")],
        operator: OperatorOption = None,
        period: PeriodOption = None,
        since: Annotated[
            str | None, typer.Option("--from", metavar="T", help="A day, or a time on a whole hour.")
        ] = None,
        until: Annotated[str | None, typer.Option("--to", metavar="T", help="The end, not included.")] = None,
        memory: Annotated[str, typer.Option(help="The memory that the query may take.")] = "1GB",
        timeout_s: Annotated[
            float, typer.Option("--timeout", metavar="SECONDS", min=0.1, help="The time that it may take.")
        ] = 60,
        limit: Annotated[int, typer.Option(min=1, help="Print at most so many rows.")] = 1000,
    ) -> Result:
        """Ask the archive per request, in SQL (DuckDB), with the names of customers, projects and keys.

        The session only reads: no file but the archive's, no network. --period, --from, --to read only those days.
        """
        if _MEMORY.fullmatch(memory) is None:
            raise Refusal(
                "bad_memory", f"not a size: {memory!r}", where="--memory", remedy="for instance 1GB or 512MiB"
            )
        folder = DataFolder(context.data)
        objects = archive_objects(folder)
        span = answers.Span(read_period(period), since, until)
        async with context.database() as database:
            await take_what_waits(folder, database)
            operators = await answers.named_operators(database, operator)
            days, names, bounds, expired = await _asked(database, objects, operators, span)
        answer = await asyncio.to_thread(
            query, objects, sql, days, names, bounds, Limits(memory, timeout_s, limit)
        )
        return _answered(answer, expired, limit)

    @command(group, "compact", path="archive compact", example="tally archive compact")
    async def compact_(
        context: Context,
        operator: OperatorOption = None,
        days: Annotated[int, typer.Option(min=1, help="Look at so many days back.")] = 35,
    ) -> Result:
        """Join the batches of closed hours and days into large files; seals and proofs stay.

        Until it ends, who reads the files without Tallygrid may meet events twice. Exit 3 if anything is damaged.
        """
        objects = archive_objects(DataFolder(context.data))
        documents = []
        async with context.database() as database:
            for each in await answers.named_operators(database, operator):
                async with database.exclusively(rows.lock_name(each)):
                    documents.append(await _compacted(database, objects, each, now(), days))
        damaged = any(document["faults"] for document in documents)
        said = [line for document in documents for line in _compacted_text(document)]
        return Result({"operators": documents}, said, DIFFERENCE if damaged else 0)

    @command(group, "rebuild", path="archive rebuild", example="tally archive rebuild --period 2026-10")
    async def rebuild_(
        context: Context,
        operator: OperatorOption = None,
        period: PeriodOption = None,
        up_to: Annotated[
            str | None,
            typer.Option("--up-to", metavar="CLOSE", help="Up to what a close read: 2026-10, or 2026-10/2."),
        ] = None,
        root: Annotated[
            bool, typer.Option("--root", help="Recompute every Merkle root too (0.8 M events/s).")
        ] = False,
        export: Annotated[
            Path | None,
            typer.Option(
                "--export",
                metavar="FILE",
                help="Also write the database's cells as Parquet, for the Spark job.",
            ),
        ] = None,
    ) -> Result:
        """Make hourly usage again from the archive alone and compare it with the database, cell by cell.

        Follows each lane's chain of seals; a missing, extra or damaged batch is named. Exit 3 on a difference.
        """
        folder = DataFolder(context.data)
        asked = Asked(read_period(period), up_to, root, export)
        if export is not None:
            check_writable(export)
        documents = []
        async with context.database() as database:
            await take_what_waits(folder, database)
            for each in await answers.named_operators(database, operator):
                documents.append(
                    await rebuilt(database, archive_objects(folder), each, asked, folder.scratch)
                )
        ok = all(document["ok"] for document in documents)
        said = [line for document in documents for line in _rebuilt_text(document)]
        return Result({"ok": ok, "operators": documents}, said, 0 if ok else DIFFERENCE)


async def _asked(
    database: Database, objects: Objects, operators: Sequence[str], span: answers.Span
) -> tuple[list[LaneDay], dict[UUID, str], tuple[datetime, datetime] | None, dict[str, date]]:
    """The lanes' days that hold the events of a span, the names of subjects, the span, and what expired before when.

    A span is of one operator's zone; of several operators it is the whole of theirs.
    """
    days: list[LaneDay] = []
    names: dict[UUID, str] = {}
    bounds: tuple[datetime, datetime] | None = None
    expired: dict[str, date] = {}
    for operator in operators:
        async with database.app(operator, snapshot=True) as conn:
            names |= {id_: slug for id_, _, slug in await rows.subject_slugs(conn, operator)}
            before = await rows.expired_before(conn, operator)
            if before is not None:
                expired[operator] = before
            if span == answers.Span():
                days += await asyncio.to_thread(list, lane_days(objects, operator))
                continue
            start, end = answers.instants(span, await operator_zone(conn, operator))
            bounds = (start, end) if bounds is None else (min(bounds[0], start), max(bounds[1], end))
            behind = await rows.straddling(conn, operator, end)
        days += await asyncio.to_thread(_days_of, objects, operator, start, end, behind)
    return days, names, bounds, expired


def _days_of(
    objects: Objects, operator: str, start: datetime, end: datetime, behind: Sequence[str]
) -> list[LaneDay]:
    """The lanes' days from `start` to `end`, and those of the batches `behind`, which may hold events before `end`."""
    found = {
        day.folder: day for day in lane_days(objects, operator, start.astimezone(UTC).date(), end.date())
    }
    for path in behind:
        folder = path.rpartition("/")[0]
        if folder not in found:
            found[folder] = lane_day(folder, objects.list(f"{folder}/"))
    return list(found.values())


def _answered(answer: Answer, expired: Mapping[str, date], limit: int) -> Result:
    document = {
        "columns": list(answer.columns),
        "rows": [dict(zip(answer.columns, row, strict=True)) for row in answer.rows],
        "truncated": answer.truncated,
        "expired_before": {operator: str(before) for operator, before in expired.items()},
    }
    figures = [
        column
        for at, column in enumerate(answer.columns)
        if any(isinstance(row[at], int | float) for row in answer.rows)
    ]
    said: list[Any] = [table(None, answer.columns, answer.rows, right=figures)]
    if answer.truncated:
        said.append(f"more than {counted(limit, 'row')}; --limit prints more")
    said += [f"events of {operator} before {before} may have expired" for operator, before in expired.items()]
    return Result(document, said)


async def _compacted(
    database: Database, objects: Objects, operator: str, at: datetime, days: int
) -> dict[str, Any]:
    async with database.app(operator, snapshot=True) as conn:
        marks = await rows.lanes_complete_to(conn, operator)
        unchecked = await unchecked_hashes(conn, operator)
    done = Compacted()

    def run() -> None:
        since = at.date() - timedelta(days=days)
        for each in compact(
            objects,
            operator,
            lambda node, lane: marks.get((node, lane)),
            at,
            unchecked=unchecked,
            since=since,
        ):
            done.add(each)

    await asyncio.to_thread(run)
    return {
        "operator": operator,
        "lane_days": done.lane_days,
        "files": done.files,
        "batches": done.batches,
        "events": done.events,
        "objects_before": done.objects_before,
        "objects_after": done.objects_after,
        "faults": [{"code": fault.code, "what": fault.what, "where": fault.where} for fault in done.faults],
    }


def _compacted_text(document: Mapping[str, Any]) -> list[str]:
    said = [
        f"{document['operator']}: {counted(document['batches'], 'batch', 'batches')} joined into"
        f" {counted(document['files'], 'file')}; {document['objects_before']:,} objects became"
        f" {document['objects_after']:,}"
    ]
    return said + [
        f"  damaged, left as it lies: {each['where']}: {each['what']}" for each in document["faults"]
    ]


def _rebuilt_text(document: Mapping[str, Any]) -> list[Any]:
    said: list[Any] = [
        f"{document['operator']}: {counted(document['batches'], 'batch', 'batches')} of"
        f" {counted(document['lanes'], 'lane')}, {counted(document['events'], 'event')}"
    ]
    if "close" in document:
        rated = ", ".join(
            f"{tokens:,} {meter}" for meter, tokens in document["rated_at_close"].items() if tokens
        )
        same = document["rated"] == document["rated_at_close"]
        said.append(
            f"  close {document['close']['period']}/{document['close']['number']} rated {rated or 'nothing'};"
            f" the archive rates to {'the same' if same else document['rated']}"
        )
    elif document["different"]:
        said.append(f"  DIFFERENCE: {counted(document['different'], 'cell')} of hourly usage")
        said += [f"    {_cell_text(each)}" for each in document["differences"]]
    else:
        said.append(f"  {counted(document['cells'], 'cell')} of hourly usage, each as in the database")
    said += [f"  {each['code']}: {each['where']}: {each['what']}" for each in document["findings"]]
    if document["expired"]:
        said.append(
            f"  expired by decision, not compared: {counted(document['expired'], 'batch', 'batches')}"
        )
    return said


def _cell_text(each: Mapping[str, Any]) -> str:
    changed = ", ".join(
        f"{name} {each['archive'][name]:,} in the archive, {each['database'][name]:,} in the database"
        for name in each["archive"]
    )
    return f"{each['hour']} {each['node']} {each['model']} {each['outcome']} customer {each['customer']}: {changed}"
