"""`tally intake repair`: a person decides about batches that are held, and intake acts on it at once; or about one that
was accepted and cannot be proven.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from adapters import answers
from adapters.archive import BatchObjects
from adapters.archive_reading import BatchReader
from adapters.cli.framework import Context, Result, command, counted
from adapters.cli.options import OperatorOption
from adapters.cli.wiring import archive_objects, held_objects, take_what_waits
from adapters.data_folder import DataFolder, now
from adapters.postgres import strays
from adapters.postgres.database import INSTALLATION
from adapters.postgres.decisions import named_lane
from adapters.postgres.streams import read_streams
from adapters.repairing import repair_lane, repair_root
from billing import repair
from billing.intake_ports import RootFault
from billing.repair import Decision
from metering.instant import time_text
from metering.refusal import Refusal


def register_repair(group: typer.Typer) -> None:
    @command(
        group,
        "repair",
        path="intake repair",
        example="tally intake repair --node vilnius-1 --drop 3f9a1c0d5e7b2846 --reason 'a clone of the machine ran'",
    )
    async def repair_(
        context: Context,
        reason: Annotated[str, typer.Option(metavar="R", help="Why; kept for good.")],
        node: Annotated[str | None, typer.Option(metavar="N", help="The lane's node.")] = None,
        lane: Annotated[str | None, typer.Option(metavar="L", help="The lane.")] = None,
        keep: Annotated[
            str | None,
            typer.Option(metavar="HASH", help="Of a fork: bill this branch too, from this batch on."),
        ] = None,
        drop: Annotated[
            str | None,
            typer.Option(
                metavar="HASH",
                help="Leave out this held batch and what is held behind it; revoked: all of old keys.",
            ),
        ] = None,
        accept_hole: Annotated[
            str | None,
            typer.Option(
                metavar="HASH", help="Go on with this batch; what is missing before it never comes."
            ),
        ] = None,
        root: Annotated[
            str | None,
            typer.Option(
                metavar="HASH",
                help="Of an accepted batch whose root does not hold: look again; if in vain, bill it unproven.",
            ),
        ] = None,
        dismiss_strays: Annotated[
            bool,
            typer.Option(
                "--dismiss-strays",
                help="Take what nobody's key vouches for off the list; the files stay in held/.",
            ),
        ] = False,
        operator: OperatorOption = None,
    ) -> Result:
        """Decide about batches that are held and cannot go on by themselves, or cannot be proven. `tally streams` names
        them and the command.

        Nothing is deleted: what is left out stays in held/, is listed with its reason, and is named by every close of a
        month whose usage it was. So is what is billed unproven.
        """
        choices = [(repair.KEEP, keep), (repair.DROP, drop), (repair.ACCEPT_HOLE, accept_hole)]
        choices.append((repair.UNPROVEN, root))
        asked = [(kind, hash) for kind, hash in choices if hash is not None]
        if len(asked) + dismiss_strays != 1 or not reason.strip():
            raise Refusal(
                "which_decision",
                "one decision at a time, with a reason",
                where="--keep, --drop, --accept-hole, --root, --dismiss-strays, --reason",
                remedy="`tally streams` names the command for each case",
            )
        folder = DataFolder(context.data)
        if dismiss_strays:
            return await _dismissed(context, folder, operator, reason)
        [(kind, hash)] = asked
        async with context.database() as database:
            operators = await answers.named_operators(database, operator)
            await take_what_waits(folder, database)
            if kind == repair.UNPROVEN:
                archived = BatchObjects(archive_objects(folder))
                fault, made = await repair_root(database, archived, operators, hash, reason, now())
                return _root_said(fault, made)
            name = await named_lane(database, operators, node, lane)

            held, archive = BatchObjects(held_objects(folder)), BatchReader(archive_objects(folder))
            decisions = await repair_lane(database, held, archive, name, kind, hash, reason, now())
            await take_what_waits(folder, database)
            document: Any = await read_streams(database, now(), name.operator)
        [row] = [each for each in document["lanes"] if (each["node"], each["lane"]) == (name.node, name.lane)]
        said = [_said(each) for each in decisions]
        came = "nothing came" if row["complete_to"] is None else f"complete up to {row['complete_to']}"
        said.append(f"{name}: {came}; {counted(row['held'], 'batch', 'batches')} held")
        return Result({"decisions": [_json(each) for each in decisions], "lane": row}, said)


async def _dismissed(context: Context, folder: DataFolder, operator: str | None, reason: str) -> Result:
    """Without an operator what claims nobody that is declared is dismissed too."""
    done = 0
    async with context.database() as database:
        named = [operator] if operator is not None else [INSTALLATION, *await database.operators()]
        if operator is not None:
            await answers.named_operators(database, operator)
        await take_what_waits(folder, database)
        for each in named:
            async with database.app(each) as conn:
                done += await strays.dismiss_strays(conn, each, reason, now())
    what = f"{counted(done, 'batch', 'batches')} that nobody's key vouches for: off the list, kept in held/"
    return Result({"decisions": [], "dismissed": done}, what)


def _root_said(fault: RootFault, made: Decision | None) -> Result:
    batch = f"{fault.batch.name} {fault.batch.place}"
    if made is None:
        return Result(
            {"decisions": []},
            f"{batch}: the archive gives it back whole, and its root holds: nothing to decide",
        )
    return Result({"decisions": [_json(made)]}, f"{_said(made)}: {fault.what}")


def _json(made: Decision) -> dict[str, Any]:
    lost = made.lost
    return {
        "kind": made.kind,
        **made.name._asdict(),
        "epoch": None if made.place is None else made.place.epoch,
        "number": None if made.place is None else made.place.number,
        "hash": made.hash,
        "after": made.after,
        "from": None if lost is None else time_text(lost.begins_us),
        "to": None if lost is None else time_text(lost.ends_us),
        "requests": None if lost is None else lost.requests,
        "reason": made.reason,
    }


def _said(made: Decision) -> str:
    batch = f"{made.name} {made.place}"
    if made.kind == repair.KEEP:
        return f"{batch}: the lane goes on with this branch"
    lost = made.lost
    if made.kind == repair.UNPROVEN and lost is not None and lost.requests is not None:
        return f"{batch}: {counted(lost.requests, 'request')} are billed, and nothing proves them"
    what = "dropped" if made.kind == repair.DROP else "the lane goes on with it"
    if lost is None:
        return f"{batch}: {what}; nothing is lost by it"
    many = "requests" if lost.requests is None else counted(lost.requests, "request")
    return f"{batch}: {what}; {many} from {time_text(lost.begins_us)} to {time_text(lost.ends_us)} are not billed"
