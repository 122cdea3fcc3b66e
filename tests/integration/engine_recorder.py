"""Records a real vLLM: `python tests/integration/engine_recorder.py [SET…]`, after `tests/engine/install.sh`.

For each set of `engine_requests` it starts the server with that set's options, sends every request alone,
waits until the engine is idle, and writes what came back and what the engine's counters made of it to
`tests/recordings/`. Takes about two minutes; a new run changes only what the engine does differently.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine_exchange import Request, exchange
from engine_recordings import (
    FOLDER,
    Recording,
    differences,
    families,
    idle,
    made_constant,
    usage_counters,
    write,
)
from engine_requests import SERVER_OPTIONS, SETS

SERVE = Path(__file__).parents[1] / "engine" / "serve.sh"
HOST = "127.0.0.1"


@contextmanager
def engine(options: tuple[str, ...], *, patience_s: float = 240) -> Iterator[int]:
    """A real vLLM on a free port, ended with everything that it started. Yields the port once `/health`
    answers."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        port: int = free.getsockname()[1]
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(
            [SERVE, str(port), *options], stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            deadline = time.monotonic() + patience_s
            while not _healthy(port):
                if server.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise SystemExit(f"vLLM did not start:\n{log.read().decode(errors='replace')[-4000:]}")
                time.sleep(0.5)
            yield port
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()


def _healthy(port: int) -> bool:
    try:
        return asyncio.run(exchange(HOST, port, Request("GET", "/health"), timeout_s=5)).status == 200
    except (OSError, EOFError):
        return False


async def scrape(port: int) -> str:
    return (await exchange(HOST, port, Request("GET", "/metrics"))).body


async def settled(port: int, pause_s: float = 0.15) -> dict[str, int]:
    """The usage counters once the engine is idle and they no longer move from one look to the next."""
    previous: dict[str, int] | None = None
    while True:
        exposition = await scrape(port)
        counters = usage_counters(exposition)
        if idle(exposition) and counters == previous:
            return counters
        previous = counters
        await asyncio.sleep(pause_s)


async def take_recordings(port: int, set_name: str) -> None:
    before = await settled(port)
    for name, request in SETS[set_name].items():
        answer = await exchange(HOST, port, request)
        after = await settled(port)
        counters = differences(before, after)
        recording = Recording(name, SERVER_OPTIONS[set_name], request, made_constant(answer), counters)
        write(FOLDER / set_name, recording)
        print(
            f"{set_name}/{name}: {answer.status}, {len(answer.pieces)} pieces, {sum(counters.values())} counted"
        )
        before = after
    if set_name == "plain":
        listed = json.dumps(families(await scrape(port)), indent=1)
        (FOLDER / "metrics.json").write_text(listed + "\n", encoding="utf-8")


def main(sets: list[str]) -> None:
    for name in sets or list(SETS):
        with engine(SERVER_OPTIONS[name]) as port:
            asyncio.run(take_recordings(port, name))


if __name__ == "__main__":
    main(sys.argv[1:])
