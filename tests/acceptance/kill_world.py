"""A world in which everything is killed: a site, the simulated engine, sidecar, intake, PostgreSQL, and clients.

    with make_world(seed, urls) as world:
        world.start_intake()
        world.start_sidecar(kill_at="outcome:20")
        load = world.sender.start(40)
        ...
        world.finish()

PostgreSQL is the embedded one where it is to be killed itself, otherwise a database of the tests' own server (it saves
seconds). `finish` is what an operator does after the last kill: everything is started again, more requests are
served, everything drains.
"""

from __future__ import annotations

import csv
import json
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

from command import EXAMPLE, Tally, data_folder, over, simulated_engine
from kill_commands import Commands, Running
from kill_sender import Load, Sender

from adapters.postgres.database import DatabaseUrls

CUSTOMERS = ("acme", "baltic-letters", "river-institute")
NODE = "vilnius-1"
LAST_REQUESTS = 16
IMPORTED_DAYS = 4
# customer, prompt, cached, completion and reasoning tokens
ImportedRow = tuple[str, int, int, int, int]
_ENGINE_SAYS = ("--prompt-tokens-details", "--tokens-per-second", "400", "--first-token-ms", "5")


@dataclass
class World:
    """`chance` decides everything that is left to chance; `commands` are those that may be killed.

    `imported`: the rows of the file that was imported. `only_life`: the step and count at which the sidecar died,
    where it died once.
    """

    chance: random.Random
    tally: Tally
    commands: Commands
    engine: str
    sender: Sender
    sidecar: Running | None = None
    intake: Running | None = None
    only_life: str | None = None
    imported: list[ImportedRow] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)

    @property
    def data(self) -> Path:
        return self.tally.data

    def start_sidecar(self, kill_at: str | None = None) -> bool:
        """Starts the sidecar where its clients look for it; false if it died before it listened."""
        host, port = self.sender.address
        arguments = ("sidecar", "--engine", self.engine, "--node", NODE, "--listen", f"{host}:{port}")
        self.sidecar = self.commands.start(*arguments, kill_at=kill_at)
        if not self.sidecar.ready():
            return False
        found = urlsplit(self.sidecar.said["sidecar"])
        assert found.hostname is not None
        assert found.port is not None
        self.sender.address = (found.hostname, found.port)
        return True

    def start_intake(self, kill_at: str | None = None) -> None:
        self.intake = self.commands.start("intake", kill_at=kill_at)
        assert self.intake.ready() or kill_at is not None, self.intake.trouble()

    def send(self, requests: int) -> Load:
        """Begins to send so many requests; `finish` waits for all of them."""
        load = self.sender.start(requests)
        self.loads.append(load)
        return load

    def serve(self, requests: int) -> None:
        """Starts the sidecar, has it serve so many requests and stops it: what it saw is sealed then."""
        assert self.start_sidecar(), self.sidecar and self.sidecar.trouble()
        self.send(requests).join()
        assert self.sidecar is not None
        assert self.sidecar.stop() == 0, self.sidecar.trouble()

    def finish(self) -> None:
        """Starts again what was killed, serves on, and drains."""
        if self.sidecar is None or not self.sidecar.running:
            assert self.start_sidecar(), self.sidecar and self.sidecar.trouble()
        if self.intake is None or not self.intake.running:
            self.start_intake()
        self.send(LAST_REQUESTS)
        for load in self.loads:
            load.join()
        for part in (self.sidecar, self.intake):
            assert part is not None
            assert part.stop() == 0, part.trouble()

    def heard_by_engine(self) -> set[str]:
        """The ids of all requests that the engine has heard of, whatever became of them."""
        with urlopen(f"{self.engine}/simulated/requests", timeout=10) as answer:
            return set(json.loads(answer.read()))

    def import_command(self, rows: int) -> tuple[str, ...]:
        """The command that imports a new file of so many rows."""
        return ("import", str(self._write_file(rows)), "--node", NODE)

    def _write_file(self, rows: int) -> Path:
        """A file of usage of the month before, over several days."""
        start = datetime.strptime(f"{month_before()}-05 +0000", "%Y-%m-%d %z")
        chance = self.chance
        made = []
        path = self.data.parent / "usage.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            names = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")
            writer.writerow(("time", "customer", "model", *names))
            for number in range(rows):
                prompt, completion = 10_000 + number, chance.randint(1, 900)
                customer = chance.choice(CUSTOMERS)
                row = (prompt, chance.randint(0, prompt), completion, chance.randint(0, completion))
                time = start + timedelta(days=IMPORTED_DAYS) * number / rows
                writer.writerow((time.isoformat(), customer, "qwen3-8b", *row))
                made.append((customer, *row))
        self.imported += made
        return path


def month_before() -> str:
    """The calendar month that is over: 2026-10."""
    now = datetime.now(UTC)
    return f"{now.year - (now.month == 1)}-{(now.month - 2) % 12 + 1:02d}"


@contextmanager
def make_world(seed: int, urls: DatabaseUrls | None) -> Iterator[World]:
    """A world with a declared site, keys and a running engine. `urls`: a database for it; None: the embedded one."""
    with _tally(urls) as tally, simulated_engine(*_ENGINE_SAYS) as engine:
        commands = Commands(tally)
        try:
            tally("apply", str(EXAMPLE))
            keys = {name: str(tally("key", "create", "--customer", name)["secret"]) for name in CUSTOMERS}
            sender = Sender(random.Random(seed + 1), keys)
            yield World(random.Random(seed), tally, commands, engine["engine"], sender)
        finally:
            commands.end()


@contextmanager
def _tally(urls: DatabaseUrls | None) -> Iterator[Tally]:
    """The command line over a new data folder and a database."""
    if urls is None:
        with data_folder("tally-kill-") as tally:
            yield tally
        return
    with tempfile.TemporaryDirectory(prefix="tally-kill-") as folder:
        yield over(urls, Path(folder) / "data")
