"""`tally node …`: nodes and the keys of their lanes. Private keys stay on the machine that they were made on.

A command works where it is called: on a node, on the ledger's side, or on one machine that is both. A node that has no
database at hand is known by the answer that it took in (`tally node accept`), or writes a request to a file.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from adapters import answers
from adapters.cli.files import check_writable, writing
from adapters.cli.framework import Context, Result, command, counted, instant_text, table
from adapters.cli.node_ledger import enrol_keys, list_lanes, take_request
from adapters.cli.node_side import (
    accept_answer,
    final_seal,
    hash_of_seal,
    lanes_here,
    new_lane_keys,
    reseal_lane,
    take_new_keys,
    where_am_i,
    write_request,
)
from adapters.cli.options import OperatorOption, about
from adapters.cli.wiring import take_what_waits
from adapters.data_folder import DataFolder, now
from adapters.importing.ledger import operator_of_node
from adapters.postgres import nodes
from adapters.postgres.decisions import decide, lane_now, named_lane
from billing.inspection import LaneName
from billing.repair import Decision, LaneNow, retire
from metering.enrolment import read_request
from metering.note import verifier_key
from metering.refusal import Refusal

NodeOption = Annotated[
    str | None, typer.Option("--node", metavar="N", help="The node. Default: the only one.")
]
LanesOption = Annotated[
    list[str] | None,
    typer.Option("--lane", metavar="L", help="A lane; repeatable. Default: those that are here."),
]
LaneOption = Annotated[
    str | None, typer.Option("--lane", metavar="L", help="The lane. Default: the only one.")
]
RequestOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="Without a database at hand: write the request to this file."),
]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="R", help="Why; kept for good.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Nodes and the keys of their lanes.")
    app.add_typer(group, name="node")

    @command(group, "enrol", path="node enrol", example="tally node enrol --node vilnius-1")
    async def enrol(
        context: Context,
        request: Annotated[
            Path | None,
            typer.Argument(metavar="[REQUEST]", help="At the ledger: a request that was carried here."),
        ] = None,
        node: NodeOption = None,
        lane: LanesOption = None,
        operator: OperatorOption = None,
        out: Annotated[
            Path | None,
            typer.Option(
                metavar="FILE",
                help="On a node without a database: where the request goes. With REQUEST: where the answer goes;"
                " default: beside it.",
            ),
        ] = None,
        new_node_key: Annotated[
            bool,
            typer.Option(
                "--new-node-key", help="With REQUEST: the node lost its key, and this is its new one."
            ),
        ] = False,
    ) -> Result:
        """Enrol a node: make its key and its lanes' keys, and let the ledger know the public ones.

        Where the database is at hand that is one command. Elsewhere `--out FILE` writes a signed request, `tally node
        enrol FILE` takes it at the ledger, and `tally node accept` takes the answer at the node.
        """
        folder = DataFolder(context.data)
        folder.make()
        if request is not None:
            with about(str(request), "name what `tally node enrol --out FILE` wrote at the node"):
                asked = read_request(_read(request, "REQUEST"))
            answer = out if out is not None else request.with_suffix(".answer")
            check_writable(answer)
            async with context.database() as database:
                return await take_request(folder, database, asked, answer, new_node_key=new_node_key)
        if out is not None:
            check_writable(out)
            here = where_am_i(folder, operator, node)
            made = new_lane_keys(folder, *here, lane or lanes_here(folder, *here))
            return _request_written(write_request(folder, made, now()), out)
        async with context.database() as database:
            here = await operator_of_node(database, node)
            made = new_lane_keys(folder, *here, lane or lanes_here(folder, *here))
            return Result(*await enrol_keys(database, made.request(now()), replaces=new_node_key))

    @command(group, "accept", path="node accept", example="tally node accept vilnius-1.answer")
    def accept(
        context: Context,
        answer: Annotated[
            Path, typer.Argument(metavar="ANSWER", help="What `tally node enrol REQUEST` wrote.")
        ],
    ) -> Result:
        """At a node without a database: take the answer to its request. `tally sidecar` then starts without one.

        The answer brings the API keys that the node serves; a newer answer renews them, also under a running sidecar.
        """
        folder = DataFolder(context.data)
        folder.make()
        with about(str(answer), "name what `tally node enrol REQUEST` wrote at the ledger"):
            taken, count = accept_answer(folder, _read(answer, "ANSWER"))
        document = {"operator": taken.operator, "node": taken.node, "api_keys": count}
        return Result(document, f"{taken.node} of {taken.operator} is enrolled; {counted(count, 'API key')}")

    @command(group, "list", path="node list", example="tally node list")
    async def list_(context: Context, operator: OperatorOption = None) -> Result:
        """Every node and lane with its keys: enrolled, revoked, and up to which seal."""
        async with context.database() as database:
            document = await list_lanes(database, operator)
        columns = ("operator", "node", "lane", "state", "keys", "last_seal")
        rows = [
            [
                *(row[name] for name in columns[:4]),
                ", ".join(key["hash"] + (" revoked" if key["revoked_at"] else "") for key in row["keys"]),
                "" if row["last_seal"] is None else row["last_seal"][:60] + "…",
            ]
            for row in document["lanes"]
        ]
        return Result(document, table(None, columns, rows))

    @command(group, "rotate", path="node rotate", example="tally node rotate --node vilnius-1")
    async def rotate(
        context: Context,
        node: NodeOption = None,
        lane: LanesOption = None,
        operator: OperatorOption = None,
        out: RequestOption = None,
    ) -> Result:
        """Give lanes of this machine new keys; a running sidecar takes them up within seconds, and its chain goes on.

        The old key is refused from the first seal on that the ledger accepted under the new one.
        """
        folder = DataFolder(context.data)
        if out is not None:
            check_writable(out)
            here = where_am_i(folder, operator, node)
            made = new_lane_keys(folder, *here, lane or lanes_here(folder, *here), fresh=True)
            result = _request_written(write_request(folder, made, now()), out)
            take_new_keys(folder, made)  # what is sealed under them waits at the ledger for the request
            return result
        async with context.database() as database:
            here = await operator_of_node(database, node)
            made = new_lane_keys(folder, *here, lane or lanes_here(folder, *here), fresh=True)
            result = Result(*await enrol_keys(database, made.request(now()), replaces=False))
            take_new_keys(folder, made)
        return result

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


def _read(path: Path, where: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise Refusal(
            "no_file", f"{path}: {problem.strerror}", where=where, remedy="name a file that is there"
        ) from None


def _request_written(signed: bytes, out: Path) -> Result:
    with writing(out):
        out.write_bytes(signed)
    asked = read_request(signed)
    fingerprint = verifier_key(asked.signer, asked.key)
    document = {"request": str(out), "key": fingerprint, "lanes": [name for name, _ in asked.lanes]}
    return Result(
        document,
        [
            f"request  {out}",
            f"key      {fingerprint}",
            f"next: carry it to the ledger, where `tally node enrol {out.name}` shows the same key",
        ],
    )
