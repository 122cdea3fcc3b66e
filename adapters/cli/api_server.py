"""`tally api`: the HTTP API alone. Apart from the other servers, because only this one needs FastAPI and uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import typer
import uvicorn

from adapters.api.app import make_app
from adapters.cli.framework import Context, Result, command
from adapters.cli.serving import (
    API_LISTEN,
    Address,
    ListenOption,
    log_to_stderr,
    port_taken,
    ready,
    stop_signal,
)
from adapters.postgres.database import Database


def register(app: typer.Typer) -> None:
    @command(app, "api", path="api", example="tally api --listen 127.0.0.1:8090")
    async def api(context: Context, listen: ListenOption = API_LISTEN) -> Result:
        """Serve usage, invoices, settlements and reports over HTTP, to keys with a role. Documentation at /docs."""
        log_to_stderr()
        address = Address.parse(listen, "--listen")
        with stop_signal() as stop:
            async with context.database() as database:
                await serve_api(database, address, stop)
        return Result(None)


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers, since stopping is decided here; says when it serves."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.serves = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.serves.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve_api(database: Database, address: Address, stop: asyncio.Event) -> None:
    """Serves the API until `stop`; no access log, since that would keep the addresses of people."""
    try:
        listening = socket.create_server((address.host, address.port))
    except OSError as problem:
        raise port_taken(address, problem) from None
    config = uvicorn.Config(
        make_app(database), log_level="warning", access_log=False, lifespan="off", server_header=False
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    await server.serves.wait()
    ready({"api": address.url(listening.getsockname()[1])})
    await stop.wait()
    server.should_exit = True
    await serving
