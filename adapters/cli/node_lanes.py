"""`tally node revoke|reseal|retire`: what becomes of a lane whose key was stolen, or that will never seal again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from adapters import answers
from adapters.cli.framework import Context, Result, command, counted, instant_text
from adapters.cli.node_side import (
    final_seal,
    hash_of_seal,
    lanes_here,
    reseal_lane,
    where_am_i,
)
from adapters.cli.options import OperatorOption
from adapters.cli.wiring import take_what_waits
from adapters.data_folder import DataFolder, now
from adapters.postgres import nodes
from adapters.postgres.decisions import decide, lane_now, named_lane
from billing.inspection import LaneName
from billing.repair import Decision, LaneNow, retire
from metering.refusal import Refusal

NodeOption = Annotated[
    str | None, typer.Option("--node", metavar="N", help="The node. Default: the only one.")
]
LaneOption = Annotated[
    str | None, typer.Option("--lane", metavar="L", help="The lane. Default: the only one.")
]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="R", help="Why; kept for good.")]


def register_lane_commands(group: typer.Typer) -> None:
    """Adds them to `tally node`."""

    @command(
        group,
        "revoke",
        path="node revoke",
        example="tally node revoke --node vilnius-1 --last now --reason 'the machine was broken into'",
    )
    async def revoke(
        context: Context,
        reason: ReasonOption,
        last: Annotated[
            str, typer.Option(metavar="SEAL", help="The last good seal: EPOCH-NUMBER-HASH, now, or genesis.")
        ],
        node: NodeOption = None,
        lane: LaneOption = None,
        key: Annotated[
            str | None,
            typer.Option(metavar="HASH", help="Only the key of this hash. Default: all keys of the lane."),
        ] = None,
        operator: OperatorOption = None,
    ) -> Result:
        """Revoke a lane's keys: nothing that they signed after the last good seal is accepted any more.

        What was accepted after it is named, and stays: a person has to judge it. What is genuine is sealed again under
        a new key: `tally node rotate`, then `tally node reseal`.
        """
        async with (
            context.database() as database
        ):  # what waits here is not taken in before: it may be the thief's
            name = await named_lane(database, await answers.named_operators(database, operator), node, lane)
            good, revoked, behind = await nodes.revoke(database, name, last, key, reason, now())
            async with database.app(name.operator) as connection:
                head = (await lane_now(connection, name)).head
        document = {
            **name._asdict(),
            "keys": revoked,
            "last_good": good.hash if good.place is None else f"{good.place}-{good.hash}",
            "accepted_after": [each | {"accepted_at": instant_text(each["accepted_at"])} for each in behind],
        }
        said = [
            f"{name}: {counted(len(revoked), 'key')} revoked; the last good seal is {document['last_good']}"
        ]
        said += [
            f"accepted after it: {each['epoch']}-{each['number']}, {counted(each['requests'], 'request')}, at"
            f" {instant_text(each['accepted_at'])}"
            for each in behind
        ]
        if behind:
            said.append(
                "what was accepted stays, and is billed: credit what was not served (`tally invoice credit`)"
            )
        lane_there = f"--node {name.node} --lane {name.lane}"
        said.append(f"next, at the node: tally node rotate {lane_there}; then tally node reseal {lane_there}")
        if head is not None:
            said.append(
                "  without a database at hand: tally node rotate --out FILE, which `tally node enrol FILE` takes here; then"
                f" tally node reseal {lane_there} --after {head}"
            )
        return Result(document, said)

    @command(
        group, "reseal", path="node reseal", example="tally node reseal --node vilnius-1 --lane sidecar-0"
    )
    async def reseal(
        context: Context,
        node: NodeOption = None,
        lane: LaneOption = None,
        operator: OperatorOption = None,
        after: Annotated[
            str | None,
            typer.Option(
                metavar="SEAL",
                help="The lane's last accepted seal, as `node list` shows it, or its hash. Default: what the database"
                " at hand says.",
            ),
        ] = None,
        sources: Annotated[
            list[Path] | None,
            typer.Option("--from", metavar="DIR", help="Where held batches were carried to; repeatable."),
        ] = None,
    ) -> Result:
        """Seal the lane's own chain behind its last accepted seal again, under its new key. Its sidecar must be stopped.

        The batches keep their epochs, numbers and events. They are read from the spool, from held/ in the data folder,
        and from the folders that `--from` names.
        """
        folder = DataFolder(context.data)
        if after is None:
            async with context.database() as database:
                name = await named_lane(
                    database, await answers.named_operators(database, operator), node, lane
                )
                async with database.app(name.operator) as connection:
                    head = (await lane_now(connection, name)).head
                made = await asyncio.to_thread(reseal_lane, folder, name, head, sources or [])
                await take_what_waits(folder, database)
        else:
            head = hash_of_seal(after)
            owner, here = where_am_i(folder, operator, node)
            lanes = [lane] if lane else lanes_here(folder, owner, here)
            if len(lanes) != 1:
                raise Refusal(
                    "which_lane",
                    f"the node has {counted(len(lanes), 'lane')} here",
                    where="--lane",
                    remedy=f"name one: {', '.join(lanes)}" if lanes else "enrol the node first",
                )
            name = LaneName(owner, here, lanes[0])
            made = await asyncio.to_thread(reseal_lane, folder, name, head, sources or [])
        batches = [{"epoch": each.seal.epoch, "number": each.seal.number, "hash": each.hash} for each in made]
        said = f"{name}: {counted(len(made), 'batch', 'batches')} sealed again"
        return Result({**name._asdict(), "batches": batches}, said)

    @command(
        group,
        "retire",
        path="node retire",
        example="tally node retire --node vilnius-1 --reason 'the node was sold'",
    )
    async def retire_(
        context: Context,
        reason: ReasonOption,
        node: NodeOption = None,
        lane: LaneOption = None,
        operator: OperatorOption = None,
    ) -> Result:
        """End a lane that will never seal again: no close waits for it. Where its folder is here, by a final seal."""
        folder = DataFolder(context.data)
        async with context.database() as database:
            await take_what_waits(folder, database)
            name = await named_lane(database, await answers.named_operators(database, operator), node, lane)
            try:
                final = await asyncio.to_thread(final_seal, folder, name)
            except Refusal as refusal:
                if refusal.code != "lane_ended":
                    raise
                raise Refusal(
                    "lane_ended", refusal.what, where=str(name), remedy="there is nothing to do"
                ) from None
            ended = True
            if final:
                await take_what_waits(folder, database)
                async with database.app(name.operator) as connection:
                    ended = (await lane_now(connection, name)).ended
            else:

                async def make(read: LaneNow) -> list[Decision]:
                    return retire(read, reason)

                await decide(database, name, make, now())
        waits = "no close waits for it" if ended else "closes wait for it until intake has accepted that"
        return Result(
            {**name._asdict(), "final": final, "reason": reason},
            f"{name}: {'its final seal is made' if final else 'retired'}; {waits}",
        )
