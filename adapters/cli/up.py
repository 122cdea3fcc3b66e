"""`tally up`: sidecar, intake and API as children of one command, for one machine.

They are processes of their own, so that a rating that takes seconds never delays a stream (children.py). Ctrl-C and
SIGTERM let the sidecar drain, then stop the rest.
"""

from __future__ import annotations

import typer

from adapters.cli.capture_options import CaptureOptions, takes_capture_options
from adapters.cli.children import Child, start_all, watch
from adapters.cli.framework import Context, Result, command
from adapters.cli.serving import (
    API_LISTEN,
    SIDECAR_LISTEN,
    Address,
    LaneOption,
    ListenOption,
    NodeOption,
    ready,
    stop_signal,
)
from adapters.importing.ledger import operator_of_node
from metering.lane_folder import check_lane_name
from metering.siblings import FIRST_LANE


def register(app: typer.Typer) -> None:
    @command(app, "up", path="up", example="tally up --engine http://127.0.0.1:8000")
    @takes_capture_options
    async def up(
        context: Context,
        capture: CaptureOptions,
        node: NodeOption = None,
        lane: LaneOption = FIRST_LANE,
        listen: ListenOption = SIDECAR_LISTEN,
        api_listen: str = typer.Option(API_LISTEN, metavar="HOST:PORT", help="Where the API listens."),
    ) -> Result:
        """Run sidecar, intake and API for one machine. Prints one line of JSON when all of them are ready."""
        check_lane_name(lane)
        for address, option in ((listen, "--listen"), (api_listen, "--api-listen")):
            Address.parse(address, option)
        capture.check()
        data = ["--data", str(context.data)]
        with stop_signal() as stop:
            # Held open all the while: the embedded database then outlives a child that is started again.
            async with context.database() as database:
                _, node = await operator_of_node(database, node)
                children = [
                    Child("intake", ["intake", *data]),
                    Child(
                        "sidecar",
                        [
                            "sidecar",
                            *data,
                            *capture.arguments(),
                            "--node",
                            node,
                            "--lane",
                            lane,
                            "--listen",
                            listen,
                        ],
                    ),
                    Child("api", ["api", *data, "--listen", api_listen]),
                ]
                try:
                    await start_all(children)
                    shown = {child.name: child.address for child in children if child.address}
                    shown |= {name: at for child in children for name, at in child.also.items()}
                    ready(shown)
                    await watch(context, children, stop)
                finally:
                    # The sidecar first: what it seals while draining, intake still takes.
                    for child in sorted(children, key=lambda each: each.name != "sidecar"):
                        await child.stop()
        return Result(None)
