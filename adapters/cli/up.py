"""`tally up`: sidecar, intake and API as children of one command, for one machine.

They are processes of their own, so that a rating that takes seconds never delays a stream. A child that dies is started
again at the address that it had; Ctrl-C and SIGTERM let the sidecar drain, then stop the rest. When this process is
killed, its children notice the closed pipe and stop by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import typer

from adapters.cli.capture_options import CaptureOptions, takes_capture_options
from adapters.cli.framework import Context, Result, command
from adapters.cli.serving import (
    API_LISTEN,
    CHILD,
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
from metering.refusal import Refusal, Unavailable
from metering.siblings import FIRST_LANE

RESTART_AFTER_S = 1.0
STOP_WITHIN_S = 45.0


@dataclass(slots=True)
class Child:
    """One part: its command line, its process, and the address that it was given."""

    name: str
    arguments: list[str]
    process: asyncio.subprocess.Process | None = None
    address: str | None = None
    also: dict[str, str] = field(default_factory=dict)
    starts: int = field(default=0)

    async def start(self) -> None:
        """Starts it and waits for its line. Unavailable: child_failed."""
        command_line = [sys.executable, "-m", "adapters.cli", *self.arguments]
        if self.address is not None:
            command_line += ["--listen", self.address.partition("://")[2]]
        self.process = await asyncio.create_subprocess_exec(
            *command_line,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, CHILD: "1"},
            start_new_session=True,  # Ctrl-C reaches us, and we decide in which order they stop
        )
        self.starts += 1
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        said = json.loads(line) if line.strip() else {}
        if not said.get("ready"):
            await self.process.wait()
            raise Unavailable(
                "child_failed", f"the {self.name} did not start", remedy="its message stands above"
            )
        address = said.get(self.name, "")
        self.address = address if "://" in address else None
        self.also = {name: at for name, at in said.items() if name not in ("ready", self.name)}

    async def stop(self) -> None:
        """Lets it end what it does, for so long; then ends it."""
        if self.process is None or self.process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.process.wait(), STOP_WITHIN_S)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


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
                    await _start_all(children)
                    shown = {child.name: child.address for child in children if child.address}
                    shown |= {name: at for child in children for name, at in child.also.items()}
                    ready(shown)
                    await _watch(context, children, stop)
                finally:
                    # The sidecar first: what it seals while draining, intake still takes.
                    for child in sorted(children, key=lambda each: each.name != "sidecar"):
                        await child.stop()
        return Result(None)


async def _start_all(children: Sequence[Child]) -> None:
    """Starts them side by side; returns when all are ready. Refusals: child_failed, once none is starting any more."""
    outcomes = await asyncio.gather(*(child.start() for child in children), return_exceptions=True)
    for failed in outcomes:
        if isinstance(failed, Unavailable):
            raise Refusal(failed.code, failed.what, remedy=failed.remedy) from None
        if failed is not None:
            raise failed
    for child in children:
        if child.address is not None:
            at = child.arguments.index("--listen")
            del child.arguments[at : at + 2]


async def _watch(context: Context, children: Sequence[Child], stop: asyncio.Event) -> None:
    """Starts again whatever ends by itself, until it is time to stop."""
    stopping = asyncio.create_task(stop.wait())
    waits = {asyncio.create_task(_end(child)): child for child in children}
    while not stopping.done():
        ended, _ = await asyncio.wait([stopping, *waits], return_when=asyncio.FIRST_COMPLETED)
        for task in ended - {stopping}:
            child = waits.pop(task)  # type: ignore[arg-type]  # of the tasks waited for, only `stopping` gives a bool
            if stop.is_set():
                continue
            context.say(f"the {child.name} ended by itself and is started again")
            await asyncio.sleep(RESTART_AFTER_S)
            with contextlib.suppress(Unavailable):
                await child.start()
            waits[asyncio.create_task(_end(child))] = child
    for task in waits:
        task.cancel()


async def _end(child: Child) -> None:
    assert child.process is not None
    await child.process.wait()
