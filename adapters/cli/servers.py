"""`tally sidecar`, `tally intake`: capture and intake, each alone. `tally up` (up.py) runs both beside the API."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
import uvloop

from adapters.cli.framework import Context, Result, command
from adapters.cli.serving import (
    SIDECAR_LISTEN,
    Address,
    EngineOption,
    ListenOption,
    NodeOption,
    log_to_stderr,
    port_taken,
    ready,
    stop_signal,
)
from adapters.cli.wiring import DataFolder, make_intake, now
from adapters.importing.ledger import operator_of_node
from adapters.postgres import keys
from adapters.postgres.database import Database
from adapters.postgres.intake import enroll_lane
from metering.identity import LaneKey
from metering.keybook import KeyEntry, SnapshotKeyBook
from metering.lane import Lane
from metering.sidecar import Sidecar
from metering.sidecar_options import SidecarOptions


def register(app: typer.Typer) -> None:
    @command(
        app,
        "sidecar",
        path="sidecar",
        example="tally sidecar --engine http://127.0.0.1:8000 --listen 127.0.0.1:8080",
        loop_factory=uvloop.new_event_loop,  # twice the requests a second of asyncio's own
    )
    async def sidecar(
        context: Context,
        engine: EngineOption,
        listen: ListenOption = SIDECAR_LISTEN,
        node: NodeOption = None,
        lane: Annotated[
            str, typer.Option(help="Each sidecar process of a node has a lane of its own.")
        ] = "sidecar-0",
    ) -> Result:
        """Stand between clients and a vLLM engine: check keys, count every request, seal the counts.

        Prints one line of JSON when ready. SIGTERM and Ctrl-C let running requests end.
        """
        log_to_stderr()
        address = Address.parse(listen, "--listen")
        folder = DataFolder(context.data)
        with stop_signal() as stop:
            async with context.database() as database:
                operator, node = await operator_of_node(database, node)
                opened = await open_lane(folder, database, operator, node, lane)
                book = SnapshotKeyBook.load(folder.key_snapshot(operator))

                async def current() -> dict[bytes, KeyEntry]:
                    async with database.app(operator) as connection:
                        return await keys.key_book(connection, operator, now())

                book.replace(await current())
                server = Sidecar(SidecarOptions(engine=engine, node=node, operator=operator), opened, book)
                try:
                    port = await server.start(address.host, address.port)
                except OSError as problem:
                    opened.close()
                    raise port_taken(address, problem) from None
                renewing = asyncio.create_task(book.refresh(current))
                ready({"sidecar": address.url(port)})
                await stop.wait()
                await server.drain()
                renewing.cancel()
        return Result(None)

    @command(app, "intake", path="intake", example="tally intake")
    async def intake(context: Context) -> Result:
        """Take sealed batches from the spool into the ledger, exactly once, until it is stopped."""
        log_to_stderr()
        with stop_signal() as stop:
            async with context.database() as database:
                ready({"intake": "spool"})
                await make_intake(DataFolder(context.data), database).run(stop)
        return Result(None)


async def open_lane(folder: DataFolder, database: Database, operator: str, node: str, lane: str) -> Lane:
    """The sidecar's lane, its key made at the first start and enrolled."""
    key = LaneKey.load_or_create(folder.lane_key(node, lane))
    async with database.intake() as connection:
        await enroll_lane(connection, operator, node, lane, "sidecar", LaneKey.public_bytes(key), now())
    return await asyncio.to_thread(Lane.open, folder.spool, operator=operator, node=node, lane=lane, key=key)
