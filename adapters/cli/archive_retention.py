"""`tally archive expire` and `tally archive hold`: what leaves the archive by retention, and what must stay."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Annotated, Any
from uuid import UUID, uuid4

import typer

from adapters import answers
from adapters.archive_expire import Bounds, Expirable, billed_until, expirable, expire, hold_of
from adapters.archive_expired import put_list
from adapters.cli.framework import DIFFERENCE, Context, Result, command, counted, instant_text, table
from adapters.cli.options import CustomerOption, OperatorOption, PeriodOption, read_period
from adapters.cli.signing import sign_logs
from adapters.cli.wiring import archive_objects
from adapters.data_folder import DataFolder, now
from adapters.log_archive import put_contents
from adapters.postgres import archive as rows
from adapters.postgres import log
from adapters.postgres.database import Database
from adapters.postgres.roots import unchecked_hashes
from adapters.postgres.site import operator_zone
from adapters.postgres.subjects import find_subjects
from billing.objects import Objects
from metering.refusal import Refusal

#: How long another process is waited for that signs every second.
_LOOKS, _LOOK_EVERY_S = 20, 0.5
ReasonOption = Annotated[str, typer.Option(metavar="R", help="Why; kept with the decision, and logged.")]


def register(group: typer.Typer) -> None:
    @command(
        group,
        "expire",
        path="archive expire",
        example='tally archive expire --older-than 400d --reason "retention schedule" --dry-run',
    )
    async def expire_(
        context: Context,
        older_than: Annotated[
            str, typer.Option("--older-than", metavar="DAYS", help="The age from which bodies may go: 400d.")
        ],
        reason: ReasonOption,
        operator: OperatorOption = None,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    ) -> Result:
        """Take events out of the archive that are old enough, billed and under no legal hold; seals and sums stay.

        The decision is in the signed log before the first file goes. Exit 3 if anything that was looked at is damaged.
        """
        before = now().date() - timedelta(days=_days(older_than))
        objects = archive_objects(DataFolder(context.data))
        documents = []
        async with context.database() as database:
            for each in await answers.named_operators(database, operator):
                async with database.exclusively(rows.lock_name(each)):
                    found = await _expirable(database, objects, each, before, keep=not dry_run)
                    if found.files and not dry_run:
                        await _decide(context, database, objects, each, before, found, reason)
                        await asyncio.to_thread(_expire_all, objects, found.files)
                documents.append(_document(each, before, found, dry_run))
        damaged = any(document["findings"] for document in documents)
        said = [line for document in documents for line in _said(document)]
        return Result({"operators": documents}, said, DIFFERENCE if damaged else 0)

    hold = typer.Typer(no_args_is_help=True, help="What must not expire: legal holds.")
    group.add_typer(hold, name="hold")

    @command(
        hold,
        "add",
        path="archive hold add",
        example='tally archive hold add --operator telecentras --period 2026-10 --reason "dispute of October"',
    )
    async def add(
        context: Context,
        operator: Annotated[str, typer.Option("--operator", metavar="O", help="The operator.")],
        reason: ReasonOption,
        customer: CustomerOption = None,
        period: PeriodOption = None,
    ) -> Result:
        """Keep an operator's events from expiring: all of them, or a customer's, or a month's; logged."""
        async with context.database() as database:
            await answers.named_operators(database, operator)
            async with database.exclusively(rows.lock_name(operator)), database.app(operator) as conn:
                whose = (
                    None if customer is None else await find_subjects(conn, operator, "customer", [customer])
                )
                if customer is not None and not whose:
                    raise Refusal(
                        "unknown_customer",
                        f"no such customer: {customer}",
                        where="--customer",
                        remedy="tally get prints those that are declared",
                    )
                id_ = None if whose is None or customer is None else whose[customer]
                added = rows.LegalHold(uuid4(), id_, read_period(period), reason, now())
                await rows.add_hold(conn, operator, added)
        return Result({"id": str(added.id)}, f"hold {added.id}: {reason}")

    @command(hold, "list", path="archive hold list", example="tally archive hold list")
    async def list_(context: Context, operator: OperatorOption = None) -> Result:
        """Every hold there was, oldest first."""
        found = []
        async with context.database() as database:
            for each in await answers.named_operators(database, operator):
                async with database.app(each) as conn:
                    names = {id_: slug for id_, _, slug in await rows.subject_slugs(conn, each)}
                    found += [_hold_json(each, one, names) for one in await rows.holds(conn, each)]
        columns = ("id", "operator", "customer", "period", "reason", "added_at", "removed_at")
        return Result(
            {"holds": found},
            table(None, columns, [[one[c] for c in columns] for one in found], sentences=("reason",)),
        )

    @command(
        hold,
        "remove",
        path="archive hold remove",
        example='tally archive hold remove 2f1c5f2e-6a0c-4c55-9a1e-3f0d7b7f4c11 --reason "dispute settled"',
    )
    async def remove(
        context: Context,
        id: Annotated[str, typer.Argument(metavar="ID", help="The hold's id.")],
        reason: ReasonOption,
    ) -> Result:
        """End a hold; it stays listed, with why."""
        async with context.database() as database:
            for each in await database.operators():
                async with database.app(each) as conn:
                    if await rows.remove_hold(conn, each, _uuid(id), reason, now()):
                        return Result({"id": id, "removed": True}, f"hold {id} is removed: {reason}")
        raise _no_hold(id)


