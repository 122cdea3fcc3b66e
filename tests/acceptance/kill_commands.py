"""Commands that are killed: started as every command of these tests is (command.py), watched while they run.

For a signal a forked command is as good as any other: it has its own pid, environment and files, and SIGKILL leaves
nothing of it.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from command import Ran, Started, Tally

PATIENCE_S = 60.0


@dataclass(slots=True)
class Running:
    """A command that may be killed at any moment. `said`: the line of JSON of a server that is ready."""

    started: Started
    said: dict[str, Any] = field(default_factory=dict)
    _ran: Ran | None = None

    @property
    def pid(self) -> int:
        return self.started.pid

    @property
    def running(self) -> bool:
        return self._ran is None and Path(f"/proc/{self.pid}").exists()

    def ready(self) -> bool:
        """Waits for the server's line of JSON; false if it ended before it had one."""
        give_up = time.monotonic() + PATIENCE_S
        while True:
            running = self.running
            line, end, _ = self.started.stdout.read_text().partition("\n")
            if end:
                self.said = json.loads(line)
                return "ready" in self.said
            if not running:
                return False
            assert time.monotonic() < give_up, f"not ready: {self.trouble()}"
            time.sleep(0.005)

    def wait(self) -> int:
        """Its exit code, negative where a signal ended it."""
        if self._ran is None:
            self._ran = self.started.wait()
        return self._ran.exit_code

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal; one that has just ended by itself needs none."""
        if self.running:
            kill(self.pid, number)

    def kill(self) -> int:
        self.signal(signal.SIGKILL)
        return self.wait()

    def stop(self) -> int:
        """Asks it to end as an operator does, and waits until it has."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def trouble(self) -> str:
        """What it said, for a failing test."""
        return f"tally {' '.join(self.started.arguments)}\n{self.started.stderr.read_text()[-2000:]}"


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Sends a signal, also where the victim has just gone by itself."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def children(parent: int) -> Iterator[tuple[int, str]]:
    """(pid, command line) of each child of a process."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                yield int(folder.name), (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue


def wait_until(holds: Callable[[], bool]) -> None:
    """Waits until `holds()` is true; fails the test where it does not come about."""
    give_up = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < give_up, "did not come about in time"
        time.sleep(0.01)


@dataclass
class Commands:
    """Starts commands over one data folder, and knows which of them still run."""

    tally: Tally
    started: list[Running] = field(default_factory=list)

    def start(self, *arguments: str, kill_at: str | None = None) -> Running:
        """Starts `tally ARGUMENTS`. `kill_at`: the step that kills it (metering/steps.py)."""
        asked = {} if kill_at is None else {"TALLY_KILL_AT": kill_at}
        self.started.append(Running(self.tally.start(*arguments, **asked)))
        return self.started[-1]

    def end(self) -> None:
        """Kills whatever still runs."""
        for command in self.started:
            command.kill()
