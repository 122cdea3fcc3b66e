"""`tally node …`: nodes and the keys of their lanes. Private keys stay on the machine that they were made on.

A command works where it is called: on a node, on the ledger's side, or on one machine that is both. A node that has no
database at hand is known by the answer that it took in (`tally node accept`), or writes a request to a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adapters.cli.files import check_writable, writing
from adapters.cli.framework import Context, Result, command, counted, table
from adapters.cli.node_lanes import NodeOption, register_lane_commands
from adapters.cli.node_ledger import enrol_keys, list_lanes, take_request
from adapters.cli.node_side import (
    accept_answer,
    lanes_here,
    new_lane_keys,
    take_new_keys,
    where_am_i,
    write_request,
)
from adapters.cli.options import OperatorOption, about
from adapters.data_folder import DataFolder, now
from adapters.importing.ledger import operator_of_node
from metering.enrolment import read_request
from metering.note import verifier_key
from metering.refusal import Refusal

LanesOption = Annotated[
    list[str] | None,
    typer.Option("--lane", metavar="L", help="A lane; repeatable. Default: those that are here."),
]
RequestOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="Without a database at hand: write the request to this file."),
]


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

    register_lane_commands(group)


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
