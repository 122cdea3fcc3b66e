"""`tally usage`, `tally streams`: what was used, and whether all of it has arrived."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from adapters import answers
from adapters.cli.framework import DIFFERENCE, Context, Result, command, counted, table
from adapters.cli.options import CustomerOption, OperatorOption, PeriodOption, read_period
from adapters.cli.wiring import take_what_waits
from adapters.data_folder import DataFolder, now
from adapters.postgres.streams import read_streams
from adapters.postgres.usage_totals import BY, FIGURES
from billing.streams import has_difference


def register(app: typer.Typer) -> None:
    @command(app, "usage", path="usage", example="tally usage --period 2026-10 --by customer,model")
    async def usage(
        context: Context,
        period: PeriodOption = None,
        since: Annotated[
            str | None, typer.Option("--from", metavar="T", help="A day, or a time on a whole hour.")
        ] = None,
        until: Annotated[str | None, typer.Option("--to", metavar="T", help="The end, not included.")] = None,
        by: Annotated[str, typer.Option(help=f"One or more of: {', '.join(BY)}.")] = "customer",
        operator: OperatorOption = None,
        customer: CustomerOption = None,
    ) -> Result:
        """Totals of usage. Default: all there is, by customer. Days and hours are in the operator's zone."""
        words = [word.strip() for word in by.split(",") if word.strip()]
        span = answers.Span(read_period(period), since, until)
        async with context.database() as database:
            await take_what_waits(DataFolder(context.data), database)
            document = await answers.usage(database, operator, span, words, customer)
        said: list[Any] = [_usage_table(document, words)]
        total = document["total"]
        if total["unwitnessed_requests"]:
            said.append(
                f"{total['unwitnessed_requests']:,} of {counted(total['requests'], 'request')} have no figure from the"
                " engine itself: billed as delivered"
            )
        return Result(document, said)

    @command(app, "streams", path="streams", example="tally streams")
    async def streams(context: Context, operator: OperatorOption = None) -> Result:
        """Per node and lane: complete up to when, what is missing, forked, held or unproven. Exit 3 if anything is."""
        async with context.database() as database:
            await take_what_waits(DataFolder(context.data), database)
            document = await read_streams(database, now(), operator)
        lanes: Any = document["lanes"]
        columns = ("operator", "node", "lane", "state", "complete_to", "holes", "forks", "held", "lag_s")
        rows = [[lane[column] for column in columns] for lane in lanes]
        said: list[Any] = [table(None, columns, rows, right=("holes", "forks", "held", "lag_s"))]
        for lane in lanes:
            for held in lane["held_batches"]:
                where = f"{lane['node']}/{lane['lane']} {held['epoch']}-{held['number']}"
                said.append(f"held: {where}: {held['code']}: {held['what']}")
            for case in lane["cases"]:
                more = f" and {case['batches'] - 1} behind it" if case["batches"] > 1 else ""
                said.append(
                    f"what ends it: {lane['node']}/{lane['lane']} {case['epoch']}-{case['number']}{more}: {case['ends']}"
                )
                said += [f"    {line}" for line in case["commands"]]
            said += _how_it_stands(lane)
        siblings: Any = document["missing_siblings"]
        said += [
            f"missing: {each['node']}/{each['lane']} {each['epoch']}-{each['number']}: its sibling told of this seal at"
            f" {each['said']}, and it has not come; is its sidecar's spool reachable, its lane enrolled?"
            for each in siblings
        ]
        said += _unproven(document)
        aside: Any = document["set_aside_batches"]
        for stray in aside:
            claim = (
                "/".join(part for part in (stray["node"], stray["lane"]) if part)
                or "no lane that can be read"
            )
            where = f"held/{stray['path']}" if stray["path"] else f"{stray['batches']} batches"
            said.append(f"set aside: claims {claim}: {stray['code']}: {stray['what']} ({where})")
        if document["set_aside"]:
            said.append(
                f"set aside, nobody's key vouches for them: {document['set_aside']} batches; enrol their lanes, or, if they"
                " are a stranger's: tally intake repair --dismiss-strays --reason …"
            )
        return Result(document, said, DIFFERENCE if has_difference(document) else 0)


def _unproven(document: dict[str, Any]) -> list[str]:
    said = [
        f"unproven: {each['node']}/{each['lane']} {each['epoch']}-{each['number']}: {each['what']}"
        for each in document["root_fault_batches"]
    ]
    if said:
        said.append(
            f"accepted and counted, and nothing can be proven of their events: {document['root_faults']}"
            f" {'batch' if document['root_faults'] == 1 else 'batches'}; restore the archive's files, then, or if they are"
            " gone for good:"
        )
        said += [
            f"    tally intake repair --root {each['hash'][:16]} --reason …"
            for each in document["root_fault_batches"]
        ]
    return said


def _how_it_stands(lane: dict[str, Any]) -> list[str]:
    where = f"{lane['node']}/{lane['lane']}"
    if lane["state"] == "silent":
        last = (
            "nothing came yet"
            if lane["complete_to"] is None
            else f"its last seal speaks of {lane['complete_to']}"
        )
        return [f"silent: {where}: {last}; does its sidecar run, and do its batches get here?"]
    if lane["state"] == "revoked":
        return [f"revoked: {where}: nothing more is accepted until it has a new key: tally node rotate"]
    return []


def _usage_table(document: dict[str, Any], words: list[str]) -> Any:
    rows = [
        [row[word] for word in words] + [f"{row[name]:,}" for name in FIGURES] for row in document["rows"]
    ]
    rows.append(["total", *[""] * (len(words) - 1), *(f"{document['total'][name]:,}" for name in FIGURES)])
    return table(None, [*words, *FIGURES], rows, right=FIGURES)
