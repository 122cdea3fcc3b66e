"""A simulated engine with its witness, a sidecar that joins with it, and what the two sealed, reconciled."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from scripted_engine import Client, Keys, request, sealed_events, until

from adapters.simulated_engine.options import EngineOptions, LineOptions
from adapters.simulated_engine.server import RunningEngine, serve
from metering.body import read_body
from metering.event import quantities
from metering.fact import Fact, Serves, Span, parse_fact
from metering.lane import Lane
from metering.reconcile import NodeReconciled, SealedServes, reconcile_node
from metering.refusal import Unavailable
from metering.sidecar import Sidecar
from metering.sidecar_options import Patience, SidecarOptions
from metering.spool import Spool
from metering.stretch import SealedSpan, SealedSum

OPERATOR, NODE = "op", "n"
JSON = "Content-Type: application/json\r\n"


@dataclass
class Witnessed:
    """An engine on a port that it keeps, and the sidecar in front of it."""

    folder: Path
    engine: RunningEngine
    options: EngineOptions
    lane_name: str
    key: Ed25519PrivateKey
    sidecar_options: dict[str, Any]
    opened: dict[str, Any] = field(default_factory=dict)
    lane: Lane = field(init=False)
    sidecar: Sidecar = field(init=False)
    port: int = 0
    clients: list[Client] = field(default_factory=list)

    @property
    def lines(self) -> Path:
        return self.folder / "lines"

    async def start_sidecar(self) -> None:
        self.lane = Lane.open(
            self.folder / "spool",
            operator=OPERATOR,
            node=NODE,
            lane=self.lane_name,
            key=self.key,
            keep_open=True,
            **self.opened,
        )
        given: dict[str, Any] = {
            "engine_lines": self.lines,
            "counters_s": 0.1,
            "patience": Patience(drain_s=5, linger_s=0.1),
        }
        options = SidecarOptions((self.engine.url,), NODE, OPERATOR, **(given | self.sidecar_options))
        self.sidecar = Sidecar(options, self.lane, Keys())
        self.port = await self.sidecar.start("127.0.0.1", 0)

    @asynccontextmanager
    async def beside(self, lane: str) -> AsyncIterator[Witnessed]:
        """Another sidecar of the node, before the same engine."""
        key = Ed25519PrivateKey.generate()
        other = Witnessed(self.folder, self.engine, self.options, lane, key, self.sidecar_options)
        await other.start_sidecar()
        try:
            yield other
        finally:
            await other.sidecar.drain()
            other.hang_up()

    def hang_up(self) -> None:
        """All clients leave."""
        for client in self.clients:
            client.writer.transport.abort()

    async def kill_sidecar(self) -> None:
        """What SIGKILL leaves: nothing is ended, nothing more is written; sockets close."""
        capture = self.sidecar.capture
        for task in (*self.sidecar._loops, *capture._loops, *self.sidecar._background._tasks):
            task.cancel()
        await asyncio.gather(*self.sidecar._loops, *capture._loops, return_exceptions=True)
        assert self.sidecar._server is not None
        self.sidecar._server.close()
        capture.write_down = lambda event, lines: False  # type: ignore[method-assign]  # it is dead
        self.sidecar._background.watch = lambda watch: None  # type: ignore[method-assign]
        for _ in range(3):  # some are about to be accepted
            for connection in list(self.sidecar.connections):
                connection.stop()
            await asyncio.sleep(0.01)
        self.sidecar.engine.close()
        self.lane._write_ahead.close()
        self.lane._folder.close()

    async def restart_engine(self, *, killed: bool = False) -> None:
        """The engine begins anew, at its address; `killed`: without a line of what it had not freed."""
        port = self.engine.port
        if killed:
            lines = self.engine.engine._core.lines
            assert lines is not None
            lines._scheduler._closed = True
        await self.engine.close()
        self.engine = await serve(self.options, "127.0.0.1", port)

    async def client(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port, limit=2**20))
        self.clients.append(client)
        return client

    async def ask(self, body: object, path: str = "/v1/chat/completions") -> tuple[int, bytes]:
        client = await self.client()
        await client.send(request(body, path=path, head=JSON))
        status, _, content = await client.answer()
        client.leave()
        return status, content

    async def leave_after(self, body: object, events: int) -> None:
        """Ask for a stream and hang up after so many of its events (0: right after asking)."""
        client = await self.client()
        await client.send(request(body, head=JSON))
        if events:
            await client.reader.readuntil(b"\r\n\r\n")
        for _ in range(events):
            await client.chunk()
        client.leave()

    async def quiet(self) -> None:
        """Wait until every event is written and the span has ended."""
        watch = self.sidecar.capture.watch
        assert watch is not None
        await until(
            lambda: self.lane.opened == self.lane.closed and watch.joiner.idle and not watch.spans.begun
        )

    def events(self) -> list[dict[str, Any]]:
        return sealed_events(self.folder / "spool")

    def facts(self) -> list[tuple[str, int, Fact]]:
        """Lane, time of the seal, fact."""
        found = []
        for spooled in Spool(self.folder / "spool").pending():
            seal = spooled.batch().seal
            found += [(seal.lane, seal.complete_to_us, parse_fact(line)) for line in seal.facts]
        return found

    def spans(self) -> list[Span]:
        return [fact for _, _, fact in self.facts() if isinstance(fact, Span)]

    def reconciled(self) -> NodeReconciled:
        facts = self.facts()
        return reconcile_node(
            [SealedSpan(lane, fact) for lane, _, fact in facts if isinstance(fact, Span)],
            _sums(self.folder / "spool"),
            [SealedServes(fact, at_us) for _, at_us, fact in facts if isinstance(fact, Serves)],
        )


def _sums(spool: Path) -> list[SealedSum]:
    """What each batch says of each model."""
    found = []
    for spooled in Spool(spool).pending():
        batch = spooled.batch()
        if not batch.body:
            continue
        table = read_body(batch.seal, batch.body)
        models = table.column("model").to_pylist()
        times = [int(time.timestamp() * 1_000_000) for time in table.column("time").to_pylist()]
        columns = quantities(table)
        for model in sorted(set(models)):
            rows = [at for at, each in enumerate(models) if each == model]
            total = {name: int(sum(columns[name][at] for at in rows)) for name in columns}
            found.append(
                SealedSum(
                    lane=batch.seal.lane,
                    model=model,
                    first_us=min(times[at] for at in rows),
                    last_us=max(times[at] for at in rows),
                    requests=total["requests"],
                    prompt_tokens=total["prompt_tokens"],
                    generated_tokens=total["generated_tokens"],
                    unwitnessed_requests=total["unwitnessed_requests"],
                )
            )
    return found


def outcomes(events: list[dict[str, Any]]) -> Counter[str]:
    return Counter(event["outcome"] for event in events if event["kind"] == "usage")


@asynccontextmanager
async def witnessed(
    folder: Path,
    *,
    lane: str = "sidecar-0",
    lines: dict[str, Any] | None = None,
    sidecar: dict[str, Any] | None = None,
    opened: dict[str, Any] | None = None,
    **engine: Any,
) -> AsyncIterator[Witnessed]:
    """`lines` are LineOptions (without the folder), `engine` EngineOptions, `sidecar` SidecarOptions; `opened` is what
    the lane is opened with."""
    options = EngineOptions(lines=LineOptions(folder / "lines", **(lines or {})), **engine)
    running = await serve(options, "127.0.0.1", 0)
    it = Witnessed(folder, running, options, lane, Ed25519PrivateKey.generate(), sidecar or {}, opened or {})
    await it.start_sidecar()
    try:
        yield it
    finally:
        with suppress(Unavailable):
            await it.sidecar.drain()
        await it.engine.close()
        it.hang_up()
        await asyncio.sleep(0.01)