async def _expirable(
    database: Database, objects: Objects, operator: str, before: date, *, keep: bool
) -> Expirable:
    async with database.app(operator, snapshot=True) as conn:
        closes = await rows.closed_heads(conn, operator)
        heads = [head for each in closes.values() for head in each.values()]
        bounds = Bounds(
            before,
            await operator_zone(conn, operator),
            billed_until(closes, await rows.complete_to_of(conn, operator, heads)),
            [hold_of(one.customer, one.period) for one in await rows.holds(conn, operator, standing=True)],
            await unchecked_hashes(conn, operator),
        )
    return await asyncio.to_thread(expirable, objects, operator, bounds, keep=keep)


def _expire_all(objects: Objects, files: Sequence[str]) -> None:
    for _ in expire(objects, files):
        pass


async def _decide(
    context: Context,
    database: Database,
    objects: Objects,
    operator: str,
    before: date,
    found: Expirable,
    reason: str,
) -> None:
    """What is decided, and what the events came to, is in the archive, committed and under a checkpoint when this returns.

    Who is to sign may be another process: it is waited for. Refusal: unsigned; nothing goes then, and the decision, which
    stands, is made anew by the next run.
    """
    listed = await asyncio.to_thread(put_list, objects, operator, found.cells)
    async with database.app(operator) as conn:
        leaf = await rows.add_expiry(conn, operator, uuid4(), before, found.batches, listed, reason, now())
        for made in await log.own_contents(conn, operator):
            await asyncio.to_thread(put_contents, objects, operator, made.day, made.contents)
    failed = (await sign_logs(context.data, database, objects)).get(operator)
    for _ in range(1 if failed else _LOOKS):
        async with database.app(operator) as conn:
            if await rows.is_signed(conn, operator, leaf):
                return
        await asyncio.sleep(_LOOK_EVERY_S)
    why = failed.what if failed else f"no checkpoint covered it within {_LOOKS * _LOOK_EVERY_S:g} s"
    raise Refusal(
        "unsigned",
        f"the decision is not in the signed log of {operator}, so nothing was taken away: {why}",
        where=operator,
        remedy=(failed.remedy if failed else "")
        or "start `tally intake` where the log's key is, then expire again",
    )


def _document(operator: str, before: date, found: Expirable, dry_run: bool) -> dict[str, Any]:
    return {
        "operator": operator,
        "before": str(before),
        "dry_run": dry_run,
        "files": len(found.files),
        "batches": found.batches,
        "events": found.events,
        "kept_not_billed": found.not_billed,
        "kept_by_hold": found.held,
        "kept_unchecked": found.unchecked,
        "findings": [{"code": each.code, "what": each.what, "where": each.where} for each in found.findings],
    }


def _said(document: dict[str, Any]) -> list[str]:
    went = "would go" if document["dry_run"] else "expired"
    said = [
        f"{document['operator']}: {counted(document['events'], 'event')} of"
        f" {counted(document['batches'], 'batch', 'batches')} before {document['before']} {went}"
    ]
    if document["kept_not_billed"]:
        said.append(
            f"  kept, no close covers them yet: {counted(document['kept_not_billed'], 'batch', 'batches')}"
        )
    if document["kept_by_hold"]:
        said.append(f"  kept by a legal hold: {counted(document['kept_by_hold'], 'batch', 'batches')}")
    if document["kept_unchecked"]:
        waits = counted(document["kept_unchecked"], "batch", "batches")
        said.append(f"  kept, intake has not recomputed their roots yet: {waits}")
    return said + [f"  {each['code']}: {each['where']}: {each['what']}" for each in document["findings"]]


def _hold_json(operator: str, hold: rows.LegalHold, names: dict[UUID, str]) -> dict[str, Any]:
    return {
        "id": str(hold.id),
        "operator": operator,
        "customer": None if hold.customer is None else names.get(hold.customer, str(hold.customer)),
        "period": None if hold.period is None else str(hold.period),
        "reason": hold.reason,
        "added_at": instant_text(hold.added_at),
        "removed_at": None if hold.removed_at is None else instant_text(hold.removed_at),
        "removed_reason": hold.removed_reason,
    }


def _days(older_than: str) -> int:
    found = re.fullmatch(r"(\d{1,5})d?", older_than)
    if found is None or int(found[1]) < 1:
        raise Refusal(
            "bad_age",
            f"not a number of days from 1 to 99999: {older_than}",
            where="--older-than",
            remedy="400d: four hundred days",
        )
    return int(found[1])


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise _no_hold(text) from None


def _no_hold(id_: str) -> Refusal:
    return Refusal(
        "unknown_hold", f"no such hold stands: {id_}", where="ID", remedy="tally archive hold list"
    )
