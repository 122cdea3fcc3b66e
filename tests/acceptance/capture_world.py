"""A world for capture alone: the simulated engine with its witness, one sidecar that dies, and clients of all endpoints.

    with base_folder(urls) as base:                    # a site, keys, an enrolled lane: made once
        with make_world(seed, base) as world:
            assert world.start_sidecar(kill_at="told:20")
            world.send(60)
            ...
            world.finish()
            world.events()

Nothing takes the sealed batches away, so that all that was captured lies in the spool. Each world begins from a copy of
one data folder, since what comes before capture is not in question here.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

from capture_clients import Clients, Load
from capture_requests import asks
from command import EXAMPLE, Tally, over, simulated_engine
from kill_auditor import Event, archived_events
from kill_commands import Commands, Running, wait_until

from adapters.postgres.database import DatabaseUrls

CUSTOMERS = ("acme", "baltic-letters", "river-institute")
NODE = "vilnius-1"
LAST_REQUESTS = 12
_ENGINE_SAYS = (
    *("--task", "all", "--store-responses"),
    *("--tokens-per-second", "400", "--first-token-ms", "5"),
    *("--late-tokens", "1", "--after-end-tokens", "1"),
)
_REQUEST_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
Fact = dict[str, str]


@dataclass(frozen=True, slots=True)
class Base:
    """A data folder to begin from, its database, and a key of each customer."""

    tally: Tally
    keys: Mapping[str, str]


@dataclass
class World:
    """`chance` decides everything that is left to chance. `lines` is the witness's folder."""

    chance: random.Random
    tally: Tally
    commands: Commands
    engine: str
    lines: Path
    clients: Clients
    is_witnessed: bool = True
    sidecar: Running | None = None
    loads: list[Load] = field(default_factory=list)

    def start_sidecar(self, *more: str, kill_at: str | None = None) -> bool:
        """Starts the sidecar where its clients look for it; false if it died before it listened."""
        host, port = self.clients.address
        arguments = ["sidecar", "--engine", self.engine, "--node", NODE, "--listen", f"{host}:{port}"]
        if self.is_witnessed:
            arguments += ["--engine-lines", str(self.lines)]
        arguments += more
        self.sidecar = self.commands.start(*arguments, kill_at=kill_at)
        if not self.sidecar.ready():
            return False
        found = urlsplit(self.sidecar.said["sidecar"])
        assert found.hostname is not None
        assert found.port is not None
        self.clients.address = (found.hostname, found.port)
        return True

    def send(self, requests: int) -> Load:
        """Begins to send so many requests; `finish` waits for all of them."""
        load = self.clients.start(requests)
        self.loads.append(load)
        return load

    def finish(self) -> None:
        """Starts the sidecar again where it was killed, serves on, and lets it end."""
        if self.sidecar is None or not self.sidecar.running:
            assert self.start_sidecar(), self.sidecar and self.sidecar.trouble()
        self.send(LAST_REQUESTS)
        for load in self.loads:
            load.join()
        over = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if self.is_witnessed:
            # The sidecar looks at the engine's counters once nothing is under way, and seals what they say.
            wait_until(lambda: any(span["to"] > over for span in self.spans().values()))
        assert self.sidecar is not None
        assert self.sidecar.stop() == 0, self.sidecar.trouble()

    def heard_by_engine(self, *, unmetered: bool = False) -> set[str]:
        """The ids of all requests that the engine has heard of, whatever became of them: of the metered ones, or of
        those that were served unmetered."""
        with urlopen(f"{self.engine}/simulated/requests", timeout=10) as answer:
            names = [name for name in json.loads(answer.read()) if ("unmetered-" in name) == unmetered]
        return {found[0] for name in names if (found := _REQUEST_ID.search(name))}

    def generated_by_engine(self) -> dict[str, int]:
        """The tokens of each request by the witness's lines, read as anybody may read them."""
        sums: dict[str, int] = {}
        for path in self.lines.glob("*.jsonl"):
            for content in path.read_text().splitlines():
                line: dict[str, Any] = json.loads(content)
                found = _REQUEST_ID.search(line.get("external", ""))
                if line["kind"] == "request" and found:
                    sums[found[0]] = sums.get(found[0], 0) + line["output_tokens"]
        return sums

    def unmetered(self) -> int:
        """Requests that were served unmetered, as the seals in the spool say."""
        return sum(int(fact["requests"]) for fact in self._facts("unmetered"))

    def spans(self) -> dict[int, Fact]:
        """What the engine's counters and lines said between quiet points, by the number of the span: sealed again after
        a kill, it is there once."""
        return {int(fact["number"]): fact for fact in self._facts("span")}

    def _facts(self, kind: str) -> Iterator[Fact]:
        """Each fact of a kind in the seals that are visible: one in the making has another name, and soon another."""
        for path in (self.tally.data / "spool").rglob("*-*-*.seal"):
            for line in path.read_text().splitlines():
                if line.startswith(f"fact {kind} "):
                    words = (word.partition("=") for word in line.split()[2:])
                    yield {name: value for name, _, value in words}

    def events(self) -> list[Event]:
        """All events that lie sealed in the spool."""
        lanes = archived_events(self.tally.data / "spool")
        return [event for of_lane in lanes.values() for event in of_lane]


@contextmanager
def base_folder(urls: DatabaseUrls) -> Iterator[Base]:
    """Declares the example's site, makes keys, and lets a sidecar enrol its lane and learn the keys."""
    with tempfile.TemporaryDirectory(prefix="tally-capture-") as folder:
        tally = over(urls, Path(folder) / "data", EXAMPLE)
        keys = {name: str(tally("key", "create", "--customer", name)["secret"]) for name in CUSTOMERS}
        arguments = ("--engine", "http://127.0.0.1:9", "--node", NODE, "--listen", "127.0.0.1:0")
        with tally.serving("sidecar", *arguments):
            pass
        yield Base(tally, keys)


@contextmanager
def make_world(seed: int, base: Base, *, is_witnessed: bool = True) -> Iterator[World]:
    """A world of its own."""
    with tempfile.TemporaryDirectory(prefix="tally-capture-") as root:
        data, lines = Path(root) / "data", Path(root) / "lines"
        shutil.copytree(base.tally.data, data)
        tally = Tally(data, environment=base.tally.environment)
        commands = Commands(tally)
        clients = Clients(asks(random.Random(seed + 1), CUSTOMERS), base.keys)
        with simulated_engine(*_ENGINE_SAYS, "--lines", str(lines)) as told:
            try:
                yield World(
                    random.Random(seed), tally, commands, told["engine"], lines, clients, is_witnessed
                )
            finally:
                commands.end()
