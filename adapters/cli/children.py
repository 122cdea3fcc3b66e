"""Children of one command: the parts of `tally up`, the workers of `tally intake --workers`.

A part is a process of its own, so that one that is busy or is killed leaves the others alone. One that dies is started
again at the address that it had. When the parent is killed, its children notice the closed pipe and stop by themselves.
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

from adapters.cli.framework import Context
from adapters.cli.serving import CHILD
from metering.refusal import Refusal, Unavailable

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


async def start_all(children: Sequence[Child]) -> None:
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


async def watch(context: Context, children: Sequence[Child], stop: asyncio.Event) -> None:
    """Starts again whatever ends by itself, each beside the others, until it is time to stop."""
    stopping = asyncio.create_task(stop.wait())
    tasks: list[asyncio.Task[object]] = [
        stopping,
        *(asyncio.create_task(_keep(context, child)) for child in children),
    ]
    ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in ended:
        task.result()  # a fault of ours in the keeping shows itself


async def _keep(context: Context, child: Child) -> None:
    while True:
        assert child.process is not None
        await child.process.wait()
        context.say(f"the {child.name} ended by itself and is started again")
        await asyncio.sleep(RESTART_AFTER_S)
        with contextlib.suppress(Unavailable):
            await child.start()
