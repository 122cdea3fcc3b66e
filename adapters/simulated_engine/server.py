"""Starting and stopping the simulated engine inside an event loop: for tests and the demo.

running = await serve(EngineOptions(models=("tiny",)), "127.0.0.1", 0)
… http://127.0.0.1:{running.port}/v1/chat/completions …
assert running.counters["tiny"].generation_tokens == …
await running.close()
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from adapters.simulated_engine.counters import ModelCounters
from adapters.simulated_engine.engine import Engine
from adapters.simulated_engine.http import EngineProtocol
from adapters.simulated_engine.options import EngineOptions


@dataclass(frozen=True, slots=True)
class RunningEngine:
    """A simulated engine that listens on `host`:`port`."""

    host: str
    port: int
    engine: Engine
    _server: asyncio.Server
    _connections: set[EngineProtocol]

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def counters(self) -> Mapping[str, ModelCounters]:
        """The engine's counters by model, as they stand now; live, not a copy."""
        return self.engine.counters.by_model

    async def close(self) -> None:
        """Stop listening, drop every connection and what was being generated for it."""
        self._server.close()
        for connection in tuple(self._connections):
            connection.close()
        await self.engine.close()
        await self._server.wait_closed()


async def serve(options: EngineOptions, host: str, port: int) -> RunningEngine:
    """Listen on `host`:`port` (0: a free one) until `close`. Raises `OSError` where the address is taken."""
    engine = Engine(options)
    connections: set[EngineProtocol] = set()
    server = await asyncio.get_running_loop().create_server(
        lambda: EngineProtocol(engine.handle, connections, engine.extra_headers), host, port
    )
    bound: int = server.sockets[0].getsockname()[1]
    return RunningEngine(host, bound, engine, server, connections)
